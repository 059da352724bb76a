"""Records in a schema's form through a real broker. The registry is a small HTTP server of our own
that speaks the REST API (``integration/registry.py``)."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import pytest

from integration import kafka_tools as tools
from integration.fakes import FakeEmit, FakeProgress, FakeReport, Listening, eventually, listening
from integration.function import ACCEPT, HALF, Answer, answering, hang, reply, server_context
from integration.hub import function, running
from integration.registry import SchemaRegistry, basic, registering
from integration.servers import Kafka
from integration.streams import Stream, kafka_trigger
from integration.test_kafka_letters import command, made, refuse
from integration.test_kafka_letters import kafka_trigger as letters_to
from integration.test_kafka_security import Values, known, secret, sockets, told
from triggerhub.connector import Connector, Installation
from triggerhub.testing.fakes import subscription
from triggerhub_kafka import KafkaConnector, KafkaSource

_numbers = iter(range(1_000_000))
ORDER = {
    "type": "record", "name": "Order", "namespace": "com.shop",
    "fields": [{"name": "id", "type": "int"},
               {"name": "paid", "type": {"type": "bytes", "logicalType": "decimal",
                                         "precision": 9, "scale": 2}}],
}  # fmt: skip
PAID = b"\x04\x04\xd2"  # 12.34


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    name = f"schemas-{next(_numbers)}"
    await tools.create_topic(kafka.broker, name)
    return name


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    with registering() as registry:
        yield registry


def head(number: int) -> bytes:
    return b"\x00" + number.to_bytes(4, "big")


def order(number: int, of: int) -> bytes:
    """A record's value: an order in the form of the schema with id ``of``."""
    data = io.BytesIO()
    fastavro.schemaless_writer(data, "int", number)
    return head(of) + data.getvalue() + PAID


def listen(
    kafka: Kafka,
    topic: str,
    registry: SchemaRegistry,
    values: Values | None = None,
    connector: Connector[Any] | None = None,
    **more: Any,
) -> AbstractAsyncContextManager[Listening]:
    spec = KafkaSource.model_validate(
        {
            "topic": topic, "brokers": [kafka.broker], "startFrom": "Earliest",
            "schemaRegistry": {"url": registry.url} | more,
        }
    )  # fmt: skip
    connector = connector or KafkaConnector(Installation())
    return listening(connector, spec, name=f"shop.{topic}.handle", values=known(values or {}))


