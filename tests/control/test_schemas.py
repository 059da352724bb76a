from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, JsonValue

from tests.control.manifests import CODE, SOURCES
from tests.plugins import triggerhub_echo
from triggerhub.connector import Reference, SourceModel
from triggerhub.control.plugins import installed_kinds
from triggerhub.control.scalars import LabelKey
from triggerhub.control.schemas import structural
from triggerhub.control.specs import CodeSpec, FunctionSpec, TriggerSpec
from triggerhub.fields import Rule, Text

# Structural schemas, Kubernetes 1.34, "Specifying a structural schema".
KEYWORDS = {
    "type", "description", "format", "pattern", "enum", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties", "required", "default", "nullable", "not", "anyOf", "oneOf",
    "properties", "items", "additionalProperties", "x-kubernetes-validations",
    "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip
TYPES = {"object", "array", "string", "integer", "number", "boolean"}

Slug = Annotated[str, Text("[a-z]{1,9}", "a slug", 9, never="^x+$")]


class Part(SourceModel):
    """A ``part``."""

    name: str = Field(description="Its name.")


class Everything(SourceModel):
    """Every shape that a plugin may use."""

    exactly_one = ("name", "namespace")
    field_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.least <= self.most", "expected least before most",
             lambda model: "" if model.least <= model.most else "least is over most",
             "'least is ' + string(self.least)"),
    )  # fmt: skip

    name: Slug | None = None
    namespace: str | None = None
    least: int = Field(default=1, gt=0, lt=10)
    most: float = 5.0
    many: tuple[Part, ...] = Field(default=(), max_length=3)
    named: Mapping[LabelKey, int] = Field(default={}, max_length=9)
    short: Mapping[Annotated[str, Field(max_length=3)], Part] = {}
    either: int | str = 1
    start: Literal["New", "Old"] | Part = "New"
    some: Slug | list[Slug] = "a"
    kept: str | Reference = "a"
    odd: bool | int | None = None
    one: Literal["a"] = "a"
    lists: list[int] | list[str] = [1]  # noqa: RUF012
    free: JsonValue = Field(default=None, json_schema_extra={"nullable": True})
    part: Part = Part(name="p")


MODELS: list[type[BaseModel]] = [
    TriggerSpec, FunctionSpec, Everything, triggerhub_echo.EchoSource,
    *(kind.source for kind in installed_kinds().values() if kind.source is not None),
]  # fmt: skip
FIELDS = structural(Everything)["properties"]
NO_STRING = {"minLength": 1, "maxLength": 0}
NO_NUMBER = {"minimum": 1, "maximum": 0}
NO_BOOLEAN = {"not": {"enum": [True, False]}}
NO_ARRAY = {"minItems": 1, "maxItems": 0}
NO_OBJECT = {"minProperties": 1, "maxProperties": 0}
ANYTHING = {"x-kubernetes-preserve-unknown-fields": True}


def nodes(schema: dict[str, Any], at: str = "spec") -> Iterator[tuple[str, dict[str, Any]]]:
    yield at, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{at}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from nodes(schema[name], f"{at}[]")


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_schema_is_structural(model: type[BaseModel]) -> None:
    for at, node in nodes(structural(model)):
        assert set(node) <= KEYWORDS, at
        untyped = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"} & set(node)
        assert ("type" in node) != bool(untyped), at
        assert node.get("type", "object") in TYPES, at
        assert not {"properties", "additionalProperties"} <= set(node), at
        if node.get("type") == "array":
            assert "items" in node, at
        assert node.get("not", NO_BOOLEAN["not"]) == NO_BOOLEAN["not"], at
        assert all(set(option) == {"required"} for option in node.get("anyOf", ())), at
        for option in node.get("oneOf", ()):
            assert set(option) <= {"required", "properties"}, at
            assert {*option.get("required", ()), *option.get("properties", {})} <= set(
                node["properties"]
            ), at


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_a_rule_looks_at_is_bounded(model: type[BaseModel]) -> None:
    """Else an API server refuses it as too dear."""
    for at, node in nodes(structural(model)):
        if "x-kubernetes-validations" in node and node.get("type") != "object":
            assert {"maxLength", "maxItems"} & set(node), at
        if any("self.all(" in rule["rule"] for rule in node.get("x-kubernetes-validations", ())):
            assert "maxProperties" in node or model is Everything, at


def filled(schema: dict[str, Any], value: Any) -> Any:
    """As an API server fills in defaults."""
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name not in value and "default" in part:
                value[name] = json.loads(json.dumps(part["default"]))
            if name in value:
                filled(part, value[name])
    return value


