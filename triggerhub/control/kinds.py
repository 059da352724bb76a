"""What not every kind has: in its own half of ``spec``, and added to the hub's half."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, create_model

from triggerhub.connector import LetterPlaces
from triggerhub.control.specs import DeadLetterSpec, DeliverySpec, Spec, TriggerSpec
from triggerhub.fields import Rule

M = TypeVar("M", bound=Spec)


@cache
def trigger_spec(places: type[LetterPlaces] | None) -> type[TriggerSpec]:
    """``TriggerSpec`` of a kind whose system takes dead letters in ``places``; None: of any
    other."""
    if places is None:
        return TriggerSpec
    own = {name: (info.annotation, copy(info)) for name, info in places.model_fields.items()}
    letters = _extended(DeadLetterSpec, own)
    letters.places = places
    letters.field_rules = (_at_most_one(letters),)
    return _with(TriggerSpec, "delivery", _with(DeliverySpec, "dead_letter", letters))


def offered(source: BaseModel | None, name: str) -> Any:
    """What a source says in a field or property that not every kind has; None where its kind has
    none. Pydantic takes 8 µs to find that out by itself, for each object anew."""
    return getattr(source, name) if source is not None and _offers(type(source), name) else None


@cache
def _offers(model: type[BaseModel], name: str) -> bool:
    return name in model.model_fields or hasattr(model, name)


def spec_rules(places: type[LetterPlaces] | None) -> tuple[Rule, ...]:
    """What must hold of such a trigger's place for dead letters and its source together."""
    return () if places is None else places.spec_rules


def _with(model: type[M], name: str, kind: type[Spec]) -> type[M]:
    """The model with another type for one of its fields."""
    info = copy(model.model_fields[name])
    info.default = kind()
    return _extended(model, {name: (kind, info)})


def _extended(model: type[M], fields: dict[str, Any]) -> type[M]:
    made: type[M] = create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)
    return made


def _at_most_one(model: type[DeadLetterSpec]) -> Rule:
    """Of all its fields."""
    names = {name: info.alias or name for name, info in model.model_fields.items()}
    given = ", ".join(f"has(self.{alias})" for alias in names.values())
    wanted = f"expected at most one of {', '.join(names.values())}"

    def wrong(spec: DeadLetterSpec) -> str:
        found = [alias for name, alias in names.items() if getattr(spec, name) is not None]
        return f"found both {' and '.join(found)}, {wanted}" if len(found) > 1 else ""

    return Rule(f"[{given}].filter(given, given).size() <= 1", wanted, wrong)
