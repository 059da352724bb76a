"""Listens to the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from triggerhub.connector import Installation, PositionConflict, Subscription
from triggerhub.event import Event, Outcome
from triggerhub.window import Window
from triggerhub_cron.schedule import next_due, read_zone
from triggerhub_cron.source import CronSource

LATEST = 60.0
"""Seconds that a tick may come late (suspend, a clock set forward, a full window)."""

_LONGEST_SLEEP = 30.0  # a suspend or a clock that was set is noticed so soon
_TICK = "tick:"
_LAST = "last"


class CronConnector:
    """Ticks at the times that a schedule names.

    A tick is on record before it is sent, and until it is settled: one that was under way when
    the process died is sent again, first, and under the same id. A tick whose record could not be
    written is sent when the store is back. What falls due while nobody listens is missed. Where
    a listener finds itself more than ``LATEST`` seconds late, only the last tick that is not so
    late is sent. A time at or before the last tick is not due again, whatever the clock says.
    """

    kind = "CronTrigger"
    source = CronSource

    def __init__(
        self, installation: Installation, *, clock: Callable[[], float] = time.time
    ) -> None:
        """``clock`` returns seconds since the epoch; waiting is the event loop's."""
        self._clock = clock
        self._unwritten: dict[str, int] = {}

    async def listen(self, subscription: Subscription[CronSource]) -> None:
        """Raises ``OSError`` when the store cannot be read or written."""
        failure: OSError | None = None
        try:
            await _Listener(subscription, self._clock, self._unwritten).run()
        except* OSError as group:
            failure = _first(group)
        if failure is not None:
            raise failure


class _Listener:
    """One subscription's ticks. It is the subscription's emit, too: a tick leaves the record
    as part of its delivery, so that a drain waits for that."""

    __slots__ = ("_clock", "_data", "_emit", "_last", "_source", "_subscription", "_type",
                 "_unwritten", "_zone")  # fmt: skip

    def __init__(
        self,
        subscription: Subscription[CronSource],
        clock: Callable[[], float],
        unwritten: dict[str, int],
    ) -> None:
        self._subscription = subscription
        self._clock = clock
        self._unwritten = unwritten
        self._zone = read_zone(subscription.source.time_zone)
        self._data, self._type = subscription.source.payload()
        self._source = f"/cron/{subscription.namespace}/{subscription.trigger}"
        self._emit = subscription.emit
        self._last = 0
        """The latest tick that was settled, as on record."""

    async def run(self) -> None:
        subscription = self._subscription
        # A store that cannot be read shows now, also where it is another process that ticks.
        await subscription.positions.load()
        subscription.report.connected()
        await subscription.own()
        stored = await subscription.positions.load()
        if _LAST in stored:
            self._last = _instant(stored[_LAST].value)
        pending = sorted(_instant(key.removeprefix(_TICK)) for key in stored if key != _LAST)
        async with Window(replace(subscription, emit=self)) as window:
            for due in pending:
                await window.put(self._event(due), _nothing)
            since = await subscription.turn()
            await self._tick(window, since, max(self._last, *pending, 0))

    async def _tick(self, window: Window, since: float, fired: int) -> None:
        """Fire what falls due later than ``fired``, from the time ``since`` on."""
        checked = self._clock()
        unwritten = self._unwritten.get(self._subscription.name)
        if unwritten is None:
            # Another replica may have died with ticks due: they are no later than ``LATEST``.
            created = self._subscription.created.timestamp()
            due = self._next(
                max(min(since, checked), checked - LATEST, min(created, checked), fired)
            )
        else:
            if unwritten > fired:
                fired = await self._fire(window, unwritten)
            del self._unwritten[self._subscription.name]
            due = self._next(fired)
        while True:
            now = self._clock()
            if now < checked:
                due = self._next(max(now, fired))
            checked = now
            if now < due:
                await asyncio.sleep(min(due - now, _LONGEST_SLEEP))
                continue
            late = self._last_until(now) if now - due > LATEST else int(due)
            if late is not None:
                fired = await self._fire(window, late)
            due = self._next(now if late is None else fired)

    async def _fire(self, window: Window, due: int) -> int:
        """Send one tick unless another process did. Returns ``due``."""
        key = _TICK + _name(due)
        try:
            if await self._take(key):
                await window.put(self._event(due), _nothing)
        except OSError:
            self._unwritten[self._subscription.name] = due
            raise
        return due

    async def _take(self, key: str) -> bool:
        positions = self._subscription.positions
        try:
            await positions.save(key, "", expect=0)
        except PositionConflict:
            return False
        # Whoever settles a tick writes "last" before it lets go of the tick's key.
        last = (await positions.load(_LAST)).get(_LAST)
        if last is not None and last.value >= key.removeprefix(_TICK):
            await positions.delete(key)
            return False
        return True

    async def __call__(self, event: Event) -> Outcome:
        outcome = await self._emit(event)
        positions = self._subscription.positions
        due = _instant(event.id)
        if due > self._last:
            self._last = due
            await positions.save(_LAST, event.id)
        await positions.delete(_TICK + event.id)
        return outcome

    def release(self) -> None:
        self._emit.release()

    def resume(self) -> None:
        self._emit.resume()

    def _next(self, after: float) -> float:
        due = next_due(self._subscription.source.schedules, self._zone, after)
        return float("inf") if due is None else due

    def _last_until(self, now: float) -> int | None:
        """The last time that is due in the ``LATEST`` seconds up to ``now``."""
        found: int | None = None
        due = self._next(now - LATEST)
        while due <= now:
            found = int(due)
            due = self._next(due)
        return found

    def _event(self, due: int) -> Event:
        return Event(
            id=_name(due),
            source=self._source,
            type="dev.triggerhub.cron.tick",
            data=self._data,
            datacontenttype=self._type,
            time=datetime.fromtimestamp(due, UTC),
        )


def _nothing(outcome: Outcome) -> None:
    """The record was cleared as part of the delivery."""


def _name(due: int) -> str:
    # RFC 3339 in UTC: names sort as the instants do.
    return f"{datetime.fromtimestamp(due, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _instant(name: str) -> int:
    return int(datetime.fromisoformat(name).timestamp())


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OSError)
    return error
