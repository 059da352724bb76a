"""What is wrong with a manifest, and where: Fault, and how a model's errors become faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from triggerhub.connector import Reference
from triggerhub.control.places import FieldPath, Place, aliases, options_of, place_of
from triggerhub.fields import EXPECTED

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in one place of one manifest."""

    file: str = ""
    """As the user named it; empty for what comes from a cluster."""
    line: int = 0
    """Counted from 1; 0 when it is not known."""
    object: str = ""
    """``KafkaTrigger shop/orders``, or empty where no object could be made out."""
    field: str = ""
    """``spec.delivery.retry.attempts``, or empty."""
    found: str = ""
    """A value (``30 (a number)``) where ``expected`` says what should be there; else a sentence
    of its own (``unknown field``). Empty: there is nothing where something is expected."""
    expected: str = ""
    hint: str = ""
    """``did you mean inFlight?``"""

    def __str__(self) -> str:
        where = self.file
        if self.line:
            where = f"{where}:{self.line}" if where else f"line {self.line}"
        if not self.expected:
            said = self.found
        elif self.found:
            said = f"found {self.found}, expected {self.expected}"
        else:
            said = f"missing, expected {self.expected}"
        if self.hint:
            said = f"{said} ({self.hint})"
        return ": ".join(part for part in (where, self.object, self.field, said) if part)

    def as_dict(self) -> dict[str, str | int]:
        """The fields as they are, for JSON."""
        return asdict(self)


def shown(value: object) -> str:
    """A value as a person would name it: ``30 (a number)``, ``"x" (a text)``, ``a list``."""
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, str):
        text = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
        return f"{json.dumps(text, ensure_ascii=False)} (a text)"
    if value is None:
        return "null (nothing)"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a boolean)"
    if isinstance(value, (int, float)):
        return f"{str(value)[:_SHOWN]} (a number)"
    return "a list" if value else "an empty list"


def _veiled(value: object) -> str:
    """Only what it is: where a reference belongs, it may be the secret itself."""
    return shown(value).rpartition("(")[2].rstrip(")")


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean inFlight?``, else the names there are, else empty."""
    names = list(known)
    lower = {other.lower(): other for other in reversed(names)}
    near = get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    if near:
        return f"did you mean {lower[near[0]]}?"
    return f"known here: {', '.join(names)}" if names else ""


def dotted(path: FieldPath) -> str:
    """``("spec", "topics", 0)`` as ``spec.topics[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and not any(c in part for c in '.[]" \n'):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text


def faults_of(
    error: ValidationError,
    model: type[BaseModel],
    raw: object,
    *,
    at: FieldPath = (),
    also: Sequence[str] = (),
    file: str = "",
    name: str = "",
    line: Callable[[FieldPath], int] = lambda path: 0,
) -> tuple[Fault, ...]:
    """A model's errors as faults, in the order in which pydantic found them.

    ``raw`` is what was validated, ``at`` its place in the manifest, ``also`` names of the top
    level that the model leaves to others, ``name`` is the object, ``line`` tells the line of a path
    in the manifest. The branches of a union give one fault, not one each.
    """
    groups: dict[object, list[tuple[Place, ErrorDetails]]] = {}
    for number, details in enumerate(error.errors(include_url=False)):
        place = place_of(model, raw, details)
        groups.setdefault(number if place.union is None else place.union, []).append(
            (place, details)
        )
    faults = []
    for members in groups.values():
        place, details = members[0]
        alone = place.union is None
        for said in [_said(place, details, also)] if alone else _merge(members, also):
            path = at + said.path
            faults.append(
                Fault(file, line(path), name, dotted(path), said.found, said.expected, said.hint)
            )
    return tuple(faults)


class _Said(NamedTuple):
    """A fault whose path is still relative to the model."""

    path: FieldPath
    found: str = ""
    expected: str = ""
    hint: str = ""


def _merge(members: Sequence[tuple[Place, ErrorDetails]], also: Sequence[str]) -> list[_Said]:
    """One union's errors: those inside the branch that fits best, else one fault for all."""
    branches: dict[str, list[tuple[Place, ErrorDetails]]] = {}
    for place, details in members:
        branches.setdefault(place.branch, []).append((place, details))
    inside = [errors for errors in branches.values() if all(p.deep for p, _ in errors)]
    if inside:
        return [_said(place, details, also) for place, details in min(inside, key=len)]
    said = [_said(place, details, also) for place, details in members]
    of_a_mapping = [one for one in said if not one.expected]
    if of_a_mapping and isinstance(members[0][1]["input"], Mapping):
        return of_a_mapping
    expected = dict.fromkeys(one.expected or one.found for one in said)
    hint = next((one.hint for one in said if one.hint), "")
    return [_Said(said[0].path, shown(members[0][1]["input"]), " or ".join(expected), hint)]


_EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "bytes_type": "a text",
    "dict_type": "a mapping",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a mapping",
    "none_required": "nothing",
    "set_type": "a list",
    "string_sub_type": "a text",
    "string_type": "a text",
    "tuple_type": "a list",
    "datetime_type": "a time such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "a time such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "a time such as 2026-01-31T12:00:00Z",
    "datetime_object_invalid": "a time such as 2026-01-31T12:00:00Z",
    "timezone_aware": "a time with a zone, such as 2026-01-31T12:00:00Z",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} items",
}


