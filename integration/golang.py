"""Go, which gets and builds what no other package manager has, once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from integration.servers import cached, say, unavailable


def needs_go(hint: str) -> None:
    """Skip or fail where there is none. ``hint``: what for, and what to do about it."""
    if shutil.which("go") is None:
        unavailable(hint)


def go(folder: Path, *arguments: str, hint: str, **environ: str) -> str:
    """Run it there; returns what it prints. Skips or fails where it fails."""
    done = subprocess.run(
        ["go", *arguments], cwd=folder, capture_output=True, text=True, timeout=1800, check=False,
        env=os.environ | environ,
    )  # fmt: skip
    if done.returncode != 0:
        said = f"go {arguments[0]} {arguments[-1]} failed: {done.stderr[-1500:]}"
        unavailable(f"{said}\n{hint}")
    return done.stdout


def built(name: str, package: str, version: str, *, takes: str, hint: str) -> Path:
    """The program of that name, which ``package`` builds: from source, once for each version."""

    def build(folder: Path) -> None:
        needs_go(hint)
        say(name, f"building {version} from source: once, {takes}")
        what = ("-ldflags=-s -w", f"{package}@v{version}")
        go(folder, "install", *what, hint=hint, GOBIN=str(folder), CGO_ENABLED="0")

    return cached(f"{name}-{version}", build) / name
