"""Where in a manifest a model's error lies: pydantic's locations, without its union labels."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

FieldPath = tuple[str | int, ...]


def aliases(model: type[BaseModel]) -> list[str]:
    """The names of a model's fields on the wire."""
    return [field.alias or name for name, field in model.model_fields.items()]


@dataclass(frozen=True, slots=True)
class Place:
    path: FieldPath
    """Where in the raw data, without the labels that pydantic adds for union branches."""
    model: type[BaseModel] | None
    """The model that the last part of the path is a field of."""
    union: FieldPath | None
    """Path of the outermost union on the way; its branches are alternatives."""
    branch: str
    deep: bool
    """True where the error lies inside a branch, not at the union itself."""
    kind: Any
    """The type that was tried there; None where it could not be followed."""
    key: bool
    """True where a mapping's key is wrong, not its value."""


def place_of(model: type[BaseModel], raw: object, details: ErrorDetails) -> Place:
    """Walk an error's location along the model's types and the raw data."""
    path: list[str | int] = []
    union: FieldPath | None = None
    branch, deep, key = "", False, False
    kind: Any = model
    owner: type[BaseModel] | None = None
    value = raw
    for part in details["loc"]:
        options = options_of(kind)
        if len(options) > 1 and not _is_tag(part, kind, value):
            if union is None:
                union, branch = tuple(path), str(part)
            kind = next((o for o in options if _is_label(str(part), o)), None)
            continue
        if part == "[key]":
            key = True
            continue
        deep = deep or union is not None
        kind, owner = _step(options[0] if len(options) == 1 else kind, part)
        path.append(part)
        value = _inside(value, part)
    return Place(tuple(path), owner, union, branch, deep, kind, key)


def _is_tag(part: str | int, kind: Any, value: object) -> bool:
    # A union of unknown make (a plugin's own core schema) adds no label we could recognise.
    return isinstance(part, int) or (kind is None and isinstance(value, Mapping) and part in value)


def _is_label(part: str, option: Any) -> bool:
    """A union's branch: ``Model``, or ``function-after[check(), Model]``."""
    name = getattr(option, "__name__", "")
    return bool(name) and re.search(rf"\b{re.escape(name)}\]*$", part) is not None


def options_of(kind: Any) -> list[Any]:
    """The alternatives of a type but None; one for what is no union."""
    if get_origin(kind) is Annotated:
        return options_of(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        given = [option for option in get_args(kind) if option is not type(None)]
        return given if len(given) > 1 else options_of(given[0])
    return [kind]


def _step(kind: Any, part: str | int) -> tuple[Any, type[BaseModel] | None]:
    """The type of a part of a value of this type, and the model whose field it is."""
    if get_origin(kind) is Annotated:
        return _step(get_args(kind)[0], part)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (field.alias or name, name):
                return field.annotation, kind
        return None, kind
    arguments = [a for a in get_args(kind) if a is not Ellipsis and not isinstance(a, TypeVar)]
    if not arguments or get_origin(kind) is Literal:
        return None, None
    return arguments[-1], None


def _inside(value: object, part: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None
