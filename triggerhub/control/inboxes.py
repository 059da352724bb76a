"""Inboxes of bindings: what listeners put into them, and who delivers it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import structlog

from triggerhub.connector import Fate, GivenBack, Subscription, Taken
from triggerhub.control.binding import Listening
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.feeder import Feeder, Lost
from triggerhub.event import Event
from triggerhub.store.records import Put, Store, StoreError, Waiting

_LOOK = 1.0
_LEISURE = 50.0
"""A look at all inboxes comes again after so many times as long as the last one took."""
_AGAIN = 1.0

log = structlog.get_logger()


class Inboxes:
    """An async context manager; leaving it stops every delivery (they drain)."""

    def __init__(
        self,
        subscription: Callable[[Listening], Subscription[Any]],
        dispatcher: Dispatcher,
        store: Store,
    ) -> None:
        self.waiting: Mapping[str, Waiting] = {}
        """What each inbox holds, by binding, as last looked at."""
        self._subscription = subscription
        self._dispatcher = dispatcher
        self._store = store
        self._wanted: dict[str, Listening] = {}
        self._feeders: dict[str, Feeder] = {}
        self._feeding: dict[str, asyncio.Task[None]] = {}
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._tasks = asyncio.TaskGroup()
        self._watching: asyncio.Task[None]

    async def __aenter__(self) -> Inboxes:
        await self._tasks.__aenter__()
        self._watching = self._tasks.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.converge(())
        self._watching.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def converge(self, wanted: Iterable[Listening]) -> None:
        """From now on deliver for exactly these. Returns at once; of one name, what was changed
        goes on when its deliveries under way have ended."""
        table = {listening.name: listening for listening in wanted}
        for name, task in self._feeding.items():
            if table.get(name) != self._wanted.get(name):
                task.cancel()
        self._wanted = table

    def intake(self, name: str) -> InboxIntake:
        """What the binding's listener is given."""
        return InboxIntake(self, self._store, self._dispatcher, name)

    async def look(self) -> None:
        """What waits now. The last picture stands while the store fails."""
        with suppress(StoreError):
            self.waiting = await self._store.waiting()

    def put(self, name: str, put: Put, event: Event) -> None:
        """It was put by this process, just now."""
        feeder = self._feeders.get(name)
        if feeder is not None:
            feeder.hand_over(put, event)
        else:
            self._feed(name)

    def settled(self, name: str, number: int) -> bool:
        """Its outcome is known here, though it may still lie in the inbox."""
        feeder = self._feeders.get(name)
        return feeder is not None and feeder.settled(number)

    async def outcome(self, number: int, within: float) -> None:
        """Wait until this process has settled it, for so many seconds at most."""
        waiter = self._waiters.setdefault(number, asyncio.get_running_loop().create_future())
        try:
            await asyncio.wait([waiter], timeout=within)
        finally:
            self._waiters.pop(number, None)

    def _settle(self, number: int) -> None:
        waiter = self._waiters.get(number)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _watch(self) -> None:
        """What other processes put, and what was there from before."""
        while True:
            began = time.monotonic()
            await self.look()
            for name in self.waiting:
                self._feed(name)
            await asyncio.sleep(max(_LOOK, _LEISURE * (time.monotonic() - began)))

    def _feed(self, name: str) -> None:
        listening = self._wanted.get(name)
        if listening is None or name in self._feeding:
            return
        task = self._tasks.create_task(self._tend(listening), name=f"inbox {name}")
        self._feeding[name] = task
        task.add_done_callback(lambda task: self._fed(name, task))

    def _fed(self, name: str, task: asyncio.Task[None]) -> None:
        if self._feeding.get(name) is task:
            del self._feeding[name]

    async def _tend(self, listening: Listening) -> None:
        """Deliver what waits, until nothing does."""
        name = listening.name
        feeder = self._feeders[name] = Feeder(
            self._subscription(listening),
            self._store.inbox(name),
            self._store.positions(f"inbox/{name}"),
            self._settle,
        )
        told = ""
        try:
            while True:
                try:
                    if await feeder.run() and not feeder.behind:
                        return
                except GivenBack as error:
                    log.debug("inbox.given_back", binding=name, error=str(error))
                except (Lost, OSError) as error:
                    if str(error) != told:
                        told = str(error)
                        log.warning("inbox.interrupted", binding=name, error=told)
                await asyncio.sleep(_AGAIN)
        finally:
            # Now, not when the task is known to be done: what is put from here on needs another.
            del self._feeders[name], self._feeding[name]


class InboxIntake:
    """``Intake`` of one binding."""

    def __init__(self, inboxes: Inboxes, store: Store, dispatcher: Dispatcher, name: str) -> None:
        self._inboxes = inboxes
        self._inbox = store.inbox(name)
        self._deliveries = dispatcher.deliveries
        self._name = name

    async def put(self, event: Event, *, window: float = 0.0) -> Taken:
        """See ``Intake.put``."""
        once = f"{event.source}\n{event.id}" if window else ""
        put = await self._inbox.put(event, once=once, window=window)
        if put.fresh:
            self._inboxes.put(self._name, put, event)
        return Taken(put.number, put.fresh)

    async def fate(
        self, event_id: str, source: str, taken: int, within: float = 0.0
    ) -> Fate | None:
        """See ``Intake.fate``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        while True:
            fate = await self._fate(event_id, source, taken)
            left = until - loop.time()
            if fate is None or not fate.waits or left <= 0:
                return fate
            # Another process may be the one that delivers it.
            await self._inboxes.outcome(taken, min(left, _LOOK))

    async def _fate(self, event_id: str, source: str, taken: int) -> Fate | None:
        there = await self._inbox.has(taken)
        if there is None:
            return None
        waits = there and not self._inboxes.settled(self._name, taken)
        for found in await self._deliveries(event_id, source):
            if found.binding == self._name and (found.ended is None or not waits):
                settled = None if waits else found.settled
                return Fate(waits, settled, len(found.attempts), found.detail)
        return Fate(waits)
