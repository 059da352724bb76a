"""A pydantic model as a structural schema, the kind that a CustomResourceDefinition takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT = (
    "type", "description", "format", "pattern", "enum", "minimum", "maximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties",
    "maxProperties", "required", "default", "nullable",
)  # fmt: skip
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}


def structural(model: type[BaseModel]) -> Schema:
    """The schema of what the model takes from JSON.

    References are written out, ``null`` goes (the API server drops it like an absent field), and
    what may be of several types is preserved as it is, but for integer or string. Keys that begin
    with ``x-kubernetes-`` come from the model as they are.
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
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if options:
        return made | _either(options, defs)
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
    elif isinstance(schema.get("additionalProperties"), Mapping):
        made["additionalProperties"] = _structural(schema["additionalProperties"], defs)
    if "type" not in made and not any(name.startswith("x-kubernetes-") for name in made):
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
    if made.get("default") in ([], {}) and made.get("type") != "object":
        del made["default"]  # says no more than absence
    return made


def _default(made: Schema) -> None:
    """Where each field has its default, the whole has an empty one: so its fields get theirs
    also where it is absent."""
    if "default" in made:
        made["default"] = {}


def _either(options: list[Any], defs: Mapping[str, Any]) -> Schema:
    """What may be of several types."""
    parts = [_structural(option, defs) for option in options]
    types = {part.get("type") for part in parts}
    if types == {"integer", "string"}:
        return {"x-kubernetes-int-or-string": True} | {
            name: value
            for part in parts
            for name, value in part.items()
            if name in ("pattern", "minimum", "maximum", "maxLength", "x-kubernetes-validations")
        }
    return dict(_ANYTHING)
