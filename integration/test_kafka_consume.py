"""What a KafkaTrigger consumes, against a real broker."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from integration import kafka_tools as tools
from integration.fakes import Listening, eventually, listening
from integration.function import answering
from integration.hub import function
from integration.hub import running as hub_running
from integration.servers import Kafka
from integration.streams import Stream, kafka_trigger
from triggerhub.connector import Installation
from triggerhub.event import Event
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.access import Access
from triggerhub_kafka.brokers import Shared
from triggerhub_kafka.consumer import Consumer, settings
from triggerhub_kafka.fetching import HELD

Place = tuple[str, int]
_JOINED = re.compile(r"Joined group '(.*)' \(generation (\d+)\)")


@pytest.fixture
def name() -> str:
    """A part of topic names, and a group, that no other test has."""
    return f"c{uuid4().hex[:8]}"


@pytest.fixture
async def orders(kafka: Kafka, name: str) -> str:
    """A topic with one partition."""
    await tools.create_topic(kafka.broker, name)
    return name


@asynccontextmanager
async def listen(
    kafka: Kafka, name: str, *, handle: Any = None, in_flight: int = 64, **source: Any
) -> AsyncIterator[Listening]:
    """A trigger of that topic, unless the source says otherwise; its group bears the name."""
    fields = {"brokers": [kafka.broker], "group": name, **source}
    if not fields.keys() & {"topics", "topicPattern"}:
        fields["topic"] = name
    spec = KafkaSource.model_validate(fields)
    connector = KafkaConnector(Installation())
    async with listening(
        connector, spec, name=f"shop.{name}.handle", handle=handle, in_flight=in_flight
    ) as running:
        yield running


async def committed(kafka: Kafka, group: str, *places: Place) -> list[int | None]:
    return [await tools.committed(kafka.broker, group, *place) for place in places]


async def eventually_committed(kafka: Kafka, group: str, offset: int, place: Place) -> None:
    deadline = time.monotonic() + 15
    found: list[int | None] = []
    while time.monotonic() < deadline:
        found = await committed(kafka, group, place)
        if found == [offset]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"committed {found}, expected {offset}")


async def put(kafka: Kafka, topic: str, *values: bytes, partition: int = 0) -> None:
    await tools.produce(kafka.broker, topic, list(values), key=b"k", partition=partition)


def at(partition: int, offset: int, topic: str | None = None) -> dict[str, Any]:
    """One of ``startFrom.offsets``."""
    return {"partition": partition, "offset": offset, "topic": topic}


@asynccontextmanager
async def transactional(kafka: Kafka) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(
        bootstrap_servers=kafka.broker, transactional_id=f"t-{uuid4().hex[:8]}"
    )
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def stranger(kafka: Kafka, group: str, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Another member of the group, that commits nothing by itself."""
    client = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka.broker, group_id=group, enable_auto_commit=False,
        heartbeat_interval_ms=300,
    )  # fmt: skip
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def later(seconds: float) -> AsyncIterator[None]:
    await asyncio.sleep(seconds)
    yield


class TestLatest:
    async def test_it_is_fixed_in_every_partition_before_connected(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, name, 2)
        await put(kafka, name, b"old", partition=1)
        places = [(name, 0), (name, 1)]
        async with listen(kafka, name) as one, listen(kafka, name) as other:
            await one.connected()
            assert await committed(kafka, name, *places) == [0, 1]
            await other.connected()

    async def test_a_member_waits_for_the_starts_of_the_others(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, name, 2)
        async with stranger(kafka, name, name) as other, listen(kafka, name) as running:
            await eventually(lambda: len(other.assignment()) == 1, "one partition each")
            (theirs,) = other.assignment()
            ours = (name, 1 - theirs.partition)
            await eventually_committed(kafka, name, 0, ours)
            # It is not ready: a record that comes now to the other partition could be passed over.
            assert "Connected" not in running.report.states
            await put(kafka, name, b"delivered meanwhile", partition=ours[1])
            await running.accepted(1)
            assert "Connected" not in running.report.states
            await other.commit({theirs: 0})
            await running.connected()

    async def test_no_record_after_connected_is_passed_over_when_nothing_was_delivered(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, name, 2)
        await put(kafka, name, b"old", partition=1)
        async with listen(kafka, name) as running:
            await running.connected()
        await put(kafka, name, b"0", partition=0)
        await put(kafka, name, b"1", partition=1)
        async with listen(kafka, name) as again:
            await again.accepted(2)
            await again.connected()
        assert sorted(again.emit.data()) == [b"0", b"1"]


