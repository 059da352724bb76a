"""One thread that touches the disk, and the queue before it: what waits goes in one commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from triggerhub.store.database import Database, Done
from triggerhub.store.records import StoreError

T = TypeVar("T")

_MAX_WORKS = 512
_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    writes: bool
    size: int


class Writer:
    """Carries works to the database's thread. ``serve`` runs beside it, as a task of the owner."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="triggerhub-store")
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._state = "not open"

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
        return await self._submit(work, writes=True, size=size)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Raises ``StoreError`` and what the work raises."""
        return await self._submit(work, writes=False, size=0)

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
                for job, result in zip(batch, done, strict=True):
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

    async def _submit(
        self, work: Callable[[sqlite3.Connection], T], *, writes: bool, size: int
    ) -> T:
        if self._state != "open":
            raise self._refusal()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(work, future, writes, size))
        self._wake.set()
        return await future

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

    def _run(self, batch: list[_Job]) -> list[Done]:
        """In the thread. Reads come after the commit, so that they never see what is undone."""
        writes = [job for job in batch if job.writes]
        written = iter(self._database.write([job.work for job in writes]) if writes else ())
        return [next(written) if job.writes else self._database.read(job.work) for job in batch]

    def _refusal(self) -> StoreError:
        return StoreError(f"the store {self._database.file} is {self._state}")


def _settle(future: asyncio.Future[Any], done: Done) -> None:
    if future.done():
        return
    if done.error is not None:
        future.set_exception(done.error)
    else:
        future.set_result(done.value)
