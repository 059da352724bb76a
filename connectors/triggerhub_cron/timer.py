"""One timer for all triggers: who is due next, by the wall clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

LONGEST_SLEEP = 1.0
"""Seconds: a suspend, or a clock that was set, is noticed so soon."""
_AT_ONCE = 100
LINGER = 0.05
"""Seconds that those who have time wait for each other."""
_SPARE = 0.001
"""uvloop counts whole milliseconds, rounded: woken too early, we would come again, and again."""


class Timed(Protocol):
    """What is due at times."""

    entry: tuple[float, int, Timed] | None
    """Its place in the timer's heap; kept by the timer."""

    def step(self, now: float) -> float | None:
        """Do what is due, and say when to come again; None: not before ``Timer.arm``."""

    def set_back(self, now: float) -> float | None:
        """The clock was set back: when to come again."""


class Timer:
    """A heap of who is due when. Times are seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Timed]] = []
        self._all: dict[Timed, None] = {}
        self._number = 0
        self._sleep: asyncio.Future[None] | None = None
        self._until = 0.0
        self._together: asyncio.Event | None = None

    def add(self, timed: Timed, at: float | None) -> None:
        """From now on come to it at ``at``."""
        self._all[timed] = None
        self.arm(timed, at)

    def arm(self, timed: Timed, at: float | None) -> None:
        """Come to it at ``at`` instead, if it is not removed."""
        timed.entry = None
        if at is None or timed not in self._all:
            return
        self._number += 1
        timed.entry = (at, self._number, timed)
        heappush(self._heap, timed.entry)
        if at < self._until and self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    def remove(self, timed: Timed) -> None:
        """No error when it is not there."""
        self._all.pop(timed, None)
        timed.entry = None

    async def linger(self) -> None:
        """Return in ``LINGER`` seconds at most, at once with all others who linger now."""
        if self._together is None:
            self._together = asyncio.Event()
            asyncio.get_running_loop().call_later(LINGER, self._go_on)
        await self._together.wait()

    def _go_on(self) -> None:
        if self._together is not None:
            self._together.set()
            self._together = None

    async def run(self) -> None:
        """Until cancelled."""
        checked = self.clock()
        while True:
            now = self.clock()
            if now < checked:
                for timed in list(self._all):
                    self.arm(timed, timed.set_back(now))
            checked = now
            if self._due(now):
                await asyncio.sleep(0)  # what they began goes first
                continue
            wake = min(self._heap[0][0], now + LONGEST_SLEEP) if self._heap else now + LONGEST_SLEEP
            await self._rest(now, wake)

    def _due(self, now: float) -> bool:
        """Some were due."""
        heap = self._heap
        found = False
        for _ in range(_AT_ONCE):
            while heap and heap[0][2].entry is not heap[0]:
                heappop(heap)
            if not heap or heap[0][0] > now:
                break
            timed = heappop(heap)[2]
            found = True
            self.arm(timed, timed.step(now))
        return found

    async def _rest(self, now: float, until: float) -> None:
        loop = asyncio.get_running_loop()
        self._sleep, self._until = loop.create_future(), until
        alarm = loop.call_later(until - now + _SPARE, _ring, self._sleep)
        try:
            await self._sleep
        finally:
            alarm.cancel()
            self._sleep = None


def _ring(sleep: asyncio.Future[None]) -> None:
    if not sleep.done():
        sleep.set_result(None)
