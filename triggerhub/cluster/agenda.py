"""What is to be looked at, and when."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_TICK = 1e-3
"""Seconds. A timer may fire a hair early: what is almost due must not be waited for in a circle."""


class Agenda(Generic[T]):
    """Each item once, at the earliest of the times that were asked for. One task takes."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, T]] = []
        self._numbers = itertools.count()
        self._at: dict[T, float] = {}
        """When each is due; what the heap says otherwise is out of date."""
        self._more = asyncio.Event()

    def __contains__(self, item: object) -> bool:
        return item in self._at

    def add(self, item: T, after: float) -> None:
        """It is due in so many seconds, or sooner if it already was."""
        when = asyncio.get_running_loop().time() + after
        known = self._at.get(item)
        if known is None or when < known:
            self._at[item] = when
            heapq.heappush(self._due, (when, next(self._numbers), item))
            self._more.set()

    async def next(self) -> T:
        """The one that is due for the longest time; waits for one. It is never early."""
        loop = asyncio.get_running_loop()
        while True:
            self._more.clear()
            while self._due and self._at.get(self._due[0][2]) != self._due[0][0]:
                heapq.heappop(self._due)
            wait = None
            if self._due:
                when, _, item = self._due[0]
                if when <= loop.time():
                    heapq.heappop(self._due)
                    del self._at[item]
                    return item
                wait = max(_TICK, when - loop.time())
            try:
                async with asyncio.timeout(wait):
                    await self._more.wait()
            except TimeoutError:
                continue
