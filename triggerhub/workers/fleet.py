"""The workers as they are, and what each of them was last seen to count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triggerhub.workers.asking import ask
from triggerhub.workers.figures import Figures, Ledger, read_figures
from triggerhub.workers.process import Process
from triggerhub.workers.rows import Told

_PATIENCE = 10.0
"""Seconds that a worker's answer may take."""


@dataclass(slots=True)
class Worker:
    """One of the numbers from 1 to N, and the process that has it now."""

    number: int
    place: Path
    """The socket of its admin API."""
    process: Process | None = None
    waits: Sequence[str] = ("starts",)
    """What it was last seen to wait for; none: it is ready."""
    notes: Sequence[str] = ()
    """What troubles it although it is ready."""
    figures: Figures = field(default_factory=dict)
    """Its process's own, as last seen."""
    answered: bool = False
    """Whether a process of this number has ever answered."""

    def began(self, process: Process) -> None:
        self.process, self.waits, self.notes, self.figures = process, ("starts",), (), {}


class Fleet:
    """All of them, and what those before them had counted."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self._ledger = Ledger()
        self._looking = asyncio.Lock()

    @property
    def running(self) -> list[Worker]:
        """Those that have a process; the ready ones first."""
        there = [worker for worker in self.workers if worker.process is not None]
        return sorted(there, key=lambda worker: bool(worker.waits))

    def ended(self, worker: Worker) -> None:
        """Its process has."""
        self._ledger.close(worker.figures)
        worker.process, worker.waits, worker.notes = None, ("has ended",), ()
        worker.figures = {}

    def kill(self) -> None:
        """End all processes at once."""
        for worker in self.running:
            if worker.process is not None:
                worker.process.kill()

    async def look(self) -> None:
        """See how each stands and what it has counted."""
        # One at a time: an older answer must not be taken for a newer one.
        async with self._looking:
            async with asyncio.TaskGroup() as tasks:
                for worker in self.running:
                    tasks.create_task(self._look(worker))
            if all(not worker.waits for worker in self.workers):
                self._ledger.forget(worker.figures for worker in self.workers)

    def total(self, *more: Figures) -> Figures:
        """What they have counted, and those that have ended."""
        return self._ledger.total([*(worker.figures for worker in self.workers), *more])

    def waits(self) -> list[str]:
        """What the hub waits for, one line each; empty: it is ready."""
        return [f"worker {w.number}: {line}" for w in self.workers for line in w.waits]

    def notes(self) -> list[str]:
        """What troubles those that are ready, one line each."""
        return [f"worker {w.number}: {line}" for w in self.workers for line in w.notes]

    async def ill(self) -> list[str]:
        """What a start anew would cure, one line each."""
        async with asyncio.TaskGroup() as tasks:
            asked = [(w.number, tasks.create_task(_health(w))) for w in self.running]
        return [f"worker {number}: {task.result()}" for number, task in asked if task.result()]

    async def told(self, path: str, name: str) -> Told:
        """What each worker lists under ``name`` at that path; those that do not answer, or
        answer that there is nothing, are left out."""
        async with asyncio.TaskGroup() as tasks:
            asked = [
                (worker.number, tasks.create_task(_answer(worker.place, path)))
                for worker in sorted(self.running, key=lambda worker: worker.number)
            ]
        answers = [(number, task.result()) for number, task in asked]
        return [(number, found[name]) for number, found in answers if found is not None]

    async def _look(self, worker: Worker) -> None:
        process = worker.process
        try:
            ready, said = await ask(worker.place, "/readyz", within=_PATIENCE)
            status, figures = await ask(worker.place, "/metrics", within=_PATIENCE)
        except OSError:
            if worker.process is process and worker.figures:
                worker.waits = ("does not answer",)
            return
        # Else it has ended meanwhile, and its account is closed.
        if worker.process is process and status == 200:
            worker.answered = True
            lines = said.decode().splitlines()
            worker.waits, worker.notes = ((), lines[1:]) if ready == 200 else (lines, ())
            worker.figures = read_figures(figures.decode())


async def _health(worker: Worker) -> str:
    """Empty: it is well, or has only just begun."""
    try:
        status, said = await ask(worker.place, "/healthz", within=_PATIENCE)
    except OSError:
        return "does not answer" if worker.figures else ""
    return "" if status == 200 else said.decode().strip()


async def _answer(place: Path, path: str) -> dict[str, Any] | None:
    try:
        status, body = await ask(place, path, within=_PATIENCE)
    except OSError:
        return None
    if status != 200:
        return None
    found: dict[str, Any] = json.loads(body)
    return found
