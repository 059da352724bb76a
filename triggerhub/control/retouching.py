"""Data that a model refused, without what may be overlooked in it: it is then looked at again."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from triggerhub.control.places import FieldPath, place_of


class Stored(NamedTuple):
    value: dict[str, Any]
    nulls: list[FieldPath]
    """Where there are none any more."""


def as_stored(
    error: ValidationError, model: type[BaseModel], raw: object, *, entries: bool = True
) -> Stored | None:
    """What an API server keeps of it: it drops the nulls in mappings, and 1.0 is a whole number.
    Only where that concerns an error; None: it concerns none. ``entries``: also the nulls of
    mappings whose names are the user's."""
    kept, nulls, whole = deepcopy(raw), [], False
    for details in error.errors(include_url=False, include_context=False):
        place = place_of(model, raw, details)
        holder, last = _held(kept, place.path[:-1]), place.path[-1] if place.path else ""
        if details["type"] == "extra_forbidden" or not _has(holder, last):
            continue
        found = holder[last]
        if found is None and isinstance(holder, dict) and (place.model or entries):
            del holder[last]
            nulls.append(place.path)
        elif details["type"].startswith("int_") and isinstance(found, float) and found.is_integer():
            holder[last], whole = int(found), True
    return Stored(kept, nulls) if (nulls or whole) and isinstance(kept, dict) else None


def without_strangers(error: ValidationError, raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same without its unknown fields, where they are all that is wrong."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    if any(details["type"] != "extra_forbidden" for details in errors):
        return None
    rest = deepcopy(dict(raw))
    for details in errors:
        *path, name = details["loc"]
        holder = _held(rest, path)
        if not isinstance(holder, dict):
            return None
        holder.pop(name, None)
    return rest


def _held(value: Any, path: FieldPath | list[int | str]) -> Any:
    """What is in that place; None: nothing, or the path has labels of pydantic's own."""
    for part in path:
        value = value[part] if _has(value, part) else None
    return value


def _has(value: object, part: int | str) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value
