"""Records in a schema's form: what becomes of them, and of those that do not fit.

integration/test_kafka_schemas.py has the broker, and the registry that schemas come from.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from triggerhub.connector import Installation, Problem
from triggerhub.event import Event
from triggerhub.testing.fakes import RecordingReport, subscription
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.decode import decoder
from triggerhub_kafka.health import Health
from triggerhub_kafka.problems import ExtraMissingError
from triggerhub_kafka.readers import reader
from triggerhub_kafka.registry import NoSchema, Registered, Registry, RegistryFault, Unfit
from triggerhub_kafka.schemas import Known, Schema, Schemas, translate

HEAD = b"\x00\x00\x00\x00\x07"
ORDER = {
    "type": "record", "name": "Order", "namespace": "com.shop",
    "fields": [{"name": "id", "type": "int"}, {"name": "note", "type": ["null", "string"]}],
}  # fmt: skip


def avro(schema: Any, *references: tuple[str, Any]) -> Registered:
    texts = tuple((name, json.dumps(text)) for name, text in references)
    return Registered("AVRO", json.dumps(schema), texts)


def written(schema: Any, value: Any) -> bytes:
    """A record's value."""
    data = io.BytesIO()
    fastavro.schemaless_writer(data, fastavro.parse_schema(schema), value)
    return HEAD + data.getvalue()


def read(schema: Any, value: bytes) -> Any:
    return json.loads(reader(avro(schema))[1](value))


def logical(kind: str, of: Any, **more: Any) -> dict[str, Any]:
    underlying: dict[str, Any] = of if isinstance(of, dict) else {"type": of}
    return underlying | {"logicalType": kind} | more


FIXED = {"type": "fixed", "name": "F", "size": 3}
AT = datetime(2026, 1, 31, 8, 0, 0, 123456, UTC)


