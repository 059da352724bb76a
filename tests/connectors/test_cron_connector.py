"""Ticks: on time, on record, once."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from triggerhub.connector import (
    GivenBack,
    Installation,
    Order,
    Position,
    PositionConflict,
    Sought,
    Subscription,
)
from triggerhub.event import Event, Outcome, Settled
from triggerhub.testing.fakes import MemoryIntake
from triggerhub_cron import CronConnector, CronSource

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ACCEPTED = Outcome(Settled.ACCEPTED)


class Clock:
    """Wall time that follows the event loop's, and can be set."""

    def __init__(self, start: datetime) -> None:
        self.offset = start.timestamp() - asyncio.get_running_loop().time()

    def __call__(self) -> float:
        return self.offset + asyncio.get_running_loop().time()

    def step(self, seconds: float) -> None:
        self.offset += seconds


@dataclass
class MemoryPositions:
    """Positions of one subscription; ``broken`` says which call fails."""

    kept: dict[str, Position] = field(default_factory=dict)
    broken: Callable[[str, str], bool] = lambda call, key: False

    async def load(self, prefix: str = "") -> dict[str, Position]:
        self._check("load", prefix)
        return {key: value for key, value in self.kept.items() if key.startswith(prefix)}

    async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
        self._check("save", key)
        revision = self.kept[key].revision if key in self.kept else 0
        if expect is not None and expect != revision:
            raise PositionConflict(key)
        self.kept[key] = Position(value, revision + 1)
        return revision + 1

    async def delete(self, key: str) -> None:
        self._check("delete", key)
        self.kept.pop(key, None)

    async def claim(self, key: str, ttl: float) -> bool:
        raise NotImplementedError

    async def release(self, key: str) -> None:
        raise NotImplementedError

    def _check(self, call: str, key: str) -> None:
        if self.broken(call, key):
            raise OSError(f"the disk is full: {call} {key}")


