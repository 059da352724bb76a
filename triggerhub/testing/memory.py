"""A source in memory, and the connector for it: an example of how to write one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from triggerhub.connector import SourceModel, Subscription
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
        log = self._logs.get(subscription.source.log)
        if log is None:
            raise ConnectionError(f"there is no log {subscription.source.log!r} in memory")
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
                key, data = await log.read(offset)
                event = Event(
                    id=str(offset),
                    source=f"/memory/{log.name}",
                    type="dev.triggerhub.memory.record",
                    data=data,
                    key=key,
                )
                tracker.begin(offset)
                await window.put(event, partial(settled, offset), log.name)
                offset += 1
