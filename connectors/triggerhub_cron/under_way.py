"""The ticks of one subscription that are under way: on record before they are sent, and until they
are settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from triggerhub.connector import GivenBack, PositionConflict, Subscription
from triggerhub.event import Event
from triggerhub_cron.record import COUNTS, KEY, Record, Unwritten, tick_id
from triggerhub_cron.source import CronSource
from triggerhub_cron.timer import Timer


class UnderWay:
    """Sends ticks, and keeps the record and the store alike."""

    __slots__ = ("_asked", "_draining", "_emitting", "_held", "_lock", "_look", "_mark",
                 "_revision", "_running", "_saved", "_subscription", "_tasks", "_timer",
                 "_unwritten", "ended", "record")  # fmt: skip

    def __init__(
        self,
        subscription: Subscription[CronSource],
        mark: str,
        timer: Timer,
        tasks: asyncio.TaskGroup,
        unwritten: Unwritten,
        look: Callable[[], None],
    ) -> None:
        """``mark``: of the plan. ``look`` is called when there may be room for a tick more, and
        when another process has decided more slots."""
        self._subscription = subscription
        self._mark = mark
        self._timer = timer
        self._tasks = tasks
        self._unwritten = unwritten
        self._look = look
        self.record = Record(0, "")
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with what no tick can be sent after: ``OSError``, ``GivenBack``."""
        self._revision = 0
        self._asked = self._saved = 0
        self._held: frozenset[int] = frozenset()
        """Those of ``open`` that are on record as this process's."""
        self._lock: asyncio.Lock | None = None
        self._running: dict[int, asyncio.Task[None]] = {}
        self._emitting: frozenset[int] = frozenset()
        """Those whose delivery has begun."""
        self._draining = False

    async def recall(self) -> bool:
        """Read the record; False: there is none."""
        positions = self._subscription.positions
        stored = await positions.load()
        record = Record.read(stored, self._mark)
        if KEY in stored:
            self._revision = stored[KEY].revision
        if record is None:
            return False
        self.record, self._held = record, frozenset(record.open)
        record.open -= self._unwritten.settled.get(self._subscription.name, set())
        old = record.old_keys(stored)
        if old:
            await self.save()
            for key in old:
                await positions.delete(key)
        return True

    def send(self, due: int) -> None:
        """Under way from now on."""
        self._begin(due, [])

    def replace(self, due: int) -> None:
        """The same, in the place of those under way."""
        before = list(self._running.values())
        replaced = set(self.record.open)
        self.record.open -= replaced
        self.record.replaced += len(replaced)
        for one in replaced & self._emitting:
            self._running[one].cancel()
        self._begin(due, before)

    def _begin(self, due: int, before: list[asyncio.Task[None]]) -> None:
        self.record.open.add(due)
        self._running[due] = self._tasks.create_task(self._deliver(due, before))

    async def save(self) -> None:
        """Return when the record as it is now is in the store."""
        await self._save(self._ask())

    async def _deliver(self, due: int, before: list[asyncio.Task[None]]) -> None:
        """Put one tick on record, send it, and take it off. What is not in ``open`` any more was
        replaced."""
        record, name = self.record, self._subscription.name
        written = settled = False
        try:
            await self._save(self._ask(), beginning=True)
            written = True
            if before:
                await asyncio.wait(before)
            if due not in record.open or self._draining:
                return
            self._emitting |= {due}
            await self._subscription.emit(self._event(due))
            self._emitting -= {due}
            if due in record.open:
                record.open.discard(due)
                settled = True
                wanted = self._ask()
                self._look()
                if not self._draining:
                    # Nobody waits for this: what many settle at about one time is one commit.
                    await self._timer.linger()
                await self._save(wanted)
        except asyncio.CancelledError:
            if due in record.open or self._draining:
                raise
        except GivenBack as gone:
            if not self._draining:
                self._fail(gone)
        except OSError as error:
            if not written:
                self._unwritten.begun.setdefault(name, due)
            elif settled:
                self._unwritten.settled.setdefault(name, set()).add(due)
            self._fail(error)
        finally:
            self._emitting -= {due}
            del self._running[due]
            self._look()

    def _ask(self) -> int:
        """For ``_save``: the record as it is now."""
        self._asked += 1
        return self._asked

    async def _save(self, wanted: int, *, beginning: bool = False) -> None:
        """Return when the record as it was when ``wanted`` was asked for, or later, is in the
        store; what several want is one write. A tick that is ``beginning`` does not ask a store
        that has just failed: those that queue up while it is away would hold the end of this
        listener up, each for as long as it waits."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._saved >= wanted:
                return
            if beginning and self.ended.done():
                raise OSError("the store failed for the tick before")
            writes, held = self._asked, frozenset(self.record.open)
            positions = self._subscription.positions
            while True:
                try:
                    self._revision = await positions.save(
                        KEY, self.record.text(), expect=self._revision
                    )
                    break
                except PositionConflict:
                    await self._meet()
                    held &= self.record.open
            self._saved, self._held = writes, held
            self._unwritten.settled.pop(self._subscription.name, None)

    async def _meet(self) -> None:
        """Another process acts for this trigger, too: what it decided first is its own."""
        stored = await self._subscription.positions.load(KEY)
        self._revision = stored[KEY].revision if KEY in stored else 0
        record, theirs = self.record, Record.read(stored, self._mark)
        if theirs is None:
            return
        record.open -= {due for due in record.open - self._held if due <= theirs.past}
        record.others = theirs.open - self._held - record.open
        record.past = max(record.past, theirs.past)
        for count in COUNTS:
            setattr(record, count, max(getattr(record, count), getattr(theirs, count)))
        self._look()

    async def drain(self) -> None:
        """Attempts under way end within the grace time; every other tick stays on record."""
        self._draining = True
        emit = self._subscription.emit
        emit.release()
        try:
            if self._running:
                _, late = await asyncio.wait(
                    self._running.values(), timeout=self._subscription.grace
                )
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late)
        finally:
            emit.resume()
            if self.ended.done() and not self.ended.cancelled():
                self.ended.exception()  # seen: a second failure has nobody to tell

    def _fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    def _event(self, due: int) -> Event:
        subscription = self._subscription
        data, kind = subscription.source.payload()
        return Event(
            id=tick_id(due),
            source=f"/cron/{subscription.namespace}/{subscription.trigger}",
            type="dev.triggerhub.cron.tick",
            data=data,
            datacontenttype=kind,
            time=datetime.fromtimestamp(due, UTC),
        )