class Function:
    """Records events; holds them while ``open`` is cleared."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.times: list[float] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, event: Event) -> Outcome:
        self.events.append(event)
        self.times.append(asyncio.get_running_loop().time())
        await self.open.wait()
        return ACCEPTED

    def release(self) -> None: ...

    def resume(self) -> None: ...

    @property
    def ids(self) -> list[str]:
        return [event.id[11:19] for event in self.events]


class Reported:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def connected(self, reason: str = "Connected", message: str = "") -> None:
        self.seen.append("connected")

    def disconnected(self, reason: str, message: str = "") -> None:
        self.seen.append(reason)

    def lag(self, events: float, parts: object = None) -> None: ...
    def turned_away(self, reason: str) -> None: ...
    def sought(self, seek: Sought) -> None: ...


@dataclass
class Rig:
    """One trigger, its clock, store and function."""

    start: datetime = NOON
    source: dict[str, object] = field(default_factory=lambda: {"schedule": "* * * * *"})
    in_flight: int = 64
    grace: float = 25.0
    created: datetime = NOON
    since: float = math.inf
    """What its turn brings."""

    def __post_init__(self) -> None:
        self.mine = asyncio.Event()
        self.mine.set()
        self.clock = Clock(self.start)
        self.positions = MemoryPositions()
        self.function = Function()
        self.report = Reported()
        self.connector = CronConnector(Installation(), clock=self.clock)

    def subscription(self) -> Subscription[CronSource]:
        return Subscription(
            name="shop.tick.handle",
            namespace="shop",
            trigger="tick",
            function="handle",
            source=CronSource.model_validate(self.source),
            emit=self.function,
            order=Order.KEY,
            in_flight=self.in_flight,
            grace=self.grace,
            positions=self.positions,
            inbox=MemoryIntake(),
            report=self.report,
            created=self.created,
            own=self._own,
            turn=self._turn,
        )

    async def _own(self) -> None:
        await self.mine.wait()

    async def _turn(self) -> float:
        return self.since

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.connector.listen(self.subscription()))
            try:
                yield
            finally:
                task.cancel()

    async def run(self, seconds: float) -> list[str]:
        """Listen for so long; the ids that came meanwhile."""
        before = len(self.function.ids)
        async with self.listening():
            await asyncio.sleep(seconds)
        return self.function.ids[before:]


@pytest.mark.looptime
async def test_a_tick_bears_its_due_time_and_the_triggers_data() -> None:
    rig = Rig(source={"schedule": "30 * * * *", "data": {"n": 1}})
    await rig.run(3600)
    (event,) = rig.function.events
    assert event.id == "2026-11-23T12:30:00Z"
    assert event.source == "/cron/shop/tick"
    assert event.type == "dev.triggerhub.cron.tick"
    assert event.time == NOON + timedelta(minutes=30)
    assert (event.data, event.datacontenttype) == (b'{"n":1}', "application/json")
    assert rig.report.seen == ["connected"]


@pytest.mark.looptime
async def test_ticks_come_on_time_and_leave_nothing_on_record_but_the_last() -> None:
    rig = Rig()
    assert await rig.run(185) == ["12:01:00", "12:02:00", "12:03:00"]
    assert rig.function.times == pytest.approx([60, 120, 180], abs=0.01)
    assert {key: kept.value for key, kept in rig.positions.kept.items()} == {
        "last": "2026-11-23T12:03:00Z"
    }


@pytest.mark.looptime
async def test_schedules_due_in_the_same_instant_fire_once() -> None:
    rig = Rig(source={"schedule": ["0 * * * *", "*/30 * * * *"]})
    assert await rig.run(3700) == ["12:30:00", "13:00:00"]


@pytest.mark.looptime
async def test_a_slow_function_delays_no_tick_while_there_is_room_in_flight() -> None:
    rig = Rig(in_flight=3, grace=0.0)
    rig.function.open.clear()
    assert await rig.run(305) == ["12:01:00", "12:02:00", "12:03:00"]


@pytest.mark.looptime
async def test_a_tick_that_was_under_way_is_sent_again_first_under_its_id() -> None:
    rig = Rig(in_flight=2, grace=5.0)
    rig.function.open.clear()
    assert await rig.run(185) == ["12:01:00", "12:02:00"]
    assert sorted(rig.positions.kept) == [
        "tick:2026-11-23T12:01:00Z",
        "tick:2026-11-23T12:02:00Z",
        "tick:2026-11-23T12:03:00Z",
    ]
    rig.function.open.set()
    rig.clock.step(3600)
    assert await rig.run(60) == ["12:01:00", "12:02:00", "12:03:00", "13:04:00"]
    assert sorted(rig.positions.kept) == ["last"]


@pytest.mark.looptime
async def test_stopping_lets_a_tick_under_way_end_and_clears_its_record() -> None:
    rig = Rig(grace=25.0)
    rig.function.open.clear()
    asyncio.get_running_loop().call_later(75, rig.function.open.set)
    assert await rig.run(61) == ["12:01:00"]
    assert asyncio.get_running_loop().time() == pytest.approx(75, abs=0.1)
    assert sorted(rig.positions.kept) == ["last"]


@pytest.mark.looptime
async def test_what_falls_due_while_nobody_listens_is_missed() -> None:
    rig = Rig()
    await rig.run(65)
    await asyncio.sleep(180)
    assert await rig.run(60) == ["12:05:00"]


@pytest.mark.looptime
async def test_a_slot_that_fired_does_not_fire_again_after_a_restart() -> None:
    rig = Rig()
    assert await rig.run(60.1) == ["12:01:00"]
    rig.clock.step(-0.5)
    assert await rig.run(30) == []


@pytest.mark.looptime
async def test_a_slot_that_another_process_took_is_skipped() -> None:
    rig = Rig()
    async with rig.listening():
        await asyncio.sleep(30)
        rig.positions.kept["tick:2026-11-23T12:01:00Z"] = Position("", 1)
        await asyncio.sleep(60)
        rig.positions.kept["last"] = Position("2026-11-23T12:02:00Z", 1)
        await asyncio.sleep(100)
    assert rig.function.ids == ["12:03:00"]
    assert "tick:2026-11-23T12:02:00Z" not in rig.positions.kept


@pytest.mark.looptime
async def test_a_tick_under_way_in_another_process_is_sent_again_only_once_that_has_ended() -> None:
    rig = Rig(since=NOON.timestamp() + 121)
    rig.mine.clear()
    async with rig.listening():
        await asyncio.sleep(30)
        assert rig.report.seen == ["connected"]
        # The other one sends three ticks, and ends with the second under way.
        for minute in (1, 2, 3):
            rig.positions.kept[f"tick:2026-11-23T12:0{minute}:00Z"] = Position("", 1)
        await asyncio.sleep(160)
        rig.positions.kept["last"] = Position("2026-11-23T12:03:00Z", 1)
        del rig.positions.kept["tick:2026-11-23T12:01:00Z"]
        del rig.positions.kept["tick:2026-11-23T12:03:00Z"]
        assert rig.function.ids == []
        rig.mine.set()
        await asyncio.sleep(60)
    assert rig.function.ids == ["12:02:00", "12:04:00"]


@pytest.mark.looptime
async def test_what_fell_due_since_the_last_sign_of_life_of_another_is_made_up_for() -> None:
    rig = Rig(since=NOON.timestamp() + 59)
    rig.mine.clear()
    asyncio.get_running_loop().call_later(65, rig.mine.set)
    assert await rig.run(70) == ["12:01:00"]


@pytest.mark.looptime
async def test_what_fell_due_before_the_trigger_was_there_is_not_made_up_for() -> None:
    rig = Rig(since=NOON.timestamp(), created=NOON + timedelta(seconds=61))
    rig.clock.step(61)
    assert await rig.run(60) == ["12:02:00"]


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("* * * * *", 45, ["12:01:00"]),
        ("* * * * *", 600, ["12:10:00"]),
        ("*/15 * * * *", 3600, ["13:00:00"]),
        ("*/15 * * * *", 3720, []),
        ("*/20 * * * * *", 50, ["12:00:20", "12:00:40", "12:01:00", "12:01:20"]),
    ],
)
async def test_a_clock_set_forward_fires_what_is_less_than_a_minute_late(
    schedule: str, step: float, expected: list[str]
) -> None:
    rig = Rig(source={"schedule": schedule})
    async with rig.listening():
        await asyncio.sleep(15)
        rig.clock.step(step)
        await asyncio.sleep(15.1)
        assert rig.function.ids == expected


@pytest.mark.looptime
async def test_a_clock_set_back_fires_no_slot_twice() -> None:
    rig = Rig()
    async with rig.listening():
        await asyncio.sleep(125)
        rig.clock.step(-100)
        await asyncio.sleep(170)
    assert rig.function.ids == ["12:01:00", "12:02:00", "12:03:00"]


@pytest.mark.looptime
async def test_a_clock_set_right_before_the_first_tick_does_not_silence_the_trigger() -> None:
    rig = Rig()
    async with rig.listening():
        await asyncio.sleep(30)
        rig.clock.step(-86400)
        await asyncio.sleep(60)
    assert rig.function.ids == ["12:01:00"]


@pytest.mark.looptime
@pytest.mark.parametrize("call", ["save tick:", "load last", "save last", "delete tick:"])
async def test_a_store_that_fails_loses_no_tick(call: str) -> None:
    rig = Rig()
    failing = True
    rig.positions.broken = lambda name, key: failing and f"{name} {key}".startswith(call)
    with pytest.raises(OSError, match="the disk is full"):
        await rig.connector.listen(rig.subscription())
    failing = False
    rig.clock.step(300)
    await rig.run(100)
    assert rig.function.ids[0] == "12:01:00"
    assert set(rig.function.ids[1:]) >= {"12:07:00"}
    assert sorted(rig.positions.kept) == ["last"]


@pytest.mark.looptime
async def test_a_binding_that_is_gone_ends_listening_and_keeps_the_tick() -> None:
    class Gone(Function):
        async def __call__(self, event: Event) -> Outcome:
            raise GivenBack("gone")

    rig = Rig()
    rig.function = Gone()
    with pytest.raises(GivenBack):
        async with asyncio.timeout(150):
            await rig.connector.listen(rig.subscription())
    assert "tick:2026-11-23T12:01:00Z" in rig.positions.kept


async def test_on_the_real_clock_ticks_come_every_second() -> None:
    came: list[float] = []

    class Timed(Function):
        async def __call__(self, event: Event) -> Outcome:
            assert event.time is not None
            came.append(time.time() - event.time.timestamp())
            return ACCEPTED

    rig = Rig(source={"schedule": "* * * * * *"})
    rig.connector = CronConnector(Installation())
    rig.function = Timed()
    async with asyncio.timeout(10), rig.listening():
        while len(came) < 2:
            await asyncio.sleep(0.05)
    assert all(0 <= late < 0.5 for late in came)


def test_the_parser_is_not_imported_before_a_schedule_is_read() -> None:
    code = "import sys, triggerhub_cron; sys.exit('croniter' in sys.modules)"
    path = [entry for entry in sys.path if entry]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}"], check=True
    )
