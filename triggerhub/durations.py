"""Durations in manifests, as Go writes them. Part of the seam."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo, WithJsonSchema

from triggerhub.fields import VALIDATIONS, WHAT, expected

_UNITS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9,
    "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
"""Nanoseconds."""
_PART = re.compile(r"(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(ns|us|µs|μs|ms|s|m|h)")
_DURATION = r"^(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$"
_LONGEST_TEXT = 64
_LONGEST = 2_540_400 * 3600.0  # as good as all that Go's time.Duration, hence Kubernetes, holds


@lru_cache(maxsize=1024)
def seconds(text: str) -> float:
    """A Go duration (``time.ParseDuration``, without a sign) in seconds. Raises ValueError."""
    parts = list(_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f"found {text!r}, expected a duration such as 250ms, 30s, 5m")
    # Whole nanoseconds, cut off where Go cuts off: 100ms + 200ms is what it looks like.
    return sum(map(_nanoseconds, parts)) / 10**9


def _nanoseconds(part: re.Match[str]) -> int:
    unit = _UNITS[part[4]]
    fraction = (part[2] or part[3] or "")[:18]  # all that Go looks at
    beyond = int(float(fraction or 0) * (unit / 10.0 ** len(fraction)))
    return int(part[1] or 0) * unit + beyond


def go_duration(value: float) -> str:
    """Seconds as a Go duration: ``1m30s``."""
    nanoseconds = round(value * 1e9)
    text = ""
    for unit, size in (("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000),
                       ("ms", 1_000_000), ("us", 1_000), ("ns", 1)):  # fmt: skip
        count, nanoseconds = divmod(nanoseconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _duration(value: Any, info: ValidationInfo) -> float:
    if isinstance(value, str):
        try:
            value = seconds(value) if len(value) <= _LONGEST_TEXT else None
        except ValueError:
            value = None
        if value is None:
            raise expected("a duration such as 250ms, 30s, 5m")
    elif info.mode == "json" or isinstance(value, bool) or not isinstance(value, (int, float)):
        raise expected("a duration such as 250ms, 30s, 5m")
    if value <= 0:
        raise expected("a duration longer than 0s")
    if not value <= _LONGEST:
        raise expected("a duration of 290 years at most")
    return float(value)


_LENGTHS = {
    "rule": f"duration(self) > duration('0s') && duration(self) <= duration('{_LONGEST:.0f}s')",
    "message": "expected a duration longer than 0s, of 290 years at most",
}

Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(go_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": _DURATION, "maxLength": _LONGEST_TEXT,
         WHAT: "a duration such as 250ms, 30s, 5m", VALIDATIONS: [_LENGTHS]},
        mode="validation",
    ),
]  # fmt: skip
"""Seconds; on the wire a Go-style text such as ``250ms``, ``1m30s``, ``24h``, longer than 0."""
