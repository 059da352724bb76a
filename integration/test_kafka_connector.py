"""The Kafka connector against a real broker."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import pytest

from integration import kafka_tools as tools
from integration.fakes import FakeEmit, Listening, eventually, listening
from integration.servers import Kafka, free_port
from triggerhub.connector import Installation, Order, SpecError
from triggerhub.event import Event
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.problems import ListenError

_numbers = iter(range(1_000_000))


@pytest.fixture
def topic() -> str:
    return f"orders-{next(_numbers)}"


@pytest.fixture
async def orders(kafka: Kafka, topic: str) -> str:
    """A topic with one partition."""
    await tools.create_topic(kafka.broker, topic)
    return topic


def source(kafka: Kafka, topic: str, start_from: Any = "Latest", **rest: Any) -> KafkaSource:
    return KafkaSource.model_validate(
        {"topic": topic, "brokers": [kafka.broker], "startFrom": start_from, **rest}
    )


def listen(
    kafka: Kafka, topic: str, *, start_from: Any = "Latest", group: str | None = None, **rest: Any
) -> AbstractAsyncContextManager[Listening]:
    spec = source(kafka, topic, start_from, **({"group": group} if group else {}))
    name = f"shop.{topic}.handle"
    return listening(KafkaConnector(Installation()), spec, name=name, **rest)


def group_of(topic: str) -> str:
    return f"triggerhub.shop.{topic}.handle"


class TestData:
    async def test_values_keys_and_headers_arrive_whole(self, kafka: Kafka, orders: str) -> None:
        everything = bytes(range(256)) * 40
        async with tools.producer(kafka.broker) as producer:
            send = producer.send_and_wait
            await send(orders, everything, key=b"\x00\xff", timestamp_ms=1_700_000_000_123)
            await send(orders, b"", key=b"k")
            await send(orders, b"x", headers=[("H-1", b"\xff\xfe"), ("none", None), ("t", b"v")])
            await send(orders, None, key=b"gone")
        async with listen(kafka, orders, start_from="Earliest") as running:
            await running.accepted(4)
        binary, empty, headed, tombstone = sorted(running.emit.accepted, key=lambda event: event.id)
        assert binary.data == everything
        assert binary.key == "AP8="
        assert binary.extensions["keyencoding"] == "base64"
        assert binary.time == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
        assert (binary.source, binary.id) == (f"/kafka/{orders}", "0:0")
        assert (empty.data, empty.key) == (b"", "k")
        assert headed.key is None
        assert headed.extensions == {
            "kafkaheaderh1": "//4=",
            "kafkaheadernone": "",
            "kafkaheadert": "v",
        }
        assert tombstone.extensions == {"kafkatombstone": "true"}
        assert tombstone.origin is not None
        assert tombstone.origin().coordinates["offset"] == "3"
        assert tombstone.origin().key == b"gone"

    async def test_a_record_of_ten_megabytes_arrives(self, kafka: Kafka, orders: str) -> None:
        large = os.urandom(10 * 1024 * 1024)
        await tools.produce(kafka.broker, orders, [b"before", large, b"after"], key=b"k")
        async with listen(kafka, orders, start_from="Earliest") as running:
            await running.accepted(3)
        assert running.emit.data() == [b"before", large, b"after"]

    @pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
    async def test_every_codec_is_read(self, kafka: Kafka, orders: str, codec: str) -> None:
        values = [b"%d " % n * 100 for n in range(500)]
        await tools.produce(kafka.broker, orders, list(values), key=b"k", codec=codec)
        async with listen(kafka, orders, start_from="Earliest") as running:
            await running.accepted(500)
        assert running.emit.data() == values

    async def test_a_malformed_cloud_event_is_handed_on_with_its_fault(
        self, kafka: Kafka, orders: str
    ) -> None:
        kind: list[tools.Header] = [("content-type", b"application/cloudevents+json")]
        await tools.produce(kafka.broker, orders, [b"{"], headers=kind)
        async with listen(kafka, orders, start_from="Earliest") as running:
            await running.accepted(1)
        [event] = running.emit.accepted
        assert event.fault is not None
        assert event.id == "0:0"


class TestOrder:
    async def test_keys_keep_their_order_and_a_slow_key_stops_no_other(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with tools.producer(kafka.broker) as producer:
            for n in range(40):
                key = b"slow" if n % 4 == 0 else b"k%d" % (n % 4)
                await producer.send(orders, b"%d" % n, key=key)
        gate = asyncio.Event()

        async def slow(event: Event) -> None:
            if event.key == "slow":
                await gate.wait()

        async with listen(kafka, orders, start_from="Earliest", handle=slow) as running:
            await running.accepted(30)
            assert [event.key for event in running.emit.begun].count("slow") == 1
            gate.set()
            await running.accepted(40)
        for name in ("slow", "k1", "k2", "k3"):
            offsets = [int(e.data) for e in running.emit.accepted if e.key == name]
            assert offsets == sorted(offsets)
            assert len(offsets) == 10

    async def test_a_blocked_event_holds_the_commit_and_comes_again(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with tools.producer(kafka.broker) as producer:
            for n in range(10):
                await producer.send(orders, b"%d" % n, key=b"k%d" % n)
        emit = FakeEmit()

        async def block(event: Event) -> None:
            if event.data == b"4":
                await emit.retry_for_ever()

        emit.handle = block
        async with listen(kafka, orders, start_from="Earliest", emit=emit) as running:
            await running.accepted(9)
            await eventually_committed(kafka, orders, 4)
            await running.stop()
        assert await tools.committed(kafka.broker, group_of(orders), orders) == 4
        async with listen(kafka, orders, start_from="Earliest") as again:
            await again.accepted(6)
        first = next(event for event in emit.begun if event.data == b"4")
        assert {(e.source, e.id) for e in again.emit.accepted} >= {(first.source, first.id)}
        assert sorted(again.emit.data()) == [b"4", b"5", b"6", b"7", b"8", b"9"]

    async def test_what_was_settled_does_not_come_again(self, kafka: Kafka, orders: str) -> None:
        await tools.produce(kafka.broker, orders, [b"1", b"2"])
        async with listen(kafka, orders, start_from="Earliest") as running:
            await running.accepted(2)
            await running.stop()
        await tools.produce(kafka.broker, orders, [b"3"])
        async with listen(kafka, orders, start_from="Earliest") as again:
            await again.accepted(1)
            await again.connected()
        assert again.emit.data() == [b"3"]


async def eventually_committed(kafka: Kafka, topic: str, offset: int, partition: int = 0) -> None:
    deadline = time.monotonic() + 15
    found = None
    while time.monotonic() < deadline:
        found = await tools.committed(kafka.broker, group_of(topic), topic, partition)
        if found == offset:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"committed {found}, expected {offset}")


class TestStart:
    async def test_latest_is_fixed_before_connected(self, kafka: Kafka, orders: str) -> None:
        await tools.produce(kafka.broker, orders, [b"old"])
        async with listen(kafka, orders) as running:
            await running.connected()
            assert await tools.committed(kafka.broker, group_of(orders), orders) == 1
        # Nothing was delivered, so nothing was committed but the start itself.
        await tools.produce(kafka.broker, orders, [b"new"])
        async with listen(kafka, orders) as again:
            await again.accepted(1)
        assert again.emit.data() == [b"new"]

    async def test_earliest_begins_with_the_first_record(self, kafka: Kafka, orders: str) -> None:
        await tools.produce(kafka.broker, orders, [b"1", b"2"], key=b"k")
        async with listen(kafka, orders, start_from="Earliest") as running:
            await running.accepted(2)
        assert running.emit.data() == [b"1", b"2"]

    async def test_a_timestamp_begins_with_the_first_record_that_is_not_older(
        self, kafka: Kafka, orders: str
    ) -> None:
        for second in (1, 2, 3):
            stamp = 1_700_000_000_000 + second * 1000
            await tools.produce(
                kafka.broker, orders, [b"%d" % second], key=b"k", timestamp_ms=stamp
            )
        start = {"timestamp": "2023-11-14T23:13:22+01:00"}
        async with listen(kafka, orders, start_from=start) as running:
            await running.accepted(2)
        assert running.emit.data() == [b"2", b"3"]

    async def test_a_timestamp_after_every_record_begins_with_the_next(
        self, kafka: Kafka, orders: str
    ) -> None:
        await tools.produce(kafka.broker, orders, [b"old"])
        start = {"timestamp": "2100-01-01T00:00:00Z"}
        async with listen(kafka, orders, start_from=start) as running:
            await running.connected()
            await tools.produce(kafka.broker, orders, [b"new"])
            await running.accepted(1)
        assert running.emit.data() == [b"new"]

    async def test_a_topic_that_appears_later_is_read_from_its_first_record(
        self, kafka: Kafka, topic: str
    ) -> None:
        async with listen(kafka, topic) as running:
            await running.state("TopicNotFound")
            assert f"topic {topic} does not exist" in running.report.messages[-1]
            assert topic not in await tools.topics(kafka.broker)
            await tools.create_topic(kafka.broker, topic)
            await tools.produce(kafka.broker, topic, [b"first"])
            await running.accepted(1)
            await running.connected()
        assert running.emit.data() == [b"first"]

    async def test_partitions_added_later_are_read_from_their_first_record(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with listen(kafka, orders) as running:
            await running.connected()
        await tools.add_partitions(kafka.broker, orders, 3)
        async with tools.producer(kafka.broker) as producer:
            while len(await producer.partitions_for(orders)) < 3:
                await producer.client.force_metadata_update()
            await producer.send_and_wait(orders, b"in 2", partition=2)
        async with listen(kafka, orders) as again:
            await again.accepted(1)
        assert again.emit.data() == [b"in 2"]

    async def test_an_offset_that_retention_deleted_is_reported_and_skipped(
        self, kafka: Kafka, orders: str
    ) -> None:
        await tools.produce(kafka.broker, orders, [b"0", b"1"])
        async with listen(kafka, orders, start_from="Earliest") as running:
            await running.accepted(2)
            await running.stop()
        await tools.produce(kafka.broker, orders, [b"2", b"3", b"4"])
        await tools.delete_records(kafka.broker, orders, 0, 4)
        async with listen(kafka, orders) as again:
            await again.accepted(1)
            await again.connected()
        assert again.emit.data() == [b"4"]
        assert "OffsetOutOfRange" in again.report.states
        assert "up to 2 records from offset 2 to 3 were gone" in again.report.messages[-1]


class TestGroup:
    async def test_members_come_and_go_without_loss_and_in_key_order(
        self, kafka: Kafka, topic: str
    ) -> None:
        await tools.create_topic(kafka.broker, topic, 4)
        total = 4000
        order: dict[str, list[int]] = {}
        busy: set[str] = set()
        at_once: list[str] = []

        async def work(event: Event) -> None:
            key = event.key or ""
            if key in busy:
                at_once.append(key)
            busy.add(key)
            try:
                await asyncio.sleep(0.02)
            finally:
                busy.discard(key)
            order.setdefault(key, []).append(int(event.data))

        def seen() -> set[int]:
            return {n for numbers in order.values() for n in numbers}

        async with tools.producer(kafka.broker) as producer:
            for n in range(total):
                await producer.send(topic, b"%d" % n, key=b"k%d" % (n % 20))
        async with listen(kafka, topic, start_from="Earliest", handle=work) as first:
            await first.accepted(100)
            async with listen(kafka, topic, start_from="Earliest", handle=work) as second:
                await second.accepted(100)
                await second.stop()
            await eventually(lambda: len(seen()) == total, "every event")
        assert not at_once
        assert all(numbers == sorted(set(numbers)) for numbers in order.values())

    async def test_a_member_without_partitions_is_connected_too(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with listen(kafka, orders) as first:
            await first.connected()
            async with listen(kafka, orders) as second:
                await second.connected()
                await tools.produce(kafka.broker, orders, [b"1"])
                both = (first.emit, second.emit)
                await eventually(lambda: sum(len(e.accepted) for e in both) == 1, "one event")

    async def test_stopping_is_prompt_also_while_another_member_holds_up_a_rebalance(
        self, kafka: Kafka, orders: str
    ) -> None:
        await tools.produce(kafka.broker, orders, [b"slow"])
        begun = asyncio.Event()

        async def slow(event: Event) -> None:
            begun.set()
            await asyncio.sleep(30)

        options: dict[str, Any] = {"start_from": "Earliest", "handle": slow, "grace": 8.0}
        async with listen(kafka, orders, **options):
            await begun.wait()
            async with listen(kafka, orders) as second:
                await asyncio.sleep(2.0)  # its JoinGroup waits for the first member's grace time
                assert await second.stop() < 2.5

    async def test_stopping_an_idle_listener_is_prompt(self, kafka: Kafka, orders: str) -> None:
        async with listen(kafka, orders) as running:
            await running.connected()
            assert await running.stop() < 1.0

    async def test_cancelling_at_any_moment_ends_it_and_leaves_nothing(
        self, kafka: Kafka, orders: str
    ) -> None:
        for milliseconds in (*range(20), 25, 40, 60, 100, 200):
            async with listen(kafka, orders) as running:
                await asyncio.sleep(milliseconds / 1000)
                assert await running.stop() < 3.0
            await eventually(lambda: len(asyncio.all_tasks()) == 1, "no task left")

    async def test_stopping_lets_attempts_end_and_commits_them(
        self, kafka: Kafka, orders: str
    ) -> None:
        await tools.produce(kafka.broker, orders, [b"1"])
        begun = asyncio.Event()

        async def slow(event: Event) -> None:
            begun.set()
            await asyncio.sleep(1.0)

        async with listen(kafka, orders, start_from="Earliest", handle=slow) as running:
            await begun.wait()
            assert 0.3 < await running.stop() < 3.0
        assert running.emit.data() == [b"1"]
        assert await tools.committed(kafka.broker, group_of(orders), orders) == 1

    async def test_lag_counts_what_is_not_settled(self, kafka: Kafka, orders: str) -> None:
        await tools.produce(kafka.broker, orders, [b"x"] * 10, key=b"k")
        gate = asyncio.Event()

        async def wait(event: Event) -> None:
            await gate.wait()

        async with listen(kafka, orders, start_from="Earliest", handle=wait) as running:
            await eventually(lambda: running.report.lags[-1:] == [10], "a lag of 10")
            gate.set()
            await eventually(lambda: running.report.lags[-1:] == [0], "no lag")

    async def test_back_pressure_does_not_lose_the_group(self, kafka: Kafka, orders: str) -> None:
        await tools.produce(kafka.broker, orders, [b"%d" % n for n in range(200)])
        gate = asyncio.Event()

        async def wait(event: Event) -> None:
            await gate.wait()

        options: dict[str, Any] = {"in_flight": 1, "order": Order.PARTITION, "handle": wait}
        async with listen(kafka, orders, start_from="Earliest", **options) as running:
            await running.connected()
            await asyncio.sleep(17.0)  # longer than the session timeout
            gate.set()
            await running.accepted(200)
        assert running.emit.data() == [b"%d" % n for n in range(200)]
        assert running.report.states == ["Connected"]


class TestTrouble:
    async def test_a_broker_that_is_not_there_is_said_so(self) -> None:
        port = free_port()
        spec = KafkaSource.model_validate({"topic": "t", "brokers": [f"127.0.0.1:{port}"]})
        async with listening(KafkaConnector(Installation()), spec) as running:
            with pytest.raises(ListenError, match=f"no Kafka broker answers at 127.0.0.1:{port}"):
                await running.task
        assert running.report.state == "BrokerUnreachable"

    async def test_default_brokers_that_are_none_are_refused(self) -> None:
        installation = Installation(environ={"TRIGGERHUB_KAFKA_BROKERS": "kafka"})
        spec = KafkaSource.model_validate({"topic": "t"})
        async with listening(KafkaConnector(installation), spec) as running:
            with pytest.raises(SpecError, match="TRIGGERHUB_KAFKA_BROKERS: found 'kafka'"):
                await running.task

    async def test_a_broker_killed_and_restarted_is_reported_and_nothing_is_lost(
        self, own_kafka: Kafka, topic: str
    ) -> None:
        await tools.create_topic(own_kafka.broker, topic)
        async with listen(own_kafka, topic) as running:
            await running.connected()
            await tools.produce(own_kafka.broker, topic, [b"1"])
            await running.accepted(1)
            own_kafka.kill9()
            await running.state("BrokerUnreachable")
            own_kafka.start()
            await running.connected()
            await tools.produce(own_kafka.broker, topic, [b"2"])
            await eventually(lambda: b"2" in running.emit.data(), "the second event")
            own_kafka.kill9()
            assert await running.stop() < 12.0

    async def test_a_broker_that_hangs_is_reported(self, own_kafka: Kafka, topic: str) -> None:
        await tools.create_topic(own_kafka.broker, topic)
        async with listen(own_kafka, topic) as running:
            await running.connected()
            own_kafka.pause()
            await running.state("BrokerUnreachable")
            own_kafka.resume()
            await running.connected()

    async def test_a_topic_that_is_deleted_is_reported_and_not_made_again(
        self, kafka: Kafka, orders: str
    ) -> None:
        async with listen(kafka, orders) as running:
            await running.connected()
            await tools.delete_topic(kafka.broker, orders)
            await running.state("TopicNotFound", within=15.0)
            await asyncio.sleep(2.0)
            assert orders not in await tools.topics(kafka.broker)
            await tools.create_topic(kafka.broker, orders)
            await tools.produce(kafka.broker, orders, [b"anew"])
            await running.accepted(1)
            await running.connected()
        assert running.emit.data() == [b"anew"]


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    yield
    await eventually(lambda: len(asyncio.all_tasks()) == 1, "no task left")
