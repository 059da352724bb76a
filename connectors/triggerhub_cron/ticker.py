"""One subscription's slots: which are sent, and what is told of the others."""

from __future__ import annotations

import asyncio
import math

from triggerhub.connector import Subscription, alone
from triggerhub_cron.plan import Plan, Slot
from triggerhub_cron.record import Record, Unwritten, tick_id
from triggerhub_cron.source import Concurrency, CronSource, MissedRuns
from triggerhub_cron.timer import Timed, Timer
from triggerhub_cron.under_way import UnderWay

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
    """Decides slot after slot. That all before it are decided goes on record with a tick."""

    __slots__ = ("_excused", "_fresh", "_plan", "_slot", "_subscription", "_timer", "_told",
                 "_under_way", "_unwritten", "_waits", "entry")  # fmt: skip

    def __init__(
        self,
        subscription: Subscription[CronSource],
        timer: Timer,
        tasks: asyncio.TaskGroup,
        unwritten: Unwritten,
    ) -> None:
        self._subscription = subscription
        self._timer = timer
        self._unwritten = unwritten
        self._plan: Plan = subscription.source.plan(
            f"{subscription.namespace}/{subscription.trigger}"
        )
        self._under_way = UnderWay(
            subscription, self._plan.mark, timer, tasks, unwritten, self._look
        )
        self._slot: Slot | None = None
        self._excused: int | None = None
        """A slot that is sent however late it is."""
        self._fresh = False
        """No slot was decided yet."""
        self._waits = False
        """For room."""
        self._told = -math.inf
        self.entry: tuple[float, int, Timed] | None = None

    async def run(self) -> None:
        """Until cancelled. Raises ``OSError`` when the store cannot be read or written, and
        ``GivenBack`` when the binding is gone."""
        subscription = self._subscription
        if subscription.own is alone:
            found = await self._under_way.recall()
            subscription.report.connected()
        else:
            # A store that cannot be read shows now, also where it is another process that ticks.
            await subscription.positions.load()
            subscription.report.connected()
            await subscription.own()
            found = await self._under_way.recall()
        try:
            for due in sorted(self._record.open):
                self._under_way.send(due)
            since = await subscription.turn()
            self._begin(found, since)
            if not found and subscription.source.missed_runs is not MissedRuns.SKIP:
                # What a hub misses that ends before the first tick is known to the next one.
                await self._under_way.save()
            self._timer.add(self, None if self._slot is None else self._slot.at)
            await self._under_way.ended
        finally:
            self._timer.remove(self)
            await self._under_way.drain()

    @property
    def _record(self) -> Record:
        return self._under_way.record

    def _begin(self, found: bool, since: float) -> None:
        """Which slot comes first. ``since``: see ``Subscription.turn``."""
        record, now = self._record, self._timer.clock()
        self._excused = self._unwritten.begun.pop(self._subscription.name, None)
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
            self._under_way.replace(slot.due)
            return True
        room = 1 if source.concurrency is Concurrency.FORBID else self._subscription.in_flight
        if len(record.open) < room:
            self._under_way.send(slot.due)
            return True
        if source.concurrency is Concurrency.FORBID and now - slot.at <= _PROMPT:
            record.skipped += 1
            return True
        self._waits = True
        return False

    def _look(self) -> None:
        """There may be room for the slot that waits; or another process decided it."""
        slot = self._slot
        if slot is not None and slot.due <= self._record.past:
            # The timer comes when this one was due, and goes on to the next.
            self._slot = slot = self._plan.after(self._record.past)
        if self._waits:
            self._waits = False
            self._timer.arm(self, None if slot is None else slot.at)

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