@pytest.mark.parametrize(
    ("model", "least"),
    [
        (TriggerSpec, {"function": {"name": "f"}}),
        (TriggerSpec, {"function": {"selector": {"matchLabels": {"a": "b"}}}}),
        (TriggerSpec, {"function": {"name": "f"}, "delivery": {"retry": {"attempts": 1}}}),
        (FunctionSpec, {"url": "http://h/"}),
        (FunctionSpec, {"service": {"name": "web"}}),
        (FunctionSpec, {"code": CODE}),
        *((installed_kinds()[kind].source, source) for kind, source in SOURCES.items()),
    ],
)
def test_defaults_are_the_models(model: type[BaseModel], least: dict[str, Any]) -> None:
    whole = filled(structural(model), json.loads(json.dumps(least)))
    assert model.model_validate_json(json.dumps(whole)) == model.model_validate_json(
        json.dumps(least)
    )
    if model is TriggerSpec:
        assert whole["delivery"]["retry"]["maxAge"] == "24h"


def test_a_default_of_the_whole_has_its_fields_defaults() -> None:
    """For rules of the whole are checked against it as it stands."""
    delivery = structural(TriggerSpec)["properties"]["delivery"]
    retry = {"attempts": 10, "initial": "200ms", "max": "30s", "maxAge": "24h"}
    assert delivery["properties"]["retry"]["default"] == retry
    assert delivery["default"]["retry"] == retry


def test_a_text_has_its_form_and_what_it_must_not_be() -> None:
    assert FIELDS["name"] == {
        "type": "string", "pattern": "^[a-z]{1,9}$", "maxLength": 9,
        "x-kubernetes-validations": [
            {"rule": "!self.matches('^x+$')", "message": "expected a slug"}
        ],
    }  # fmt: skip


def test_a_text_whose_form_nobody_can_read_is_refused_in_words() -> None:
    url = structural(FunctionSpec)["properties"]["url"]
    (rule,) = url["x-kubernetes-validations"]
    assert "pattern" not in url
    assert rule["rule"].startswith("self.matches('^([Hh]")
    assert rule["message"].startswith("expected a URL such as http://orders.example")


def test_bounds_that_are_no_part_of_it_stay_so() -> None:
    least = FIELDS["least"]
    assert (least["minimum"], least["exclusiveMinimum"]) == (0, True)
    assert (least["maximum"], least["exclusiveMaximum"]) == (10, True)


def test_names_of_a_mapping_have_a_rule() -> None:
    (rule,) = FIELDS["named"]["x-kubernetes-validations"]
    assert rule["rule"].startswith("self.all(key, key.matches('^(")
    assert "key.size() <= 317 && !key.matches('^[^/]{254,}/')" in rule["rule"]
    assert rule["message"].startswith("expected of each name: a label name")
    assert FIELDS["named"]["additionalProperties"] == {"type": "integer"}
    assert FIELDS["short"]["x-kubernetes-validations"][0]["rule"] == (
        "self.all(key, key.size() <= 3)"
    )


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("either", {"x-kubernetes-int-or-string": True, "default": 1}),
        ("start", ANYTHING | NO_NUMBER | NO_BOOLEAN | NO_ARRAY | {
            "pattern": "^(New|Old)$", "properties": {
                "name": {"type": "string", "description": "Its name."}},
            "required": ["name"], "maxProperties": 1, "default": "New"}),
        ("some", ANYTHING | NO_NUMBER | NO_BOOLEAN | NO_OBJECT | {
            "pattern": "^[a-z]{1,9}$", "maxLength": 9, "items": FIELDS["name"], "default": "a"}),
        ("kept", ANYTHING | NO_NUMBER | NO_BOOLEAN | NO_ARRAY | {
            "properties": structural(Reference)["properties"], "default": "a",
            "minProperties": 1, "maxProperties": 1, "anyOf": [
                {"required": ["secretRef"]}, {"required": ["configMapRef"]},
                {"required": ["env"]}]}),
        ("odd", ANYTHING | NO_STRING | NO_ARRAY | NO_OBJECT | {"multipleOf": 1}),
        ("lists", ANYTHING | NO_STRING | NO_NUMBER | NO_BOOLEAN | NO_OBJECT | {"default": [1]}),
        ("free", ANYTHING | {"nullable": True}),
        ("one", {"type": "string", "enum": ["a"], "default": "a"}),
    ],
)  # fmt: skip
def test_what_may_be_of_several_types_is_refused_as_any_other(
    field: str, expected: dict[str, Any]
) -> None:
    assert FIELDS[field] == expected


def test_what_spans_fields_is_a_rule_that_says_what_was_found() -> None:
    choice, order = structural(Everything)["x-kubernetes-validations"]
    assert choice["rule"] == ("[has(self.name), has(self.__namespace__)].exists_one(given, given)")
    assert choice["message"] == "expected exactly one of name, namespace"
    assert choice["messageExpression"].startswith("'found' + (has(self.name) ? ' name,' : '')")
    assert order == {
        "rule": "self.least <= self.most", "message": "expected least before most",
        "messageExpression": "'least is ' + string(self.least)",
    }  # fmt: skip


def test_descriptions_have_no_markup() -> None:
    assert FIELDS["many"]["items"]["description"] == "A part."


def test_a_model_within_is_checked_like_the_whole() -> None:
    code = structural(FunctionSpec)["properties"]["code"]
    own = structural(CodeSpec)["x-kubernetes-validations"]
    assert code["x-kubernetes-validations"] == own
    assert own[0]["message"] == "expected exactly one of inline, files"
