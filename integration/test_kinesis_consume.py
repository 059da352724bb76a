"""A stream as the Kinesis connector reads it, against a real endpoint."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration import kinesis_tools as tools
from integration.fakes import Handle, Listening, eventually, listening
from integration.kinesis_proxy import Call, faults
from integration.kinesis_servers import KEY_ID, REGION, SECRET, Kinesis
from tests.kpl import aggregate
from triggerhub.connector import Installation, Order, PositionConflict
from triggerhub.event import Event
from triggerhub.testing.fakes import MemoryPositions, MemoryStore, RecordingReport, subscription
from triggerhub_kinesis import KinesisConnector, KinesisSource
from triggerhub_kinesis.holdings import TTL
from triggerhub_kinesis.losses import Lost
from triggerhub_kinesis.places import AFTER, ENDED
from triggerhub_kinesis.places import Place as Checkpoint

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the AWS chain looks first."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


class Place:
    """A stream, and what the hub's store keeps of it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.name = f"orders{next(_numbers)}"
        self.store = MemoryStore()
        self._counts: defaultdict[str, int] = defaultdict(int)

    async def create(self, shards: int = 1) -> Place:
        await tools.create_stream(self.endpoint, self.name, shards)
        return self

    def source(self, **fields: Any) -> KinesisSource:
        body = {"stream": self.name, "region": REGION, "endpoint": self.endpoint}
        return KinesisSource.model_validate(body | {"startFrom": "TrimHorizon"} | fields)

    @asynccontextmanager
    async def listening(
        self,
        handle: Handle | None = None,
        positions: MemoryPositions | None = None,
        fields: dict[str, Any] | None = None,
        **rest: Any,
    ) -> AsyncIterator[Listening]:
        """By a process of its own."""
        source = self.source(**(fields or {}))
        own = positions or MemoryPositions(self.store)
        connector = KinesisConnector(Installation())
        async with listening(connector, source, handle=handle, positions=own, **rest) as running:
            yield running

    async def put(self, *texts: str, key: str = "k") -> None:
        await tools.put(self.endpoint, self.name, *((key, text.encode()) for text in texts))

    async def counted(self, keys: Iterable[str], times: int = 1) -> None:
        """``<key>:<n>`` for each key, n counting per key."""
        for _ in range(times):
            records = []
            for key in keys:
                records.append((key, f"{key}:{self._counts[key]}".encode()))
                self._counts[key] += 1
            await tools.put(self.endpoint, self.name, *records)

    def sent(self) -> int:
        return sum(self._counts.values())

    def in_order(self, events: Iterable[Event]) -> bool:
        """All that was counted, once, each key one after the other."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for event in events:
            found[event.key or ""].append(event.data.decode())
        return found == {
            key: [f"{key}:{n}" for n in range(number)] for key, number in self._counts.items()
        }

    async def shards(self) -> list[str]:
        """Those that are open, lowest hash keys first."""
        found = [s for s in await tools.shards(self.endpoint, self.name) if tools.is_open(s)]
        return [
            s["ShardId"]
            for s in sorted(found, key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))
        ]

    async def split(self, shard: str) -> list[str]:
        return await tools.split(self.endpoint, self.name, shard)

    async def merge(self, shard: str, adjacent: str) -> str:
        return await tools.merge(self.endpoint, self.name, shard, adjacent)

    def kept(self, shard: str) -> dict[str, Any]:
        """A checkpoint."""
        found: dict[str, Any] = json.loads(self.store.positions[f"shard/{shard}"].value)
        return found


@pytest.fixture
async def orders(kinesis: Kinesis) -> Place:
    """A stream of one shard."""
    return await Place(kinesis.endpoint).create()


KEYS = [f"k{n}" for n in range(12)]


async def test_latest_is_where_the_trigger_turned_ready(orders: Place) -> None:
    latest = {"startFrom": "Latest"}
    await orders.put("before")
    async with orders.listening(fields=latest) as running:
        await running.connected()
    await orders.put("while nobody listened")
    async with orders.listening(fields=latest) as running:
        await running.accepted(1)
        await orders.put("now")
        await eventually(lambda: running.emit.data()[-1:] == [b"now"], "the last")
    assert running.emit.data()[-2:] == [b"while nobody listened", b"now"]
    # The pin is the second in which it turned Ready.
    assert set(running.emit.data()[:-2]) <= {b"before"}


async def test_latest_is_exact_while_the_listener_lives(orders: Place) -> None:
    async def put_just_before(call: Call) -> None:
        if call.arguments["ShardIteratorType"] == "LATEST":
            await orders.put("before")

    with faults(orders.endpoint) as aws:
        aws.inject(put_just_before, "GetShardIterator")
        async with orders.listening(
            fields={"startFrom": "Latest", "endpoint": aws.endpoint}
        ) as running:
            await running.connected()
            await orders.put("after")
            await running.accepted(1)
    assert running.emit.data() == [b"after"]


async def test_each_key_stays_in_order_across_splits_and_a_merge(orders: Place) -> None:
    async def slowly(event: Event) -> None:
        await asyncio.sleep(0.005)

    await orders.counted(KEYS, 5)
    async with orders.listening(slowly) as running:
        await running.connected()
        await orders.split(*await orders.shards())
        await orders.counted(KEYS, 5)
        await orders.split((await orders.shards())[0])
        await orders.counted(KEYS, 5)
        _, second, third = await orders.shards()
        await orders.merge(second, third)
        await orders.counted(KEYS, 5)
        await running.accepted(orders.sent(), within=60)
        await eventually(lambda: "shardId-000000000005" in running.report.parts, "the last shard")
    assert orders.in_order(running.emit.accepted)


async def test_a_child_waits_until_all_of_its_parent_is_settled(orders: Place) -> None:
    go = asyncio.Event()

    async def hold(event: Event) -> None:
        if event.data == b"a:0":
            await go.wait()

    await orders.counted(["a", "b"], 2)
    low, _ = await orders.split(*await orders.shards())
    await orders.counted(KEYS)
    async with orders.listening(hold) as running:
        await running.accepted(2)
        await asyncio.sleep(3)  # longer than a look at the shards takes
        assert {event.key for event in running.emit.begun} == {"a", "b"}
        assert f"shard/{low}" not in orders.store.claims
        go.set()
        await running.accepted(orders.sent())
    assert orders.in_order(running.emit.accepted)
    assert orders.kept("shardId-000000000000") == {"type": "ENDED"}


async def test_closed_shards_are_read_before_their_children_and_so_after_a_restart(
    orders: Place,
) -> None:
    async def one_by_one(event: Event) -> None:
        await asyncio.sleep(0.02)

    await orders.counted(KEYS, 4)
    await orders.split(*await orders.shards())
    await orders.counted(KEYS, 4)
    await orders.merge(*await orders.shards())
    await orders.counted(KEYS, 4)
    accepted: list[Event] = []
    for number in (20, 70, orders.sent()):
        async with orders.listening(one_by_one, in_flight=2) as running:
            await running.accepted(number - len(accepted))
        accepted += running.emit.accepted
    assert orders.in_order(accepted)


async def test_shards_are_shared_and_handed_over_without_a_repetition(kinesis: Kinesis) -> None:
    place = await Place(kinesis.endpoint).create(shards=4)

    async def slowly(event: Event) -> None:
        await asyncio.sleep(0.4)

    handed_back = False

    async def flow() -> None:
        # Not cancelled: what a put that was cut short has counted may never have been sent.
        while not handed_back:
            await place.counted(KEYS)
            await asyncio.sleep(0.5)

    async with place.listening(slowly) as one:
        await eventually(lambda: len(one.report.parts) == 4, "all four")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flow())
            async with place.listening(slowly) as two:
                await eventually(
                    lambda: len(one.report.parts) == len(two.report.parts) == 2, "two each"
                )
                assert one.report.parts.keys().isdisjoint(two.report.parts)
                await two.accepted(20)
            await eventually(lambda: len(one.report.parts) == 4, "all four again")
            handed_back = True
        both = one.emit, two.emit
        await eventually(
            lambda: sum(len(emit.accepted) for emit in both) >= place.sent(), "all", 60
        )
    ids = [event.id for emit in both for event in emit.accepted]
    assert len(ids) == len(set(ids)) == place.sent()


class Cut(MemoryPositions):
    """Those of a process whose store may go away."""

    away = silent = False

    def _reached(self) -> MemoryStore:
        if self.away:
            raise OSError("the store is away")
        return super()._reached()

    async def claim(self, key: str, ttl: float) -> bool:
        if self.silent:
            await asyncio.Event().wait()
        return await super().claim(key, ttl)


@pytest.mark.parametrize(
    ("how", "said"), [("away", "the store is away"), ("silent", "no answer in time")]
)
async def test_no_shard_is_worked_on_by_two_when_one_loses_the_store(
    orders: Place, how: str, said: str
) -> None:
    under_way = False

    async def for_ever(event: Event) -> None:
        nonlocal under_way
        under_way = True
        try:
            await asyncio.Event().wait()
        finally:
            under_way = False

    async def look(event: Event) -> None:
        assert not under_way, "two at once"

    await orders.put("a", "b")
    positions = Cut(orders.store)
    async with orders.listening(for_ever, positions) as one:
        await eventually(lambda: under_way, "a delivery")
        async with orders.listening(look) as two:
            await two.connected()
            setattr(positions, how, True)
            began = asyncio.get_running_loop().time()
            await two.accepted(2, within=40)
            print(f"taken over after {asyncio.get_running_loop().time() - began:.1f} s")
            with pytest.raises(OSError, match=f"the store does not answer: {said}"):
                await one.task
    assert not one.emit.accepted


async def test_a_process_that_hung_cannot_move_the_checkpoint(orders: Place) -> None:
    """Another one has the shard meanwhile, and has written there."""
    await orders.put("a")
    async with orders.listening() as running:
        await running.accepted(1)
        key = "shard/shardId-000000000000"
        await eventually(lambda: orders.kept(key[6:])["type"].startswith("AFTER"), "a checkpoint")
        theirs = MemoryPositions(orders.store)
        await theirs.save(key, '{"type": "TRIM_HORIZON"}')
        await orders.put("b")
        # It begins anew from what the other wrote.
        await running.accepted(4)
    assert running.emit.data() == [b"a", b"b", b"a", b"b"]


async def test_what_is_taken_over_from_a_dead_process_is_its_own_no_more(orders: Place) -> None:
    shard, theirs = "shard/shardId-000000000000", MemoryPositions(orders.store)
    async with orders.listening() as running:
        await running.connected()
    await theirs.save("member/dead", "7")
    assert await theirs.claim(shard, 8.0)
    place = orders.store.positions[shard]
    async with orders.listening() as running:
        began = asyncio.get_running_loop().time()
        await eventually(lambda: len(running.report.parts) == 1, "the shard", within=40)
        print(f"taken over after {asyncio.get_running_loop().time() - began:.1f} s")
        with pytest.raises(PositionConflict):
            await theirs.save(shard, place.value, expect=place.revision)
        await orders.put("a")
        await running.accepted(1)


async def test_what_takes_long_to_end_is_not_begun_by_another_meanwhile(orders: Place) -> None:
    """Longer than a claim lasts without being renewed."""

    async def long(event: Event) -> None:
        await asyncio.sleep(TTL + 3)

    await orders.put("a")
    async with orders.listening(long, grace=60.0) as one:
        await eventually(lambda: len(one.emit.begun) == 1, "a delivery")
        async with orders.listening() as two:
            await two.connected()
            await one.stop()
            await orders.put("b")
            await two.accepted(1)
    assert (one.emit.data(), two.emit.data()) == ([b"a"], [b"b"])


async def test_a_part_of_an_aggregated_record_is_no_checkpoint(orders: Place) -> None:
    go = asyncio.Event()

    async def hold(event: Event) -> None:
        if event.id.endswith(":1"):
            await go.wait()

    data = aggregate([("a", None, b"1"), ("b", None, b"2")])
    await tools.put(orders.endpoint, orders.name, ("x", b"0"), ("x", data))
    async with orders.listening(hold) as running:
        await running.accepted(2)
        await eventually(
            lambda: orders.kept("shardId-000000000000")["type"] == "AT_SEQUENCE_NUMBER", "it"
        )
    async with orders.listening() as running:
        await running.accepted(2)
    assert running.emit.data() == [b"1", b"2"]


@pytest.mark.parametrize(
    ("policy", "state", "first"),
    [("TrimHorizon", "Connected", b"a"), ("Latest", "Connected", b"c"), ("Stop", "", b"")],
)
async def test_a_checkpoint_that_is_gone_is_told_and_goes_on_by_policy(
    orders: Place, policy: str, state: str, first: bytes
) -> None:
    async with orders.listening() as running:
        await running.connected()
    await orders.put("a", "b")
    gone = {"type": "AFTER_SEQUENCE_NUMBER", "where": "49000000000000000000000000000000000000"}
    await MemoryPositions(orders.store).save("shard/shardId-000000000000", json.dumps(gone))
    async with orders.listening(fields={"outOfRange": policy}) as running:
        await eventually(lambda: "is not there any more" in "".join(running.report.messages), "it")
        assert running.report.states[-1] == (state or "CheckpointExpired")
        if first:
            await orders.put("c")
            await eventually(lambda: b"c" in running.emit.data(), "the next")
            assert running.emit.data()[0] == first
        else:
            await asyncio.sleep(1)
            assert not running.emit.begun


async def test_a_checkpoint_older_than_the_retention_is_told(orders: Place) -> None:
    await orders.put("a")
    async with orders.listening() as running:
        await running.accepted(1)
    shard = "shardId-000000000000"
    old = orders.kept(shard)
    week = int((datetime.now(UTC) - timedelta(days=7)).timestamp())
    await MemoryPositions(orders.store).save(f"shard/{shard}", json.dumps(old | {"until": week}))
    async with orders.listening() as running:
        await eventually(lambda: "what came in between" in "".join(running.report.messages), "it")
        assert "kept for 24 hours" in running.report.messages[-1]
        await orders.put("b")
        await running.accepted(1)
    assert running.emit.data() == [b"b"]
    # After a restart, too, although it has caught up.
    async with orders.listening() as running:
        await eventually(lambda: "what came in between" in "".join(running.report.messages), "it")
        await orders.put("c")
        await running.accepted(1)
    lost = orders.kept(shard)
    lost["lost"]["at"] -= 24 * 3600
    await MemoryPositions(orders.store).save(f"shard/{shard}", json.dumps(lost))
    async with orders.listening() as running:
        await eventually(lambda: "lost" not in orders.kept(shard), "a day's end")
        assert not any(running.report.messages)


async def test_a_shard_that_is_gone_unread_is_told_by_every_process_for_a_day(
    orders: Place,
) -> None:
    shard, by_hand = "shardId-000000000099", MemoryPositions(orders.store)
    async with orders.listening() as running:
        await running.connected()
    await by_hand.save(f"shard/{shard}", str(Checkpoint(AFTER, "1")))
    async with orders.listening() as one, orders.listening() as two:
        for running in (one, two):
            await eventually(lambda: any(running.report.messages), "it")  # noqa: B023
            assert f"{shard} of" in running.report.messages[-1]
            assert "was not read to its end" in running.report.messages[-1]
            assert running.report.states[-1] == "Connected"
    assert orders.kept(shard)["type"] == "ENDED"
    await by_hand.save(f"shard/{shard}", str(Checkpoint(ENDED, lost=Lost("long ago", 1))))
    async with orders.listening() as running:
        await eventually(lambda: f"shard/{shard}" not in orders.store.positions, "its end")
        assert not any(running.report.messages)


async def while_paused(place: Place, seek: dict[str, Any]) -> RecordingReport:
    """What a hub does for a trigger that is paused."""
    report = RecordingReport()
    positions = MemoryPositions(place.store)
    await KinesisConnector(Installation()).seek(
        subscription(place.source(seek=seek), positions=positions, report=report)
    )
    return report


@pytest.mark.parametrize("paused", [True, False])
async def test_a_seek_is_done_once_before_the_first_event(orders: Place, paused: bool) -> None:
    seek = {"id": "again", "to": "TrimHorizon"}
    await orders.put("a", "b")
    await orders.split(*await orders.shards())
    await orders.put("c")
    async with orders.listening() as running:
        await running.accepted(3)
    if paused:
        report = await while_paused(orders, seek)
        assert [(done.id, done.positions) for done in report.seeks] == [("again", "TrimHorizon")]
    async with orders.listening(fields={"seek": seek}) as running:
        await running.accepted(3)
        assert [done.id for done in running.report.seeks] == ["again"]
    assert running.emit.data() == [b"a", b"b", b"c"]
    async with orders.listening(fields={"seek": seek}) as running:
        await orders.put("d")
        await running.accepted(1)
    assert running.emit.data() == [b"d"]


async def test_a_seek_to_latest_passes_what_waits_in_every_shard(orders: Place) -> None:
    async with orders.listening() as running:
        await running.connected()
    await orders.put("a")
    await orders.split(*await orders.shards())
    await orders.put("b")
    await asyncio.sleep(1.1)  # a time by Kinesis's clock is that of its second
    await while_paused(orders, {"id": "1", "to": "Latest"})
    await orders.put("c")
    async with orders.listening() as running:
        await running.accepted(1)
        await asyncio.sleep(1.5)
    assert running.emit.data() == [b"c"]


async def test_a_seek_waits_while_another_process_reads(orders: Place) -> None:
    async with orders.listening() as running:
        await eventually(lambda: len(running.report.parts) == 1, "a shard")
        with pytest.raises(Exception, match="shardId-000000000000 is still read"):
            await while_paused(orders, {"id": "1", "to": "TrimHorizon"})
        gone = subscription(orders.source(), positions=MemoryPositions(orders.store))
        with pytest.raises(Exception, match="shardId-000000000000 is still read"):
            await KinesisConnector(Installation()).clean_up(gone)


async def test_a_stream_that_is_made_anew_is_read_from_its_first_record(orders: Place) -> None:
    await orders.put("old")
    latest = {"startFrom": "Latest"}
    async with orders.listening(fields=latest) as running:
        await running.connected()
    await tools.delete_stream(orders.endpoint, orders.name)
    async with orders.listening(fields=latest) as running:
        await running.state("StreamNotFound", ends=True)
        await orders.create(2)
        await orders.put("new")
        await running.accepted(1)
    assert running.emit.data() == [b"new"]


async def test_how_far_a_shard_is_behind_is_told_in_seconds(orders: Place) -> None:
    async def for_ever(event: Event) -> None:
        await asyncio.Event().wait()

    await orders.put("a")
    async with orders.listening(for_ever, grace=0.1) as running:
        await eventually(lambda: running.report.lags[-1:] > [3.0], "lag")
        assert running.report.parts.keys() == {"shardId-000000000000"}
    async with orders.listening() as running:
        await running.accepted(1)
        await eventually(lambda: running.report.lags[-1:] == [0.0], "no lag")


async def test_order_by_partition_is_one_by_one_in_each_shard(orders: Place) -> None:
    at_once = most = 0

    async def count(event: Event) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1

    await orders.counted(KEYS)
    async with orders.listening(count, order=Order.PARTITION) as running:
        await running.accepted(len(KEYS))
    assert most == 1
    assert [event.key for event in running.emit.accepted] == KEYS


async def test_the_policy_in_the_documents_is_what_is_called(orders: Place) -> None:
    text = (Path(__file__).parents[1] / "docs" / "kinesis.md").read_text()
    policy = json.loads(text.partition("<!-- policy -->\n```json\n")[2].partition("```")[0])
    await orders.put("a")
    await orders.split(*await orders.shards())
    await orders.put("b")
    with faults(orders.endpoint) as aws:
        async with orders.listening(fields={"endpoint": aws.endpoint}) as running:
            await running.accepted(2)
        orders.store.positions.clear()
        async with orders.listening(
            fields={"endpoint": aws.endpoint, "startFrom": "Latest"}
        ) as running:
            await running.connected()
        called = {f"kinesis:{operation}" for operation in aws.calls}
    assert sorted(called) == sorted(policy["Statement"][0]["Action"])
