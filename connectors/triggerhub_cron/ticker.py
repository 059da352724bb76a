"""One subscription's ticks: which are sent, and that none is lost or sent twice."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime

from triggerhub.connector import GivenBack, PositionConflict, Subscription, alone
from triggerhub.event import Event
from triggerhub_cron.plan import Plan, Slot
from triggerhub_cron.record import COUNTS, KEY, Record, tick_id
from triggerhub_cron.source import Concurrency, CronSource, MissedRuns
from triggerhub_cron.timer import Timed, Timer

LATEST = 60.0
"""Seconds that a tick may come late (suspend, restart, no room in flight) and is not missed."""

_PROMPT = 2.0
"""Seconds within which a slot is looked at, unless nobody could: after a restart or a suspend what
is due waits for what is made up for, also where it would be skipped."""
_DAY = 86400
_COUNTED = 7 * _DAY
"""What was missed longer ago is not counted."""
_AT_ONCE = 100
_REASONS = {
    "missed": ("TicksMissed", "missed"),
    "skipped": ("TicksSkipped", "skipped because one was under way"),
    "replaced": ("TicksReplaced", "replaced by the next one"),
}
_QUIET = 60.0
"""Seconds between two reports of what was not sent."""


class Ticker:
    """Decides slot after slot. A slot that is sent is on record before that, and until it is
    settled; so is that all before it are decided."""

    __slots__ = ("_asked", "_draining", "_emitting", "_ended", "_excused", "_fresh", "_held",
                 "_lock", "_plan", "_record", "_revision", "_running", "_saved", "_slot",
                 "_subscription", "_tasks", "_timer", "_told", "_unwritten", "_waits",
                 "entry")  # fmt: skip

    def __init__(
        self,
        subscription: Subscription[CronSource],
        timer: Timer,
        tasks: asyncio.TaskGroup,
        unwritten: dict[str, int],
    ) -> None:
        """``unwritten``: by name, the due time of a tick that the store did not take."""
        self._subscription = subscription
        self._timer = timer
        self._tasks = tasks
        self._unwritten = unwritten
        self._plan: Plan = subscription.source.plan(
            f"{subscription.namespace}/{subscription.trigger}"
        )
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._record = Record(0, "")
        self._revision = 0
        self._asked = self._saved = 0
        self._held: frozenset[int] = frozenset()
        """Those of ``open`` that are on record as this process's."""
        self._lock: asyncio.Lock | None = None
        self._running: dict[int, asyncio.Task[None]] = {}
        self._emitting: frozenset[int] = frozenset()
        """Those whose delivery has begun."""
        self._slot: Slot | None = None
        self._excused: int | None = None
        """A slot that is sent however late it is."""
        self._fresh = False
        """No slot was decided yet."""
        self._draining = False
        self._waits = False
        """For room."""
        self._told = -math.inf
        self.entry: tuple[float, int, Timed] | None = None

    async def run(self) -> None:
        """Until cancelled. Raises ``OSError`` when the store cannot be read or written, and
        ``GivenBack`` when the binding is gone."""
        subscription = self._subscription
        if subscription.own is alone:
            found = await self._recall()
            subscription.report.connected()
        else:
            # A store that cannot be read shows now, also where it is another process that ticks.
            await subscription.positions.load()
            subscription.report.connected()
            await subscription.own()
            found = await self._recall()
        try:
            for due in sorted(self._record.open):
                self._send(due)
            since = await subscription.turn()
            self._begin(found, since)
            if not found and subscription.source.missed_runs is not MissedRuns.SKIP:
                # What a hub misses that ends before the first tick is known to the next one.
                await self._save(self._ask())
            self._timer.add(self, None if self._slot is None else self._slot.at)
            await self._ended
        finally:
            self._timer.remove(self)
            await self._drain()

    async def _recall(self) -> bool:
        """Read the record; False: there is none."""
        positions = self._subscription.positions
        stored = await positions.load()
        record = Record.read(stored, self._plan.mark)
        if KEY in stored:
            self._revision = stored[KEY].revision
        if record is None:
            return False
        self._record, self._held = record, frozenset(record.open)
        old = record.old_keys(stored)
        if old:
            await self._save(self._ask())
            for key in old:
                await positions.delete(key)
        return True

    def _begin(self, found: bool, since: float) -> None:
        """Which slot comes first. ``since``: see ``Subscription.turn``."""
        record, now = self._record, self._timer.clock()
        self._excused = self._unwritten.pop(self._subscription.name, None)
        if not found:
            created = self._subscription.created.timestamp()
            record.past = math.floor(max(min(since, now), min(created, now)))
            if self._excused is not None:
                record.past = min(record.past, self._excused - 1)
            self._fresh = True
        elif record.mark != self._plan.mark:
            # What the new plan would have had due earlier was never promised.
            record.past = math.floor(max(record.past, now) if record.past < now + _DAY else now)
        elif since < math.inf and self._subscription.own is alone:
            # The record is this process's alone, and others acted meanwhile.
            record.past = max(record.past, math.floor(since))
        record.mark = self._plan.mark
        longest = max(_COUNTED, self._subscription.source.missed_runs_max_age)
        record.past = max(record.past, math.floor(now - longest))
        self._slot = self._plan.after(record.past)
        self.set_back(now)
        self._forget(now)
        self._tell(now)

    def set_back(self, now: float) -> float | None:
        """A time at or before the last tick is not due again, unless the clock was so wrong that
        the trigger would be silent for more than a day."""
        record = self._record
        if (self._fresh and record.past > now) or record.past > now + _DAY:
            record.past = math.floor(now)
            self._slot = self._plan.after(now)
        return None if self._slot is None else self._slot.at

    def step(self, now: float) -> float | None:
        """Decide the slots that are due. Returns when the next one is; None: there is none, or it
        waits for room."""
        self._forget(now)
        record, before = self._record, self._record.unsent
        at = self._advance(now)
        if record.unsent != before or self._slot is None:
            self._tell(now)
        return at

    def _advance(self, now: float) -> float | None:
        for _ in range(_AT_ONCE):
            slot = self._slot
            if slot is None or slot.at > now:
                return None if slot is None else slot.at
            following = self._plan.after(slot.due)
            if not self._decide(slot, following, now):
                return None
            self._record.past = slot.due
            self._fresh = False
            self._slot = following
        return now

    def _decide(self, slot: Slot, following: Slot | None, now: float) -> bool:
        """False: the slot waits for room."""
        source, record = self._subscription.source, self._record
        late = now - slot.at > LATEST and slot.due != self._excused
        if late:
            overtaken = following is not None and following.at <= now
            lapsed = now - slot.at > source.missed_runs_max_age
            if source.missed_runs is MissedRuns.SKIP or lapsed or (
                source.missed_runs is MissedRuns.LAST and overtaken
            ):  # fmt: skip
                record.missed += 1
                return True
        if source.concurrency is Concurrency.REPLACE:
            self._replace(slot.due)
            return True
        room = 1 if source.concurrency is Concurrency.FORBID else self._subscription.in_flight
        if len(record.open) < room:
            self._send(slot.due)
            return True
        if source.concurrency is Concurrency.FORBID and now - slot.at <= _PROMPT:
            record.skipped += 1
            return True
        self._waits = True
        return False

    def _replace(self, due: int) -> None:
        """Send a tick in the place of those under way."""
        before = list(self._running.values())
        replaced = set(self._record.open)
        self._record.open -= replaced
        self._record.replaced += len(replaced)
        for one in replaced & self._emitting:
            self._running[one].cancel()
        self._send(due, before)

    def _send(self, due: int, before: list[asyncio.Task[None]] | None = None) -> None:
        self._record.open.add(due)
        self._running[due] = self._tasks.create_task(self._deliver(due, before or []))

    async def _deliver(self, due: int, before: list[asyncio.Task[None]]) -> None:
        """Put one tick on record, send it, and take it off. What is not in ``open`` any more was
        replaced."""
        record = self._record
        written = False
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
                wanted = self._ask()
                self._go_on()
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
                self._unwritten.setdefault(self._subscription.name, due)
            self._fail(error)
        finally:
            self._emitting -= {due}
            del self._running[due]
            self._go_on()

    def _go_on(self) -> None:
        """A slot that waits for room may have it now."""
        if self._waits:
            self._waits = False
            self._timer.arm(self, 0.0)

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
            if beginning and self._ended.done():
                raise OSError("the store failed for the tick before")
            writes, held = self._asked, frozenset(self._record.open)
            positions = self._subscription.positions
            while True:
                try:
                    self._revision = await positions.save(
                        KEY, self._record.text(), expect=self._revision
                    )
                    break
                except PositionConflict:
                    await self._meet()
                    held &= self._record.open
            self._saved, self._held = writes, held

    async def _meet(self) -> None:
        """Another process acts for this trigger, too: what it decided first is its own."""
        stored = await self._subscription.positions.load(KEY)
        self._revision = stored[KEY].revision if KEY in stored else 0
        record, theirs = self._record, Record.read(stored, self._plan.mark)
        if theirs is None:
            return
        record.open -= {due for due in record.open - self._held if due <= theirs.past}
        record.others = theirs.open - self._held - record.open
        record.past = max(record.past, theirs.past)
        for count in COUNTS:
            setattr(record, count, max(getattr(record, count), getattr(theirs, count)))
        if self._slot is not None and self._slot.due <= record.past:
            self._slot = self._plan.after(record.past)
            self._timer.arm(self, None if self._slot is None else self._slot.at)

    async def _drain(self) -> None:
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
            if self._ended.done() and not self._ended.cancelled():
                self._ended.exception()  # seen: a second failure has nobody to tell

    def _fail(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _tell(self, now: float) -> None:
        """Say what was not sent."""
        record, report = self._record, self._subscription.report
        told = [(reason, f"{count} {what}") for name, (reason, what) in _REASONS.items()
                if (count := getattr(record, name))]  # fmt: skip
        if told and not record.since:
            record.since = math.floor(now)
        if self._slot is None:
            reason = "ScheduleEnded"
            report.connected(reason, "nothing is due any more")
        elif told and not 0 <= now - self._told < _QUIET:
            self._told = now
            said = ", ".join(text for _, text in told)
            report.connected(told[0][0], f"ticks since {tick_id(record.since)}: {said}")

    def _forget(self, now: float) -> None:
        """What was told for a day is known."""
        record = self._record
        if record.since and now - record.since > _DAY:
            record.missed = record.skipped = record.replaced = record.since = 0
            self._told = -math.inf
            self._subscription.report.connected()

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
