"""The store of one machine: a SQLite file that several processes may share."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import structlog

from triggerhub.store.database import Database
from triggerhub.store.inbox import SQLiteInbox, count_waiting, forget_old
from triggerhub.store.journal import SQLiteJournal
from triggerhub.store.letters import SQLiteDeadLetters
from triggerhub.store.positions import SQLitePositions
from triggerhub.store.records import Room, StoreError, Trouble, Waiting
from triggerhub.store.writer import Writer

_SWEEP_EVERY = 60.0
_SPARE_PAGES = 1_000
_PAGES_FREED_AT_ONCE = 2_000

log = structlog.get_logger(__name__)


class SQLiteStore:
    """``Store`` in ``directory``/triggerhub.db (WAL, synced at every commit).

    Safe for several processes of one machine, on a local file system. The event loop never
    waits for the disk: one thread does all of it, and what queues up behind it goes into one
    commit. Each store is a claim holder of its own.

    ``read_only``: needs no lock and changes nothing; what is written raises ``StoreError``.
    ``room``: of each inbox. ``clock``: seconds since the epoch.
    """

    def __init__(
        self,
        directory: Path,
        *,
        read_only: bool = False,
        room: Room = Room(),  # noqa: B008 - a value
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._room = room
        self._read_only = read_only
        self._clock = clock
        self._holder = secrets.token_hex(16)
        self._writer = Writer(Database(directory, read_only=read_only))
        self._dead_letters = SQLiteDeadLetters(self._writer, clock)
        self._journal = SQLiteJournal(self._writer, clock)
        self._tasks = asyncio.TaskGroup()
        self._scribe: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> Trouble | None:
        """Of the last write."""
        text = self._writer.trouble
        return Trouble(text, refused=False) if text else None

    @property
    def dead_letters(self) -> SQLiteDeadLetters:
        return self._dead_letters

    @property
    def journal(self) -> SQLiteJournal:
        return self._journal

    def positions(self, subscription: str) -> SQLitePositions:
        """Positions and claims of one subscription."""
        subscription.encode()
        return SQLitePositions(self._writer, subscription, self._holder, self._clock)

    def inbox(self, binding: str) -> SQLiteInbox:
        """What was accepted for one binding and is not delivered yet."""
        binding.encode()
        return SQLiteInbox(self._writer, binding, self._room, self._clock)

    async def waiting(self) -> dict[str, Waiting]:
        """What each inbox holds, by binding. Raises ``StoreError``."""
        return await self._writer.read(count_waiting)

    async def __aenter__(self) -> SQLiteStore:
        await self._writer.open()
        await self._tasks.__aenter__()
        self._tasks.create_task(self._writer.serve())
        if not self._read_only:
            self._scribe = self._tasks.create_task(self._journal.keep_writing())
            self._sweeper = self._tasks.create_task(self._keep_sweeping())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for what is queued."""
        try:
            self._journal.stop()
            if self._sweeper is not None:
                self._sweeper.cancel()
            if self._scribe is not None:
                await asyncio.wait([self._scribe])
        finally:
            self._writer.stop()
            try:
                # Not told of the block's own error, which would cancel the writer at its work.
                await self._tasks.__aexit__(None, None, None)
            finally:
                await self._writer.close()

    async def sweep(self) -> None:
        """Drop ended claims, windows that are over, and what the journal need not keep; give free
        pages of the file back. Runs by itself every minute. Raises ``StoreError``."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM claims WHERE expires <= ?", (self._clock(),))
            forget_old(db, self._clock())
            self._journal.bound(db)

        def shrink(db: sqlite3.Connection) -> None:
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            for _ in range(min(free - _SPARE_PAGES, _PAGES_FREED_AT_ONCE)):
                # One by one: the pragma frees a page a step, and Python takes only one step of
                # a statement that returns no columns.
                db.execute("PRAGMA incremental_vacuum(1)")

        await self._writer.write(write)
        await self._writer.write(shrink)

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            try:
                await self.sweep()
            except StoreError as error:
                log.warning("store.sweep_failed", error=str(error))
            self._journal.report_lost()
