"""One thread that touches the disk, and the queue before it: what waits goes in one commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from triggerhub.store.database import Database, Done
from triggerhub.store.records import StoreError

T = TypeVar("T")
Item = TypeVar("Item")
WriteAll = Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]]

_MAX_WORKS = 512
_MAX_BYTES = 16 * 1024 * 1024


class _Job(NamedTuple):
    future: asyncio.Future[Any]
    read: Callable[[sqlite3.Connection], Any] | None
    write: WriteAll[Any, Any] | None
    item: Any
    size: int


class Writer:
    """Carries works to the database's thread. ``serve`` runs beside it, as a task of the owner."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="triggerhub-store")
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._state = "not open"

    @property
    def trouble(self) -> str:
        """Why nothing could be written, the last time that something was to be; or ""."""
        return self._database.trouble

    async def open(self) -> None:
        """Open the database. Raises ``StoreError``."""
        if self._state != "not open":
            raise RuntimeError("a store is opened once")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.open)
        except BaseException:
            self._end()
            raise
        self._state = "open"

    async def write(self, work: Callable[[sqlite3.Connection], T], *, size: int = 0) -> T:
        """In a transaction; durable on return. ``size``: bytes, about. Raises ``StoreError`` and
        what the work raises."""
        return await self.write_together(lambda db, _: (work(db),), None, size=size)

    def write_together(
        self, write: WriteAll[Item, T], item: Item, *, size: int = 0
    ) -> asyncio.Future[T]:
        """As ``write``. What queues up for the same function is given to it together, in the order
        in which it came, for as many results: at each statement the thread gives Python's lock to
        the event loop and has to get it back, so a few for all cost far less than a few for each.
        Where it raises, each item is tried alone."""
        return self._submit(None, write, item, size)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Raises ``StoreError`` and what the work raises."""
        result: T = await self._submit(work, None, None, 0)
        return result

    def check_room(self, size: int, reserve: int) -> None:
        """For works that let the file grow: see ``Database.check_room``. Raises ``StoreError``."""
        self._database.check_room(size, reserve)

    async def serve(self) -> None:
        """Until ``stop``; what is queued by then is still done."""
        loop = asyncio.get_running_loop()
        batch: list[_Job] = []
        try:
            while True:
                while not self._jobs:
                    if self._state == "closed":
                        return
                    self._wake.clear()
                    await self._wake.wait()
                batch = self._take()
                done = await loop.run_in_executor(self._thread, self._run, batch)
                for job, result in done:
                    _settle(job.future, result)
        finally:
            self._state = "closed"
            for job in (*batch, *self._jobs):
                _settle(job.future, Done(error=self._refusal()))
            self._jobs.clear()

    def stop(self) -> None:
        """Take nothing more; ``serve`` ends when the queue is empty."""
        self._state = "closed"
        self._wake.set()

    async def close(self) -> None:
        """Close the database, after ``serve`` ended."""
        self._state = "closed"
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        finally:
            self._end()

    def _end(self) -> None:
        self._state = "closed"
        # Also where a cancellation cut ``open`` or ``close`` short: the connection belongs to
        # the thread, so it is closed there, as the thread's last work.
        self._thread.submit(self._database.close)
        self._thread.shutdown(wait=True)

    def _submit(
        self,
        read: Callable[[sqlite3.Connection], Any] | None,
        write: WriteAll[Any, Any] | None,
        item: Any,
        size: int,
    ) -> asyncio.Future[Any]:
        if self._state != "open":
            raise self._refusal()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(future, read, write, item, size))
        self._wake.set()
        return future

    def _take(self) -> list[_Job]:
        batch: list[_Job] = []
        size = 0
        while self._jobs and len(batch) < _MAX_WORKS:
            if batch and size + self._jobs[0].size > _MAX_BYTES:
                break
            job = self._jobs.popleft()
            if not job.future.done():  # its caller was cancelled: nobody counts on it
                batch.append(job)
                size += job.size
        return batch

    def _run(self, batch: list[_Job]) -> list[tuple[_Job, Done]]:
        """In the thread. Reads come after the commit, so that they never see what is undone."""
        alike: dict[Any, list[_Job]] = {}
        for job in batch:
            if job.write is not None:
                alike.setdefault(job.write, []).append(job)
        done = self._write(list(alike.values())) if alike else []
        done += [(job, self._database.read(job.read)) for job in batch if job.read is not None]
        return done

    def _write(self, groups: list[list[_Job]]) -> list[tuple[_Job, Done]]:
        done: list[tuple[_Job, Done]] = []
        works = [partial(_write_all, jobs) for jobs in groups]
        for jobs, result in zip(groups, self._database.write(works), strict=True):
            if result.error is None:
                done += zip(jobs, map(Done, result.value), strict=True)
            elif len(jobs) == 1:
                done.append((jobs[0], result))
            else:
                done += self._write([[job] for job in jobs])
        return done

    def _refusal(self) -> StoreError:
        return StoreError(f"the store {self._database.file} is {self._state}")


def _write_all(jobs: Sequence[_Job], db: sqlite3.Connection) -> Sequence[Any]:
    write = jobs[0].write
    assert write is not None
    return write(db, [job.item for job in jobs])


def _settle(future: asyncio.Future[Any], done: Done) -> None:
    if future.done():
        return
    if done.error is not None:
        future.set_exception(done.error)
    else:
        future.set_result(done.value)
