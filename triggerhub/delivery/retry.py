"""Which answers deserve another attempt, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum

from triggerhub.event import Headers

AWAY_STREAK = 5
"""So many attempts in a row that find the function away, and one delivery probes for all."""


class Verdict(Enum):
    """What an attempt says about the function and the event (docs/delivery.md has the table)."""

    ACCEPTED = "accepted"
    AWAY = "away"
    """About the function, not about the event: try again, whatever ``attempts`` says."""
    FAILED = "failed"
    """About this event: try again, up to ``attempts``."""
    REJECTED = "rejected"
    """No further attempt."""


_AWAY = frozenset({429, 502, 503, 504})
_FAILED = frozenset({404, 408, 409, 425})


def judge(status: int) -> Verdict:
    """What a complete reply with this status means."""
    if 200 <= status < 300:
        return Verdict.ACCEPTED
    if status in _AWAY:
        return Verdict.AWAY
    if status in _FAILED or 500 <= status < 600:
        return Verdict.FAILED
    return Verdict.REJECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When to try again. Times in seconds."""

    attempts: int = 10
    initial: float = 0.2
    max: float = 30.0
    max_age: float = 86400.0
    """Since the event's first attempt."""

    def wait(self, made: int, uniform: Callable[[], float]) -> float:
        """Seconds before the next attempt after ``made`` attempts: full jitter, uniform in
        [0, min(max, initial * 2^(made-1))]. ``uniform`` gives a number in [0, 1)."""
        ceiling = min(self.max, self.initial * 2.0 ** min(made - 1, 60))
        return ceiling * uniform()


DEFAULT_POLICY = Policy()


def retry_after(headers: Headers, now: datetime) -> float:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3: a number of seconds or
    an HTTP date); 0 where there is none or it makes no sense."""
    for name, raw in headers:
        if name != b"retry-after":
            continue
        text = raw.decode("latin-1").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        if moment.tzinfo is None:
            return 0.0
        return max(0.0, (moment - now).total_seconds())
    return 0.0
