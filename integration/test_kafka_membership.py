"""Members with a name: a crash and a quick return, an orderly end, two of one name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocol

from integration import kafka_tools as tools
from integration.fakes import eventually, listening
from integration.function import Function, answering
from integration.hub import Hub, function, running, trigger
from integration.servers import Kafka
from triggerhub.connector import Installation
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.membership import is_named
from triggerhub_kafka.problems import ListenError

_numbers = iter(range(1_000_000))


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    name = f"members-{next(_numbers)}"
    await tools.create_topic(kafka.broker, name, 4)
    return name


def source(broker: str, topic: str, group: str | None = None) -> KafkaSource:
    return KafkaSource.model_validate(
        {"topic": topic, "brokers": [broker], "startFrom": "Earliest"}
        | ({"group": group} if group else {})
    )


def replica(name: str) -> KafkaConnector:
    return KafkaConnector(Installation(replica=name))


async def described(kafka: Kafka, group: str) -> list[tuple[str, int]]:
    """A group's members, and how many partitions each has."""
    async with tools.admin(kafka.broker) as client:
        found = (await client.describe_consumer_groups([group]))[0].groups[0][5]
    return [
        (member, len(ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()))
        for member, _, _, _, assignment in found
    ]


async def members(kafka: Kafka, group: str) -> list[str]:
    return [member for member, _ in await described(kafka, group)]


async def until_assigned(kafka: Kafka, group: str, partitions: int) -> None:
    """Wait until the members have so many partitions in all."""
    async with asyncio.timeout(30):
        while sum(number for _, number in await described(kafka, group)) != partitions:
            await asyncio.sleep(0.2)


class Witness(ConsumerRebalanceListener):  # type: ignore[misc]
    """Another member of a group, that counts how often its partitions were taken away."""

    def __init__(self) -> None:
        self.revoked = 0
        self.partitions: set[TopicPartition] = set()

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.revoked += bool(revoked)

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.partitions = assigned


@asynccontextmanager
async def witness(kafka: Kafka, group: str, topic: str) -> AsyncIterator[Witness]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.broker, group_id=group)
    await consumer.start()
    seen = Witness()
    consumer.subscribe([topic], listener=seen)
    try:
        yield seen
    finally:
        await consumer.stop()


@contextmanager
def hub_on(kafka: Kafka, topic: str, folder: Path) -> Iterator[tuple[Hub, Function]]:
    """A hub with one trigger, and its function."""
    with answering() as sink, running(folder, start=False) as hub:
        spec = {"topic": topic, "brokers": [kafka.broker], "startFrom": "Earliest"}
        hub.write("all.yaml", function("f", sink.url), trigger("KafkaTrigger", topic, "f", spec))
        hub.start()
        yield hub, sink


async def test_one_that_died_and_is_back_takes_its_partitions_and_nobody_else_s_is_touched(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    with hub_on(kafka, topic, tmp_path) as (hub, sink):
        async with witness(kafka, f"triggerhub.default.{topic}.f", topic) as other:
            await eventually(lambda: len(other.partitions) == 2, "two partitions each")
            mine = set(range(4)) - {at.partition for at in other.partitions}
            hub.kill9()
            before = other.revoked
            await asyncio.to_thread(hub.start)
            for partition in mine:
                await tools.produce(kafka.broker, topic, [b"%d" % partition], partition=partition)
            await eventually(lambda: len(sink.calls) == 2, "the records of its partitions")
            assert {int(call.body) for call in sink.calls} == mine
            assert other.revoked == before
            assert len(await members(kafka, f"triggerhub.default.{topic}.f")) == 2


async def test_a_leader_that_died_and_is_back_sees_the_partitions_that_came_meanwhile(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    with hub_on(kafka, topic, tmp_path) as (hub, sink):
        async with witness(kafka, f"triggerhub.default.{topic}.f", topic) as other:
            await eventually(lambda: len(other.partitions) == 2, "two partitions each")
            for total in (5, 6):
                hub.kill9()
                # One that is added while it is away, and one after its return.
                if total == 5:
                    await tools.add_partitions(kafka.broker, topic, total)
                await asyncio.to_thread(hub.start)
                if total == 6:
                    await tools.add_partitions(kafka.broker, topic, total)
                await until_assigned(kafka, f"triggerhub.default.{topic}.f", total)
            for partition in range(6):
                await tools.produce(kafka.broker, topic, [b"%d" % partition], partition=partition)
            mine = set(range(6)) - {at.partition for at in other.partitions}
            await eventually(lambda: len(sink.calls) == len(mine), "the records of its partitions")
            assert {int(call.body) for call in sink.calls} == mine


async def test_an_orderly_end_leaves_the_group_at_once(kafka: Kafka, topic: str) -> None:
    name = f"shop.{topic}.one"
    connector = replica("hub-1")
    async with listening(connector, source(kafka.broker, topic), name=name) as listener:
        await listener.connected()
        found = await members(kafka, f"triggerhub.{name}")
        assert [is_named(member, "hub-1") for member in found] == [True]
        await listener.stop()
        assert await members(kafka, f"triggerhub.{name}") == []


async def test_of_two_with_one_name_the_older_stands_back_until_the_other_has_left(
    kafka: Kafka, topic: str
) -> None:
    spec, name = source(kafka.broker, topic), f"shop.{topic}.one"
    async with listening(replica("twice"), spec, name=name) as older:
        await older.connected()
        async with listening(replica("twice"), spec, name=name) as newer:
            await newer.connected()
            await older.state("InstanceFenced")
            await tools.produce(kafka.broker, topic, [b"1"])
            await newer.accepted(1)
            assert newer.report.states == ["Connected"]
            assert len(await members(kafka, f"triggerhub.{name}")) == 1
            assert not older.task.done()
            await newer.stop()
            assert newer.report.states == ["Connected"]
        # The hub calls again then.
        with pytest.raises(ListenError, match="under this one's name, twice"):
            await asyncio.wait_for(older.task, 20)
    async with listening(replica("twice"), spec, name=name) as older:
        await older.connected()
        await tools.produce(kafka.broker, topic, [b"2"])
        await older.accepted(1)
        assert older.emit.data() == [b"2"]


async def test_bindings_of_one_hub_that_share_a_group_are_members_each(
    kafka: Kafka, topic: str
) -> None:
    spec, connector = source(kafka.broker, topic, f"{topic}-shared"), replica("hub-1")
    async with (
        listening(connector, spec, name=f"shop.{topic}.one") as one,
        listening(connector, spec, name=f"shop.{topic}.two") as two,
    ):
        await one.connected()
        await two.connected()
        for partition in range(4):
            await tools.produce(kafka.broker, topic, [b"x"], partition=partition)
        await eventually(
            lambda: len(one.emit.accepted) == len(two.emit.accepted) == 2, "two records each"
        )
        assert len(await members(kafka, f"{topic}-shared")) == 2
        assert one.report.states == two.report.states == ["Connected"]