class TestAvro:
    @pytest.mark.parametrize(
        ("schema", "value", "expected"),
        [
            ("null", None, None),
            ("boolean", True, True),
            ("int", -5, -5),
            ("long", 2**62, 2**62),
            ("double", 0.1, 0.1),
            ("float", 0.5, 0.5),
            ("double", math.inf, "Infinity"),
            ("double", -math.inf, "-Infinity"),
            ({"type": "array", "items": "float"}, [math.nan, 1.0], ["NaN", 1.0]),
            ("string", 'é "\n', 'é "\n'),
            ("bytes", b"\xff\x00", "/wA="),
            (FIXED, b"abc", "YWJj"),
            ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
            ({"type": "array", "items": ["null", "int"]}, [1, None], [1, None]),
            ({"type": "map", "values": "bytes"}, {"a": b"a"}, {"a": "YQ=="}),
            (["null", ORDER], {"id": 1, "note": None}, {"id": 1, "note": None}),
            (logical("decimal", "bytes", precision=9, scale=2), Decimal("-12.30"), "-12.30"),
            (logical("decimal", "bytes", precision=9, scale=9), Decimal("1E-9"), "0.000000001"),
            (logical("decimal", FIXED, precision=4, scale=0), Decimal(1200), "1200"),
            (logical("date", "int"), date(2026, 1, 31), "2026-01-31"),
            (logical("time-millis", "int"), time(8, 0, 0, 5000), "08:00:00.005000"),
            (logical("time-micros", "long"), time(8, 0), "08:00:00"),
            (logical("timestamp-micros", "long"), AT, "2026-01-31T08:00:00.123456Z"),
            (
                logical("timestamp-millis", "long"),
                AT.replace(microsecond=0),
                "2026-01-31T08:00:00Z",
            ),
            (
                logical("local-timestamp-millis", "long"),
                datetime(2026, 1, 31, 8),  # noqa: DTZ001 - it has none
                "2026-01-31T08:00:00",
            ),
            (logical("uuid", "string"), UUID(int=7), "00000000-0000-0000-0000-000000000007"),
            (logical("timestamp-nanos", "long"), 1, 1),
            (logical("shop-money", "long"), 1, 1),
        ],
        ids=str,
    )
    def test_each_type_has_its_form_in_json(self, schema: Any, value: Any, expected: Any) -> None:
        assert read(schema, written(schema, value)) == expected

    @pytest.mark.parametrize(
        ("schema", "name"),
        [(ORDER, "com.shop.Order"), (["null", ORDER], ""), ("string", ""), (FIXED, "F")],
    )
    def test_a_named_type_has_its_full_name(self, schema: Any, name: str) -> None:
        assert reader(avro(schema))[0] == name

    def test_other_schemas_may_be_referred_to(self) -> None:
        item = {"type": "record", "name": "com.shop.Item",
                "fields": [{"name": "order", "type": "com.shop.Order"}]}  # fmt: skip
        basket = {"type": "array", "items": "com.shop.Item"}
        whole = avro(basket, ("com.shop.Order", ORDER), ("com.shop.Item", item))
        _, decode = reader(whole)
        one = b"\x02\x02\x00\x00"  # one item: id 1, no note; the end
        assert json.loads(decode(HEAD + one)) == [{"order": {"id": 1, "note": None}}]

    def test_data_that_does_not_fit_says_so(self) -> None:
        for schema, data, said in (
            (ORDER, b"", "EOFError"),
            (ORDER, b"\x02\x04", "IndexError"),
            (ORDER, b"\x02\x00rest", "4 bytes are left over"),
            ("string", b"\x02\xff", "UnicodeDecodeError"),
            ("string", b"\xfe\xff\xff\xff\xff\x1fabc", "EOFError"),
            (logical("date", "int"), b"\xfe\xff\xff\xff\x0f", "OverflowError"),
        ):
            with pytest.raises(Unfit, match=said):
                reader(avro(schema))[1](HEAD + data)

    def test_data_may_be_nested_but_not_without_end(self) -> None:
        """fastavro's compiled reader would overflow the stack, and so end the process."""
        tree = {"type": "record", "name": "Tree",
                "fields": [{"name": "in", "type": ["null", "Tree"]}]}  # fmt: skip
        _, decode = reader(avro(tree))
        assert decode(HEAD + b"\x02" * 20 + b"\x00").count(b"{") == 21
        with pytest.raises(Unfit, match="nested too deeply"):
            decode(HEAD + b"\x02" * 1_000_000 + b"\x00")

    @pytest.mark.parametrize(
        "items",
        [
            "null",
            {"type": "record", "name": "Empty", "fields": []},
            {"type": "fixed", "name": "None", "size": 0},
            {"type": "record", "name": "Two", "fields": [
                {"name": "a", "type": {"type": "record", "name": "Inner", "fields": []}},
                {"name": "b", "type": "Inner"}]},
        ],
    )  # fmt: skip
    def test_a_few_bytes_never_stand_for_more_items_than_memory_holds(self, items: Any) -> None:
        whole = {
            "type": "record",
            "name": "Whole",
            "fields": [{"name": "a", "type": ["null", {"type": "array", "items": items}]}],
        }
        with pytest.raises(NoSchema, match="items take no bytes"):
            reader(avro(whole))

    @pytest.mark.parametrize(
        ("schema", "said"),
        [
            (Registered("PROTOBUF", "syntax", ()), "of type PROTOBUF, expected AVRO or JSON"),
            (Registered("AVRO", "{", ()), "JSONDecodeError"),
            (avro({"type": "array", "items": "com.shop.Gone"}), "com.shop.Gone"),
            (Registered("JSON", '{"type": "nonsense"}', ()), "cannot be used"),
            (Registered("JSON", '{"$ref": "http://127.0.0.1:1/a"}', ()), "none of its references"),
        ],
        ids=["kind", "text", "reference", "type", "elsewhere"],
    )  # fmt: skip
    def test_a_schema_that_cannot_be_used_says_why(self, schema: Registered, said: str) -> None:
        with pytest.raises(NoSchema, match=said):
            reader(schema)


