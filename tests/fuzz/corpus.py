"""Inputs that showed a fuzzer something new, or that once failed: a line each, readable."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_FOLDER = Path(__file__).with_name("found")


def kept(name: str) -> list[bytes]:
    """Those of ``tests.fuzz.NAME``."""
    place = _FOLDER / f"{name}.txt"
    lines = place.read_text().splitlines() if place.exists() else []
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines]


def keep(name: str, inputs: Iterable[bytes]) -> None:
    lines = {data.decode("latin-1").encode("unicode_escape").decode() for data in inputs}
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in sorted(lines)))
