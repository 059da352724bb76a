"""Whether what waits in a source only grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

WINDOW = 60.0
"""Seconds. Lag goes up and down with each batch: the least of a minute is compared."""
ENOUGH = 5
"""So many minutes in a row, each with more than the one before: it only grows."""
_SHOWN = 3


class Growth:
    """Of one number that is looked at now and then."""

    __slots__ = ("_before", "_began", "_from", "_least", "_times")

    def __init__(self, now: float) -> None:
        self._began = self._from = now
        self._least = math.inf
        self._before = math.inf
        self._times = 0

    def add(self, now: float, lag: float) -> None:
        """How much waits at that time; times ascend."""
        if now >= self._began + WINDOW:
            if self._least > self._before:
                self._times += 1
            else:
                self._times = 0
                self._from = self._began
            self._before, self._least = self._least, math.inf
            self._began = now
        self._least = min(self._least, lag)

    @property
    def since(self) -> float | None:
        """Since when it only grows; None: it does not, or not for long enough to say so."""
        return self._from if self._times >= ENOUGH else None


class Growths:
    """Of a source's partitions or shards; of a source without them, of the whole under ''."""

    __slots__ = ("_of", "_shown")

    def __init__(self) -> None:
        self._of: dict[str, Growth] = {}
        self._shown: tuple[tuple[str, ...], float] | None = None

    def note(self, now: float, lags: Mapping[str, float]) -> bool:
        """Look at all of them, at ``now`` (seconds since the epoch). Returns whether ``text`` is
        another than before."""
        if not self._of and not any(lags.values()):
            return False
        for name in self._of.keys() - lags.keys():
            del self._of[name]
        for name, lag in lags.items():
            if lag == 0:
                self._of.pop(name, None)
            else:
                self._of.setdefault(name, Growth(now)).add(now, lag)
        found = {name: at for name, growth in self._of.items() if (at := growth.since) is not None}
        shown = (tuple(sorted(found)), min(found.values())) if found else None
        changed, self._shown = shown != self._shown, shown
        return changed

    @property
    def text(self) -> str:
        """A sentence on what only grows; empty: nothing does."""
        if self._shown is None:
            return ""
        names, since = self._shown
        time = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        where = "" if names == ("",) else f" in {', '.join(names[:_SHOWN])}{more}"
        return (
            f"what waits in the source{where} only grows, since {time}: more comes than the "
            "function takes; let it answer faster, set a larger delivery.inFlight, or run more "
            "replicas"
        )
