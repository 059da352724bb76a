"""A Kinesis record as events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kpl import MAGIC, aggregate, sealed
from triggerhub.event import Event
from triggerhub_kinesis.decode import decoder

SHARD = "shardId-000000000003"
SEQUENCE = "49680574827821192275723460122045635096356232271874752514"
TAKEN = datetime(2026, 11, 26, 7, 2, 35, 585000, tzinfo=timezone(timedelta(hours=1)))


def decode(data: bytes = b"data", key: str = "key", **more: Any) -> list[Event]:
    record = {
        "Data": data,
        "PartitionKey": key,
        "SequenceNumber": SEQUENCE,
        "ApproximateArrivalTimestamp": TAKEN,
        "EncryptionType": "NONE",
    }
    return decoder("orders", SHARD)(record | more)


def test_a_record_is_named_by_its_place() -> None:
    [event] = decode()
    assert (event.source, event.id) == ("/kinesis/orders", SEQUENCE)
    assert event.type == "dev.triggerhub.kinesis.record"
    assert (event.key, event.data, event.extensions, event.fault) == ("key", b"data", {}, None)
    assert event.subject is None


def test_its_time_is_that_of_its_arrival_in_utc() -> None:
    [event] = decode()
    assert event.time == TAKEN
    assert event.time.tzinfo is UTC
    record = {"Data": b"", "PartitionKey": "k", "SequenceNumber": "1"}
    [event] = decoder("orders", SHARD)(record)
    assert event.time is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}', "application/json"),
        (b"[]", "application/json"),
        (b"{torn", "application/octet-stream"),
        (b"}", "application/octet-stream"),
        (b"", "application/octet-stream"),
        (b'{"specversion":"1.0","id":"7","source":"/s","type":"t"}', "application/json"),
    ],
)
def test_json_is_known_by_its_ends_and_nothing_else_is_read(data: bytes, expected: str) -> None:
    [event] = decode(data)
    assert (event.datacontenttype, event.data) == (expected, data)
    assert event.id == SEQUENCE
    [event] = decode(aggregate([("k", None, data)]))
    assert (event.datacontenttype, event.data) == (expected, data)


def test_a_dead_letter_gets_the_records_coordinates() -> None:
    [event] = decode("grün".encode(), key="grün")
    assert event.origin is not None
    origin = event.origin()
    assert origin.coordinates == {"stream": "orders", "shard": SHARD, "sequence": SEQUENCE}
    assert (origin.key, origin.value) == ("grün".encode(), "grün".encode())


def test_parts_of_an_aggregated_record_are_events_with_keys_of_their_own() -> None:
    first, second = decode(aggregate([("a", None, b"1"), ("b", "99", b"{}")]), key="whole")
    assert [first.id, second.id] == [f"{SEQUENCE}:0", f"{SEQUENCE}:1"]
    assert {first.source, second.source} == {"/kinesis/orders"}
    assert {first.type, second.type} == {"dev.triggerhub.kinesis.record"}
    assert [first.key, second.key] == ["a", "b"]
    assert [first.data, second.data] == [b"1", b"{}"]
    assert first.time == second.time == TAKEN
    assert first.origin is not None
    assert second.origin is not None
    at = {"stream": "orders", "shard": SHARD, "sequence": SEQUENCE, "recordPartitionKey": "whole"}
    assert first.origin().coordinates == at | {"subSequence": "0"}
    assert second.origin().coordinates == at | {"subSequence": "1", "explicitHashKey": "99"}
    assert (second.origin().key, second.origin().value) == (b"b", b"{}")


@pytest.mark.parametrize("data", [MAGIC, MAGIC + b"\x0a\x01kdata and no digest of it", b"\xf3"])
def test_what_only_begins_like_an_aggregated_record_is_data(data: bytes) -> None:
    [event] = decode(data)
    assert (event.data, event.fault, event.id) == (data, None, SEQUENCE)


def test_a_sealed_record_that_makes_no_sense_is_a_fault_and_kept_whole() -> None:
    data = sealed(b"\x0a\x05ab")
    [event] = decode(data, key="whole")
    assert event.fault == (
        "its digest fits, but it is no aggregated record: "
        "the message: found 2 bytes at byte 2, expected 5"
    )
    assert (event.id, event.key, event.data) == (SEQUENCE, "whole", data)
    assert event.origin is not None
    assert event.origin().value == data


@given(st.binary(max_size=60), st.sampled_from([bytes, sealed, lambda data: MAGIC + data]))
def test_nothing_is_too_strange_and_nothing_is_lost(data: bytes, dressed: Any) -> None:
    events = decode(dressed(data))
    assert events
    assert len({event.id for event in events}) == len(events)
    if len(events) == 1 and events[0].id == SEQUENCE:
        assert events[0].data == dressed(data)
