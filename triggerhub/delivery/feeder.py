"""What waits in one inbox goes along its binding, while this process holds the inbox."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from triggerhub.connector import Emit, GivenBack, Positions, Subscription
from triggerhub.event import Event, Outcome
from triggerhub.sentence import leaf
from triggerhub.store.records import Entry, Inbox, Put, StoreError
from triggerhub.window import Window

CLAIM = "inbox"
TTL = 8.0
"""Seconds that a claim lasts: when its process dies, another goes on after that."""
_RENEWED = 2.5
_PAGE = 256
_PAGE_BYTES = 8 * 1024 * 1024
_HELD = 4096
"""So many events that this process accepted itself wait in memory for the window, and so many
bytes; what comes then is read from the disk later."""
_HELD_BYTES = 16 * 1024 * 1024
_LOOK = 0.25
"""Seconds after which one that has nothing to do looks for what other processes put."""
_IDLE = 3.0
_LINGER = 0.02
"""Seconds that settled entries wait for others, to be removed with them."""
_AGAIN = 1.0


class Lost(Exception):  # noqa: N818 - a fact about the claim
    """Another process may hold the inbox by now."""


class Feeder:
    """One reader of one inbox. Its claim in the store keeps readers of other processes away, so
    the order of keys holds among them."""

    def __init__(
        self,
        subscription: Subscription[Any],
        inbox: Inbox,
        claims: Positions,
        settled: Callable[[int], None],
    ) -> None:
        """``settled`` is called with the number of each entry whose outcome is known."""
        self._subscription = replace(subscription, emit=_Heeded(subscription.emit, self._give_back))
        self._inbox = inbox
        self._claims = claims
        self._tell = settled
        self._next: deque[Entry] = deque()
        self._size = 0
        self._last = 0
        """Number of the last entry that was read, or handed over."""
        self._newest = 0
        """Of the last one that was put here, as far as is known."""
        self._holding = False
        self._reading = False
        self._look_again = True
        self._given_back = False
        self._under_way = 0
        self._done: dict[int, None] = {}
        """Settled, and not removed yet."""
        self._some = asyncio.Event()
        self._some_done = asyncio.Event()

    @property
    def behind(self) -> bool:
        """Something was put by this process that was not read yet."""
        return self._newest > self._last

    def settled(self, number: int) -> bool:
        """Its outcome is known, though it may still lie in the inbox."""
        return number in self._done

    def hand_over(self, put: Put, event: Event) -> None:
        """It was put by this process just now. What follows right upon the last that was read
        need not be read from the disk."""
        self._newest = max(self._newest, put.number)
        self._some.set()
        if put.number <= self._last or self._reading or not self._holding:
            return
        full = len(self._next) >= _HELD or self._size + len(event.data) > _HELD_BYTES
        if put.before == self._last and not full:
            self._take(Entry(put.number, event))

    async def run(self) -> bool:
        """Until cancelled, or until nothing has come for a while. False: another process holds
        the inbox. Raises ``StoreError``, ``GivenBack``, ``Lost``."""
        if not await self._claims.claim(CLAIM, TTL):
            return False
        self._holding = True
        try:
            await self._hold()
        except BaseExceptionGroup as group:
            raise leaf(group) from None
        finally:
            self._holding = self._given_back = False
            self._next.clear()
            self._size = self._last = self._under_way = 0
            self._look_again = True
            await self._remove()
            with suppress(StoreError):
                await self._claims.release(CLAIM)
        return True

    async def _hold(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._renew()), tasks.create_task(self._keep_removing())]
            try:
                async with Window(self._subscription) as window:
                    await self._feed(window)
            finally:
                # Not before the window has drained.
                for keeper in keepers:
                    keeper.cancel()

    async def _feed(self, window: Window) -> None:
        loop = asyncio.get_running_loop()
        busy = loop.time()
        while True:
            if self._given_back:
                # The listener that shares the link stopped, or the function goes.
                raise GivenBack(f"{self._subscription.name} was given back")
            if self._next:
                entry = self._next.popleft()
                self._size -= len(entry.event.data)
                if entry.number not in self._done:
                    self._under_way += 1
                    await window.put(entry.event, partial(self._settled, entry.number))
                busy = loop.time()
            elif self.behind or self._look_again:
                await self._read()
            elif loop.time() - busy > _IDLE and not self._under_way and not self._done:
                self._newest = 0
                return
            else:
                self._some.clear()
                try:
                    async with asyncio.timeout(_LOOK):
                        await self._some.wait()
                except TimeoutError:
                    self._look_again = True

    async def _read(self) -> None:
        self._reading = True
        try:
            entries = await self._inbox.read(self._last, limit=_PAGE, size=_PAGE_BYTES)
        finally:
            self._reading = False
        for entry in entries:
            self._take(entry)
        # Its data may have ended the page before its number did.
        self._look_again = len(entries) == _PAGE or self._size > _PAGE_BYTES // 2
        if not entries:
            # Put, and gone: another process had it in between.
            self._last = max(self._last, self._newest)

    def _take(self, entry: Entry) -> None:
        self._next.append(entry)
        self._size += len(entry.event.data)
        self._last = entry.number

    def _give_back(self) -> None:
        self._given_back = True
        self._some.set()

    def _settled(self, number: int, _outcome: Outcome) -> None:
        self._under_way -= 1
        self._done[number] = None
        self._some_done.set()
        self._tell(number)

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        held_until = loop.time() + TTL
        while True:
            await asyncio.sleep(_RENEWED)
            asked = loop.time()
            try:
                held = await self._claims.claim(CLAIM, TTL)
            except OSError as error:
                if loop.time() > held_until:
                    raise Lost(f"the claim could not be renewed: {error}") from error
                continue
            if not held:
                raise Lost("another process holds the inbox")
            held_until = asked + TTL

    async def _keep_removing(self) -> None:
        while True:
            await self._some_done.wait()
            await asyncio.sleep(_LINGER)
            self._some_done.clear()
            if not await self._remove():
                await asyncio.sleep(_AGAIN)

    async def _remove(self) -> bool:
        """What is settled. False: the store could not; it is remembered, and not sent again."""
        gone = tuple(self._done)
        try:
            await self._inbox.remove(gone)
        except StoreError:
            self._some_done.set()
            return False
        for number in gone:
            del self._done[number]
        return True


class _Heeded:
    """The link's ``emit``, and who wants to know that an event was given back."""

    def __init__(self, emit: Emit, given_back: Callable[[], None]) -> None:
        self._emit = emit
        self._given_back = given_back
        self.release = emit.release
        self.resume = emit.resume

    async def __call__(self, event: Event) -> Outcome:
        try:
            return await self._emit(event)
        except GivenBack:
            self._given_back()
            raise
