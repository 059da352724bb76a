"""What is wrong with a schedule, and which right one is near."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from difflib import get_close_matches


class ScheduleError(ValueError):
    """A schedule or time zone that cannot be used: where, what was found, what is expected."""


_LIMITS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_AROUND = {"60": "0", "24": "0"}
"""Where the clock begins again."""
_OFTEN = re.compile(r"\*/([0-9]{2,4}) \* \* \* \*")
"""Longer than the minutes of an hour, else it would have been read."""
_NAMES = re.compile(
    r"(JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT)[A-Z]*"
)
_KNOWN = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def nearest(text: str, parse: Callable[[str], object]) -> str:
    """`` (did you mean '0 0 * * *'?)``, where ``parse`` takes a text that is near; else empty."""
    for candidate in _candidates(text[:256]):
        try:
            parse(candidate)
        except ScheduleError:
            continue
        return f" (did you mean {candidate!r}?)"
    return ""


def _candidates(text: str) -> list[str]:
    """Texts that may be meant, likelier first; none is mended by another mistake of the same kind,
    so that this ends."""
    plain = unicodedata.normalize("NFKC", text).strip()
    words = plain.lower().lstrip("@").split()
    if len(words) == 1 and words[0].isalpha():
        near = get_close_matches(f"@{words[0]}", _KNOWN, n=1, cutoff=0.6)
        return [word for word in near if word != text]
    fields = plain.upper().split()
    if not plain.isascii() or plain.startswith("@"):
        return []
    if len(fields) in (6, 7) and re.fullmatch("[0-9]{4}", fields[-1]):
        fields.pop()  # Quartz and others end with the year
    if (often := _OFTEN.fullmatch(" ".join(fields))) and int(often[1]) > 59:
        return [f"@every {int(often[1])}m"]
    if len(fields) == 4:
        fields = [*fields, "*"]
    if len(fields) not in (5, 6):
        return []
    mended = " ".join(
        _mended(field, *limits)
        for field, limits in zip(fields, _LIMITS[-len(fields) :], strict=True)
    )
    return [mended] if mended != text else []


def _mended(field: str, low: int, high: int) -> str:
    """One field with what is out of bounds brought within, and names cut to three letters."""
    items = []
    for item in field.split(","):
        value, slash, step = _NAMES.sub(r"\1", item).partition("/")
        value = re.sub("[0-9]+", lambda found: _within(found[0], low, high), value)
        if slash and step.strip("0") == "":
            step = "1"
        if value:
            items.append(value + slash + step if step != "1" else value)
    return ",".join(items) or "*"


def _within(number: str, low: int, high: int) -> str:
    if number in _AROUND and int(number) == high + 1:
        return _AROUND[number]
    if low <= int(number[:4]) <= high and len(number) <= 2:
        return number
    return str(min(max(int(number[:4]), low), high))