class TestData:
    async def test_in_avro_arrives_as_json_with_the_schema_s_name_and_id(
        self, kafka: Kafka, topic: str, registry: SchemaRegistry
    ) -> None:
        number = registry.register("orders-value", ORDER, number=70_000)
        values = [order(n, number) for n in range(200)]
        await tools.produce(kafka.broker, topic, values, key=b"k")
        async with listen(kafka, topic, registry) as running:
            await running.accepted(200)
            await running.connected()
            found = running.emit.accepted
            assert [json.loads(event.data) for event in found] == [
                {"id": n, "paid": "12.34"} for n in range(200)
            ]
            assert found[0].datacontenttype == "application/json"
            assert found[0].extensions == {
                "dataschema": f"{registry.url}/schemas/ids/70000",
                "schemaid": "70000",
                "schemaname": "com.shop.Order",
            }
            assert registry.asked("/schemas/ids/70000") == 1
            assert found[0].origin is not None
            await running.stop()
        assert await tools.committed(kafka.broker, f"triggerhub.shop.{topic}.handle", topic) == 200

    async def test_in_json_arrives_as_it_is(
        self, kafka: Kafka, topic: str, registry: SchemaRegistry
    ) -> None:
        registry.register("customer", {"type": "object", "required": ["name"]}, "JSON")
        number = registry.register(
            "orders-value",
            {"title": "Order", "properties": {"for": {"$ref": "customer.json"}}},
            "JSON",
            [("customer.json", "customer", 1)],
        )
        body = b'{ "for": {"name": "x"} }'
        await tools.produce(kafka.broker, topic, [head(number) + body, head(number) + b'{"for":1}'])
        async with listen(kafka, topic, registry) as running:
            await running.accepted(2)
            good, bad = running.emit.accepted
            assert (good.data, good.extensions["schemaname"]) == (body, "Order")
            assert bad.fault == (
                f'it does not fit schema id {number}: /for: the value is not of type "object"'
            )

    async def test_may_refer_to_other_subjects_and_these_to_others(
        self, kafka: Kafka, topic: str, registry: SchemaRegistry
    ) -> None:
        registry.register("com/order v1", ORDER)
        item = {"type": "record", "name": "Item", "namespace": "com.shop",
                "fields": [{"name": "of", "type": "Order"}]}  # fmt: skip
        registry.register("item", item, references=[("com.shop.Order", "com/order v1", 1)])
        basket = {"type": "array", "items": "com.shop.Item"}
        both = [("com.shop.Item", "item", 1), ("com.shop.Order", "com/order v1", 1)]
        number = registry.register("basket", basket, references=both)
        await tools.produce(kafka.broker, topic, [head(number) + b"\x02\x06" + PAID + b"\x00"])
        async with listen(kafka, topic, registry) as running:
            await running.accepted(1)
            (event,) = running.emit.accepted
            assert json.loads(event.data) == [{"of": {"id": 3, "paid": "12.34"}}]
            assert "schemaname" not in event.extensions

    async def test_that_nobody_can_read_becomes_a_fault_and_stops_nothing(
        self, kafka: Kafka, topic: str, registry: SchemaRegistry
    ) -> None:
        number = registry.register("orders-value", ORDER)
        other = registry.register("proto", "syntax", "PROTOBUF")
        torn = registry.register(
            "torn", {"type": "array", "items": "Gone"}, references=[("a", "a", 9)]
        )
        bad = [
            b"text",
            head(99) + b"x",
            head(other) + b"x",
            head(torn) + b"x",
            order(1, number)[:-1],
        ]
        await tools.produce(kafka.broker, topic, [*bad, order(2, number)])
        async with listen(kafka, topic, registry) as running:
            await running.accepted(6)
            *faulty, good = running.emit.accepted
            assert good.fault is None
            assert [event.data for event in faulty] == bad
            url = registry.url
            for event, said in zip(
                faulty,
                (
                    "expected a zero byte and a schema id of four, found 74 65 78 74",
                    f"schema id 99: {url} has no schema with id 99",
                    f"schema id {other}: the schema is of type PROTOBUF, expected AVRO or JSON",
                    f"schema id {torn}: {url} has no version 9 of subject a, to which",
                    f"it does not fit schema id {number}: EOFError",
                ),
                strict=True,
            ):
                assert (event.fault or "").startswith(said)


async def test_a_schema_that_is_registered_later_is_asked_for_again(
    kafka: Kafka, topic: str, registry: SchemaRegistry
) -> None:
    await tools.produce(kafka.broker, topic, [order(1, 1)])
    async with listen(kafka, topic, registry) as running:
        await running.accepted(1)
        registry.register("orders-value", ORDER)
        await tools.produce(kafka.broker, topic, [order(2, 1)])
        await running.accepted(2)
        assert [event.fault is None for event in running.emit.accepted] == [False, True]


async def test_listeners_with_one_registry_and_login_learn_a_schema_once(
    kafka: Kafka, topic: str, registry: SchemaRegistry
) -> None:
    number = registry.register("orders-value", ORDER)
    other = f"{topic}-2"
    await tools.create_topic(kafka.broker, other)
    for name in (topic, other):
        await tools.produce(kafka.broker, name, [order(1, number)])
    connector = KafkaConnector(Installation())
    async with (
        listen(kafka, topic, registry, connector=connector) as one,
        listen(kafka, other, registry, connector=connector) as two,
    ):
        await one.accepted(1)
        await two.accepted(1)
    assert registry.asked(f"/schemas/ids/{number}") == 1


