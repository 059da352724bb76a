"""What every benchmark needs: a row of figures, and the machine they were taken on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


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
