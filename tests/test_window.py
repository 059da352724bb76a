"""Window and OffsetTracker."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerhub.connector import GivenBack, Order, SourceModel
from triggerhub.event import Event, Outcome, Settled
from triggerhub.testing.fakes import Gate, ScriptedEmit, accept, accepted, after, subscription
from triggerhub.window import OffsetTracker, Window

pytestmark = pytest.mark.looptime


def event(number: int, key: str | None = None, size: int = 0) -> Event:
    return Event(id=str(number), source="/test", type="test", key=key, data=bytes(size))


def ids(emit: ScriptedEmit) -> list[str]:
    return [call.event.id for call in emit.calls]


def window(
    emit: ScriptedEmit,
    *,
    order: Order = Order.KEY,
    in_flight: int = 4,
    grace: float = 10.0,
    max_waiting: int | None = None,
    max_bytes: int = 1000,
) -> Window:
    return Window(
        subscription(SourceModel(), emit=emit, order=order, in_flight=in_flight, grace=grace),
        max_waiting=max_waiting,
        max_bytes=max_bytes,
    )


class Settles:
    """Remembers which numbers were settled, in order."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def of(self, number: int) -> Callable[[Outcome], None]:
        return lambda outcome: self.numbers.append(number)


def nothing(outcome: Outcome) -> None: ...