class TestRegistryIsAway:
    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (None, "Cannot connect to host"),
            (reply(503, b"busy"), "it answers 503"),
            (reply(404, b"<html>"), "it answers 404: is it the URL of a schema registry?"),
            (reply(200, b"<html>"), "it answers without a schema: is it the URL"),
            (reply(302, headers=[("location", "http://127.0.0.1:1/")]), "it answers 302"),
            (HALF, ""),
        ],
        ids=["down", "503", "404", "html", "redirect", "half"],
    )
    async def test_then_records_wait_and_none_is_lost(
        self,
        kafka: Kafka,
        topic: str,
        registry: SchemaRegistry,
        answer: Answer | None,
        said: str,
    ) -> None:
        number = registry.register("orders-value", ORDER)
        if answer is None:
            registry.server.down()
        registry.answer = answer
        await tools.produce(kafka.broker, topic, [order(n, number) for n in range(3)])
        async with listen(kafka, topic, registry) as running:
            await running.state("SchemaRegistryUnreachable")
            message = running.report.messages[-1]
            assert message.startswith(f"no schema from {registry.url}: {said}")
            assert message.endswith("(spec.source.schemaRegistry)")
            assert not running.emit.begun
            registry.answer = None
            registry.server.up()
            await running.accepted(3)
            await running.connected()
            assert not any(event.fault for event in running.emit.accepted)

    async def test_what_is_known_already_goes_on(
        self, kafka: Kafka, topic: str, registry: SchemaRegistry
    ) -> None:
        number = registry.register("orders-value", ORDER)
        await tools.produce(kafka.broker, topic, [order(1, number)])
        async with listen(kafka, topic, registry) as running:
            await running.accepted(1)
            registry.server.down()
            await tools.produce(kafka.broker, topic, [order(2, number)])
            await running.accepted(2)
            assert running.report.state == "Connected"

    async def test_the_listener_still_ends_at_once(
        self, kafka: Kafka, topic: str, registry: SchemaRegistry
    ) -> None:
        registry.answer = hang
        await tools.produce(kafka.broker, topic, [order(1, 1)])
        before = sockets()
        async with listen(kafka, topic, registry) as running:
            await eventually(lambda: bool(registry.server.calls), "a question")
            await running.stop()
        await eventually(lambda: sockets() <= before, "every connection closed")
        group = f"triggerhub.shop.{topic}.handle"
        assert await tools.committed(kafka.broker, group, topic) == 0

    async def test_and_a_rebalance_passes_meanwhile(
        self, kafka: Kafka, topic: str, registry: SchemaRegistry
    ) -> None:
        number = registry.register("orders-value", ORDER)
        await tools.add_partitions(kafka.broker, topic, 2)
        registry.answer = reply(503)
        for partition in (0, 1):
            values = [order(n, number) for n in range(5)]
            await tools.produce(kafka.broker, topic, values, partition=partition)
        async with listen(kafka, topic, registry) as one:
            await one.state("SchemaRegistryUnreachable")
            async with listen(kafka, topic, registry) as two:
                await two.state("SchemaRegistryUnreachable")
                registry.answer = None
                await one.accepted(5)
                await two.accepted(5)
            events = one.emit.accepted + two.emit.accepted
            assert sorted(event.id for event in events) == sorted(
                f"{partition}:{n}" for partition in (0, 1) for n in range(5)
            )


async def test_a_replay_reads_with_the_schemas_too_and_waits_for_the_registry(
    kafka: Kafka, topic: str, registry: SchemaRegistry
) -> None:
    number = registry.register("orders-value", ORDER)
    await tools.produce(kafka.broker, topic, [order(n, number) for n in range(3)])
    spec = KafkaSource.model_validate(
        {"topic": topic, "brokers": [kafka.broker], "schemaRegistry": {"url": registry.url}}
    )
    emit, report = FakeEmit(), FakeReport()
    bound = replace(subscription(spec, name=f"shop.{topic}.f", report=report), emit=emit)
    registry.answer = reply(503)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        connector = KafkaConnector(Installation())
        tasks.create_task(connector.replay(bound, "Earliest", None, FakeProgress()))
        await eventually(lambda: "SchemaRegistryUnreachable" in report.states, "a report of it")
        assert not emit.begun
        registry.answer = None
    assert [json.loads(data)["id"] for data in emit.data()] == [0, 1, 2]


class TestLogin:
    @pytest.mark.parametrize(
        ("spec", "kept", "wanted"),
        [
            (
                {"basic": {"username": "hub", "password": secret("p")}},
                b"s: 3\n",
                basic("hub", "s: 3"),
            ),
            ({"bearer": secret("p")}, b" s3/=\n", "Bearer s3/="),
        ],
        ids=["basic", "bearer"],
    )
    async def test_lets_the_hub_in_over_tls(
        self, kafka: Kafka, topic: str, spec: dict[str, Any], kept: bytes, wanted: str
    ) -> None:
        with registering(server_context(kafka.authority)) as registry:
            registry.login = wanted
            number = registry.register("orders-value", ORDER)
            await tools.produce(kafka.broker, topic, [order(1, number)])
            values = {"p": kept, "ca": kafka.authority.cert_pem.bytes()}
            more = spec | {"tls": {"ca": secret("ca")}}
            async with listen(kafka, topic, registry, values, **more) as running:
                await running.accepted(1)
                assert running.emit.accepted[0].fault is None

    async def test_that_is_refused_is_told_and_not_shown(
        self, kafka: Kafka, topic: str, registry: SchemaRegistry
    ) -> None:
        registry.login = basic("hub", "right")
        number = registry.register("orders-value", ORDER)
        await tools.produce(kafka.broker, topic, [order(1, number)])
        spec: dict[str, Any] = {"basic": {"username": "hub", "password": secret("p")}}
        async with listen(kafka, topic, registry, {"p": b"hunter2"}, **spec) as running:
            await running.state("SchemaRegistryNotAuthorized")
            assert running.report.messages[-1] == (
                f"{registry.url} refuses the hub: it answers 401, Unauthorized: check basic or "
                "bearer of spec.source.schemaRegistry"
            )
            assert not running.emit.begun

    async def test_a_registry_whose_certificate_is_not_trusted_is_told(
        self, kafka: Kafka, topic: str
    ) -> None:
        with registering(server_context(kafka.authority)) as registry:
            await tools.produce(kafka.broker, topic, [order(1, 1)])
            async with listen(kafka, topic, registry) as running:
                await running.state("SchemaRegistryUnreachable")
                assert "its certificate is not trusted" in running.report.messages[-1]


