"""Ticks: on time, on record, once."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from triggerhub.connector import (
    GivenBack,
    Installation,
    Order,
    Position,
    PositionConflict,
    Sought,
    Subscription,
    alone,
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
    takes: float = 0.0
    """Seconds that a write takes."""

    async def load(self, prefix: str = "") -> dict[str, Position]:
        self._check("load", prefix)
        return {key: value for key, value in self.kept.items() if key.startswith(prefix)}

    async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
        self._check("save", key)
        if self.takes:
            await asyncio.sleep(self.takes)
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
        self.told: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.work: Callable[[Event], Awaitable[None]] = self._hold

    async def _hold(self, event: Event) -> None:
        await self.open.wait()

    async def __call__(self, event: Event) -> Outcome:
        self.events.append(event)
        self.times.append(asyncio.get_running_loop().time())
        await self.work(event)
        return ACCEPTED

    def release(self) -> None:
        self.told.append("release")

    def resume(self) -> None:
        self.told.append("resume")

    @property
    def ids(self) -> list[str]:
        return [event.id[11:19] for event in self.events]


class Reported:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.message = ""

    def connected(self, reason: str = "Connected", message: str = "") -> None:
        self.seen.append(reason)
        self.message = message

    def disconnected(self, reason: str, message: str = "") -> None:
        self.seen.append(reason)

    def lag(self, events: float, parts: object = None) -> None: ...
    def turned_away(self, reason: str) -> None: ...
    def sought(self, seek: Sought) -> None: ...


def _id(time_of_day: str) -> str:
    return f"2026-11-23T{time_of_day}Z"


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
    shared: bool = True
    """Its positions are those of other processes, too."""

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
            own=self._own if self.shared else alone,
            turn=self._turn,
        )

    async def _own(self) -> None:
        await self.mine.wait()

    async def _turn(self) -> float:
        return self.since

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with self.connector, asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.connector.listen(self.subscription()))
            try:
                yield
            finally:
                task.cancel()

    @property
    def record(self) -> dict[str, Any]:
        """What the store has of its ticks."""
        found: dict[str, Any] = json.loads(self.positions.kept["ticks"].value)
        found.pop("plan")
        return found

    def keep(self, past: str, *open_: str) -> None:
        """Have another process's record in the store."""
        before = self.positions.kept.get("ticks", Position("", 0))
        plan = json.loads(before.value)["plan"] if before.value else CronSource.model_validate(
            self.source).plan().mark  # fmt: skip
        text = json.dumps({"past": _id(past), "plan": plan, "open": [_id(one) for one in open_]})
        self.positions.kept["ticks"] = Position(text, before.revision + 1)

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
    assert rig.report.seen == ["Connected"]


@pytest.mark.looptime
async def test_ticks_come_on_time_and_leave_nothing_on_record_but_the_last() -> None:
    rig = Rig()
    assert await rig.run(185) == ["12:01:00", "12:02:00", "12:03:00"]
    assert rig.function.times == pytest.approx([60, 120, 180], abs=0.01)
    assert rig.record == {"past": _id("12:03:00")}


@pytest.mark.looptime
async def test_schedules_due_in_the_same_instant_fire_once() -> None:
    rig = Rig(source={"schedule": ["0 * * * *", "*/30 * * * *", "@every 30m"]})
    assert await rig.run(3700) == ["12:30:00", "13:00:00"]


@pytest.mark.looptime
async def test_a_slow_function_delays_no_tick_while_there_is_room_in_flight() -> None:
    rig = Rig(in_flight=3, grace=0.0)
    rig.function.open.clear()
    assert await rig.run(305) == ["12:01:00", "12:02:00", "12:03:00"]


@pytest.mark.looptime
async def test_a_tick_that_finds_room_within_a_minute_is_late_and_not_missed() -> None:
    rig = Rig(in_flight=1)
    rig.function.open.clear()
    asyncio.get_running_loop().call_later(170, rig.function.open.set)
    assert await rig.run(185) == ["12:01:00", "12:02:00", "12:03:00"]
    assert rig.function.times == pytest.approx([60, 170, 180], abs=0.01)
    assert rig.report.seen == ["Connected"]


@pytest.mark.looptime
async def test_a_tick_that_was_under_way_is_sent_again_first_under_its_id() -> None:
    rig = Rig(in_flight=2, grace=5.0)
    rig.function.open.clear()
    assert await rig.run(185) == ["12:01:00", "12:02:00"]
    assert rig.record == {"past": _id("12:02:00"), "open": [_id("12:01:00"), _id("12:02:00")]}
    rig.function.open.set()
    rig.clock.step(3600)
    assert await rig.run(45) == ["12:01:00", "12:02:00", "13:03:00"]
    assert "open" not in rig.record