class TestOffsets:
    async def test_named_partitions_begin_there_and_the_others_with_what_comes(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, name, 3)
        for partition in range(3):
            await put(kafka, name, *(b"%d:%d" % (partition, n) for n in range(4)),
                      partition=partition)  # fmt: skip
        start = {"offsets": [at(0, 3), at(1, 2, name), at(1, 0)]}
        async with listen(kafka, name, startFrom=start) as running:
            await running.connected()
            await put(kafka, name, b"new", partition=2)
            await running.accepted(4)
        assert sorted(running.emit.data()) == [b"0:3", b"1:2", b"1:3", b"new"]

    async def test_they_count_only_until_there_is_a_committed_one(
        self, kafka: Kafka, orders: str
    ) -> None:
        await put(kafka, orders, b"0", b"1")
        start = {"offsets": [at(0, 1)]}
        for expected in ([b"1"], [b"2"]):
            async with listen(kafka, orders, startFrom=start) as running:
                await running.accepted(1)
                await running.stop()
            assert running.emit.data() == expected
            await put(kafka, orders, b"2")

    async def test_one_that_is_not_there_is_said_so(self, kafka: Kafka, orders: str) -> None:
        await put(kafka, orders, b"0", b"1")
        async with listen(kafka, orders, startFrom={"offsets": [at(0, 7)]}) as running:
            await running.accepted(2)
            await running.connected()
        assert (
            "offset 7 was not there, the partition ended before it" in running.report.messages[-1]
        )


