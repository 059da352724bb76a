"""What a trigger says while a part of Kafka is away, or refuses; and that it heals by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration import kafka_tools as tools
from integration.fakes import listening
from integration.function import Function, answering
from integration.hub import Hub, function, running, trigger
from integration.kafka_clusters import Guarded, pair
from triggerhub.connector import Installation
from triggerhub_kafka import KafkaConnector, KafkaSource

CONNECTOR = KafkaConnector(Installation())


def source(broker: str, topic: str) -> KafkaSource:
    return KafkaSource.model_validate({"topic": topic, "brokers": [broker]})


async def test_a_partition_whose_broker_is_away_is_named_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (first, second):
        await second.create_topic("__consumer_offsets", [1], **{"cleanup.policy": "compact"})
        await second.create_topic("orders", [1, 2])
        async with listening(CONNECTOR, source(first.broker, "orders")) as listener:
            await listener.connected()
            # It takes connections and says nothing; then it is gone.
            second.pause()
            await listener.state("PartitionUnavailable")
            assert "topic orders partition 1: " in listener.report.messages[-1]
            await tools.produce(first.broker, "orders", [b"1"], partition=0)
            await listener.accepted(1)
            second.resume()
            await listener.connected()
            second.kill9()
            await listener.state("PartitionUnavailable")
            await tools.produce(first.broker, "orders", [b"2"], partition=0)
            await listener.accepted(2)
            second.start()
            await listener.connected()
            await tools.produce(second.broker, "orders", [b"3"], partition=1)
            await listener.accepted(3)
            assert listener.report.states == ["Connected", "PartitionUnavailable"] * 2 + [
                "Connected"
            ]


async def test_a_coordinator_that_is_away_is_named_and_records_go_on(tmp_path: Path) -> None:
    async with pair(tmp_path) as (first, second):
        await second.create_topic("__consumer_offsets", [2], **{"cleanup.policy": "compact"})
        await second.create_topic("orders", [1])
        async with listening(CONNECTOR, source(first.broker, "orders")) as listener:
            await listener.connected()
            second.kill9()
            await listener.state("CoordinatorUnavailable")
            await tools.produce(first.broker, "orders", [b"1"], partition=0)
            await listener.accepted(1)
            second.start()
            await listener.connected()
            assert listener.emit.data() == [b"1"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with Guarded(tmp_path_factory.mktemp("guarded")).started() as broker:
        yield broker


def guest(broker: Guarded, topic: str) -> dict[str, Any]:
    """A trigger that logs in."""
    login = {
        "mechanism": "SCRAM-SHA-512", "username": broker.USER,
        "password": {"env": "KAFKA_PASSWORD"},
    }  # fmt: skip
    spec = {"topic": topic, "brokers": [broker.at("LOGIN")], "security": {"sasl": login}}
    return trigger("KafkaTrigger", topic, "f", spec)


def failures(hub: Hub, topic: str) -> float:
    return hub.metric("triggerhub_source_errors_total", trigger=topic)


async def test_what_the_account_may_not_do_is_said_and_heals_when_it_may(
    guarded: Guarded, tmp_path: Path
) -> None:
    for topic in ("unseen", "unread", "ungrouped", "granted"):
        await tools.create_topic(guarded.broker, topic)
    await guarded.allow("Read", group="triggerhub.default.unseen.f")
    await guarded.allow("Read", group="triggerhub.default.unread.f")
    await guarded.allow("Describe", topic="unread")
    await guarded.allow("Read", topic="ungrouped")
    await guarded.allow("Read", topic="granted")
    await guarded.allow("Read", group="triggerhub.default.granted.f")
    with (
        answering() as sink,
        running(tmp_path, start=False, env={"KAFKA_PASSWORD": guarded.PASSWORD}) as hub,
    ):
        names = ("unseen", "unread", "ungrouped", "granted")
        hub.write("all.yaml", function("f", sink.url), *(guest(guarded, name) for name in names))
        hub.start()
        for name, reason in (
            ("unseen", "False TopicNotAuthorized"),
            ("unread", "False TopicNotAuthorized"),
            ("ungrouped", "False GroupNotAuthorized"),
            ("granted", "True Ready"),
        ):
            hub.wait(lambda n=name, r=reason: hub.condition(n) == r, f"{reason} of {name}")  # type: ignore[misc]
        message = hub.conditions("unread")["Ready"]["message"]
        assert (
            message == "the hub may not read topic unread: it needs Describe and Read on the topic"
        )
        message = hub.conditions("ungrouped")["Ready"]["message"]
        assert "consumer group triggerhub.default.ungrouped.f: it needs Read" in message
        await guarded.allow("Read", topic="unseen")
        await guarded.allow("Read", topic="unread")
        await guarded.allow("Read", group="triggerhub.default.ungrouped.f")
        for name in names:
            hub.wait(lambda n=name: hub.condition(n) == "True Ready", f"{name} healed", 60)  # type: ignore[misc]
        # It did not come and go meanwhile.
        assert [failures(hub, name) for name in names] == [1, 1, 1, 0]
        await _each_gets_a_record(guarded, hub, sink, names)


async def _each_gets_a_record(
    guarded: Guarded, hub: Hub, sink: Function, names: tuple[str, ...]
) -> None:
    for name in names:
        await tools.produce(guarded.broker, name, [name.encode()])
    hub.wait(lambda: {call.body.decode() for call in sink.calls} == set(names), "a record each")


async def test_what_is_forbidden_while_running_is_said_and_heals_when_it_is_allowed_again(
    guarded: Guarded, tmp_path: Path
) -> None:
    for topic in ("read-no-more", "grouped-no-more"):
        await tools.create_topic(guarded.broker, topic)
        await guarded.allow("Read", topic=topic)
        await guarded.allow("Read", group=f"triggerhub.default.{topic}.f")
    names = ("read-no-more", "grouped-no-more")
    with (
        answering() as sink,
        running(tmp_path, start=False, env={"KAFKA_PASSWORD": guarded.PASSWORD}) as hub,
    ):
        hub.write("all.yaml", function("f", sink.url), *(guest(guarded, name) for name in names))
        hub.start()
        for name in names:
            hub.wait(lambda n=name: hub.condition(n) == "True Ready", f"{name} ready")  # type: ignore[misc]
        await guarded.forbid("Read", topic="read-no-more")
        await guarded.forbid("Read", group="triggerhub.default.grouped-no-more.f")
        hub.wait(lambda: hub.condition(names[0]) == "False TopicNotAuthorized", "the topic's", 60)
        hub.wait(lambda: hub.condition(names[1]) == "False GroupNotAuthorized", "the group's", 60)
        await guarded.allow("Read", topic="read-no-more")
        await guarded.allow("Read", group="triggerhub.default.grouped-no-more.f")
        for name in names:
            hub.wait(lambda n=name: hub.condition(n) == "True Ready", f"{name} healed", 60)  # type: ignore[misc]
        await _each_gets_a_record(guarded, hub, sink, names)