@pytest.mark.looptime
async def test_a_tick_that_goes_on_record_while_the_listener_stops_waits_for_the_next_one() -> None:
    rig = Rig(in_flight=2)
    rig.positions.takes = 5.0
    assert await rig.run(62) == []
    assert rig.record == {"past": _id("12:01:00"), "open": [_id("12:01:00")]}
    rig.positions.takes = 0.0
    assert await rig.run(1) == ["12:01:00"]


@pytest.mark.looptime
async def test_stopping_lets_a_tick_under_way_end_and_clears_its_record() -> None:
    rig = Rig(grace=25.0)
    rig.function.open.clear()
    asyncio.get_running_loop().call_later(75, rig.function.open.set)
    assert await rig.run(61) == ["12:01:00"]
    assert asyncio.get_running_loop().time() == pytest.approx(75, abs=0.1)
    assert rig.function.told == ["release", "resume"]
    assert rig.record == {"past": _id("12:01:00")}


# Ticks at 12:01 and 12:02; then nobody listens until 12:06:30.
@pytest.mark.looptime
@pytest.mark.parametrize(
    ("missed", "expected", "count"),
    [
        ({"missedRuns": "Skip"}, ["12:06:00"], 3),
        ({"missedRuns": "Last"}, ["12:06:00"], 3),
        ({"missedRuns": "All"}, ["12:03:00", "12:04:00", "12:05:00", "12:06:00"], 0),
        ({"missedRuns": "All", "missedRunsMaxAge": "3m"}, ["12:04:00", "12:05:00", "12:06:00"], 1),
    ],
)
async def test_what_falls_due_while_nobody_listens_is_accounted_for(
    missed: dict[str, object], expected: list[str], count: int
) -> None:
    rig = Rig(source={"schedule": "* * * * *", **missed})
    await rig.run(125)
    await asyncio.sleep(265)
    assert await rig.run(5) == expected
    assert rig.record.get("missed", 0) == count
    assert (f"{count} missed" in rig.report.message) == bool(count)
    assert ("TicksMissed" in rig.report.seen) == bool(count)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ({"missedRuns": "Skip"}, []),
        ({"missedRuns": "Last"}, ["16:00:00"]),
        ({"missedRuns": "Last", "missedRunsMaxAge": "10m"}, []),
        ({"missedRuns": "All"}, ["13:00:00", "14:00:00", "15:00:00", "16:00:00"]),
        ({"missedRuns": "All", "missedRunsMaxAge": "2h"}, ["15:00:00", "16:00:00"]),
    ],
)
async def test_what_is_missed_before_the_first_tick_is_known_to_the_next_hub(
    missed: dict[str, object], expected: list[str]
) -> None:
    rig = Rig(source={"schedule": "@hourly", **missed})
    await rig.run(60)
    await asyncio.sleep(4.25 * 3600)
    rig.created = NOON + timedelta(hours=4)  # a folder's manifests are as old as their hub
    assert await rig.run(60) == expected


@pytest.mark.looptime
async def test_many_missed_ticks_are_made_up_for_in_order_as_many_at_once_as_may_be() -> None:
    rig = Rig(source={"schedule": "*/10 * * * * *", "missedRuns": "All"}, in_flight=4)
    await rig.run(11)
    rig.clock.step(7200)
    assert len(await rig.run(1)) == 720
    assert [event.id for event in rig.function.events] == sorted(
        event.id for event in rig.function.events
    )
    assert "open" not in rig.record


@pytest.mark.looptime
async def test_what_is_settled_at_about_one_time_is_written_at_one_time() -> None:
    class Noting(MemoryPositions):
        async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
            if "open" not in json.loads(value):
                written.append(asyncio.get_running_loop().time())
            return await super().save(key, value, expect=expect)

    written: list[float] = []
    rigs = [Rig(), Rig()]
    connector = rigs[0].connector
    async with connector, asyncio.TaskGroup() as tasks:
        for number, rig in enumerate(rigs):
            rig.positions = Noting()
            rig.function.work = lambda event, n=number: asyncio.sleep(n / 100)  # type: ignore[misc]
        both = [tasks.create_task(connector.listen(rig.subscription())) for rig in rigs]
        await asyncio.sleep(61)
        for task in both:
            task.cancel()
    assert written == pytest.approx([60.05] * 2, abs=0.01)
    assert written[0] == written[1]