def test_a_hub_delivers_what_fits_and_keeps_what_does_not_as_dead_letters(
    kafka: Kafka, registry: SchemaRegistry, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=1)
    number = registry.register("orders-value", ORDER)
    registry.login = basic("hub", "right")
    torn = order(1, number)[:-1]
    asyncio.run(tools.produce(kafka.broker, stream.topic, [order(0, number), torn]))

    def kept(password: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kafka"},
            "stringData": {"p": password},
        }  # fmt: skip

    with answering() as target, running(tmp_path, start=False) as hub:
        manifest = kafka_trigger(stream, "orders", "f")
        manifest["spec"]["source"]["schemaRegistry"] = {
            "url": registry.url,
            "basic": {"username": "hub", "password": secret("p")},
        }
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", manifest)
        hub.write("s.yaml", kept("hunter2"))
        hub.start()
        refused = "False SchemaRegistryNotAuthorized"
        hub.wait(lambda: hub.condition("orders") == refused, "a refusal")
        assert not hub.letters()
        hub.write("s.yaml", kept("right"))
        hub.wait(lambda: len(hub.letters()) == 1, "a dead letter")
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
        (call,) = target.accepted
        assert json.loads(call.body) == {"id": 0, "paid": "12.34"}
        assert call.headers["content-type"] == "application/json"
        assert call.headers["ce-schemaid"] == str(number)
        assert call.headers["ce-schemaname"] == "com.shop.Order"
        assert call.headers["ce-dataschema"] == f"{registry.url}/schemas/ids/{number}"
        (letter,) = hub.letters()
        assert letter["reason"] == "Undecodable"
        assert f"it does not fit schema id {number}" in json.dumps(letter)
        assert "hunter2" not in told(hub)
        assert hub.stop() == 0


def test_a_dead_letter_in_a_topic_has_the_record_s_bytes_and_is_sent_again_as_json(
    kafka: Kafka, registry: SchemaRegistry, tmp_path: Path
) -> None:
    number = registry.register("orders-value", ORDER)
    stream, dead = Stream(kafka.broker, partitions=1), made(kafka.broker, "dead")
    values = [order(7, number), b"text"]
    asyncio.run(tools.produce(kafka.broker, stream.topic, values))
    with answering(refuse) as target, running(tmp_path, start=False) as hub:
        manifest = letters_to(stream, dead)
        manifest["spec"]["source"]["schemaRegistry"] = {"url": registry.url}
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", manifest)
        hub.start()
        hub.wait(lambda: len(hub.letters()) == 2, "two dead letters")
        laid = asyncio.run(tools.records(kafka.broker, dead, 2))
        assert sorted(record.value for record in laid) == sorted(values)
        rejected = next(one for one in hub.letters() if one["reason"] == "Rejected")
        target.script = lambda call: ACCEPT
        said = command(hub, "dlq", "redrive", rejected["id"], "--admin", hub.admin)
        assert "1 accepted" in said
        (call,) = target.accepted
        assert json.loads(call.body) == {"id": 7, "paid": "12.34"}
        assert call.headers["ce-schemaid"] == str(number)

        target.script = refuse
        hub.emit("orders", id="test", data={"a": 1})
        hub.wait(lambda: len(hub.letters()) == 2, "a dead letter of a test event")
        tested = next(one for one in hub.letters() if one["reason"] == "Rejected")
        target.script = lambda call: ACCEPT
        said = command(hub, "dlq", "redrive", tested["id"], "--admin", hub.admin)
        assert "1 accepted" in said
        assert json.loads(target.accepted[-1].body) == {"a": 1}
        assert hub.stop() == 0
