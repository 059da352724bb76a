"""Which process of a hub acts where only one may: a lock in the data directory."""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from triggerhub.store.directory import open_private

_FILE = "turn.lock"
_FRESH = 60.0
"""Seconds that a process which took its turn makes up for the one before it."""


def reset_turn(directory: Path) -> None:
    """Nobody has had the turn yet: for the hub, before its processes start. Raises
    ``StoreError``."""
    os.close(open_private(directory / _FILE, os.O_RDWR | os.O_TRUNC))


class Turn:
    """One process's part in it. The kernel gives the lock up when its holder ends, however it
    ends, and to one that waits at that moment. The file says who holds it, and since when
    somebody has."""

    def __init__(self, directory: Path) -> None:
        """Raises ``StoreError``."""
        self._descriptor = open_private(directory / _FILE)
        self._taken = asyncio.Event()
        self._since = math.inf
        self._fresh_until = math.inf

    def stand(self) -> None:
        """Wait for the turn from now on. It stays this process's until that ends."""
        # A thread that nobody waits for at the end: nothing else ends its wait.
        threading.Thread(
            target=self._wait,
            args=(asyncio.get_running_loop(),),
            name="triggerhub-turn",
            daemon=True,
        ).start()

    async def own(self) -> None:
        """See ``Subscription.own``."""
        await self._taken.wait()

    async def turn(self) -> float:
        """See ``Subscription.turn``. Where one had the turn since the hub began, and this one
        took it just now: since the first did. Those before may have ended before they did
        anything with it; what they did is on record."""
        await self._taken.wait()
        fresh = asyncio.get_running_loop().time() < self._fresh_until
        return self._since if fresh else math.inf

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        now = time.time()
        first = self._first()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()} {first or now}\n".encode(), 0)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(self._take, math.inf if first is None else first)

    def _first(self) -> float | None:
        """When the turn was first taken; None: it was not yet."""
        try:
            return float(os.pread(self._descriptor, 64, 0).split()[1])
        except (IndexError, ValueError):
            return None

    def _take(self, since: float) -> None:
        self._since = since
        self._fresh_until = asyncio.get_running_loop().time() + _FRESH
        self._taken.set()
