"""Many deliveries of one source in flight, in order: Window and OffsetTracker, part of the seam."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any

from triggerhub.connector import GivenBack, Order, Subscription
from triggerhub.event import Event, Outcome

Settle = Callable[[Outcome], None]

_MAX_BYTES = 64 * 1024 * 1024


class Window:
    """Keeps up to ``subscription.in_flight`` deliveries going, each lane one after the other.

    A lane follows from the subscription's order: the event's key, the partition, or nothing; an
    event without a key in a keyed source keeps its partition's order. Behind the deliveries a
    bounded number of events may wait for their lane (so one slow key does not stop the others);
    ``put`` waits while that room is full, and that is the back-pressure.

    Use it as an async context manager around the source's loop. Leaving the block drains.
    """

    def __init__(
        self,
        subscription: Subscription[Any],
        *,
        max_waiting: int | None = None,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        """``max_waiting``: events held beyond those in flight (default 16 x ``in_flight``);
        ``max_bytes``: their data together with that of those in flight. One event is always
        taken, however large."""
        self._emit = subscription.emit
        self._order = subscription.order
        self._in_flight = subscription.in_flight
        self._grace = subscription.grace
        waiting = 16 * self._in_flight if max_waiting is None else max_waiting
        self._max_held = self._in_flight + waiting
        self._max_bytes = max_bytes
        self._held = 0
        self._bytes = 0
        # Putters are woken in bursts, when there is room for more than one.
        self._low = self._max_held - min(self._in_flight, waiting) // 2
        self._ready: deque[tuple[Hashable, Event, Settle]] = deque()
        # Of each key that has an event ready or under way, those that come after it.
        self._behind: dict[Hashable, deque[tuple[Event, Settle]] | None] = {}
        self._idle: dict[asyncio.Task[None], asyncio.Future[None]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._putters: list[asyncio.Future[None]] = []
        self._quiet: asyncio.Future[None] | None = None
        self._drains = 0
        self._draining = 0
        self._closed = False
        self._lost: GivenBack | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Window:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.drain()
        finally:
            self._closed = True
            for worker in self._workers:
                worker.cancel()
            if isinstance(error, asyncio.CancelledError):
                await self._tasks.__aexit__(kind, error, trace)
            else:
                # The group would wrap the source's own error in an ExceptionGroup.
                await self._tasks.__aexit__(None, None, None)

    async def put(self, event: Event, settled: Settle, partition: Hashable = None) -> bool:
        """Take one event for delivery; ``settled`` is called with its outcome.

        ``partition`` is what keeps order in the source where keys do not (None: nothing does).
        Returns False, and takes nothing, when the window drains or drained while this waited for
        room: the event belongs to the source again. Raises ``GivenBack`` when the binding is
        gone. Cancelled, it took nothing.
        """
        taken = not self._draining
        if taken and (self._putters or self._full(event)):
            taken = await self._room(event)
        if self._lost is not None:
            raise self._lost
        if not taken:
            return False
        self._held += 1
        self._bytes += len(event.data)
        key: Hashable = None
        if self._order is Order.KEY:
            key = event.key if event.key is not None else _in_partition(partition)
        elif self._order is Order.PARTITION:
            key = _in_partition(partition)
        if key is not None:
            if key in self._behind:
                behind = self._behind[key]
                if behind is None:
                    behind = self._behind[key] = deque()
                behind.append((event, settled))
                return True
            self._behind[key] = None
        self._ready.append((key, event, settled))
        if self._idle or len(self._workers) < self._in_flight:
            self._call_worker()
        return True

    async def drain(self, grace: float | None = None) -> None:
        """Let attempts under way end within ``grace`` seconds (default: the subscription's); give
        everything else back.

        Deliveries that wait for another attempt and events that wait for their lane are given
        back at once: their source brings them again. Afterwards ``put`` works again.
        """
        self._drains += 1
        self._draining += 1
        self._emit.release()
        try:
            self._forget_waiting()
            for turn in self._putters:
                _wake(turn)
            if not await self._still(self._grace if grace is None else grace):
                for worker in self._workers - self._idle.keys():
                    worker.cancel()
                await self._still(None)
        finally:
            self._draining -= 1
            if not self._draining:
                self._emit.resume()

    async def _still(self, timeout: float | None) -> bool:
        """Wait until nothing is under way. False: it took longer than ``timeout`` seconds."""
        if len(self._workers) > len(self._idle):
            if self._quiet is None:
                self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._quiet], timeout=timeout)
        return len(self._workers) == len(self._idle)

    def _full(self, event: Event) -> bool:
        return self._held > 0 and (
            self._held >= self._max_held or self._bytes + len(event.data) > self._max_bytes
        )

    async def _room(self, event: Event) -> bool:
        """Wait for room. False: a drain came instead, or the binding went."""
        drains = self._drains
        turn = asyncio.get_running_loop().create_future()
        self._putters.append(turn)
        try:
            while self._drains == drains and self._lost is None:
                if self._putters[0] is turn and not self._full(event):
                    return True
                if turn.done():
                    # Only the first is woken for room: a large event is not overtaken for ever.
                    turn = self._putters[0] = asyncio.get_running_loop().create_future()
                await turn
            return False
        finally:
            self._putters.remove(turn)
            if self._putters:
                _wake(self._putters[0])

    def _call_worker(self) -> None:
        if self._idle:
            _wake(self._idle.popitem()[1])
        elif len(self._workers) < self._in_flight:
            self._workers.add(self._tasks.create_task(self._work()))

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        ready = self._ready
        try:
            while not self._closed:
                if not ready:
                    await self._rest(task)
                    continue
                key, event, settled = ready.popleft()
                try:
                    outcome = await self._emit(event)
                except GivenBack as gone:
                    if not self._draining:
                        # The binding went: what follows under any key must not pass this event.
                        self._lost = gone
                        self._forget_waiting()
                else:
                    settled(outcome)
                finally:
                    self._done(key, event)
        except BaseException as error:
            self._workers.discard(task)
            self._idle.pop(task, None)
            self._tell_quiet()
            if not isinstance(error, asyncio.CancelledError):
                self._closed = True  # the group now ends the others, and the source's loop
            elif self._ready and not self._closed:
                # An event was put while this worker, already cancelled, still counted.
                self._call_worker()
            raise

    async def _rest(self, task: asyncio.Task[None]) -> None:
        """Wait to be called."""
        waiter = self._idle[task] = asyncio.get_running_loop().create_future()
        self._tell_quiet()
        await waiter

    def _tell_quiet(self) -> None:
        if self._quiet is not None and len(self._workers) == len(self._idle):
            self._quiet.set_result(None)
            self._quiet = None

    def _done(self, key: Hashable, event: Event) -> None:
        self._held -= 1
        self._bytes -= len(event.data)
        if key is not None:
            behind = self._behind[key]
            if behind:
                self._ready.append((key, *behind.popleft()))
            else:
                del self._behind[key]
        if self._putters and self._held <= self._low:
            _wake(self._putters[0])

    def _forget_waiting(self) -> None:
        for key, event, _ in self._ready:
            self._forget(event)
            if key is not None:
                behind = self._behind.pop(key)
                for event, _ in behind or ():
                    self._forget(event)
        self._ready.clear()
        for key, behind in self._behind.items():
            for event, _ in behind or ():
                self._forget(event)
            self._behind[key] = None

    def _forget(self, event: Event) -> None:
        self._held -= 1
        self._bytes -= len(event.data)


def _in_partition(partition: Hashable) -> Hashable:
    # A tuple never equals a key, which is text.
    return None if partition is None else (partition,)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class OffsetTracker:
    """Settled offsets of one partition or shard, as the contiguous prefix that may be committed.

    Offsets begin in ascending order; gaps (compaction, transactions) cost nothing. An open
    event never lets a later one pass it.
    """

    __slots__ = ("_last", "_open")

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # insertion order is offset order
        self._last: int | None = None

    def begin(self, offset: int) -> None:
        """An event was taken from the source. Raises ValueError unless offsets ascend."""
        if self._last is not None and offset <= self._last:
            raise ValueError(f"offset {offset} begins after {self._last}")
        self._open[offset] = None
        self._last = offset

    def pass_to(self, offset: int) -> None:
        """Nothing below ``offset`` is still to come from the source: what has not begun is no
        event, such as the marker at a transaction's end."""
        if self._last is None or self._last < offset - 1:
            self._last = offset - 1

    def settle(self, offset: int) -> None:
        """The event's outcome is known. Raises KeyError unless it is open."""
        del self._open[offset]

    def committable(self) -> int | None:
        """The offset to go on from after a restart: the oldest open one, else the one after all
        that was taken or passed; None when nothing ever was."""
        if self._open:
            return next(iter(self._open))
        return None if self._last is None else self._last + 1

    def open(self) -> int:
        """How many events are taken and not settled."""
        return len(self._open)
