"""What triggers will bring, where their sources know it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import islice
from typing import Any

from triggerhub.connector import Upcoming
from triggerhub.control.resources import Trigger
from triggerhub.fields import parse_time

MOST = 1000
Shape = dict[str, Any]


class NotForetold(LookupError):  # noqa: N818 - a fact about the trigger
    """Nothing can be told: a sentence that says why. ``there``: the trigger exists."""

    def __init__(self, message: str, *, there: bool) -> None:
        super().__init__(message)
        self.there = there


def find_trigger(name: str, triggers: Iterable[Trigger]) -> Trigger:
    """The one that ``trigger`` or ``namespace/trigger`` means. Raises ``NotForetold``."""
    namespace, _, bare = name.rpartition("/")
    known = list(triggers)
    found = [one for one in known if one.name == bare and namespace in ("", one.namespace)]
    if not found:
        names = sorted({f"{one.namespace}/{one.name}" for one in known})
        near = get_close_matches(name, [*names, *(n.partition("/")[2] for n in names)], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise NotForetold(f"there is no trigger {name}{hint}", there=False)
    if len(found) > 1:
        names = [str(one) for one in found]
        raise NotForetold(f"{name} stands for several: {', '.join(names)}", there=True)
    if found[0].source is None:
        raise NotForetold(f"the connector of {found[0]} is not installed here", there=True)
    return found[0]


def upcoming(trigger: Trigger, connector: object, after: datetime, number: int) -> list[Upcoming]:
    """At most ``number`` events that come later than ``after``. Raises ``NotForetold``."""
    foretell = getattr(connector, "upcoming", None)
    if foretell is None:
        raise NotForetold(f"{trigger} has no schedule: its source does not know", there=True)
    name = f"{trigger.namespace}/{trigger.name}"
    return list(islice(foretell(trigger.source, name, after), number))


def foretold(trigger: Trigger, events: Iterable[Upcoming]) -> Shape:
    """As JSON."""
    return {
        "trigger": f"{trigger.namespace}/{trigger.name}",
        "kind": trigger.kind,
        "paused": trigger.spec.paused,
        "upcoming": [
            {
                "id": event.id,
                "due": event.due.isoformat(),
                "zone": str(event.due.tzinfo),
                "sent": event.at.astimezone(UTC).isoformat(timespec="milliseconds"),
                "why": list(event.why),
                "notes": list(event.notes),
            }
            for event in events
        ],
    }


def asked(query: Mapping[str, str], now: datetime) -> tuple[datetime, int]:
    """What ``after`` and ``n`` of a query mean. Raises ValueError."""
    after, number = query.get("after", ""), query.get("n", "10")
    if unknown := sorted(query.keys() - {"after", "n"}):
        raise ValueError(f"unknown parameter {unknown[0]!r}, expected after, n")
    if not number.isascii() or not number.isdigit() or not 1 <= int(number[:9]) <= MOST:
        raise ValueError(f"n: found {number!r}, expected 1 to {MOST}")
    try:
        return parse_time(after) if after else now, int(number)
    except ValueError:
        raise ValueError(
            f"after: found {after!r}, expected a time such as 2026-01-31T08:00:00Z"
        ) from None
