"""How a source is, told when it changes; and how far a replay is, now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from triggerhub.connector.subscription import Report

_EVERY = 0.5


class Problem(NamedTuple):
    """A reason in CamelCase and a sentence."""

    reason: str
    text: str


class Telling:
    """Tells a ``Report`` what is new of one source."""

    def __init__(self, report: Report) -> None:
        self.attached = False
        """It was, once."""
        self._report = report
        self._told: Problem | None = None
        self._well = False

    def wrong(self, problem: Problem) -> None:
        """The source brings nothing, for this reason."""
        # Reasons alone are compared: texts carry details that vary with each try.
        if self._well or self._told is None or problem.reason != self._told.reason:
            self._well, self._told = False, problem
            self._report.disconnected(*problem)

    def well(self, note: Problem | None = None) -> None:
        """It brings what there is. ``note``: what is to be known although it does."""
        self.attached = True
        if not self._well or note != self._told:
            self._well, self._told = True, note
            self._report.connected(*(note or ()))


@asynccontextmanager
async def now_and_then(tell: Callable[[], None]) -> AsyncIterator[None]:
    """Call ``tell`` while the block runs, and at its end, as ``Progress.reached`` wants it. What
    the block raises comes in a group."""
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(_again_and_again(tell))
        try:
            yield
        finally:
            tell()
            telling.cancel()


async def _again_and_again(tell: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        tell()
