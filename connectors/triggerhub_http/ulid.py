"""Fresh identities for requests that bring none."""

from __future__ import annotations

import random
from datetime import UTC, datetime

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_bits = random.Random().getrandbits  # seeded by the system


class Clock:
    """The time in milliseconds, as an event's time and as the beginning of a ULID: in a busy
    moment many requests have the same, and share the same objects."""

    def __init__(self) -> None:
        self._millisecond = -1
        self._now = datetime.fromtimestamp(0, UTC), ""

    def read(self, now: float) -> tuple[datetime, str]:
        """``now``: seconds since the epoch."""
        millisecond = int(now * 1000)
        if millisecond != self._millisecond:
            moment = datetime.fromtimestamp(millisecond / 1000, UTC)
            text = "".join([_PAIRS[millisecond >> shift & 1023] for shift in range(40, -1, -10)])
            self._millisecond, self._now = millisecond, (moment, text)
        return self._now


def chance() -> str:
    """The end of a ULID: 80 bits of chance."""
    pairs, bits = _PAIRS, _bits
    eight = (bits(10), bits(10), bits(10), bits(10), bits(10), bits(10), bits(10), bits(10))
    return "".join([pairs[ten] for ten in eight])
