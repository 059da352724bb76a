"""A pydantic model as a structural schema, the kind that a CustomResourceDefinition takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from triggerhub.fields import VALIDATIONS, WHAT, cel_text

Schema = dict[str, Any]

_KEPT = (
    "type", "description", "format", "pattern", "enum", "minimum", "maximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties",
    "maxProperties", "required", "default", "nullable",
    "oneOf",  # a model's own: choices among its types are anyOf
)  # fmt: skip
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_NOTHING: dict[str, Schema] = {
    "string": {"minLength": 1, "maxLength": 0},
    "number": {"minimum": 1, "maximum": 0},
    "boolean": {"not": {"enum": [True, False]}},
    "array": {"minItems": 1, "maxItems": 0},
    "object": {"minProperties": 1, "maxProperties": 0},
}
"""By JSON type: what no value of it satisfies, and every value of another type does. A schema
without a type has no other means to refuse one: its alternatives must not name types."""


def structural(model: type[BaseModel]) -> Schema:
    """The schema of what the model takes from JSON.

    References are written out, and ``null`` goes (the API server drops it like an absent field).
    Keys that begin with ``x-kubernetes-`` come from the model as they are.
    """
    whole = model.model_json_schema(by_alias=True)
    return _structural(whole, whole.get("$defs", {}))


def _structural(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    schema = _resolved(schema, defs)
    options = [o for o in schema.get("anyOf", ()) if o.get("type") != "null"]
    if len(options) == 1:
        only = _structural(options[0], defs)
        return only | _plain({name: value for name, value in schema.items() if name != "anyOf"})
    made = _plain(schema)
    if options:
        return made | _either([_structural(option, defs) for option in options])
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if "exclusiveMinimum" in schema:
        made |= {"minimum": schema["exclusiveMinimum"], "exclusiveMinimum": True}
    if "exclusiveMaximum" in schema:
        made |= {"maximum": schema["exclusiveMaximum"], "exclusiveMaximum": True}
    if "items" in schema:
        made["items"] = _structural(schema["items"], defs)
    if "properties" in schema:
        made["properties"] = {
            name: _structural(part, defs) for name, part in schema["properties"].items()
        }
        _default(made)
    else:
        _mapping(made, schema, defs)
    if "type" not in made and not any(name.startswith("x-kubernetes-pre") for name in made):
        made |= _ANYTHING
    return made


def _resolved(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """With its reference written out; what stands beside the reference counts."""
    while "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**defs[name], **beside}
    return schema


def _plain(schema: Mapping[str, Any]) -> Schema:
    """The keywords that are the same on both sides."""
    made = {
        name: value
        for name, value in schema.items()
        if (name in _KEPT or name.startswith("x-kubernetes-"))
        and not (name == "default" and value is None)
    }
    if "description" in made:
        made["description"] = made["description"].replace("``", "")
    if made.get("default") in ([], {}) and made.get("type") != "object":
        del made["default"]  # says no more than absence
    return made


def _default(made: Schema) -> None:
    """Written out: the API server checks a rule of the whole against its default as it stands."""
    if "default" in made:
        fields = made["properties"].items()
        made["default"] = {name: part["default"] for name, part in fields if "default" in part}


def _mapping(made: Schema, schema: Mapping[str, Any], defs: Mapping[str, Any]) -> None:
    """The values of a mapping; and its keys, for which there is but a rule."""
    values, form = schema.get("additionalProperties"), None
    for form, values in schema.get("patternProperties", {}).items():  # noqa: B007 - one at most
        pass
    if isinstance(values, Mapping):
        made["additionalProperties"] = _structural(values, defs)
    keys = schema.get("propertyNames", {})
    tests = [
        *([f"key.matches({cel_text(form)})"] if form else ()),
        *([f"key.size() <= {keys['maxLength']}"] if "maxLength" in keys else ()),
        *(rule["rule"].replace("self.", "key.") for rule in keys.get(VALIDATIONS, ())),
    ]
    if tests:
        rule = {"rule": f"self.all(key, {' && '.join(tests)})"}
        said = f"expected of each name: {keys[WHAT]}" if WHAT in keys else "expected other names"
        made[VALIDATIONS] = [*made.get(VALIDATIONS, ()), rule | {"message": said}]


def _either(options: list[Schema]) -> Schema:
    """What may be of several types."""
    types = [option.get("type", "") for option in options]
    if set(types) == {"integer", "string"}:
        return _merged(options, without=("type", "description")) | {
            "x-kubernetes-int-or-string": True
        }
    if "" in types:
        return dict(_ANYTHING)
    by_type: dict[str, list[Schema]] = {}
    for option in options:
        name = "number" if option["type"] == "integer" else option["type"]
        by_type.setdefault(name, []).append(option)
    made = dict(_ANYTHING)
    for name, nothing in _NOTHING.items():
        same = by_type.get(name, [])
        if len(same) < 2:  # what two alternatives of one type share is not said
            made |= _of_type(name, same[0]) if same else nothing
    return made


def _of_type(name: str, option: Schema) -> Schema:
    """An alternative, in keywords that say nothing of other types."""
    made = _merged([option], without=("type", "description", "default", "enum", VALIDATIONS))
    if name == "object" and "properties" in made:
        # Nothing else would refuse what is unknown where all is preserved.
        most = min(len(made["properties"]), made.get("maxProperties", math.inf))
        made["maxProperties"] = most
        if most == 1 and not made.get("required"):
            made["anyOf"] = [{"required": [field]} for field in made["properties"]]
    if option["type"] == "integer":
        made["multipleOf"] = 1
    if name == "string" and "enum" in option:
        made["pattern"] = f"^({'|'.join(option['enum'])})$"
    return made


def _merged(options: Iterable[Schema], without: tuple[str, ...]) -> Schema:
    return {
        name: value for option in options for name, value in option.items() if name not in without
    }