async def ticks(count: int = 10) -> None:
    """Let everything that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("order", "key", "partition", "most"),
    [
        (Order.KEY, "same", ("t", 0), 1),
        (Order.KEY, None, ("t", 0), 1),
        (Order.KEY, None, None, 4),
        (Order.PARTITION, "any", ("t", 0), 1),
        (Order.PARTITION, "any", None, 4),
        (Order.NONE, "same", ("t", 0), 4),
    ],
)
async def test_a_lane_is_a_key_a_partition_or_nothing(
    order: Order, key: str | None, partition: Hashable, most: int
) -> None:
    emit = ScriptedEmit(after(1.0))
    async with window(emit, order=order) as held:
        for number in range(12):
            await held.put(event(number, key), nothing, partition)
        assert await emit.until(lambda: len(emit.settled) == 12, 100)
    assert emit.most == most
    assert ids(emit) == [str(number) for number in range(12)]


async def test_no_more_are_in_flight_than_the_subscription_says() -> None:
    emit = ScriptedEmit(after(1.0))
    settles = Settles()
    began = asyncio.get_running_loop().time()
    async with window(emit, in_flight=3) as held:
        for number in range(30):
            await held.put(event(number, f"k{number}"), settles.of(number))
        assert await emit.until(lambda: len(emit.settled) == 30, 100)
    assert emit.most == 3
    assert settles.numbers == list(range(30))
    assert asyncio.get_running_loop().time() - began == pytest.approx(10.0, abs=0.1)


async def test_a_key_and_a_partition_of_the_same_name_are_two_lanes() -> None:
    emit = ScriptedEmit(Gate())
    async with window(emit, grace=0) as held:
        await held.put(event(1, "0"), nothing, "0")
        await held.put(event(2, None), nothing, "0")
        assert await emit.until(lambda: emit.active == 2, 1)


@pytest.mark.parametrize("order", Order)
async def test_a_lane_that_was_empty_goes_on(order: Order) -> None:
    emit = ScriptedEmit()
    async with window(emit, order=order) as held:
        for number in range(1, 4):
            await held.put(event(number, "k"), nothing, "p")
            assert await emit.until(lambda number=number: len(emit.settled) == number, 1)  # type: ignore[misc]


async def test_a_slow_key_delays_only_itself_until_the_waiting_room_is_full() -> None:
    gate = Gate()

    async def script(given: Event) -> Outcome:
        return await (gate if given.key == "slow" else accept)(given)

    emit = ScriptedEmit(script)
    settles = Settles()
    async with window(emit, in_flight=2, max_waiting=5) as held, asyncio.timeout(10):
        for number in range(40):
            if number < 5:
                await held.put(event(number, "slow"), settles.of(number))
            await held.put(event(100 + number, f"k{number}"), settles.of(100 + number))
        assert await emit.until(lambda: len(emit.settled) == 40, 1)
        gate.open()
        assert await emit.until(lambda: len(emit.settled) == 45, 1)
    assert [number for number in settles.numbers if number < 5] == [0, 1, 2, 3, 4]


async def test_put_waits_while_the_room_is_full_of_events() -> None:
    gate = Gate()
    emit = ScriptedEmit(gate)
    async with window(emit, in_flight=2, max_waiting=3) as held:
        for number in range(5):
            await held.put(event(number), nothing)
        sixth = asyncio.ensure_future(held.put(event(5), nothing))
        await asyncio.sleep(60)
        assert not sixth.done()
        gate.open()
        assert await sixth
        assert await emit.until(lambda: len(emit.settled) == 6, 1)


async def test_put_waits_while_the_room_is_full_of_bytes() -> None:
    gate = Gate()
    emit = ScriptedEmit(gate)
    async with window(emit, max_bytes=1000) as held:
        await held.put(event(1, size=600), nothing)
        await held.put(event(2, size=400), nothing)
        third = asyncio.ensure_future(held.put(event(3, size=1), nothing))
        await asyncio.sleep(60)
        assert not third.done()
        gate.open()
        assert await third
        assert await emit.until(lambda: len(emit.settled) == 3, 1)


async def test_one_event_is_taken_however_large() -> None:
    emit = ScriptedEmit(after(1.0))
    async with window(emit, max_bytes=1000) as held, asyncio.timeout(10):
        assert await held.put(event(1, size=5000), nothing)
        assert await held.put(event(2, size=5000), nothing)
        assert await emit.until(lambda: len(emit.settled) == 2, 5)
    assert emit.most == 1


async def test_a_large_event_is_not_overtaken_for_ever() -> None:
    emit = ScriptedEmit(after(1.0))
    async with window(emit, max_bytes=1000) as held, asyncio.TaskGroup() as putters:
        ended = False

        async def small_ones() -> None:
            # Two are under way at any time: there is room for a small one, never for the large.
            for number in itertools.count():
                await held.put(event(number, size=300), nothing)
                await asyncio.sleep(0.6)
                if ended:
                    return

        putters.create_task(small_ones())
        await asyncio.sleep(5)
        async with asyncio.timeout(10):
            assert await held.put(event(-1, size=900), nothing)
        ended = True


async def test_a_putter_that_is_cancelled_takes_no_wake_up_with_it() -> None:
    gate = Gate()
    emit = ScriptedEmit(gate)
    async with window(emit, in_flight=1, max_waiting=0) as held:

        def cancel_the_first(outcome: Outcome) -> None:
            # Runs after the first putter was woken for room and before it goes on.
            asyncio.get_running_loop().call_soon(first.cancel)

        await held.put(event(1), cancel_the_first)
        first = asyncio.ensure_future(held.put(event(2), nothing))
        second = asyncio.ensure_future(held.put(event(3), nothing))
        await asyncio.sleep(1)
        gate.open()
        assert await asyncio.wait_for(second, 10)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await emit.until(lambda: len(emit.settled) == 2, 1)
    assert ids(emit) == ["1", "3"]


async def test_many_putters_all_go_on_when_one_giant_leaves() -> None:
    gate = Gate()
    emit = ScriptedEmit(gate)
    async with window(emit, max_bytes=1000) as held, asyncio.TaskGroup() as putters:
        await held.put(event(0, size=5000), nothing)
        for number in range(1, 4):
            putters.create_task(held.put(event(number), nothing))
        await asyncio.sleep(1)
        emit.script = Gate()
        gate.open()
        assert await emit.until(lambda: emit.active == 3, 1)
        emit.script.open()


async def test_attempts_under_way_end_within_the_grace_time() -> None:
    emit = ScriptedEmit(after(4.0))
    settles = Settles()
    began = asyncio.get_running_loop().time()
    async with window(emit, in_flight=2, grace=10.0) as held:
        for number in range(5):
            await held.put(event(number), settles.of(number))
        await ticks()
    assert settles.numbers == [0, 1]
    assert ids(emit) == ["0", "1"]
    assert asyncio.get_running_loop().time() - began == pytest.approx(4.0, abs=0.1)


async def test_the_rest_is_cancelled_at_the_end_of_the_grace_time() -> None:
    emit = ScriptedEmit(Gate())
    settles = Settles()
    began = asyncio.get_running_loop().time()
    async with window(emit, grace=10.0) as held:
        await held.put(event(1), settles.of(1))
        await ticks()
    assert settles.numbers == []
    assert emit.calls[0].ended
    assert asyncio.get_running_loop().time() - began == pytest.approx(10.0, abs=0.1)


async def test_what_waits_for_another_attempt_is_given_back_at_once() -> None:
    emit = ScriptedEmit()
    emit.script = emit.between_attempts
    settles = Settles()
    began = asyncio.get_running_loop().time()
    async with window(emit, grace=10.0) as held:
        await held.put(event(1, "a"), settles.of(1))
        await held.put(event(2, "a"), settles.of(2))
        await ticks()
    assert settles.numbers == []
    assert ids(emit) == ["1"]
    assert asyncio.get_running_loop().time() - began < 0.1


async def test_an_emit_that_ends_in_spite_of_its_cancellation_is_settled() -> None:
    async def stubborn(given: Event) -> Outcome:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return accepted(given)

    emit = ScriptedEmit(stubborn)
    settles = Settles()
    async with asyncio.timeout(20), window(emit, grace=5.0) as held:
        await held.put(event(1), settles.of(1))
        await ticks()
    assert settles.numbers == [1]


async def test_put_takes_nothing_during_a_drain_and_works_again_after() -> None:
    emit = ScriptedEmit(after(2.0))
    settles = Settles()
    async with window(emit, in_flight=1, max_waiting=0, grace=10.0) as held:
        await held.put(event(1), settles.of(1))
        waiting = asyncio.ensure_future(held.put(event(2), settles.of(2)))
        await asyncio.sleep(1)
        draining = asyncio.ensure_future(held.drain())
        await ticks()
        assert await held.put(event(3), settles.of(3)) is False
        assert await waiting is False
        assert not draining.done()
        await draining
        assert await held.put(event(4), settles.of(4)) is True
        assert await emit.until(lambda: len(emit.settled) == 2, 10)
    assert settles.numbers == [1, 4]


async def test_put_takes_nothing_when_a_drain_began_and_ended_while_it_waited() -> None:
    gate = Gate()
    emit = ScriptedEmit(gate)
    async with window(emit, in_flight=1, max_waiting=0) as held:

        def drain() -> None:
            with pytest.raises(StopIteration):
                held.drain().send(None)

        def drain_next(outcome: Outcome) -> None:
            # Runs when nothing is under way, after the putter was woken and before it goes on.
            asyncio.get_running_loop().call_soon(drain)

        await held.put(event(1), drain_next)
        waiting = asyncio.ensure_future(held.put(event(2), nothing))
        await asyncio.sleep(1)
        gate.open()
        assert await waiting is False
    assert ids(emit) == ["1"]


async def test_two_drains_at_once_both_end() -> None:
    emit = ScriptedEmit(after(2.0))
    began = asyncio.get_running_loop().time()
    async with window(emit, grace=100.0) as held:
        await held.put(event(1), nothing)
        await ticks()
        async with asyncio.TaskGroup() as drains:
            drains.create_task(held.drain())
            drains.create_task(held.drain())
        assert await held.put(event(2), nothing)
        assert await emit.until(lambda: len(emit.settled) == 2, 10)
    assert asyncio.get_running_loop().time() - began < 10


async def test_after_late_cancels_there_are_workers_for_what_comes_next() -> None:
    emit = ScriptedEmit(Gate())
    async with window(emit, in_flight=3, grace=1.0) as held:
        for number in range(3):
            await held.put(event(number), nothing)
        await ticks()
        await held.drain()
        emit.script = after(1.0)
        for number in range(3, 9):
            await held.put(event(number), nothing)
        assert await emit.until(lambda: len(emit.settled) == 6, 10)
    assert emit.most == 3


async def test_a_drain_that_is_cancelled_loses_no_worker() -> None:
    async def slow_to_cancel(given: Event) -> Outcome:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(5)
        return accepted(given)

    emit = ScriptedEmit(slow_to_cancel)
    async with window(emit, in_flight=1, grace=1.0) as held:
        await held.put(event(1), nothing)
        await ticks()
        draining = asyncio.ensure_future(held.drain())
        await asyncio.sleep(2)
        draining.cancel()
        await ticks()
        emit.script = accept
        assert await held.put(event(2), nothing)
        assert await emit.until(lambda: len(emit.settled) == 1, 10)
    assert emit.most == 1


async def test_an_event_given_back_outside_a_drain_closes_the_window() -> None:
    gate = Gate()

    async def script(given: Event) -> Outcome:
        if given.id == "1":
            raise GivenBack("gone")
        return await gate(given)

    emit = ScriptedEmit(script)
    settles = Settles()
    async with window(emit, in_flight=2) as held:
        for number, key in enumerate(["other", "a", "a", "b", "other"]):
            await held.put(event(number, key), settles.of(number))
        await ticks()
        with pytest.raises(GivenBack, match="gone"):
            await held.put(event(9, "z"), settles.of(9))
        gate.open()
    assert ids(emit) == ["0", "1"]
    assert settles.numbers == [0]


async def test_an_event_given_back_wakes_who_waits_for_room() -> None:
    gate = Gate()

    async def script(given: Event) -> Outcome:
        await gate(given)
        raise GivenBack("gone")

    emit = ScriptedEmit(script)
    async with window(emit, in_flight=1, max_waiting=1) as held:
        await held.put(event(1), nothing)
        await held.put(event(2), nothing)
        waiting = [asyncio.ensure_future(held.put(event(n), nothing)) for n in (3, 4)]
        await ticks()
        gate.open()
        for putter in waiting:
            with pytest.raises(GivenBack):
                await asyncio.wait_for(putter, 10)
    assert ids(emit) == ["1"]


async def test_the_sources_own_error_comes_out_as_it_is() -> None:
    emit = ScriptedEmit(after(1.0))
    settles = Settles()

    async def listen() -> None:
        async with window(emit) as held:
            await held.put(event(1), settles.of(1))
            await ticks()
            raise ConnectionResetError("broker")

    with pytest.raises(ConnectionResetError, match="broker"):
        await listen()
    assert settles.numbers == [1]


async def test_a_fault_in_settling_ends_the_listener_loudly() -> None:
    def broken(outcome: Outcome) -> None:
        raise KeyError("no such offset")

    async def listen() -> None:
        async with window(ScriptedEmit()) as held:
            await held.put(event(1), broken)
            await asyncio.sleep(1000)

    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(listen(), 10)
    assert caught.group_contains(KeyError, match="no such offset")


async def test_cancelling_the_source_drains_and_stays_a_cancellation() -> None:
    emit = ScriptedEmit(after(2.0))
    settles = Settles()

    async def listen() -> None:
        async with window(emit) as held:
            await held.put(event(1), settles.of(1))
            await asyncio.sleep(1000)

    listening = asyncio.ensure_future(listen())
    await asyncio.sleep(1)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert settles.numbers == [1]


@pytest.mark.parametrize("seed", range(40))
async def test_at_random_nothing_is_lost_reordered_or_exceeded(seed: int) -> None:
    """Several putters, cancelled ones among them, slow and failing emits, drains that come late:
    each event is settled once or belongs to the source again, in order, and the last drain
    leaves workers for what comes next."""
    dice = random.Random(seed)
    in_flight = dice.choice([1, 2, 5])

    async def script(given: Event) -> Outcome:
        fate = dice.random()
        if fate < 0.1:
            await asyncio.sleep(100)
        elif fate < 0.3:
            return await emit.between_attempts(given)
        elif fate < 0.8:
            await asyncio.sleep(dice.random() * 3)
        return Outcome(Settled.ACCEPTED)

    emit = ScriptedEmit(script)
    settles = Settles()
    numbers = itertools.count()
    taken: list[Event] = []

    async def putter() -> None:
        for _ in range(30):
            number = next(numbers)
            key = dice.choice("abcdef")
            given = event(number, key, dice.randrange(300))
            if dice.random() < 0.2:
                try:
                    async with asyncio.timeout(dice.random()):
                        kept = await held.put(given, settles.of(number))
                except TimeoutError:
                    kept = False
            else:
                kept = await held.put(given, settles.of(number))
            if kept:
                taken.append(given)
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random())

    async with asyncio.timeout(10_000):
        async with window(emit, in_flight=in_flight, grace=1.0, max_waiting=6) as held:
            async with asyncio.TaskGroup() as tasks:
                putters = [tasks.create_task(putter()) for _ in range(3)]
                while not all(task.done() for task in putters):
                    await asyncio.sleep(dice.random() * 20)
                    await held.drain()
            await held.drain()
            emit.script = after(1.0)
            before = len(emit.settled)
            for number in range(1000, 1000 + 3 * in_flight):
                assert await held.put(event(number), settles.of(number))
            assert await emit.until(lambda: len(emit.settled) == before + 3 * in_flight, 10)
    assert emit.most <= in_flight
    assert len(set(settles.numbers)) == len(settles.numbers)
    assert settles.numbers == [int(call.event.id) for call in emit.settled]
    for key in "abcdef":
        begun = [call.event.id for call in emit.calls if call.event.key == key]
        assert begun == [had.id for had in taken if had.key == key and had.id in begun]


@settings(deadline=None, database=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=40).map(
        lambda gaps: list(itertools.accumulate(gaps))
    ),
    st.randoms(use_true_random=False),
)
def test_committable_is_the_contiguous_prefix(offsets: list[int], dice: random.Random) -> None:
    tracker = OffsetTracker()
    assert tracker.committable() is None
    pending = list(offsets)
    taken: list[int] = []
    unsettled: list[int] = []
    while pending or unsettled:
        if pending and (not unsettled or dice.random() < 0.5):
            offset = pending.pop(0)
            tracker.begin(offset)
            taken.append(offset)
            unsettled.append(offset)
        else:
            tracker.settle(unsettled.pop(dice.randrange(len(unsettled))))
        assert tracker.committable() == (min(unsettled) if unsettled else taken[-1] + 1)
        assert tracker.open() == len(unsettled)


def test_offsets_must_ascend() -> None:
    tracker = OffsetTracker()
    tracker.begin(7)
    with pytest.raises(ValueError, match="offset 7 begins after 7"):
        tracker.begin(7)
    tracker.settle(7)
    with pytest.raises(ValueError, match="offset 3 begins after 7"):
        tracker.begin(3)


def test_what_is_no_event_is_passed_and_passes_no_open_one() -> None:
    tracker = OffsetTracker()
    tracker.pass_to(0)
    assert tracker.committable() == 0
    tracker.begin(3)
    tracker.pass_to(6)
    tracker.pass_to(5)
    assert tracker.committable() == 3
    tracker.settle(3)
    assert tracker.committable() == 6
    tracker.begin(6)
    assert tracker.committable() == 6


def test_an_offset_is_settled_once() -> None:
    tracker = OffsetTracker()
    tracker.begin(1)
    tracker.settle(1)
    with pytest.raises(KeyError):
        tracker.settle(1)
