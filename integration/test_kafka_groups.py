"""A binding's consumer group is deleted at a real broker."""

from __future__ import annotations

import asyncio
import socket

import pytest

from integration import kafka_tools as tools
from integration.fakes import listening
from integration.servers import Kafka, free_port
from triggerhub.connector import Cleaner, Installation, SpecError
from triggerhub.testing.fakes import subscription
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.groups import CleanUpError

_numbers = iter(range(1_000_000))

CONNECTOR = KafkaConnector(Installation())


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    name = f"grouped-{next(_numbers)}"
    await tools.create_topic(kafka.broker, name)
    await tools.produce(kafka.broker, name, [b"1", b"2"])
    return name


def source(broker: str, topic: str, group: str | None = None) -> KafkaSource:
    return KafkaSource.model_validate(
        {"topic": topic, "brokers": [broker], "startFrom": "Earliest"}
        | ({"group": group} if group else {})
    )


async def read(source: KafkaSource, name: str) -> None:
    """Listen until the group has offsets."""
    async with listening(CONNECTOR, source, name=name) as listener:
        await listener.accepted(2)


async def clean_up(source: KafkaSource, name: str) -> None:
    cleaner: Cleaner[KafkaSource] = CONNECTOR
    await cleaner.clean_up(subscription(source, name=name))


async def groups(kafka: Kafka) -> set[str]:
    async with tools.admin(kafka.broker) as client:
        return {group[0] for group in await client.list_consumer_groups()}


async def test_a_binding_s_own_group_goes_and_the_others_stay(kafka: Kafka, topic: str) -> None:
    spec = source(kafka.broker, topic)
    for function in ("one", "two"):
        await read(spec, f"shop.{topic}.{function}")
    await clean_up(spec, f"shop.{topic}.one")
    left = await groups(kafka)
    assert f"triggerhub.shop.{topic}.one" not in left
    assert f"triggerhub.shop.{topic}.two" in left
    # Its offsets too: it begins anew.
    await read(spec, f"shop.{topic}.one")


async def test_a_group_that_the_manifest_names_goes_as_well(kafka: Kafka, topic: str) -> None:
    spec = source(kafka.broker, topic, group=f"{topic}-named")
    await read(spec, f"shop.{topic}.one")
    assert f"{topic}-named" in await groups(kafka)
    await clean_up(spec, f"shop.{topic}.one")
    assert f"{topic}-named" not in await groups(kafka)


async def test_a_group_that_is_not_there_is_no_error(kafka: Kafka, topic: str) -> None:
    for _ in range(2):
        await clean_up(source(kafka.broker, topic), "shop.never.bound")


async def test_a_group_with_members_stays_whole(kafka: Kafka, topic: str) -> None:
    spec, name = source(kafka.broker, topic), f"shop.{topic}.one"
    async with listening(CONNECTOR, spec, name=name) as listener:
        await listener.accepted(2)
        with pytest.raises(CleanUpError, match=f"{name} still has members"):
            await clean_up(spec, name)
    assert await tools.committed(kafka.broker, f"triggerhub.{name}", topic) == 2
    await clean_up(spec, name)


async def test_brokers_that_are_away_are_named() -> None:
    broker = f"127.0.0.1:{free_port()}"
    with pytest.raises(CleanUpError, match=f"no Kafka broker answers at {broker}"):
        await clean_up(source(broker, "t"), "shop.orders.one")


async def test_a_broker_that_is_silent_leaves_time_for_the_next(kafka: Kafka, topic: str) -> None:
    spec, name = source(kafka.broker, topic), f"shop.{topic}.one"
    await read(spec, name)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        brokers = [f"127.0.0.1:{silent.getsockname()[1]}", kafka.broker]
        async with asyncio.timeout(15):  # what the hub gives an attempt
            await clean_up(spec.model_copy(update={"brokers": brokers}), name)
    assert f"triggerhub.{name}" not in await groups(kafka)


async def test_an_installation_without_proper_brokers_is_a_fault_that_no_repetition_cures() -> None:
    connector = KafkaConnector(Installation(environ={"TRIGGERHUB_KAFKA_BROKERS": "nowhere"}))
    bound = subscription(KafkaSource.model_validate({"topic": "t"}), name="shop.orders.one")
    with pytest.raises(SpecError, match="TRIGGERHUB_KAFKA_BROKERS"):
        await connector.clean_up(bound)