def types() -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    """An Avro schema, and what may be written in its form. No two branches of a union are alike
    in JSON."""
    plain: list[tuple[Any, st.SearchStrategy[Any]]] = [
        ("boolean", st.booleans()),
        ("long", st.integers(-(2**63), 2**63 - 1)),
        ("double", st.floats(allow_nan=False, allow_infinity=False)),
        ("string", st.text()),
        (["null", "long"], st.none() | st.integers(-(2**31), 2**31 - 1)),
    ]

    def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        def record(parts: list[tuple[Any, st.SearchStrategy[Any]]], name: str) -> Any:
            fields = [{"name": f"f{n}", "type": kind} for n, (kind, _) in enumerate(parts)]
            values = {f"f{n}": value for n, (_, value) in enumerate(parts)}
            return {"type": "record", "name": name, "fields": fields}, st.fixed_dictionaries(values)

        names = st.uuids().map(lambda number: f"R{number.hex}")
        return (
            inner.map(lambda of: ({"type": "array", "items": of[0]}, st.lists(of[1], max_size=3)))
            | inner.map(
                lambda of: (
                    {"type": "map", "values": of[0]},
                    st.dictionaries(st.text(), of[1], max_size=3),
                )
            )
            | st.builds(record, st.lists(inner, min_size=1, max_size=3), names)
        )

    return st.recursive(st.sampled_from(plain), around, max_leaves=6)


@given(st.data())
def test_what_was_written_is_read(data: st.DataObject) -> None:
    schema, values = data.draw(types())
    value = data.draw(values)
    assert read(schema, written(schema, value)) == value


@given(st.data(), st.binary(max_size=64))
def test_any_other_data_is_read_or_does_not_fit(data: st.DataObject, other: bytes) -> None:
    schema, _ = data.draw(types())
    _, decode = reader(avro(schema))
    with suppress(Unfit):
        json.loads(decode(HEAD + other))


CUSTOMER = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
BASKET = {
    "title": "Order", "type": "object",
    "properties": {"id": {"type": "integer"}, "for": {"$ref": "customer.json"}},
}  # fmt: skip


class TestJSON:
    def decode(self, data: bytes) -> bytes:
        references = (("customer.json", json.dumps(CUSTOMER)),)
        name, decode = reader(Registered("JSON", json.dumps(BASKET), references))
        assert name == "Order"
        return decode(HEAD + data)

    def test_stays_as_it_is(self) -> None:
        for data in (b'{ "id" : 1 }\n', b'{"for": {"name": "\xc3\xa9"}, "more": 1e2}'):
            assert self.decode(data) == data

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b'{"id": "hunter2"}', "/id: the value is not of type \"integer\""),
            (b'{"for": {}}', "/for: \"name\" is a required property"),
            (b"[]", "the whole: the value is not of type \"object\""),
            (b"", "no JSON"),
            (b"{torn", "no JSON"),
            (b'{"id": NaN}', "no JSON: ValueError: JSON has no NaN"),
            (b"\xff", "no JSON: UnicodeDecodeError"),
            (b'{"a":' * 100_000, "no JSON: RecursionError"),
        ],
        ids=lambda part: str(part)[:20],
    )  # fmt: skip
    def test_that_does_not_fit_says_where_and_shows_no_value(self, data: bytes, said: str) -> None:
        with pytest.raises(Unfit) as caught:
            self.decode(data)
        assert str(caught.value).startswith(said)


NAMED = {"dataschema": "http://r/schemas/ids/7", "schemaid": "7", "schemaname": "com.shop.Order"}
KNOWN: Known = {7: Schema(NAMED, reader(avro(ORDER))[1]), 8: "http://r has no schema with id 8"}
GOOD = written(ORDER, {"id": 1, "note": "a"})


def event(value: bytes | None, *headers: tuple[str, bytes], key: bytes = b"key") -> Event:
    record = ConsumerRecord(
        "orders", 3, 42, 1_700_000_000_123, 0, key, value, None, -1, -1, headers
    )
    return translate(KNOWN, decoder("orders", 3), record)


