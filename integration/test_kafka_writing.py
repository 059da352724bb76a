"""What the Kafka connector writes, and reads back, against a real broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from integration import kafka_tools as tools
from integration.fakes import eventually
from integration.servers import Kafka, free_port
from triggerhub.connector import Installation, Letter, NotTaken, Reference, Subscription, Unreadable
from triggerhub.credentials import Contexts
from triggerhub.event import Event, Origin, Reply
from triggerhub.testing.fakes import subscription
from triggerhub_kafka import KafkaConnector, KafkaSource, TopicForLetters
from triggerhub_kafka.access import Accesses
from triggerhub_kafka.records import Outgoing
from triggerhub_kafka.writing import Writing


@pytest.fixture
async def connector() -> AsyncIterator[KafkaConnector]:
    """Open; its connections are closed with the test, or it fails."""
    before = sockets()
    async with KafkaConnector(Installation()) as opened:
        yield opened
    await eventually(lambda: sockets() <= before, "every connection closed")


@pytest.fixture
async def dead(kafka: Kafka) -> str:
    name = f"dead-{uuid4().hex[:8]}"
    await tools.create_topic(kafka.broker, name)
    return name


def secret(key: str) -> dict[str, Any]:
    return {"secretRef": {"name": "kafka", "key": key}}


def bound(
    broker: str, name: str = "orders", values: Mapping[str, bytes] | None = None, **source: Any
) -> Subscription[KafkaSource]:
    spec = KafkaSource.model_validate({"topic": "orders", "brokers": [broker], **source})
    given = {Reference.model_validate(secret(key)): v for key, v in (values or {}).items()}
    return subscription(spec, name=f"shop.{name}.f", values=given)


def letter(number: int, value: bytes | None = b"x", key: bytes | None = b"k") -> Letter:
    place = {"topic": "orders", "partition": "0", "offset": str(number), "timestamp": "1700000000"}
    return Letter(
        id=f"01J{number}",
        event=Event(id=f"0:{number}", source="/kafka/orders", type="t", data=value or b""),
        origin=Origin(coordinates=place, key=key, value=value),
        evidence={"reason": "Rejected"},
    )


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


@pytest.mark.parametrize("key", [b"k", None])
@pytest.mark.parametrize("value", [b"x", b"", None, b"y" * 900_000])
async def test_what_is_laid_down_is_read_back_as_it_was(
    connector: KafkaConnector, kafka: Kafka, dead: str, key: bytes | None, value: bytes | None
) -> None:
    laid = letter(7, value, key)
    to = TopicForLetters(topic=dead)
    place = await connector.lay_down(bound(kafka.broker), to, laid)
    assert place == {"topic": dead, "partition": "0", "offset": "0"}
    event = await connector.read_back(bound(kafka.broker), place)
    assert (event.source, event.id, event.data) == ("/kafka/orders", "0:7", value or b"")
    assert event.origin is not None
    assert event.origin() == laid.origin


async def test_bindings_that_reach_the_same_brokers_alike_share_their_connections(
    connector: KafkaConnector, kafka: Kafka, dead: str
) -> None:
    to = TopicForLetters(topic=dead)
    await connector.lay_down(bound(kafka.broker), to, letter(0))
    before = sockets()
    async with asyncio.TaskGroup() as tasks:
        for number in range(50):
            tasks.create_task(
                connector.lay_down(bound(kafka.broker, f"t{number}"), to, letter(number))
            )
    assert sockets() == before
    assert len(await tools.records(kafka.broker, dead, 51)) == 51


async def test_a_producer_that_nobody_uses_is_closed_and_another_opened_when_it_is_wanted(
    kafka: Kafka, dead: str
) -> None:
    access = Accesses(Contexts()).of(bound(kafka.broker), [kafka.broker])
    record = Outgoing(topic=dead, key=None, value=b"x", headers=())
    before = sockets()
    async with Writing(idle=0.2) as writing:
        for number in range(2):
            written = await writing.write(access, (number,), record)
            assert written.offset == number
            assert sockets() > before
            await eventually(lambda: sockets() <= before, "no connection")


async def test_what_is_under_way_is_waited_for_and_never_written_twice(
    connector: KafkaConnector, own_kafka: Kafka
) -> None:
    await tools.create_topic(own_kafka.broker, "dead")
    to, sub = TopicForLetters(topic="dead"), bound(own_kafka.broker)
    await connector.lay_down(sub, to, letter(0))
    own_kafka.pause()
    with pytest.raises(NotTaken) as told:
        await connector.lay_down(sub, to, letter(1))
    assert not told.value.refused
    assert own_kafka.broker in str(told.value)
    again = asyncio.create_task(connector.lay_down(sub, to, letter(1)))
    await asyncio.sleep(0)
    own_kafka.resume()
    assert (await again)["offset"] == "1"
    values = [dict(r.headers)["triggerhub-event-id"] for r in await tools.records(
        own_kafka.broker, "dead", 3, within=3
    )]  # fmt: skip
    assert values == [b"0:0", b"0:1"]


async def test_a_producer_whose_batch_was_refused_makes_place_for_another(
    connector: KafkaConnector, kafka: Kafka, dead: str
) -> None:
    await tools.configure(kafka.broker, dead, max_message_bytes="20000")
    to, sub = TopicForLetters(topic=dead), bound(kafka.broker)
    for number in range(3):
        with pytest.raises(NotTaken, match=r"raise its max\.message\.bytes") as told:
            await connector.lay_down(sub, to, letter(100 + number, b"x" * 50_000))
        assert told.value.refused
        place = await connector.lay_down(sub, to, letter(number))
        assert place["offset"] == str(number)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_letters_and_answers_go_where_tls_and_a_login_are_wanted(
    connector: KafkaConnector, kafka: Kafka, dead: str, mechanism: str
) -> None:
    values = {"ca": kafka.authority.cert_pem.bytes(), "password": kafka.PASSWORD.encode()}
    login = {"mechanism": mechanism, "username": kafka.USER, "password": secret("password")}
    sub = bound(
        kafka.at("LOGINTLS"), values=values, reply={"topic": dead},
        security={"tls": {"ca": secret("ca")}, "sasl": login},
    )  # fmt: skip
    place = await connector.lay_down(sub, TopicForLetters(topic=dead), letter(7))
    assert (await connector.read_back(sub, place)).id == "0:7"
    await connector.reply(sub, letter(8).event, Reply(200, (), b"done"))
    found = await tools.records(kafka.broker, dead, 2)
    assert [record.value for record in found] == [b"x", b"done"]


async def test_a_login_that_is_refused_is_told_without_the_password(
    connector: KafkaConnector, kafka: Kafka, dead: str
) -> None:
    login = {"mechanism": "PLAIN", "username": kafka.USER, "password": secret("password")}
    sub = bound(
        kafka.at("LOGIN"), values={"password": b"hunter2"}, security={"sasl": login}
    )  # fmt: skip
    with pytest.raises(NotTaken, match="refuses the login") as told:
        await connector.lay_down(sub, TopicForLetters(topic=dead), letter(7))
    assert "hunter2" not in f"{told.value!r} {told.value.__cause__!r}"


async def test_brokers_that_are_away_are_told_of(connector: KafkaConnector) -> None:
    broker = f"127.0.0.1:{free_port()}"
    with pytest.raises(NotTaken, match=f"no Kafka broker answers at {broker}"):
        await connector.lay_down(bound(broker), TopicForLetters(topic="dead"), letter(7))
    place = {"topic": "dead", "partition": "0", "offset": "0"}
    with pytest.raises(NotTaken, match=f"no Kafka broker answers at {broker}"):
        await connector.read_back(bound(broker), place)


@pytest.mark.parametrize(
    ("offset", "said"), [("5", "it is there no more"), ("0", "it is no dead letter")]
)
async def test_what_is_no_letter_or_none_any_more_is_told(
    connector: KafkaConnector, kafka: Kafka, dead: str, offset: str, said: str
) -> None:
    await tools.produce(kafka.broker, dead, [b"x"])
    place = {"topic": dead, "partition": "0", "offset": offset}
    with pytest.raises(Unreadable, match=said):
        await connector.read_back(bound(kafka.broker), place)


async def test_a_topic_that_went_is_told_and_not_made_again(
    connector: KafkaConnector, kafka: Kafka, dead: str
) -> None:
    to, sub = TopicForLetters(topic=dead), bound(kafka.broker)
    place = await connector.lay_down(sub, to, letter(0))
    await tools.delete_topic(kafka.broker, dead)
    with pytest.raises(Unreadable):
        await connector.read_back(sub, place)
    with pytest.raises(NotTaken, match=f"topic {dead} does not exist") as told:
        await connector.lay_down(sub, to, letter(1))
    assert told.value.refused
    assert dead not in await tools.topics(kafka.broker)
    await tools.create_topic(kafka.broker, dead)

    async def written() -> bool:
        with suppress(NotTaken):
            return bool(await connector.lay_down(sub, to, letter(1)))
        return False

    async with asyncio.timeout(60):
        while not await written():
            await asyncio.sleep(0.1)
    found = await tools.records(kafka.broker, dead, 2, within=3)
    assert [dict(r.headers)["triggerhub-event-id"] for r in found] == [b"0:1"]
