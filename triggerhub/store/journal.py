"""The journal: deliveries worth explaining, for a day, written behind the traffic."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

import structlog

from triggerhub.store.codec import delivery_of, delivery_text, searchable
from triggerhub.store.records import Delivery, StoreError
from triggerhub.store.writer import Writer

MAX_AGE = 24 * 3600.0
MAX_ROWS = 100_000
MAX_FOUND = 1_000

_MAX_QUEUED = 10_000
_DELAY = 0.5
_GROUP = 1_000

log = structlog.get_logger(__name__)


class QueuedJournal(ABC):
    """What is noted is written within a second. ``keep_writing`` runs beside it, as a task of the
    owner."""

    def __init__(self) -> None:
        self._queued: deque[Delivery] = deque()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._lost = 0

    def note(self, delivery: Delivery) -> None:
        """Queue for writing. Beyond 10 000 queued, what comes is lost and counted."""
        if len(self._queued) >= _MAX_QUEUED:
            self._lost += 1
            return
        self._queued.append(delivery)
        self._wake.set()

    async def find(self, event_id: str, source: str = "") -> Sequence[Delivery]:
        """Newest first, the latest thousand. Raises ``StoreError``."""
        # What waits stays in the queue until it is written: looked at first, nothing is
        # missed, and what gets there in between is seen twice.
        waiting = [
            noted
            for noted in reversed(self._queued)
            if noted.id == event_id and source in ("", noted.source)
        ]
        written = await self._read(event_id, source)
        known = set(written)
        return [*(noted for noted in waiting if noted not in known), *written][:MAX_FOUND]

    async def keep_writing(self) -> None:
        """Until ``stop``; what is queued by then is still written."""
        stopping = False
        while not stopping:
            await self._wake.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_DELAY):
                    await self._stopping.wait()
            self._wake.clear()
            # Read before the flush, so that one comes after the last ``note`` before ``stop``.
            stopping = self._stopping.is_set()
            await self._flush()
        self.report_lost()

    def stop(self) -> None:
        """Write what is queued, then end."""
        self._stopping.set()
        self._wake.set()

    def report_lost(self) -> None:
        """One log line for all that was lost since the last one."""
        if self._lost:
            log.warning("journal.lost", deliveries=self._lost)
            self._lost = 0

    async def _flush(self) -> None:
        while self._queued:
            group = list(islice(self._queued, _GROUP))
            try:
                self._lost += await self._write(group)
            except StoreError:
                self._lost += len(group)
            for _ in group:
                self._queued.popleft()

    @abstractmethod
    async def _write(self, group: Sequence[Delivery]) -> int:
        """Returns how many could not be written. Raises ``StoreError``: none could."""

    @abstractmethod
    async def _read(self, event_id: str, source: str) -> Sequence[Delivery]:
        """As ``find``, of what is written."""


class SQLiteJournal(QueuedJournal):
    """In the SQLite file."""

    def __init__(self, writer: Writer, clock: Callable[[], float]) -> None:
        super().__init__()
        self._writer = writer
        self._clock = clock

    async def _write(self, group: Sequence[Delivery]) -> int:
        await self._writer.write(partial(self._insert, group))
        return 0

    async def _read(self, event_id: str, source: str) -> Sequence[Delivery]:
        sought = searchable(event_id), searchable(source), MAX_FOUND

        def read(db: sqlite3.Connection) -> list[Delivery]:
            rows = db.execute(
                "SELECT delivery FROM deliveries WHERE event_id = ?1 AND ?2 IN ('', source)"
                " ORDER BY number DESC LIMIT ?3",
                sought,
            )
            return [delivery_of(text) for (text,) in rows]

        return await self._writer.read(read)

    def bound(self, db: sqlite3.Connection) -> None:
        """Drop what is too old or too many."""
        db.execute("DELETE FROM deliveries WHERE noted < ?", (self._clock() - MAX_AGE,))
        db.execute(
            "DELETE FROM deliveries WHERE number <= (SELECT max(number) FROM deliveries) - ?",
            (MAX_ROWS,),
        )

    def _insert(self, group: Sequence[Delivery], db: sqlite3.Connection) -> None:
        now = self._clock()
        db.executemany(
            "INSERT INTO deliveries (noted, event_id, source, delivery) VALUES (?, ?, ?, ?)",
            (
                (now, searchable(noted.id), searchable(noted.source), delivery_text(noted))
                for noted in group
            ),
        )
        self.bound(db)