class TestEvent:
    def test_has_its_data_as_json_and_says_what_schema_it_has(self) -> None:
        for headers in ((), (("content-type", b"avro/binary"),)):
            found = event(GOOD, *headers)
            assert found.data == b'{"id":1,"note":"a"}'
            assert found.datacontenttype == "application/json"
            assert found.extensions == NAMED
            assert (found.id, found.source, found.key) == ("3:42", "/kafka/orders", "key")
            assert found.time == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
            assert found.fault is None
            assert found.origin is not None
            assert found.origin().coordinates["offset"] == "42"

    def test_of_a_cloud_event_keeps_its_own_attributes(self) -> None:
        own = {"specversion": "1.0", "id": "a", "source": "/shop", "type": "order",
               "dataschema": "http://own"}  # fmt: skip
        headers = [(f"ce_{name}", value.encode()) for name, value in own.items()]
        found = event(GOOD, ("content-type", b"application/avro"), *headers)
        assert (found.id, found.source, found.type) == ("a", "/shop", "order")
        assert found.extensions["dataschema"] == "http://own"
        assert found.extensions["schemaid"] == "7"
        assert found.data == b'{"id":1,"note":"a"}'
        assert found.datacontenttype == "application/json"

    def test_of_a_structured_cloud_event_or_a_tombstone_is_as_without_a_registry(self) -> None:
        body = b'{"specversion": "1.0", "id": "a", "source": "/s", "type": "t", "data": 1}'
        assert event(body, ("content-type", b"application/cloudevents+json")).data == b"1"
        assert event(None).extensions == {"kafkatombstone": "true"}

    def test_key_is_left_as_it_is(self) -> None:
        assert event(GOOD, key=b"\x00\x00\x00\x00\x07\xff").extensions["keyencoding"] == "base64"

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (b"", "expected a zero byte and a schema id of four, found nothing"),
            (b'{"id": 1}', "expected a zero byte and a schema id of four, found 7b 22 69 64 22"),
            (b"\x00\x00", "expected a zero byte and a schema id of four, found 00 00"),
            (b"\x01" + b"g" * 16, "expected a zero byte and a schema id of four, found 01 67"),
            (b"\x00\x00\x00\x00\x08x", "http://r has no schema with id 8"),
            (HEAD + b"\x02", "it does not fit schema id 7: "),
            (GOOD + b"x", "it does not fit schema id 7: 1 bytes are left over"),
        ],
    )
    def test_of_what_nobody_can_read_has_a_fault_and_its_bytes(
        self, value: bytes, said: str
    ) -> None:
        found = event(value, ("x", b"1"))
        assert found.fault is not None
        assert found.fault.startswith(said)
        assert (found.data, found.datacontenttype) == (value, "application/octet-stream")
        assert found.extensions == {"kafkaheaderx": "1"}

    def test_of_a_torn_cloud_event_has_its_bytes_too(self) -> None:
        found = event(GOOD, ("ce_specversion", b"1.0"))
        assert found.fault is not None
        assert found.fault.startswith("not a CloudEvent")
        assert found.data == GOOD


class Scripted(Registry):
    """A registry in memory: every id but those above 5000 is an order's."""

    def __init__(self) -> None:
        self.url = "http://r"
        self.asked: list[int] = []
        self.away = False

    async def schema(self, number: int) -> Registered:
        self.asked.append(number)
        await asyncio.sleep(1.0)
        if self.away:
            raise RegistryFault("SchemaRegistryUnreachable", "away")
        if number > 5000:
            raise NoSchema("no such schema")
        return avro(ORDER)


def of_schemas(*numbers: int) -> list[ConsumerRecord]:
    values = [b"\x00" + number.to_bytes(4, "big") + b"\x02\x00" for number in numbers]
    return [
        ConsumerRecord("orders", 3, at, 0, 0, None, value, None, -1, -1, ())
        for at, value in enumerate([*values, b"text", None])
    ]


