"""Which shards may be read, how many are whose, and how often they are asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.connector import Problem
from triggerhub.testing.fakes import MemoryPositions, MemoryStore, RecordingReport
from triggerhub_kinesis.client import Access
from triggerhub_kinesis.health import Health
from triggerhub_kinesis.losses import Lost, told
from triggerhub_kinesis.pace import Paces, Room, rest, retry
from triggerhub_kinesis.places import AFTER, Begun, Place, at_time, read_begun, read_place
from triggerhub_kinesis.sharing import MEMBER, Members, preferred, quota
from triggerhub_kinesis.stream import Shard, childless, in_order, may_be_read


def tree(**parents: str) -> dict[str, Shard]:
    return {name: Shard(name, tuple(text.split()), closed=False) for name, text in parents.items()}


# a splits into b and c; c and d merge into e.
FAMILY = tree(a="", d="", b="a", c="a", e="c d")


@pytest.mark.parametrize(
    ("ended", "ready"),
    [
        ("", "a d"),
        ("d", "a"),
        ("a", "b c d"),
        ("a d", "b c"),
        ("a c", "b d"),
        ("a c d", "b e"),
        ("a b c d", "e"),
        ("a b c d e", ""),
    ],
)
def test_a_shard_is_read_when_all_its_parents_are_read_to_their_end(ended: str, ready: str) -> None:
    assert may_be_read(FAMILY, ended.split()) == ready.split()


def test_a_parent_that_is_gone_holds_nothing_unless_somebody_is_to_decide() -> None:
    left = {name: FAMILY[name] for name in "bcde"}
    assert may_be_read(left, ()) == ["b", "c", "d"]
    assert may_be_read(left, (), {"a"}) == ["d"]


def test_children_that_are_not_known_yet_are_missed() -> None:
    assert not childless(FAMILY, {"a", "c"})
    assert childless(FAMILY, {"b"})
    assert not childless(FAMILY, {"gone"})


@given(st.integers(1, 60))
def test_parents_come_before_their_children(number: int) -> None:
    shards: dict[str, Shard] = {}
    for n in range(number):
        older = [f"s{m}" for m in range(max(0, n - 3), n)]
        shards[f"s{n}"] = Shard(f"s{n}", tuple(older[: n % 3]), closed=False)
    order = [shard.id for shard in in_order(shards)]
    assert sorted(order) == sorted(shards)
    for shard in shards.values():
        assert all(order.index(parent) < order.index(shard.id) for parent in shard.parents)


def test_a_long_line_of_parents_is_no_trouble() -> None:
    shards = {f"{n:05}": Shard(f"{n:05}", (f"{n + 1:05}",), closed=False) for n in range(5000)}
    assert in_order(shards)[0].id == "04999"


@given(st.sets(st.text(min_size=1, max_size=3), min_size=1, max_size=9), st.integers(0, 60))
def test_all_shards_are_somebodys_and_no_member_has_two_more_than_another(
    names: set[str], shards: int
) -> None:
    members = sorted(names)
    shares = [quota(members, name, shards) for name in members]
    assert sum(shares) == shards
    assert max(shares) - min(shares) <= 1


@given(st.integers(1, 9), st.integers(0, 40))
def test_members_look_at_different_shards_first(number: int, count: int) -> None:
    members, shards = [f"m{n}" for n in range(number)], [f"s{n:02}" for n in range(count)]
    looks = [preferred(members, name, shards) for name in members]
    assert all(sorted(look) == shards for look in looks)
    first = [name for look, me in zip(looks, members, strict=True)
             for name in look[: quota(members, me, count)]]  # fmt: skip
    assert len(set(first)) >= count - number


async def test_a_member_that_gives_no_sign_is_dead_and_later_forgotten() -> None:
    store, now = MemoryStore(), [100.0]
    one = Members(MemoryPositions(store), lambda: now[0])
    two = Members(MemoryPositions(store), lambda: now[0])
    positions = MemoryPositions(store)
    await one.beat()
    await two.beat()
    both = sorted([one.me, two.me])
    assert await one.alive(await positions.load()) == both
    for _ in range(3):
        now[0] += 3.0
        await two.beat()
        assert await one.alive(await positions.load()) == both
    now[0] += 3.0
    assert await one.alive(await positions.load()) == both
    now[0] += 1.0
    assert await one.alive(await positions.load()) == [one.me]
    assert MEMBER + two.me in store.positions
    now[0] += 60.0
    await one.alive(await positions.load())
    assert MEMBER + two.me not in store.positions


@given(
    st.builds(Place, st.sampled_from(["AT_SEQUENCE_NUMBER", "ENDED", AFTER]), st.text("0123456789"),
              st.integers(0, 2**40), st.none() | st.builds(Lost, st.text(), st.integers(0, 2**40))),
)  # fmt: skip
def test_a_place_is_stored_and_read(place: Place) -> None:
    assert read_place(str(place)) == place


def test_what_has_begun_remembers_the_last_seeks() -> None:
    begun = Begun(5)
    moment = datetime(2026, 1, 31, 8, tzinfo=UTC)
    for number in range(10):
        begun = begun.sought_now(f"s{number}", moment, "Latest")
    assert begun.seeks[0] == "s9"
    assert len(begun.seeks) == 8
    assert read_begun(str(begun)) == begun
    assert begun.sought == "2026-01-31T08:00:00Z"
    assert at_time(moment, pinned=True).until == int(moment.timestamp())


@pytest.mark.looptime
async def test_a_shard_is_read_five_times_a_second_by_all_together_and_less_after_much_data() -> (
    None
):
    loop = asyncio.get_running_loop()
    access = Access("r", None, None, None)
    paces = Paces()
    one, two = paces.of(access, "s", "0"), paces.of(access, "s", "0")
    assert one is two
    assert paces.of(access, "s", "1") is not one
    began = loop.time()
    for _ in range(5):
        await one.turn()
        await two.turn()
    # The virtual clock goes in steps.
    assert 1.8 <= loop.time() - began < 3.0
    began = loop.time()
    one.took(10_000_000)
    await two.turn()
    assert 5.0 <= loop.time() - began < 5.5


@pytest.mark.looptime
async def test_no_more_bytes_are_fetched_than_there_is_room() -> None:
    room = Room(10)
    await room.take(7)
    waiting = asyncio.ensure_future(room.take(5))
    await asyncio.sleep(1)
    assert not waiting.done()
    room.give(1)
    await asyncio.sleep(1)
    assert not waiting.done()
    room.give(1)
    await asyncio.wait([waiting], timeout=1)
    assert waiting.done()


def test_an_idle_shard_is_asked_once_a_second_and_a_failing_one_less_and_less() -> None:
    assert [rest(n) for n in range(4)] == [0.4, 0.8, 1.0, 1.0]
    assert all(2.5 <= retry(n) <= 5.0 for n in range(8, 2000, 97))
    assert 0.1 <= retry(1) <= 0.2


@pytest.mark.looptime
async def test_the_worst_is_told_and_throttling_only_when_it_lasts() -> None:
    report = RecordingReport()
    health = Health(report)
    gone, slow = Problem("EndpointUnreachable", "no"), Problem("Throttled", "slowly")
    health.wrong("b", gone)
    assert report.said == ["EndpointUnreachable"]
    health.begun()
    assert report.said == ["EndpointUnreachable"]
    health.fine("b")
    assert report.said[-1] == "Connected"
    health.throttled("b", slow)
    assert report.message == ""
    await asyncio.sleep(11)
    health.throttled("b", slow)
    assert (report.is_connected, report.message) == (True, "slowly")
    health.fine("b")
    assert report.message == ""
    health.lost(Problem("CheckpointExpired", "some"))
    assert (report.is_connected, report.message) == (True, "some")
    said = len(report.said)
    health.fine("a")
    health.forget("a")
    health.lost(Problem("CheckpointExpired", "some"))
    assert len(report.said) == said
    health.lost(None)
    assert (report.is_connected, report.message) == (True, "")


def test_what_was_lost_is_told_for_a_day_and_of_some_shards_by_name() -> None:
    day = 24 * 3600
    lost = {f"shard-{n}": Lost("gone", 0) for n in range(7)}
    found = told("orders", lost, day - 1)
    assert found is not None
    assert found.reason == "CheckpointExpired"
    first, *_, rest_of_them = found.text.split("; ")
    assert first == "shard shard-0 of stream orders: gone, at 1970-01-01T00:00:00Z"
    assert (found.text.count("gone"), rest_of_them) == (5, "and 2 more shards")
    assert told("orders", lost, day) is None
    assert told("orders", {}, 0) is None