@pytest.mark.looptime
async def test_a_schedule_that_changed_promises_nothing_of_the_time_before() -> None:
    rig = Rig(source={"schedule": "@daily", "missedRuns": "All"})
    await rig.run(60)
    rig.source = {"schedule": "* * * * *", "missedRuns": "All"}
    await asyncio.sleep(600)
    assert await rig.run(61) == ["12:12:00"]


@pytest.mark.looptime
async def test_a_slot_that_fired_does_not_fire_again_after_a_restart() -> None:
    rig = Rig()
    assert await rig.run(60.1) == ["12:01:00"]
    rig.clock.step(-0.5)
    assert await rig.run(30) == []


@pytest.mark.looptime
async def test_two_processes_with_one_record_send_each_tick_once() -> None:
    rig = Rig()
    other = CronConnector(Installation(), clock=rig.clock)
    async with rig.connector, other, asyncio.TaskGroup() as tasks:
        both = [
            tasks.create_task(connector.listen(rig.subscription()))
            for connector in (rig.connector, other)
        ]
        await asyncio.sleep(605)
        for task in both:
            task.cancel()
    assert rig.function.ids == [f"12:{minute:02}:00" for minute in range(1, 11)]
    assert rig.record == {"past": _id("12:10:00")}


@pytest.mark.looptime
async def test_what_another_process_decided_or_has_under_way_is_left_to_it() -> None:
    rig = Rig()
    async with rig.listening():
        await asyncio.sleep(30)
        rig.keep("12:03:00", "12:03:00")
        await asyncio.sleep(220)
    assert rig.function.ids == ["12:04:00"]
    assert rig.record == {"past": _id("12:04:00"), "open": [_id("12:03:00")]}


@pytest.mark.looptime
async def test_a_tick_under_way_in_another_process_is_sent_again_only_once_that_has_ended() -> None:
    rig = Rig(since=NOON.timestamp() + 121)
    rig.mine.clear()
    async with rig.listening():
        await asyncio.sleep(190)
        assert rig.report.seen == ["Connected"]
        # The other one sent three ticks, and ended with the second under way.
        rig.keep("12:03:00", "12:02:00")
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
@pytest.mark.parametrize(("shared", "expected"), [(True, 58), (False, 2)])
async def test_a_record_of_ones_own_does_not_tell_what_others_sent(
    shared: bool, expected: int
) -> None:
    rig = Rig(source={"schedule": "* * * * *", "missedRuns": "All"}, shared=shared)
    await rig.run(65)
    rig.clock.step(3500)
    rig.since = rig.clock() - 120
    assert len(await rig.run(1)) == expected


@pytest.mark.looptime
async def test_what_fell_due_before_the_trigger_was_there_is_not_made_up_for() -> None:
    rig = Rig(since=NOON.timestamp(), created=NOON + timedelta(seconds=61))
    rig.clock.step(61)
    assert await rig.run(60) == ["12:02:00"]


@pytest.mark.looptime
async def test_a_record_of_an_older_hub_is_understood() -> None:
    rig = Rig()
    rig.positions.kept = {
        "last": Position(_id("11:59:00"), 1), f"tick:{_id('11:58:00')}": Position("", 2)
    }  # fmt: skip
    assert await rig.run(61) == ["11:58:00", "12:00:00", "12:01:00"]
    assert set(rig.positions.kept) == {"ticks"}


@pytest.mark.looptime
@pytest.mark.parametrize(("shared", "reads"), [(True, 2), (False, 1)])
async def test_a_record_is_read_once_where_nobody_shares_it(shared: bool, reads: int) -> None:
    rig = Rig(shared=shared)
    calls: list[str] = []

    def note(call: str, key: str) -> bool:
        calls.append(call)
        return False

    rig.positions.broken = note
    assert await rig.run(61) == ["12:01:00"]
    assert calls.count("load") == reads


@pytest.mark.looptime
@pytest.mark.parametrize("shared", [True, False])
async def test_a_store_that_cannot_be_read_shows_at_once(shared: bool) -> None:
    rig = Rig(shared=shared)
    rig.mine.clear()
    rig.positions.broken = lambda call, key: call == "load"
    async with rig.connector:
        with pytest.raises(OSError, match="the disk is full"):
            async with asyncio.timeout(5):
                await rig.connector.listen(rig.subscription())
    assert rig.report.seen == []