@pytest.mark.looptime
class TestSchemas:
    async def test_are_asked_for_once_and_what_is_not_there_again(self) -> None:
        registry = Scripted()
        schemas = Schemas(registry)
        for _ in range(2):
            known = await schemas.of(of_schemas(1, 2, 1, 6000))
            assert set(known) == {1, 2, 6000}
            assert known[6000] == "schema id 6000: no such schema"
        assert sorted(registry.asked) == [1, 2, 6000, 6000]

    async def test_are_learned_once_for_all_who_wait(self) -> None:
        registry = Scripted()
        schemas = Schemas(registry)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(50):
                tasks.create_task(schemas.of(of_schemas(1)))
        assert registry.asked == [1]

    async def test_that_are_not_given_are_refused_to_all_who_wait_at_once(self) -> None:
        registry = Scripted()
        registry.away = True
        schemas = Schemas(registry)
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(away(schemas)) for _ in range(50)]
        assert all(task.result() == "away" for task in waiting)
        assert len(registry.asked) <= 2  # who came while the first asked, asks once more
        registry.away = False
        assert set(await schemas.of(of_schemas(1))) == {1}

    async def test_are_bounded_in_number_and_those_in_use_stay(self) -> None:
        registry = Scripted()
        schemas = Schemas(registry)
        for begin in range(0, 2000, 400):
            await schemas.of(of_schemas(7000, 1, *range(begin + 10, begin + 410)))
        assert len(schemas._known) == 1000
        assert registry.asked.count(1) == 1
        assert registry.asked.count(7000) == 5


async def away(schemas: Schemas) -> str:
    with pytest.raises(RegistryFault) as caught:
        await schemas.of(of_schemas(1))
    return str(caught.value)


def test_brokers_that_answer_do_not_hide_a_registry_that_does_not() -> None:
    report = RecordingReport()
    health = Health(report, ["k:1"], "g", 5.0)
    health.joined()
    health.registry(Problem("SchemaRegistryUnreachable", "no schema"))
    health.back(True, {})
    assert report.said == ["Connected", "SchemaRegistryUnreachable"]
    health.away("no answer")
    health.registry(None)
    health.back(True, {})
    assert report.said[2:] == ["BrokerUnreachable", "Connected"]


KEPT = {"secretRef": {"name": "kafka", "key": "k"}}


@pytest.mark.parametrize(
    ("registry", "message"),
    [
        ({}, "Field required"),
        ({"url": "registry:8081"}, "expected a URL such as"),
        ({"url": "http://u:p@registry"}, "expected a URL such as"),
        ({"url": "http://registry", "tls": {}}, "found tls and an http URL, expected an https"),
        (
            {"url": "http://r", "bearer": KEPT, "basic": {"username": "a", "password": KEPT}},
            "found both basic and bearer, expected at most one",
        ),
    ],
)
def test_faults_say_what_was_found_and_expected(registry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        KafkaSource.model_validate({"topic": "orders", "schemaRegistry": registry})
    assert message in str(caught.value)


async def test_what_is_not_installed_is_told_with_the_command_that_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "triggerhub_kafka.readers")
    monkeypatch.setitem(sys.modules, "fastavro", None)  # as if it were not there
    report = RecordingReport()
    source = {"topic": "orders", "schemaRegistry": {"url": "http://127.0.0.1:1"}}
    bound = subscription(KafkaSource.model_validate(source), report=report)
    with pytest.raises(ExtraMissingError):
        await KafkaConnector(Installation()).listen(bound)
    said = "spec.source.schemaRegistry needs: pip install 'triggerhub[kafka-schemas]'"
    assert (report.said, report.message) == (["ExtraNotInstalled"], said)


def test_a_hub_without_a_registry_does_not_load_what_reads_schemas() -> None:
    loaded = "import sys, triggerhub_kafka; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout
    assert not {b"fastavro", b"jsonschema_rs", b"aiohttp"} & set(found.split())
