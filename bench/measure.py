"""What every benchmark needs: a row of figures, a stretch of work, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from integration.hub import Hub

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside what it must reach."""

    what: str
    measured: str
    target: str
    met: bool

    def __str__(self) -> str:
        return (
            f"{'ok  ' if self.met else 'MISS'}  {self.what:<58} {self.measured:<34} {self.target}"
        )


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """A hub at one moment."""

    at: float
    """Seconds, of a clock that only goes forward."""
    settled: float
    """Events."""
    used: T
    """CPU so far, as it was asked for."""


@contextmanager
def program(name: str, *options: str) -> Iterator[str]:
    """The URL of one of this folder's, which prints its port and serves while the block runs."""
    command = [sys.executable, "-m", f"bench.{name}", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
    finally:
        process.terminate()
        process.wait(10)


def stretch(
    hub: Hub, events: float, used: Callable[[], T], *, pause: float = 0.25, within: float = 300.0
) -> tuple[Look[T], Look[T]]:
    """The first and the last look at a hub that is settling ``events``, while there are some left.

    When the last one is settled is known only to within a pause: in a run of three seconds a
    rate up to that look would be wrong by a twentieth, and always too low. Returns when all are
    settled. Raises AssertionError when that takes longer than ``within`` seconds, or they are
    more than there were.
    """
    first = last = Look(time.perf_counter(), hub.settled(), used())
    while (settled := hub.settled()) < events:
        last = Look(time.perf_counter(), settled, used())
        assert last.at - first.at < within, f"{settled} settled of {events}"
        time.sleep(pause)
    assert settled == events, f"{settled} settled of {events}"
    assert last.settled > first.settled, "all were settled before the second look"
    return first, last


def machine() -> str:
    """In one line: processor, cores, load."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.2f}"