@pytest.mark.looptime
async def test_a_record_that_nobody_wrote_is_named() -> None:
    rig = Rig()
    rig.positions.kept = {"ticks": Position('{"past": 5}', 1)}
    async with rig.connector:
        with pytest.raises(OSError, match="record of this trigger cannot be read"):
            await rig.connector.listen(rig.subscription())


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
async def test_a_suspend_makes_up_for_what_the_trigger_says() -> None:
    rig = Rig(source={"schedule": "* * * * *", "missedRuns": "All"})
    async with rig.listening():
        await asyncio.sleep(15)
        rig.clock.step(180)
        await asyncio.sleep(2)
        assert rig.function.ids == ["12:01:00", "12:02:00", "12:03:00"]


@pytest.mark.looptime
async def test_a_clock_set_back_fires_no_slot_twice() -> None:
    rig = Rig()
    async with rig.listening():
        await asyncio.sleep(125)
        rig.clock.step(-100)
        await asyncio.sleep(170)
    assert rig.function.ids == ["12:01:00", "12:02:00", "12:03:00"]


@pytest.mark.looptime
@pytest.mark.parametrize(("ticks", "days"), [(0, 1000), (1, 1000), (0, 0.5)])
async def test_a_clock_that_was_ahead_does_not_silence_the_trigger(ticks: int, days: float) -> None:
    rig = Rig(start=NOON + timedelta(days=days))
    async with rig.listening():
        await asyncio.sleep(30 + 60 * ticks)
        rig.clock.step(-days * 86400)
        await asyncio.sleep(60)
    assert rig.function.events[-1].id == f"2026-11-23T12:0{ticks + 1}:00Z"
    assert len(rig.function.events) == ticks + 1


@pytest.mark.looptime
async def test_forbid_skips_what_is_due_while_a_tick_is_under_way_and_says_so() -> None:
    rig = Rig(source={"schedule": "* * * * *", "concurrency": "Forbid"})
    async with rig.listening():
        rig.function.open.clear()
        await asyncio.sleep(190)
        assert rig.function.ids == ["12:01:00"]
        assert "TicksSkipped" in rig.report.seen
        rig.function.open.set()
        await asyncio.sleep(60)
        assert rig.function.ids == ["12:01:00", "12:04:00"]
    assert rig.record["skipped"] == 2
    assert (
        rig.report.message
        == "ticks since 2026-11-23T12:02:00Z: 2 skipped because one was under way"
    )


@pytest.mark.looptime
async def test_forbid_makes_up_for_missed_ticks_one_after_the_other() -> None:
    rig = Rig(source={"schedule": "* * * * *", "concurrency": "Forbid", "missedRuns": "All"})
    await rig.run(65)
    rig.clock.step(300)
    most = 0

    async def slow(event: Event) -> None:
        nonlocal most
        most = max(most, len(rig.record.get("open", ())))
        await asyncio.sleep(1)

    rig.function.work = slow
    assert await rig.run(30) == [f"12:0{minute}:00" for minute in range(2, 7)]
    assert most == 1
    assert "skipped" not in rig.record


@pytest.mark.looptime
async def test_replace_ends_the_tick_under_way_and_sends_the_next_one() -> None:
    rig = Rig(source={"schedule": "* * * * *", "concurrency": "Replace"})
    ended: list[str] = []

    async def hang(event: Event) -> None:
        try:
            await asyncio.sleep(150)
        finally:
            await asyncio.sleep(0.25)  # what it takes to end: the next one waits for that
            ended.append(f"{event.id[11:16]} after {asyncio.get_running_loop().time():.0f} s")

    rig.function.work = hang
    async with rig.listening():
        await asyncio.sleep(185)
        assert rig.function.ids == ["12:01:00", "12:02:00", "12:03:00"]
        assert ended == ["12:01 after 120 s", "12:02 after 180 s"]
        assert rig.function.times == pytest.approx([60, 120.25, 180.25], abs=0.01)
        assert rig.record["open"] == [_id("12:03:00")]
        assert rig.record["replaced"] == 2
        assert "TicksReplaced" in rig.report.seen
    assert rig.record["open"] == [_id("12:03:00")]


@pytest.mark.looptime
async def test_what_was_not_sent_is_told_for_a_day() -> None:
    rig = Rig(source={"schedule": "*/30 * * * *", "concurrency": "Forbid"})
    async with rig.listening():
        rig.function.open.clear()
        await asyncio.sleep(3601)
        rig.function.open.set()
        await asyncio.sleep(0.5)
        assert "1 skipped" in rig.report.message
        rig.clock.step(20 * 3600)
        await asyncio.sleep(1800)
        assert rig.report.message.startswith("ticks since 2026-11-23T13:00:00Z: 39 missed, 1 skip")
        rig.clock.step(3 * 3600)
        await asyncio.sleep(1800)
        assert "since 2026-11-24T" not in rig.report.message
        rig.clock.step(3600)
        await asyncio.sleep(1800)
        assert rig.report.message.startswith("ticks since 2026-11-24T")
        assert "skipped" not in rig.report.message


