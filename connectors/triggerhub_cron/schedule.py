"""When a schedule is due: local wall time, mapped to UTC by this connector's own rule.

A schedule that leaves hours out means times of day, and each is due once; one that is due in every
hour means intervals, and follows the time that passes:

=======================  =====================================  =================================
wall time                times of day (``30 2 * * *``)          every hour (``*/15 * * * *``)
=======================  =====================================  =================================
exists once              at that instant                        at that instant
skipped (clocks go       once, at the instant the gap ends;     not due: the next comes as soon
forward)                 several skipped times and a time that  as it would have come
                         is due then anyway are one
repeated (clocks go      at its first occurrence only           at both
back)
=======================  =====================================  =================================

So a daily job runs every day exactly once, and a watchdog is never silent for an hour. That is what
cronie does (``man 8 cron``, of changes of less than three hours).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from math import floor
from zoneinfo import ZoneInfo, available_timezones

from triggerhub.durations import go_duration, seconds
from triggerhub_cron.expression import Expression, parse
from triggerhub_cron.faults import ScheduleError

_ONE_SECOND = timedelta(seconds=1)
_EVERY = "@every"
_LONGEST_EVERY = 366 * 86400


@dataclass(frozen=True, slots=True)
class Every:
    """Due each time so many seconds have passed, counted from an anchor."""

    seconds: int


Schedule = Expression | Every


def read_zone(name: str) -> tzinfo:
    """The time zone of an IANA name. Raises ``ScheduleError`` with the nearest known name."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = {zone.lower(): zone for zone in available_timezones()}
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f"; did you mean {known[near[0]]!r}?" if near else ""
        raise ScheduleError(
            f"unknown time zone {name!r}: expected an IANA name such as 'Europe/Berlin'{hint}"
        ) from None


@lru_cache(maxsize=1024)
def read_schedule(text: str) -> Schedule:
    """An expression, a word, or ``@every`` with a duration. Raises ``ScheduleError``."""
    word, _, length = text.strip().partition(" ")
    if word.lower() != _EVERY:
        return parse(text)
    try:
        found = seconds(length.strip()) if len(length) <= 64 else 0.0
    except ValueError:
        raise ScheduleError(
            f"schedule {text[:80]!r}: found {length.strip()[:40]!r} after @every, expected a "
            "duration such as 90s, 5m, 12h"
        ) from None
    if not 1 <= found <= _LONGEST_EVERY or found != int(found):
        near = go_duration(min(max(1, round(min(found, 1e9))), _LONGEST_EVERY))
        raise ScheduleError(
            f"schedule {text[:80]!r}: expected whole seconds, from 1s to a year (did you mean "
            f"'@every {near}'?)"
        )
    return Every(int(found))


def check_schedule(text: str) -> None:
    """Raise ``ScheduleError`` unless the schedule can be read and is due at some time."""
    read_schedule(text)


def next_due(texts: Sequence[str], zone: tzinfo, after: float, *, anchor: int = 0) -> int | None:
    """The first instant later than ``after`` at which any of the schedules is due; ``@every``
    counts from ``anchor``.

    Instants are seconds since the epoch. None: no schedule is due in the next fifty years.
    """
    dues = (due_after(read_schedule(text), zone, after, anchor) for text in texts)
    return min((due for due in dues if due is not None), default=None)


def due_after(schedule: Schedule, zone: tzinfo, after: float, anchor: int = 0) -> int | None:
    """The same of one schedule."""
    # Whole seconds: rounding up to one would pass over what is due in it.
    since = floor(after)
    if isinstance(schedule, Every):
        return anchor + ((since - anchor) // schedule.seconds + 1) * schedule.seconds
    moment = datetime.fromtimestamp(since, UTC)
    try:
        if zone is UTC:
            due = schedule.after(moment.replace(tzinfo=None))
            return None if due is None else _seconds(due.replace(tzinfo=UTC))
        if schedule.every_hour:
            return _interval(schedule, zone, moment)
        return _time_of_day(schedule, zone, moment)
    except OverflowError:
        return None


def _time_of_day(schedule: Expression, zone: tzinfo, moment: datetime) -> int | None:
    """Every wall time once."""
    wall = wall_of(zone, moment)
    if wall.fold:
        # Every wall time up to the end of the repetition was due at its first occurrence.
        first = wall.replace(fold=0, tzinfo=zone).utcoffset()
        second = moment.astimezone(zone).utcoffset()
        assert first is not None
        assert second is not None
        change = _change(zone, moment - (first - second), moment)
        wall = (change + first).replace(tzinfo=None) - _ONE_SECOND
    due = schedule.after(wall)
    return None if due is None else instant_of(zone, due)


def _interval(schedule: Expression, zone: tzinfo, moment: datetime) -> int | None:
    """Every wall time as often as it comes."""
    while True:
        offset = moment.astimezone(zone).utcoffset()
        assert offset is not None
        due = schedule.after((moment + offset).replace(tzinfo=None))
        if due is None:
            return None
        instant = due.replace(tzinfo=UTC) - offset
        if instant.astimezone(zone).utcoffset() == offset:
            return _seconds(instant)
        # Up to the change the wall times were passed over as not due.
        moment = _change(zone, moment, instant)
        wall = wall_of(zone, moment).replace(fold=0)
        if schedule.after(wall - _ONE_SECOND) == wall:
            return _seconds(moment)


def wall_of(zone: tzinfo, moment: datetime) -> datetime:
    """The local time at an instant, without its zone."""
    return moment.astimezone(zone).replace(tzinfo=None)


def instant_of(zone: tzinfo, wall: datetime) -> int:
    """When a local time comes, first; or the end of the gap that it lies in."""
    early = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_of(zone, early).replace(fold=0) == wall:
        return _seconds(early)
    # In a gap, fold 1 reads the wall time with the later offset: an instant before the change.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return _seconds(_change(zone, before, early))


def _change(zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """The first second in (low, high] whose UTC offset is not that of ``low``."""
    offset = low.astimezone(zone).utcoffset()
    least, most = _seconds(low), _seconds(high)
    while most - least > 1:
        middle = (least + most) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            least = middle
        else:
            most = middle
    return datetime.fromtimestamp(most, UTC)


def _seconds(moment: datetime) -> int:
    return round(moment.timestamp())
