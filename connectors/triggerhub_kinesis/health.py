"""How the source is, told when it changes."""

from __future__ import annotations

import asyncio

from triggerhub.connector import Problem, Report, Telling

_LASTS = 10.0


class Health:
    """Turns what one listener learns into ``Report`` calls: the worst that holds, once."""

    def __init__(self, report: Report) -> None:
        self._telling = Telling(report)
        self._begun = False
        self._wrong: dict[str, Problem] = {}
        self._lost: Problem | None = None
        self._slow: Problem | None = None
        self._throttled: dict[str, float] = {}

    def begun(self) -> None:
        """Every shard has a place: what comes from now on will be seen."""
        self._begun = True
        self._tell()

    def wrong(self, shard: str, problem: Problem) -> None:
        """A shard brings nothing, for this reason; empty: the stream as a whole."""
        self._wrong[shard] = problem
        self._tell()

    def throttled(self, shard: str, problem: Problem) -> None:
        """It is read less often than it could be; told when that lasts."""
        now = asyncio.get_running_loop().time()
        if now - self._throttled.setdefault(shard, now) > _LASTS:
            self._slow = problem
            self._tell()

    def lost(self, problem: Problem | None) -> None:
        """Records were gone before they were read; None: there is nothing to tell of any more."""
        self._lost = problem
        self._tell()

    def fine(self, shard: str) -> None:
        """It answers."""
        wrong = self._wrong.pop(shard, None)
        throttled = self._throttled.pop(shard, None)
        if throttled is not None and not self._throttled:
            self._slow = None
        if wrong is not None or throttled is not None:
            self._tell()

    def forget(self, shard: str) -> None:
        """It is another's now, or read to its end."""
        self.fine(shard)

    def _tell(self) -> None:
        if self._wrong:
            self._telling.wrong(self._wrong[min(self._wrong)])
        elif self._begun:
            self._telling.well(self._lost or self._slow)
