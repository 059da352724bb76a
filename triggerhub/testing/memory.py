"""A source in memory, and the connector for it: an example of how to write one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from triggerhub.connector import Progress, SourceModel, Subscription
from triggerhub.event import Event, Outcome
from triggerhub.window import OffsetTracker, Window


@dataclass(slots=True)
class MemoryLog:
    """Keyed records in order, and how far each subscription has settled them."""

    name: str
    records: list[tuple[str | None, bytes]] = field(default_factory=list)
    committed: dict[str, int] = field(default_factory=dict)
    """By subscription name: the offset to go on from."""
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, data: bytes, key: str | None = None) -> int:
        """Returns the record's offset."""
        self.records.append((key, data))
        self._more.set()
        return len(self.records) - 1

    async def read(self, offset: int) -> tuple[str | None, bytes]:
        """Wait for the record at an offset."""
        while offset >= len(self.records):
            self._more.clear()
            await self._more.wait()
        return self.records[offset]


class MemorySource(SourceModel):
    """``spec.source`` of a MemoryTrigger."""

    log: str


class MemoryConnector:
    """Reads logs in memory, each subscription from the log's end on when it is new."""

    kind = "MemoryTrigger"
    source = MemorySource

    def __init__(self, logs: Mapping[str, MemoryLog]) -> None:
        self._logs = logs

    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        """Raises ``ConnectionError`` when there is no such log."""
        log = self._log(subscription)
        tracker = OffsetTracker()
        offset = log.committed.setdefault(subscription.name, len(log.records))

        def settled(offset: int, outcome: Outcome) -> None:
            tracker.settle(offset)
            position = tracker.committable()
            assert position is not None
            log.committed[subscription.name] = position

        async with Window(subscription) as window:
            subscription.report.connected()
            while True:
                event = _event(log, offset, *await log.read(offset))
                tracker.begin(offset)
                await window.put(event, partial(settled, offset), log.name)
                offset += 1

    async def replay(
        self,
        subscription: Subscription[MemorySource],
        since: datetime | str,
        until: datetime | str | None,
        progress: Progress,
    ) -> None:
        """Positions are offsets: ``17``."""
        log = self._log(subscription)
        begin, end = _offset(since), len(log.records) if until is None else _offset(until)
        end = min(end, len(log.records))
        progress.window(max(0, end - begin), str(end))
        tracker = OffsetTracker()
        over = asyncio.Event()

        def settled(offset: int, outcome: Outcome) -> None:
            tracker.settle(offset)
            reached = tracker.committable()
            assert reached is not None
            progress.reached(reached - begin, str(reached))
            if reached == end:
                over.set()

        async with Window(subscription) as window:
            for offset in range(begin, end):
                tracker.begin(offset)
                event = _event(log, offset, *log.records[offset])
                await window.put(event, partial(settled, offset), log.name)
            if begin < end:
                await over.wait()

    def _log(self, subscription: Subscription[MemorySource]) -> MemoryLog:
        log = self._logs.get(subscription.source.log)
        if log is None:
            raise ConnectionError(f"there is no log {subscription.source.log!r} in memory")
        return log


def _offset(position: datetime | str) -> int:
    if isinstance(position, datetime) or not position.isascii() or not position.isdigit():
        raise ValueError(f"found {position!s}, expected an offset such as 17")
    return int(position)


def _event(log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
    return Event(
        id=str(offset),
        source=f"/memory/{log.name}",
        type="dev.triggerhub.memory.record",
        data=data,
        key=key,
    )