@pytest.mark.looptime
async def test_a_schedule_that_has_ended_says_so() -> None:
    rig = Rig(source={"schedule": "* * * * *", "until": "2026-11-23T12:02:00Z"})
    async with rig.listening():
        await asyncio.sleep(59)
        assert rig.report.seen == ["Connected"]
        await asyncio.sleep(300)
    assert rig.function.ids == ["12:01:00"]
    assert rig.report.seen[-1] == "ScheduleEnded"


@pytest.mark.looptime
async def test_jitter_delays_each_tick_by_its_own_and_the_same_in_every_process() -> None:
    rig = Rig(source={"schedule": "* * * * *", "jitter": "30s"})
    assert len(await rig.run(659)) == 10
    late = [at - 60 * (n + 1) for n, at in enumerate(rig.function.times)]
    assert all(0 <= one < 30.01 for one in late)
    assert max(late) - min(late) > 5
    assert all(event.id.endswith(":00Z") for event in rig.function.events)
    plan = rig.subscription().source.plan("shop/tick")
    slot = plan.after(NOON.timestamp())
    assert slot is not None
    assert slot.at - NOON.timestamp() == pytest.approx(rig.function.times[0], abs=0.01)


@pytest.mark.looptime
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_store_that_fails_loses_no_tick_and_repeats_none(number: int) -> None:
    rig = Rig()
    calls = []

    def broken(name: str, key: str) -> bool:
        calls.append(name)
        return failing and name == "save" and calls.count("save") >= number

    failing = True
    rig.positions.broken = broken
    async with rig.connector:
        with pytest.raises(OSError, match="the disk is full"):
            await rig.connector.listen(rig.subscription())
    failing = False
    lost = 1 + (number - 1) // 2
    rig.clock.step(300)
    await rig.run(100)
    assert rig.function.ids.count(f"12:0{lost}:00") == 1
    assert set(rig.record) <= {"past", "missed", "since"}


@pytest.mark.looptime
async def test_a_tick_that_could_not_be_taken_off_the_record_is_not_sent_again() -> None:
    rig = Rig()
    away = False

    async def accept(event: Event) -> None:
        nonlocal away
        away = True

    rig.function.work = accept
    rig.positions.broken = lambda call, key: away and call == "save"
    async with rig.connector:
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is full"):
                await rig.connector.listen(rig.subscription())
    assert rig.record["open"] == [_id("12:01:00")]
    rig.positions.broken = lambda call, key: False
    await rig.run(61)
    assert rig.function.ids == ["12:01:00", "12:02:00", "12:03:00"]
    assert "open" not in rig.record


@pytest.mark.looptime
async def test_a_store_that_takes_long_to_fail_is_asked_once_for_the_ticks_that_queue_up() -> None:
    class Slow(MemoryPositions):
        async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
            await asyncio.sleep(5.0)
            raise OSError("no answer")

    rig = Rig(source={"schedule": "* * * * * *"})
    rig.positions = Slow()
    began = asyncio.get_running_loop().time()
    async with rig.connector:
        with pytest.raises(OSError, match="no answer"):
            await rig.connector.listen(rig.subscription())
    assert asyncio.get_running_loop().time() - began < 8.0


@pytest.mark.looptime
async def test_a_binding_that_is_gone_ends_listening_and_keeps_the_tick() -> None:
    async def gone(event: Event) -> None:
        raise GivenBack("gone")

    rig = Rig()
    rig.function.work = gone
    async with rig.connector:
        with pytest.raises(GivenBack):
            async with asyncio.timeout(150):
                await rig.connector.listen(rig.subscription())
    assert rig.record["open"] == [_id("12:01:00")]


async def test_on_the_real_clock_ticks_come_every_second() -> None:
    came: list[float] = []

    async def note(event: Event) -> None:
        assert event.time is not None
        came.append(time.time() - event.time.timestamp())

    rig = Rig(source={"schedule": "* * * * * *"})
    rig.connector = CronConnector(Installation())
    rig.function.work = note
    async with asyncio.timeout(10), rig.listening():
        while len(came) < 2:
            await asyncio.sleep(0.05)
    assert all(0 <= late < 0.5 for late in came)
