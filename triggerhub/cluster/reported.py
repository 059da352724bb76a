"""The status of an object as a compact value, and as what server-side apply takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from triggerhub.connector import Sought
from triggerhub.control.status import (
    Condition,
    FunctionStatus,
    State,
    TriggerStatus,
    seek_shape,
)

# As metav1.Condition has them.
LONGEST_MESSAGE = 32_768
LONGEST_REASON = 1024
_REASON = re.compile(rf"(?=.{{1,{LONGEST_REASON}}}$)[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_NO_REASON = re.compile("[^A-Za-z0-9_,:]")


@dataclass(frozen=True, slots=True)
class Held:
    """One condition, and since when it has its status (RFC 3339)."""

    type: str
    status: str
    reason: str
    message: str
    since: str


_held = lru_cache(maxsize=8192)(Held)
"""Thousands of objects say the same, often since the same second: one value stands for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What ``status`` says."""

    generation: int
    conditions: tuple[Held, ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()
    """Function and URL."""
    seeks: tuple[tuple[str, Sought], ...] = ()
    """Function, and the last seek that was done for it."""
    cleanup: tuple[str, ...] = ()
    """Names under which a source may keep something that is to go with the trigger."""
    url: str = ""
    address: str = ""

    @classmethod
    def read(cls, status: object) -> Reported | None:
        """From an object's ``status``; None where there is none, or none of this shape."""
        if not isinstance(status, Mapping) or not status:
            return None
        return cls(
            generation=_number(status.get("observedGeneration")),
            conditions=tuple(
                _held(
                    *(
                        _text(condition.get(name))
                        for name in ("type", "status", "reason", "message", "lastTransitionTime")
                    )
                )
                for condition in _mappings(status.get("conditions"))
            ),
            bindings=tuple(
                (_text(binding.get("function")), _text(binding.get("url")))
                for binding in _mappings(status.get("bindings"))
            ),
            seeks=tuple(
                (_text(binding.get("function")), seek)
                for binding in _mappings(status.get("bindings"))
                if (seek := _sought(binding.get("seek"))) is not None
            ),
            cleanup=tuple(_text(name) for name in _list(status.get("cleanup"))),
            url=_text(status.get("url")),
            address=_text(status.get("address")),
        )

    def condition(self, name: str) -> Held | None:
        """The condition of that type."""
        return next((held for held in self.conditions if held.type == name), None)

    def says(self, other: Reported) -> bool:
        """The same but for times, and but for conditions of which this one says nothing: they
        are others', and stay when this one is applied."""
        types = {held.type for held in self.conditions}
        return self._timeless(types) == other._timeless(types)

    def _timeless(self, types: set[str]) -> tuple[object, ...]:
        conditions = sorted(
            (held.type, held.status, held.reason, held.message)
            for held in self.conditions
            if held.type in types
        )
        return (self.generation, conditions, self.bindings, self.seeks, self.cleanup, self.url,
                self.address)  # fmt: skip

    def as_status(self) -> dict[str, Any]:
        """As the API server takes it."""
        status: dict[str, Any] = {
            "observedGeneration": self.generation,
            "conditions": [
                {
                    "type": held.type,
                    "status": held.status,
                    "reason": held.reason,
                    "message": held.message,
                    "lastTransitionTime": held.since,
                    "observedGeneration": self.generation,
                }
                for held in self.conditions
            ],
        }
        if self.bindings:
            seeks = {function: {"seek": seek_shape(seek)} for function, seek in self.seeks}
            status["bindings"] = [
                {"function": function, "url": url, **seeks.get(function, {})}
                for function, url in self.bindings
            ]
        if self.cleanup:
            status["cleanup"] = list(self.cleanup)
        if self.url:
            status["url"] = self.url
        if self.address:
            status["address"] = self.address
        return status


def of_trigger(
    status: TriggerStatus, before: Reported | None, now: str, *, cleaned: bool
) -> Reported:
    """What is to be reported. ``now`` is the time that a flipped condition bears; ``cleaned``:
    the names of its bindings are kept for the clean-up."""
    names = set(before.cleanup) if before is not None and cleaned else set()
    # A replica that has just begun does not know yet what was done before.
    seeks = dict(before.seeks) if before is not None else {}
    seeks |= {bound.function: bound.seek for bound in status.functions if bound.seek is not None}
    bound = {function.function for function in status.functions}
    return Reported(
        generation=status.observed_generation,
        conditions=_conditions(status.conditions, before, now),
        bindings=tuple(sorted((bound.function, bound.url) for bound in status.functions)),
        seeks=tuple((name, seeks[name]) for name in sorted(bound & seeks.keys())),
        cleanup=tuple(sorted(names.union(status.bindings))) if cleaned else (),
        address=_address(status, before),
    )


def _address(status: TriggerStatus, before: Reported | None) -> str:
    """A replica that has just begun to lead does not know it yet."""
    exposed = next((c for c in status.conditions if c.type == "Exposed"), None)
    if exposed is not None and exposed.status is State.UNKNOWN and before is not None:
        return before.address
    return status.address


def of_function(status: FunctionStatus, before: Reported | None, now: str) -> Reported:
    """What is to be reported of a function."""
    return Reported(
        generation=status.observed_generation,
        conditions=_conditions(status.conditions, before, now),
        url=status.url,
    )


def _conditions(
    conditions: Sequence[Condition], before: Reported | None, now: str
) -> tuple[Held, ...]:
    found = []
    for condition in conditions:
        held = before.condition(condition.type) if before is not None else None
        status = condition.status.value
        since = held.since if held is not None and held.status == status and held.since else now
        message = condition.message[:LONGEST_MESSAGE]
        found.append(_held(condition.type, status, _reason(condition.reason), message, since))
    return tuple(found)


def _reason(reason: str) -> str:
    """Reasons of connectors are not ours to choose: one that metav1.Condition does not allow would
    have the whole status refused."""
    if _REASON.fullmatch(reason):
        return reason
    fit = _NO_REASON.sub("", reason)[:LONGEST_REASON].strip("_,:0123456789")
    return fit or "Unspecified"


def _sought(value: object) -> Sought | None:
    if not isinstance(value, Mapping):
        return None
    try:
        time = datetime.fromisoformat(_text(value.get("time"))).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    time = time.replace(microsecond=0)
    return Sought(id=_text(value.get("id")), time=time, positions=_text(value.get("positions")))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _list(value: object) -> Iterable[Any]:
    return value if isinstance(value, list) else ()


def _mappings(value: object) -> Iterable[Mapping[str, Any]]:
    return (item for item in _list(value) if isinstance(item, Mapping))