def _said(place: Place, details: ErrorDetails, also: Sequence[str]) -> _Said:
    kind, value, message = details["type"], details["input"], details["msg"]
    path, context = place.path, details.get("ctx", {})
    if kind == "extra_forbidden":
        known = [*(aliases(place.model) if place.model else ()), *(also if len(path) == 1 else ())]
        return _Said(path, "unknown field", hint=nearest(str(path[-1]), known))
    if kind == "missing":
        return _Said(path, expected=_wanted(place))
    if kind in ("enum", "literal_error"):
        choices = _choices(str(context.get("expected", "")))
        hint = nearest(value, choices) if isinstance(value, str) else ""
        expected = " or ".join(choices)
        return _Said(path, shown(value), expected, "" if hint.startswith("known") else hint)
    if kind in ("model_type", "model_attributes_type"):
        expected = _wanted(place)
        if Reference in options_of(place.kind):
            return _Said(path, _veiled(value), expected)
    elif kind in _EXPECTED:
        expected = _EXPECTED[kind].format_map(context)
    elif kind == EXPECTED:
        expected = str(context.get("what", message))
    elif message.startswith("Input should be "):
        expected = message.removeprefix("Input should be ")
    else:
        return _Said(path, _sentence(message, value, place.key))
    return _Said(path, f"the name {shown(path[-1])}" if place.key else shown(value), expected)


def _sentence(message: str, value: object, key: bool) -> str:
    """What a validator of a model's own said, with the value where it leaves that out."""
    said = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if isinstance(value, (Mapping, list)) or key or str(value) in said:
        return said
    return f"found {shown(value)}: {said}"


def _choices(expected: str) -> list[str]:
    """pydantic's ``'a', 'b' or 'c'`` as a list."""
    head, _, last = expected.rpartition(" or ")
    return [choice.strip("'") for choice in [*(head.split(", ") if head else []), last]]


def _wanted(place: Place) -> str:
    """What should be in a place, as far as its type tells."""
    return " or ".join(_named(option) for option in options_of(place.kind))


_PLAIN: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _named(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _named(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " or ".join(str(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"a mapping with {', '.join(aliases(kind))}"
    origin = get_origin(kind) or kind
    if origin in _PLAIN:
        return _PLAIN[origin]
    if origin in (list, tuple, set, frozenset, Sequence):
        return "a list"
    return "a mapping" if origin in (dict, Mapping) else "a value"
