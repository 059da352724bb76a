"""When one trigger ticks: its schedules within bounds, without what is excluded, and spread."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from hashlib import blake2b, sha256
from math import ceil

from triggerhub.fields import parse_time
from triggerhub_cron.faults import ScheduleError
from triggerhub_cron.schedule import (
    Schedule,
    due_after,
    instant_of,
    read_schedule,
    read_zone,
)

_DATE = re.compile("([0-9]{4}-)?[0-9]{2}-[0-9]{2}")
_HORIZON = 50 * 366 * 86400
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class Excluded:
    """Dates on which nothing is due: ``2026-12-24``, ``12-25`` of every year,
    ``2026-12-27/2026-12-31`` with both ends."""

    text: str
    first: tuple[int, ...]
    last: tuple[int, ...]
    """As year, month, day; or month, day."""

    def covers(self, day: date) -> bool:
        found = (day.year, day.month, day.day)[3 - len(self.first) :]
        return self.first <= found <= self.last


def read_excluded(text: str) -> Excluded:
    """Raises ``ScheduleError``."""
    ends = [_date(part) for part in text.split("/")[:3]]
    if len(ends) == 1 and ends[0] is not None:
        return Excluded(text, ends[0], ends[0])
    match ends:
        case [[_, _, _] as first, [_, _, _] as last] if tuple(first) <= tuple(last):
            return Excluded(text, tuple(first), tuple(last))
    raise ScheduleError(
        f"found {text[:40]!r}, expected a date such as 2026-12-24, 12-25 of every year, or the "
        "first and last of several as 2026-12-27/2026-12-31"
    )


def _date(text: str) -> tuple[int, ...] | None:
    if _DATE.fullmatch(text) is None:
        return None
    try:
        # A leap year: 02-29 is a date, in some years.
        day = date.fromisoformat(text if len(text) == 10 else f"2000-{text}")
    except ValueError:
        return None
    return (day.year, day.month, day.day)[0 if len(text) == 10 else 1 :]


@dataclass(frozen=True, slots=True)
class Slot:
    """One time at which a trigger is to tick. Seconds since the epoch."""

    due: int
    at: float
    """When it is sent: ``due`` and its part of the jitter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that decides when a trigger ticks. Instants are seconds since the epoch."""

    schedules: tuple[tuple[str, Schedule], ...]
    """As written, and read."""
    zone: tzinfo
    begin: int | None = None
    """Nothing earlier is due."""
    end: int | None = None
    """Nothing from then on is due."""
    excluded: tuple[Excluded, ...] = ()
    jitter: float = 0.0
    """Seconds."""
    salt: str = field(default="", compare=False)
    """The trigger's name: each has a spread of its own, the same in every process."""

    def after(self, moment: float) -> Slot | None:
        """The first slot that is due later than ``moment``; None: there is none any more."""
        due = self.due(moment)
        if due is None:
            return None
        if not self.jitter:
            return Slot(due, due)
        following = self.due(due)
        room = self.jitter if following is None else min(self.jitter, following - due)
        return Slot(due, due + room * self._part(due))

    def due(self, moment: float) -> int | None:
        """When that is, without jitter."""
        if self.begin is not None:
            moment = max(moment, self.begin - 1)
        last = moment + _HORIZON
        while True:
            found = min(self._dues(moment), default=None)
            if found is None or found > last or (self.end is not None and found >= self.end):
                return None
            if not self.excluded or not self.excluding(found):
                return found
            moment = self._end_of_day(found)

    def _dues(self, moment: float) -> Iterator[int]:
        for _, schedule in self.schedules:
            due = due_after(schedule, self.zone, moment, self.begin or 0)
            if due is not None:
                yield due

    def excluding(self, due: int) -> str:
        """What excludes the local day of an instant; empty: nothing."""
        day = self.local(due).date()
        return next((one.text for one in self.excluded if one.covers(day)), "")

    def local(self, moment: float) -> datetime:
        """With its offset."""
        return datetime.fromtimestamp(moment, self.zone)

    def why(self, due: int) -> list[str]:
        """The schedules, as written, that are due then."""
        return [
            text for text, schedule in self.schedules
            if due_after(schedule, self.zone, due - 1, self.begin or 0) == due
        ]  # fmt: skip

    @property
    def mark(self) -> str:
        """Another one when other slots are due."""
        shape = [[text for text, _ in self.schedules], str(self.zone), self.begin, self.end,
                 [one.text for one in self.excluded]]  # fmt: skip
        return sha256(repr(shape).encode()).hexdigest()[:12]

    def _part(self, due: int) -> float:
        digest = blake2b(f"{self.salt} {due}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    def _end_of_day(self, due: int) -> int:
        """The last second of the local day."""
        midnight = datetime.combine(self.local(due).date() + timedelta(days=1), datetime.min.time())
        return max(due, instant_of(self.zone, midnight) - 1)

    def check(self) -> None:
        """Raise ``ScheduleError`` where no slot is left, whatever the date is."""
        if self.due(_BEGINNING if self.begin is None else self.begin - 1) is None:
            raise ScheduleError(
                "nothing is ever due: every time of the schedule is excluded, or lies before from "
                "or not before until"
            )


def make_plan(
    schedules: Sequence[str],
    zone: str,
    *,
    begin: str | None = None,
    end: str | None = None,
    excluding: Sequence[str] = (),
    jitter: float = 0.0,
    salt: str = "",
) -> Plan:
    """From what a manifest says. Raises ``ScheduleError``."""
    return Plan(
        schedules=tuple((text, read_schedule(text)) for text in schedules),
        zone=read_zone(zone),
        begin=None if begin is None else ceil(parse_time(begin).timestamp()),
        end=None if end is None else ceil(parse_time(end).timestamp()),
        excluded=tuple(read_excluded(text) for text in excluding),
        jitter=jitter,
        salt=salt,
    )
