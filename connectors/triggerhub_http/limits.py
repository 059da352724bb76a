"""How often, and how many at once: what a trigger takes before it says 429."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from triggerhub_http.edge import Limits
from triggerhub_http.messages import Refusal


class Turnstile:
    """Counts the requests of one trigger in this process: a context manager around each. Its rate
    is that of a bucket: so many tokens at most, and so many more with time."""

    def __init__(
        self,
        spec: Limits | None,
        turned_away: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``now``: seconds."""
        self._turned_away = turned_away
        self._now = now
        self._at_once = math.inf if spec is None else spec.concurrent or math.inf
        self._inside = 0
        self._refill = 0.0
        """Tokens a second; 0: no rate is asked for."""
        self._most = self._tokens = 0.0
        if spec is not None and spec.rate is not None:
            self._refill = spec.rate / spec.per
            self._most = self._tokens = float(spec.burst or spec.rate)
        self._filled = now()

    def __enter__(self) -> None:
        """Raises Refusal (429)."""
        if self._inside >= self._at_once:
            self._refuse(1.0, f"{self._inside} requests are under way")
        if self._refill:
            now = self._now()
            tokens = min(self._most, self._tokens + (now - self._filled) * self._refill)
            self._tokens, self._filled = tokens, now
            if tokens < 1:
                self._refuse((1 - tokens) / self._refill, "they come too fast")
            self._tokens -= 1
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1

    def _refuse(self, wait: float, why: str) -> None:
        self._turned_away("TooManyRequests")
        after = (b"retry-after", b"%d" % max(1, math.ceil(wait)))
        raise Refusal(429, "TooManyRequests", f"{why}: try again later", after)
