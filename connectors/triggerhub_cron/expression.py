"""A cron expression, taken apart: which local times it means.

Fields and their meaning are cronie's (``man 5 crontab``), with seconds as a sixth field that comes
first, ``L`` and ``n#k`` as Quartz has them. A range may go over the end: ``22-2``, ``NOV-FEB``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from triggerhub_cron.faults import ScheduleError, nearest

WORDS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}  # fmt: skip

_WORDS = f"{', '.join(WORDS)}, or @every and a duration such as 90s"
_LONGEST = 256
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S*)", re.IGNORECASE)
_FORMS = "one value, a list (a,b), a range (a-b), * or a step (*/n, a-b/n)"
_YEARS = 50
"""All that can be due is due within these: the fifth Monday of a February comes every 28, over
the end of a century 40."""
_SECOND = timedelta(seconds=1)
_ITEM = re.compile(r"(\*|\w+(?:-\w+)?)(?:/([0-9]+))?", re.ASCII)
_NTH = re.compile(r"(\w+)#([1-5])", re.ASCII)
_LAST = re.compile(r"L([0-7]|[A-Z]{3})|([0-7]|[A-Z]{3})L", re.ASCII)


@dataclass(frozen=True)
class Field:
    """One of the fields of an expression."""

    name: str
    low: int
    high: int
    values: str
    """As a person is told them."""
    names: tuple[str, ...] = ()
    """Of the values, from ``low`` on."""

    def value(self, text: str) -> int | None:
        """What a single value stands for; None: nothing."""
        if text in self.names:
            return self.low + self.names.index(text)
        if len(text) > 2 or not text.isdigit():
            return None
        return int(text) if self.low <= int(text) <= self.high else None


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
SECOND = Field("second", 0, 59, "0-59")
MINUTE = Field("minute", 0, 59, "0-59")
HOUR = Field("hour", 0, 23, "0-23")
DAY = Field("day of month", 1, 31, "1-31 or L")
MONTH = Field("month", 1, 12, "1-12 or JAN-DEC", _MONTHS)
WEEKDAY = Field("day of week", 0, 7, "0-7 (0 and 7 are Sunday) or SUN-SAT, 5#2 or 5L", _DAYS)
FIELDS = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)


@dataclass(frozen=True, slots=True)
class Expression:
    """Which local times are meant. Values ascend; days of week count from Sunday."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    last_day: bool = False
    nth: tuple[tuple[int, int], ...] = ()
    """Days of week that are the n-th in their month; 0: the last."""

    @property
    def every_hour(self) -> bool:
        """It is about intervals, not about times of day."""
        return len(self.hours) == 24

    def after(self, wall: datetime) -> datetime | None:
        """The first local time later than ``wall`` (whole seconds, no zone); None: there is none
        in the next fifty years."""
        try:
            start = wall.replace(fold=0) + _SECOND
        except OverflowError:
            return None
        today = year, month, first = start.year, start.month, start.day
        time = self._time(start.hour, start.minute, start.second)
        for _ in range(12 * _YEARS):
            if month in self.months:
                for day in self._days(year, month, first):
                    if (year, month, day) != today:
                        time = self.hours[0], self.minutes[0], self.seconds[0]
                    if time is not None:
                        return datetime(year, month, day, *time)  # noqa: DTZ001 - local time
            year, month, first = (year + 1, 1, 1) if month == 12 else (year, month + 1, 1)
            if year > 9999:
                return None
        return None

    def _time(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first time of a day at or after this."""
        for h in self.hours[bisect_left(self.hours, hour) :]:
            if h > hour:
                return h, self.minutes[0], self.seconds[0]
            for m in self.minutes[bisect_left(self.minutes, minute) :]:
                if m > minute:
                    return h, m, self.seconds[0]
                at = bisect_left(self.seconds, second)
                if at < len(self.seconds):
                    return h, m, self.seconds[at]
        return None

    def _days(self, year: int, month: int, first: int) -> Iterator[int]:
        """Days of a month that are meant, from ``first`` on. Where both fields of days say less
        than all, either one suffices."""
        monday, length = monthrange(year, month)
        any_day, any_weekday = len(self.days) == 31, len(self.weekdays) == 7
        for day in range(first, length + 1):
            if any_day and any_weekday:
                yield day
                continue
            weekday = (monday + day) % 7
            by_day = not any_day and (day in self.days or (self.last_day and day == length))
            by_weekday = not any_weekday and (
                weekday in self.weekdays
                or (weekday, (day - 1) // 7 + 1) in self.nth
                or ((weekday, 0) in self.nth and day + 7 > length)
            )
            if by_day or by_weekday:
                yield day


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """Read an expression of five or six fields, or a word such as ``@hourly``. Raises
    ``ScheduleError`` with the field that is wrong, and the nearest form that is right."""
    try:
        return _read(text)
    except ScheduleError as error:
        raise ScheduleError(f"{error}{nearest(text, _usable)}") from None


def _read(text: str) -> Expression:
    parts = _split(text)
    found = []
    for number, (field, part) in enumerate(zip(FIELDS[-len(parts) :], parts, strict=True), 1):
        try:
            found.append(_items(field, part.upper()))
        except ValueError:
            raise ScheduleError(
                f"schedule {text!r}: {field.name} (field {number}) is {part!r}, expected "
                f"{field.values}, as {_FORMS}"
            ) from None
    if len(found) == 5:
        found.insert(0, ((0,), False, ()))
    seconds, minutes, hours, days, months, week = (values for values, _, _ in found)
    made = Expression(seconds, minutes, hours, days, months, week, found[3][1], found[5][2])
    if made.after(datetime(2000, 1, 1)) is None:  # noqa: DTZ001 - local time
        raise ScheduleError(
            f"schedule {text!r} is never due: no date has day of month {parts[-3]!r} in month "
            f"{parts[-2]!r}; expected a day that the month has, such as L, its last"
        )
    return made


def _usable(text: str) -> None:
    if not text.startswith("@every "):
        _read(text)


def _split(text: str) -> list[str]:
    """The fields as written. Raises ``ScheduleError`` where it has another number."""
    if len(text) > _LONGEST:
        raise ScheduleError(f"schedule {text[:40]!r}…: expected at most {_LONGEST} characters")
    parts = text.split()
    if len(parts) == 1 and parts[0].startswith("@"):
        words = WORDS.get(parts[0].lower())
        if words is not None:
            return words.split()
    if parts and parts[0].startswith("@"):
        raise ScheduleError(f"schedule {text!r}: expected one of {_WORDS}")
    if parts and (zone := _ZONE.fullmatch(parts[0])):
        raise ScheduleError(
            f"schedule {text!r} names a time zone: expected it in the field timeZone: {zone[1]}"
        )
    if len(parts) not in (5, 6):
        raise ScheduleError(
            f"schedule {text!r} has {len(parts)} fields, expected 5 (minute, hour, day of "
            f"month, month, day of week), or 6 with seconds first, or one of {_WORDS}"
        )
    return parts


@lru_cache(maxsize=4096)  # what many expressions have in common is there once
def _items(field: Field, text: str) -> tuple[tuple[int, ...], bool, tuple[tuple[int, int], ...]]:
    """Values, whether the last day is one, and days of week by number. Raises ValueError."""
    values: set[int] = set()
    nth: set[tuple[int, int]] = set()
    last = False
    for item in text.split(","):
        if field is DAY and item == "L":
            last = True
        elif field is WEEKDAY and (found := _NTH.fullmatch(item)):
            nth.add((_known(field, found[1]) % 7, int(found[2])))
        elif field is WEEKDAY and (found := _LAST.fullmatch(item)):
            nth.add((_known(field, found[1] or found[2]) % 7, 0))
        else:
            values |= set(_range(field, item))
    return tuple(sorted(values)), last, tuple(sorted(nth))


def _range(field: Field, item: str) -> Iterable[int]:
    """``*``, ``5``, ``1-5``, with ``/n``. Raises ValueError."""
    if item == "?" and field in (DAY, WEEKDAY):
        item = "*"
    found = _ITEM.fullmatch(item)
    if found is None:
        raise ValueError(item)
    span, step = found[1], int(found[2] or 1)
    low, high = field.low, 6 if field is WEEKDAY else field.high
    size = high - low + 1
    if not 1 <= step <= field.high:
        raise ValueError(item)
    if span == "*":
        return range(low, high + 1, step)
    first, _, end = span.partition("-")
    begin = _known(field, first)
    last = begin if found[2] is None else max(begin, high)
    until = _known(field, end) if end else last
    if until < begin:
        until += size
    return {(value - low) % size + low for value in range(begin, until + 1, step)}


def _known(field: Field, text: str) -> int:
    value = field.value(text)
    if value is None:
        raise ValueError(text)
    return value
