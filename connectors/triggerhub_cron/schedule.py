"""When a cron schedule is due: local wall time, mapped to UTC by this connector's own rule.

A schedule is read in the local wall time of its zone, and every wall time is due once:

==================================  =======================================================
wall time                           due
==================================  =======================================================
exists once                         at that instant
skipped (clocks go forward)         once, at the instant the gap ends; several skipped times
                                    and a time that is due at that instant anyway are one
repeated (clocks go back)           at its first occurrence only
==================================  =======================================================

So a daily job runs every day exactly once. A schedule like ``*/10 * * * *`` is silent while wall
times repeat; in a zone without clock changes (``UTC``) it never is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

if TYPE_CHECKING:
    from croniter import croniter

WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")

_FIELDS = (
    ("minute", "0-59", 59),
    ("hour", "0-23", 23),
    ("day of month", "1-31 or L", 31),
    ("month", "1-12 or JAN-DEC", 12),
    ("day of week", "0-7 (0 and 7 are Sunday) or SUN-SAT", 7),
)
_SECOND = ("second", "0-59", 59)
_FORMS = "one value, a list (a,b), a range (a-b), * or a step (*/n, a-b/n)"
_SAME = re.compile(r"(\w+)-\1(?=/|$)", re.IGNORECASE)
_STEP = re.compile(r"/([0-9]+)$")
_JENKINS = re.compile(r"[hr](\(|/|$)", re.IGNORECASE)
_SEARCH_FROM = datetime(2000, 1, 1)  # noqa: DTZ001 - wall time has no zone
_ONE_SECOND = timedelta(seconds=1)


class ScheduleError(ValueError):
    """A schedule or time zone that cannot be used: where, what was found, what is expected."""


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


def check_schedule(expression: str) -> None:
    """Raise ``ScheduleError`` unless the expression can be read and is due at some time."""
    fields = _fields(expression)
    names = (*((_SECOND,) if len(fields) == 6 else ()), *_FIELDS)
    sound = _parses(expression)
    for index, (text, (name, values, largest)) in enumerate(zip(fields, names, strict=True)):
        alone = ["*"] * len(fields)
        alone[index] = text
        if not _is_sound(text, largest) or not (sound or _parses(" ".join(alone))):
            raise ScheduleError(
                f"schedule {expression!r}: {name} (field {index + 1}) is {text!r}, "
                f"expected {values}, as {_FORMS}"
            )
    try:
        due = _next_wall(expression, _SEARCH_FROM)
    except ValueError as error:
        raise ScheduleError(f"schedule {expression!r} cannot be read: {error}") from None
    if due is None:
        days, months = fields[-3], fields[-2]
        raise ScheduleError(
            f"schedule {expression!r} is never due: no date has day of month {days!r} in month "
            f"{months!r}; expected a day that the month has"
        )


def next_due(expressions: Sequence[str], zone: tzinfo, after: float) -> int | None:
    """The first instant later than ``after`` at which any of the schedules is due.

    Instants are seconds since the epoch. None: no schedule is due ever again.
    """
    # Whole seconds: rounding up to one would pass over what is due in it.
    moment = datetime.fromtimestamp(floor(after), UTC)
    wall = _wall(zone, moment)
    if wall.fold:
        # Every wall time up to the end of the repetition was due at its first occurrence.
        first = wall.replace(fold=0, tzinfo=zone).utcoffset()
        second = moment.astimezone(zone).utcoffset()
        assert first is not None
        assert second is not None
        change = _change(zone, moment - (first - second), moment)
        wall = (change + first).replace(tzinfo=None) - _ONE_SECOND
    walls = (_next_wall(expression, wall) for expression in expressions)
    instants = [_instant(zone, due) for due in walls if due is not None]
    return min(instants, default=None)


def _fields(expression: str) -> list[str]:
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in WORDS:
            raise ScheduleError(f"schedule {expression!r}: expected one of {', '.join(WORDS)}")
        return ["*"] * 5
    fields = text.split()
    if fields and fields[0].upper().startswith(("TZ=", "CRON_TZ=")):
        raise ScheduleError(
            f"schedule {expression!r} names a time zone: expected it in the field timeZone"
        )
    if len(fields) not in (5, 6):
        raise ScheduleError(
            f"schedule {expression!r} has {len(fields)} fields, expected 5 (minute, hour, day of "
            f"month, month, day of week), or 6 with seconds first, or one of {', '.join(WORDS)}"
        )
    return fields


def _is_sound(text: str, largest: int) -> bool:
    """What the parser would take, but read as something the author cannot have meant."""
    for item in text.split(","):
        step = _STEP.search(item)
        if step and int(step[1]) > largest:
            return False
        # Jenkins' H and R: "some value", drawn anew by every process.
        if not item.isascii() or _JENKINS.match(item):
            return False
    return True


def _parses(expression: str) -> bool:
    try:
        _cron(expression)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def _cron(expression: str) -> croniter:
    # Imported late: 70 ms that a hub without cron triggers need not spend. Shared: the parsed
    # form is some KB, and triggers often have the same schedule.
    from croniter import croniter

    text = expression.strip()
    fields = text.split()
    if len(fields) > 1:
        # The parser takes a range of one value for the whole cycle.
        items = (",".join(_SAME.sub(r"\1", item) for item in f.split(",")) for f in fields)
        text = " ".join(items)
    return croniter(text, _SEARCH_FROM, second_at_beginning=True)


def _next_wall(expression: str, wall: datetime) -> datetime | None:
    from croniter import CroniterBadDateError

    try:
        due: datetime = _cron(expression).get_next(datetime, start_time=wall.replace(fold=0))
    except (CroniterBadDateError, OverflowError):
        return None
    return due


def _wall(zone: tzinfo, moment: datetime) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


def _instant(zone: tzinfo, wall: datetime) -> int:
    early = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _wall(zone, early).replace(fold=0) == wall:
        return round(early.timestamp())
    # In a gap, fold 1 reads the wall time with the later offset: an instant before the change.
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return round(_change(zone, before, early).timestamp())


def _change(zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """The first second in (low, high] whose UTC offset is not that of ``low``."""
    offset = low.astimezone(zone).utcoffset()
    least, most = int(low.timestamp()), int(high.timestamp())
    while most - least > 1:
        middle = (least + most) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            least = middle
        else:
            most = middle
    return datetime.fromtimestamp(most, UTC)
