from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from triggerhub.connector import Reference
from triggerhub.control.faults import Fault, dotted, faults_of, nearest, shown


class Start(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    timestamp: str


class Login(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    user: str
    password: str


class Source(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    topic: str | None = None
    topics: tuple[str, ...] | None = None
    start_from: Literal["Latest", "Earliest"] | Start = Field("Latest", alias="startFrom")
    access: Login | Start | None = None
    user: str | Reference = "u"
    password: Reference | None = None
    size: Annotated[int, Field(ge=1, le=9)] = 1
    labels: Mapping[str, int] = {}

    @model_validator(mode="after")
    def _one(self) -> Source:
        if self.topic is not None and self.topics is not None:
            raise ValueError("expected exactly one of topic, topics")
        return self


def told(raw: Mapping[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Source.model_validate(raw)
    return [str(fault) for fault in faults_of(caught.value, Source, raw)]


def test_a_fault_is_one_line_with_file_line_object_field_and_what_is_wrong() -> None:
    fault = Fault(
        "orders.yaml",
        12,
        "KafkaTrigger shop/orders",
        "spec.delivery.inflight",
        "unknown field",
        hint="did you mean inFlight?",
    )
    assert str(fault) == (
        "orders.yaml:12: KafkaTrigger shop/orders: spec.delivery.inflight: "
        "unknown field (did you mean inFlight?)"
    )
    assert fault.as_dict()["line"] == 12


def test_found_and_expected_are_told_together() -> None:
    assert str(Fault(field="a", found="30 (a number)", expected="a text")) == (
        "a: found 30 (a number), expected a text"
    )
    assert str(Fault(field="a", expected="a text")) == "a: missing, expected a text"


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"topik": "x"}, "topik: unknown field (did you mean topic?)"),
        ({"STARTFROM": "x"}, "STARTFROM: unknown field (did you mean startFrom?)"),
        ({"size": "3"}, 'size: found "3" (a text), expected a whole number'),
        ({"size": True}, "size: found true (a boolean), expected a whole number"),
        ({"size": 0}, "size: found 0 (a number), expected at least 1"),
        ({"size": 10}, "size: found 10 (a number), expected at most 9"),
        ({"topic": None, "topics": ("a", 1)}, "topics[1]: found 1 (a number), expected a text"),
        ({"topics": 1}, "topics: found 1 (a number), expected a list"),
        (
            {"labels": {"a.b": "x"}},
            'labels["a.b"]: found "x" (a text), expected a whole number',
        ),
        ({"topic": "a", "topics": ()}, "expected exactly one of topic, topics"),
    ],
)
def test_what_pydantic_found_becomes_a_plain_sentence(raw: dict[str, Any], line: str) -> None:
    assert told(raw) == [line]


def test_a_union_gives_one_fault_and_not_one_for_each_branch() -> None:
    assert told({"startFrom": "latest"}) == [
        (
            'startFrom: found "latest" (a text), expected Latest or Earliest or a mapping with '
            "timestamp (did you mean Latest?)"
        )
    ]
    assert told({"startFrom": 3}) == [
        "startFrom: found 3 (a number), expected Latest or Earliest or a mapping with timestamp"
    ]


def test_faults_inside_a_union_are_those_of_the_branch_that_fits_best() -> None:
    assert told({"startFrom": {"timestamp": 1}}) == [
        "startFrom.timestamp: found 1 (a number), expected a text"
    ]
    assert told({"access": {"user": "u", "pasword": "p"}}) == [
        "access.password: missing, expected a text",
        "access.pasword: unknown field (did you mean password?)",
    ]


def test_a_mapping_in_a_union_hears_what_its_own_branch_says() -> None:
    choice = "expected exactly one of secretRef, configMapRef, env"
    assert told({"user": {}}) == [f"user: found none, {choice}"]
    assert told({"user": 5}) == [
        "user: found 5 (a number), expected a text or a mapping with secretRef, configMapRef, env"
    ]


def test_what_stands_in_the_place_of_a_reference_is_not_shown() -> None:
    for secret, kind in (("hunter(2)", "a text"), (4096, "a number"), (["a"], "a list")):
        assert told({"password": secret}) == [
            f"password: found {kind}, expected a mapping with secretRef, configMapRef, env"
        ]


def test_every_fault_of_a_model_is_told_in_one_go() -> None:
    assert len(told({"topik": "x", "size": 0, "startFrom": 3, "labels": {"a": "b"}})) == 4


def test_long_and_strange_values_are_shown_on_one_short_line() -> None:
    assert shown("a\nb") == '"a\\nb" (a text)'
    assert len(shown("x" * 10_000)) < 80
    assert len(shown(10**300)) < 80
    assert shown(None) == "null (nothing)"


def test_paths_are_written_so_that_they_can_be_told_apart() -> None:
    assert dotted(("metadata", "labels", "a.b/c")) == 'metadata.labels["a.b/c"]'
    assert dotted(("items", 3, "spec")) == "items[3].spec"


def test_a_name_with_no_neighbour_gets_the_list_of_names() -> None:
    assert nearest("filter", ["function", "paused"]) == "known here: function, paused"
    assert nearest("x", []) == ""


class Ranged(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    since: int

    @model_validator(mode="after")
    def _early(self) -> Ranged:
        if self.since > 9:
            raise ValueError("expected an early one")
        return self


class Wide(BaseModel):
    either: Literal["All"] | Ranged = "All"
    port: Annotated[int | str, Field(description="A port.")] | None = None


def test_a_branch_that_checks_itself_is_a_branch_like_any_other() -> None:
    def lines(raw: Mapping[str, Any]) -> list[str]:
        with pytest.raises(ValidationError) as caught:
            Wide.model_validate(raw, strict=True)
        return [str(fault) for fault in faults_of(caught.value, Wide, raw)]

    assert lines({"either": {"sinec": 1, "since": 1}}) == [
        "either.sinec: unknown field (did you mean since?)"
    ]
    assert lines({"either": {}}) == ["either.since: missing, expected a whole number"]
    assert lines({"port": 1.5}) == ["port: found 1.5 (a number), expected a whole number or a text"]
