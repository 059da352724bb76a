"""Schedules and excluded days that a fuzzer makes up (``python -m tests.fuzz schedules``): each is
read, or refused with ``ScheduleError``, and what is read is due at ascending times."""

from __future__ import annotations

from collections.abc import Callable

from triggerhub_cron.faults import ScheduleError
from triggerhub_cron.plan import read_excluded
from triggerhub_cron.schedule import due_after, read_schedule, read_zone

SEEDS = (
    "*/15 9-17 * JAN-MAR MON-FRI", "0 0 L * 5#2", "0 22-2/3 1,15 * 5L", "@every 1h30m", "@hourly",
    "30 */5 2 28-3 NOV-FEB/2 Lfri", "0 0 29 2 *", "61 24 32 13 8", "0 0 1 1 * 0 2027",
    "2026-12-24", "12-25", "2026-12-27/2026-12-31", "TZ=UTC 0 9 * * *", "0 9 ? * monday",
)  # fmt: skip
ZONE = read_zone("Europe/Berlin")


def read(data: bytes) -> None:
    """One input: the first byte chooses what it is, and how it is text."""
    kind, text = data[:1], data[1:].decode("utf-8" if data[:1] < b"\x80" else "latin-1", "ignore")
    try:
        if kind[-1:] in (b"\x01", b"\x81"):
            read_excluded(text)
            return
        schedule = read_schedule(text)
    except ScheduleError:
        return
    moment = 1_774_700_000.0  # the day before a change of the clocks
    for _ in range(5):
        due = due_after(schedule, ZONE, moment)
        if due is None:
            break
        assert due > moment
        moment = due


def seeds() -> list[bytes]:
    """Where a fuzzer begins."""
    return [kind + seed.encode() for seed in SEEDS for kind in (b"\x00", b"\x01")]


def reading() -> Callable[[bytes], object]:
    return read