class TestOutOfRange:
    async def lose(self, kafka: Kafka, topic: str) -> None:
        """Records 2 and 3 go before the group of that name reads them; 4 stays."""
        await put(kafka, topic, b"0", b"1")
        async with listen(kafka, topic, startFrom="Earliest") as running:
            await running.accepted(2)
            await running.stop()
        await put(kafka, topic, b"2", b"3", b"4")
        await tools.delete_records(kafka.broker, topic, 0, 4)

    async def test_what_was_lost_is_told_while_it_goes_on_and_after_a_restart(
        self, kafka: Kafka, orders: str
    ) -> None:
        await self.lose(kafka, orders)
        said = f"topic {orders} partition 0: up to 2 records from offset 2 to 3 were gone"
        async with listen(kafka, orders) as running:
            await running.accepted(1)
            await running.connected()
            assert said in running.report.messages[-1]
            assert running.report.states == ["OffsetOutOfRange", "Connected"] or (
                running.report.states == ["Connected", "OffsetOutOfRange", "Connected"]
            )
            await running.stop()
        async with listen(kafka, orders) as again:
            await again.connected()
            assert said in again.report.messages[-1]
            assert again.report.states == ["Connected"]

    async def test_latest_goes_on_with_what_comes(self, kafka: Kafka, orders: str) -> None:
        await self.lose(kafka, orders)
        async with listen(kafka, orders, outOfRange="Latest") as running:
            await eventually(lambda: any("2 to 4" in m for m in running.report.messages), "told")
            await put(kafka, orders, b"5")
            await running.accepted(1)
        assert running.emit.data() == [b"5"]

    async def test_stop_reads_nothing_until_someone_decides(
        self, kafka: Kafka, orders: str
    ) -> None:
        await self.lose(kafka, orders)
        async with listen(kafka, orders, outOfRange="Stop") as running:
            await running.state("OffsetOutOfRange")
            assert "offset 2 is not there, the first that is is 4" in running.report.messages[-1]
            await asyncio.sleep(4.0)  # longer than the watch's turn
            assert running.report.state == "OffsetOutOfRange"
            await running.stop()
        assert running.emit.data() == []
        assert await committed(kafka, orders, (orders, 0)) == [2]
        async with listen(kafka, orders, outOfRange="Earliest") as again:
            await again.accepted(1)
        assert again.emit.data() == [b"4"]

    async def test_a_topic_that_is_made_anew_at_once_is_read_from_its_first_record(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with listen(kafka, orders) as running:
            await running.connected()
            await put(kafka, orders, *(b"old %d" % n for n in range(5)))
            await running.accepted(5)
            await tools.delete_topic(kafka.broker, orders)
            while orders in await tools.topics(kafka.broker):
                await asyncio.sleep(0.02)
            await tools.create_topic(kafka.broker, orders)
            await put(kafka, orders, b"new 0", b"new 1")
            await running.accepted(7)
            await eventually_committed(kafka, orders, 2, (orders, 0))
        assert running.emit.data()[5:] == [b"new 0", b"new 1"]


class TestTransactions:
    async def test_aborted_records_are_not_delivered_and_the_commit_passes_them(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with listen(kafka, orders) as running:
            await running.connected()
            async with transactional(kafka) as client:
                async with client.transaction():
                    await client.send_and_wait(orders, b"kept")
                await client.begin_transaction()
                await client.send_and_wait(orders, b"aborted")
                await client.abort_transaction()
            await running.accepted(1)
            # Two records and two markers.
            await eventually_committed(kafka, orders, 4, (orders, 0))
            await eventually(lambda: running.report.lags[-1:] == [0], "no lag")
        assert running.emit.data() == [b"kept"]

    async def test_uncommitted_ones_are_delivered_where_that_is_asked_for(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with listen(kafka, orders, isolation="ReadUncommitted") as running:
            await running.connected()
            async with transactional(kafka) as client:
                await client.begin_transaction()
                await client.send_and_wait(orders, b"open")
                await running.accepted(1)
                await client.abort_transaction()
            await eventually_committed(kafka, orders, 2, (orders, 0))
        assert running.emit.data() == [b"open"]

    async def test_what_was_open_at_the_start_is_delivered_when_it_is_committed(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with transactional(kafka) as client:
            await client.begin_transaction()
            await client.send_and_wait(orders, b"open")
            async with listen(kafka, orders) as running:
                await running.connected()
                await put(kafka, orders, b"behind it")
                await eventually(lambda: running.report.lags[-1:] == [0], "no lag, as none is due")
                await client.commit_transaction()
                await running.accepted(2)
        assert running.emit.data() == [b"open", b"behind it"]

    async def test_an_open_delivery_holds_the_commit_before_what_was_aborted(
        self, kafka: Kafka, orders: str
    ) -> None:
        gate = asyncio.Event()

        async def wait(event: Event) -> None:
            if event.data == b"slow":
                await gate.wait()

        async with listen(kafka, orders, handle=wait) as running:
            await running.connected()
            await put(kafka, orders, b"slow")
            async with transactional(kafka) as client:
                await client.begin_transaction()
                await client.send_and_wait(orders, b"aborted")
                await client.abort_transaction()
            await tools.produce(kafka.broker, orders, [b"behind"], key=b"other")
            await running.accepted(1)
            await asyncio.sleep(2.5)  # two turns of the commit
            assert await committed(kafka, orders, (orders, 0)) == [0]
            gate.set()
            await eventually_committed(kafka, orders, 4, (orders, 0))


class TestPattern:
    async def test_topics_that_match_are_read_and_new_ones_from_their_first_record(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, f"{name}-a", 2)
        await put(kafka, f"{name}-a", b"old")
        async with listen(kafka, name, topicPattern=f"{name}-[a-z]+") as running:
            await running.connected()
            await put(kafka, f"{name}-a", b"a", partition=1)
            await running.accepted(1)
            for other in (f"{name}-b", f"{name}-b2", f"x{name}-b"):
                await tools.create_topic(kafka.broker, other)
                await put(kafka, other, b"first of " + other.encode())
            await running.accepted(2)
            await running.connected()
            await asyncio.sleep(0.5)
        assert running.emit.data() == [b"a", f"first of {name}-b".encode()]
        assert "TopicNotFound" not in running.report.states

    async def test_none_that_matches_is_waited_for(self, kafka: Kafka, name: str) -> None:
        async with listen(kafka, name, topicPattern=f"{name}-.") as running:
            await running.state("TopicNotFound")
            assert f"no topic matches {name}-. on " in running.report.messages[-1]
            await tools.create_topic(kafka.broker, f"{name}-a")
            await put(kafka, f"{name}-a", b"first")
            await running.accepted(1)
            await running.connected()
            await tools.delete_topic(kafka.broker, f"{name}-a")
            await running.state("TopicNotFound")
            await tools.create_topic(kafka.broker, f"{name}-b")
            await put(kafka, f"{name}-b", b"second")
            await running.accepted(2)
            await running.connected()
        assert running.emit.data() == [b"first", b"second"]

    async def test_a_topic_that_came_while_nothing_ran_is_read_from_its_first_record(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, f"{name}-a")
        async with listen(kafka, name, topicPattern=f"{name}-.*") as running:
            await running.connected()
        await tools.create_topic(kafka.broker, f"{name}-b", 2)
        await put(kafka, f"{name}-b", b"first", partition=1)
        async with listen(kafka, name, topicPattern=f"{name}-.*") as again:
            await again.accepted(1)
            await again.connected()
        assert again.emit.data() == [b"first"]

    async def test_another_pattern_begins_as_start_from_says_with_what_it_adds(
        self, kafka: Kafka, name: str
    ) -> None:
        for topic in (f"{name}-a", f"{name}-b"):
            await tools.create_topic(kafka.broker, topic)
            await put(kafka, topic, b"old")
        async with listen(kafka, name, topicPattern=f"{name}-a") as running:
            await running.connected()
        await put(kafka, f"{name}-a", b"missed")
        async with listen(kafka, name, topicPattern=f"{name}-.*") as again:
            await again.connected()
            await put(kafka, f"{name}-b", b"new")
            await again.accepted(2)
        assert sorted(again.emit.data()) == [b"missed", b"new"]

    async def test_a_seek_moves_every_topic_that_matches(self, kafka: Kafka, name: str) -> None:
        for topic in (f"{name}-a", f"{name}-b"):
            await tools.create_topic(kafka.broker, topic)
            await put(kafka, topic, topic.encode(), b"last")
        pattern = f"{name}-."
        async with listen(kafka, name, topicPattern=pattern) as running:
            await running.connected()
        places = [at(0, 1), at(0, 0, f"{name}-b")]
        seek = {"id": "again", "to": {"offsets": places}}
        for expected in ([b"last", b"last", b"more", f"{name}-b".encode()], [b"more"]):
            async with listen(kafka, name, topicPattern=pattern, seek=seek) as again:
                await again.connected()
                await put(kafka, f"{name}-a", b"more")
                await eventually(lambda: b"more" in again.emit.data(), "what came last")
                await eventually(lambda: again.report.lags[-1:] == [0], "no lag")
                await again.stop()
            assert sorted(again.emit.data()) == sorted(expected)

    async def test_a_topic_that_goes_takes_nothing_of_the_others_along(
        self, kafka: Kafka, name: str
    ) -> None:
        for topic in (f"{name}-a", f"{name}-b"):
            await tools.create_topic(kafka.broker, topic)
        async with listen(kafka, name, topicPattern=f"{name}-.") as running:
            await running.connected()
            await put(kafka, f"{name}-a", b"a")
            await put(kafka, f"{name}-b", b"b")
            await running.accepted(2)
            await tools.delete_topic(kafka.broker, f"{name}-b")
            for n in range(20):
                await put(kafka, f"{name}-a", b"%d" % n)
                await asyncio.sleep(0.3)
            await running.accepted(22)
            await eventually_committed(kafka, name, 21, (f"{name}-a", 0))
            await running.connected()
        assert len(running.emit.accepted) == 22
        assert set(running.report.states) == {"Connected"}

    async def test_a_new_topic_is_one_rebalance_for_all_members(
        self, kafka: Kafka, name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "aiokafka.consumer.group_coordinator")

        def generation() -> int:
            joined = (_JOINED.match(record.getMessage()) for record in caplog.records)
            return max(int(found[2]) for found in joined if found and found[1] == name)

        await tools.create_topic(kafka.broker, f"{name}-a", 2)
        pattern = f"{name}-."
        async with (
            listen(kafka, name, topicPattern=pattern) as one,
            later(1.5),  # half a turn of the watch: they do not look together
            listen(kafka, name, topicPattern=pattern) as other,
        ):
            await one.connected()
            await other.connected()
            before = generation()
            await tools.create_topic(kafka.broker, f"{name}-b", 2)
            for partition in (0, 1):
                await put(kafka, f"{name}-b", b"%d" % partition, partition=partition)
            both = (one.emit, other.emit)
            await eventually(lambda: sum(len(e.accepted) for e in both) == 2, "two events")
            await asyncio.sleep(4.0)  # longer than a turn of each watch
            assert generation() == before + 1

    async def test_nothing_is_lost_and_little_comes_twice_when_topics_come_under_load(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, f"{name}-0")

        async def work(event: Event) -> None:
            await asyncio.sleep(0.01)

        sent = 0
        async with listen(kafka, name, topicPattern=f"{name}-.", handle=work) as running:
            await running.connected()
            for topic in range(3):
                if topic:
                    await tools.create_topic(kafka.broker, f"{name}-{topic}")
                for _ in range(40):
                    await tools.produce(
                        kafka.broker, f"{name}-{topic}", [b"%d" % n for n in range(sent, sent + 5)]
                    )
                    sent += 5
            await eventually(lambda: len(set(running.emit.data())) == sent, "every event")
        assert len(running.emit.accepted) == sent


class TestFetching:
    async def test_a_header_whose_name_is_not_utf_8_holds_up_nothing(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, name, 2)
        await put(kafka, name, b"before")
        await put(kafka, name, b"elsewhere", partition=1)
        await tools.produce_named(kafka.broker, name, [b"1", b"2"], b"x-\xff\xfe-y")
        await put(kafka, name, b"after")
        async with listen(kafka, name, startFrom="Earliest") as running:
            await running.accepted(5)
            await eventually_committed(kafka, name, 4, (name, 0))
        found = {event.data: event for event in running.emit.accepted}
        assert len(running.emit.accepted) == len(found) == 5
        assert found[b"1"].extensions == {"kafkaheaderxy": "v"}
        assert found[b"1"].origin is not None
        assert found[b"1"].origin().headers == (("x-??-y", b"v"),)
        assert running.report.states == ["Connected"]

    async def test_many_are_in_flight_in_one_partition(self, kafka: Kafka, orders: str) -> None:
        gate = asyncio.Event()

        async def wait(event: Event) -> None:
            await gate.wait()

        async with tools.producer(kafka.broker) as client:
            for n in range(100):
                await client.send(orders, b"%d" % n, key=b"k%d" % n)
        async with listen(kafka, orders, handle=wait, startFrom="Earliest") as running:
            await eventually(lambda: len(running.emit.begun) == 64, "as many as inFlight")
            gate.set()
            await running.accepted(100)
        assert len(running.emit.begun) == 100

    async def test_what_was_fetched_and_not_taken_is_not_committed(
        self, kafka: Kafka, name: str
    ) -> None:
        gate = asyncio.Event()

        async def wait(event: Event) -> None:
            await gate.wait()

        await tools.create_topic(kafka.broker, name, 2)
        for partition in (0, 1):
            await put(kafka, name, *(b"%d" % n for n in range(200)), partition=partition)
        places = [(name, 0), (name, 1)]
        async with listen(kafka, name, handle=wait, startFrom="Earliest", in_flight=4) as running:
            await eventually(lambda: bool(running.emit.begun), "a delivery")
            await asyncio.sleep(2.5)  # two turns of the commit
            assert await committed(kafka, name, *places) == [0, 0]
            gate.set()
            await running.accepted(400)
            await eventually_committed(kafka, name, 200, places[0])
            await eventually_committed(kafka, name, 200, places[1])

    async def test_what_waits_in_memory_does_not_grow_with_the_number_of_partitions(
        self, kafka: Kafka, name: str
    ) -> None:
        partitions = 80
        await tools.create_topic(kafka.broker, name, partitions)
        async with tools.producer(kafka.broker) as client:
            for partition in range(partitions):
                await client.send_and_wait(name, bytes(1_000_000), partition=partition)
        access = Access(brokers=[kafka.broker], options={"bootstrap_servers": [kafka.broker]})
        source = KafkaSource.model_validate({"topic": name})
        consumer = Consumer(access, group_id=name, **settings(1.0, source))
        await consumer.start()
        try:
            consumer.subscribe([name])
            while len(consumer.assignment()) < partitions:
                await asyncio.sleep(0.1)
            await consumer.seek_to_beginning()
            largest, still = 0, 0
            while still < 20:
                await asyncio.sleep(0.1)
                still = 0 if consumer.held > largest else still + 1
                largest = max(largest, consumer.held)
            assert HELD < largest < HELD + 17 * 1024 * 1024
            seen = 0
            while seen < partitions:
                batches = await consumer.getmany(timeout_ms=5000)
                assert batches, f"{seen} of {partitions}"
                seen += sum(map(len, batches.values()))
        finally:
            await consumer.close()


def test_a_hub_that_is_killed_as_soon_as_it_is_ready_passes_over_nothing(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker)
    stream.send(20)
    before = set(stream.sent)
    with answering() as target, hub_running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        manifest = kafka_trigger(stream, "orders", "f")
        del manifest["spec"]["source"]["topic"]
        manifest["spec"]["source"] |= {"topicPattern": f"{stream.topic}.*", "startFrom": "Latest"}
        hub.write("t.yaml", manifest)
        hub.start()
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness", 30)
        hub.kill9()
        late = Stream(kafka.broker, topic=f"{stream.topic}-late")
        late.send(20)
        stream.send(20)
        hub.start(ready=False)
        wanted = len(stream.sent) - len(before) + len(late.sent)
        hub.wait(lambda: len(target.accepted) >= wanted, "what came meanwhile", 60)
        assert hub.stop() == 0
    found = sorted(call.body for call in target.accepted)
    new = [value for event, value in stream.sent.items() if event not in before]
    assert found == sorted([*new, *late.sent.values()])


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    yield
    await eventually(lambda: len(asyncio.all_tasks()) == 1, "no task left")


class TestSharing:
    async def test_who_looks_for_names_together_gets_one_answer(
        self, kafka: Kafka, name: str
    ) -> None:
        await tools.create_topic(kafka.broker, name)
        access = Access(brokers=[kafka.broker], options={"bootstrap_servers": [kafka.broker]})
        async with Shared().of(access) as brokers:
            await brokers.start()
            first, second = await asyncio.gather(brokers.topic_names(), brokers.topic_names())
            assert first is second is await brokers.topic_names()
            assert name in first
            await tools.create_topic(kafka.broker, f"{name}-later")

            async def known() -> bool:
                return f"{name}-later" in await brokers.topic_names()

            async with asyncio.timeout(20):
                while not await known():
                    await asyncio.sleep(0.1)
