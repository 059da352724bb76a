from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.event import Event
from triggerhub_kafka.decode import decoder

STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
CLOUD_EVENT = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.created"}


def record(
    value: bytes | None = b"data",
    key: bytes | None = b"key",
    headers: Any = (),
    timestamp: int = 1_700_000_000_123,
) -> ConsumerRecord:
    return ConsumerRecord("orders", 3, 42, timestamp, 0, key, value, None, -1, -1, tuple(headers))


def decode(*arguments: Any, **named: Any) -> Event:
    return decoder("orders", 3)(record(*arguments, **named))


def structured(**members: Any) -> Event:
    return decode(json.dumps(CLOUD_EVENT | members).encode(), headers=STRUCTURED)


class TestPlain:
    def test_coordinates_are_the_identity(self) -> None:
        event = decode()
        assert (event.source, event.id) == ("/kafka/orders", "3:42")
        assert event.type == "dev.triggerhub.kafka.record"
        assert event.time == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
        assert (event.key, event.data, event.extensions) == ("key", b"data", {})

    def test_no_timestamp_is_no_time(self) -> None:
        assert decode(timestamp=-1).time is None

    @pytest.mark.parametrize("headers", [(), [("other", b"")]])
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (b'{"a": 1}', "application/json"),
            (b"[]", "application/json"),
            (b"{torn", "application/octet-stream"),
            (b"text", "application/octet-stream"),
            (b"", "application/octet-stream"),
            (b"\x00\x00\x00\x00\x01avro", "application/octet-stream"),
        ],
    )
    def test_json_is_known_by_its_ends(self, value: bytes, expected: str, headers: Any) -> None:
        assert decode(value, headers=headers).datacontenttype == expected

    def test_a_content_type_header_decides(self) -> None:
        event = decode(b"{}", headers=[("Content-Type", b"text/plain")])
        assert event.datacontenttype == "text/plain"
        assert event.extensions == {}

    def test_a_key_that_is_not_text_is_base64_and_says_so(self) -> None:
        event = decode(key=b"\xff\x00")
        assert (event.key, event.extensions) == ("/wA=", {"keyencoding": "base64"})

    def test_headers_become_extensions_and_the_last_of_a_name_wins(self) -> None:
        headers = [("X-Tenant", b"a"), ("x_tenant", b"b"), ("é", b"dropped"), ("bin", b"\xff")]
        assert decode(headers=headers).extensions == {
            "kafkaheaderxtenant": "b",
            "kafkaheaderbin": "/w==",
        }

    def test_trace_context_keeps_its_names(self) -> None:
        event = decode(headers=[("traceparent", b"00-1-2-01"), ("tracestate", b"a=b")])
        assert event.extensions == {"traceparent": "00-1-2-01", "tracestate": "a=b"}

    def test_a_tombstone_is_told_from_empty_data(self) -> None:
        assert decode(None).extensions == {"kafkatombstone": "true"}
        assert decode(None).data == b""
        assert decode(b"").extensions == {}

    def test_the_origin_is_what_kafka_has(self) -> None:
        origin = decode(headers=[("h", b"\xff"), ("n", None)]).origin
        assert origin is not None
        found = origin()
        assert found.coordinates == {
            "topic": "orders",
            "partition": "3",
            "offset": "42",
            "timestamp": "1700000000123",
        }
        assert (found.key, found.headers) == (b"key", (("h", b"\xff"), ("n", None)))


class TestBinary:
    HEADERS = (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"7"),
        ("ce_source", b"/shop"),
        ("ce_type", b"order.created"),
        ("ce_subject", "größe".encode()),
        ("ce_time", b"2026-01-31T08:00:00.5Z"),
        ("ce_dataschema", b"/schema"),
        ("ce_tenant", b"t1"),
        ("content-type", b"application/json"),
        ("other", b"kept"),
    )

    def test_its_own_attributes_pass(self) -> None:
        event = decode(b"{}", headers=self.HEADERS)
        assert event.fault is None
        assert (event.id, event.source, event.type) == ("7", "/shop", "order.created")
        assert event.subject == "größe"
        assert event.time == datetime(2026, 1, 31, 8, 0, 0, 500000, tzinfo=UTC)
        assert event.datacontenttype == "application/json"
        assert event.extensions == {
            "dataschema": "/schema",
            "tenant": "t1",
            "kafkaheaderother": "kept",
        }
        assert event.key == "key"

    def test_partitionkey_stands_in_for_a_key_that_is_not_there(self) -> None:
        headers = (*self.HEADERS, ("ce_partitionkey", b"p"))
        assert decode(key=None, headers=headers).key == "p"
        assert decode(key=b"k", headers=headers).key == "k"
        assert "partitionkey" not in decode(headers=headers).extensions

    @pytest.mark.parametrize(
        ("changed", "fault"),
        [
            (("ce_specversion", b"0.3"), "ce_specversion: found '0.3', expected '1.0'"),
            (("ce_id", b""), "ce_id: found nothing, expected a text"),
            (("ce_time", b"yesterday"), "ce_time: found 'yesterday', expected an RFC 3339 time"),
            (("ce_source", b"\xff"), "header ce_source: found no UTF-8"),
            (("ce_my-name", b"x"), "attribute name: found 'ce_my-name', expected a-z, 0-9"),
        ],
    )
    def test_a_malformed_one_keeps_its_coordinates_and_says_why(
        self, changed: tuple[str, bytes], fault: str
    ) -> None:
        headers = dict(self.HEADERS) | dict([changed])
        event = decode(b"{}", headers=headers.items())
        assert (event.source, event.id, event.data) == ("/kafka/orders", "3:42", b"{}")
        assert event.fault is not None
        assert fault in event.fault

    def test_ce_headers_without_a_version_are_plain(self) -> None:
        event = decode(headers=[("ce_id", b"7")])
        assert event.fault is None
        assert event.extensions == {"kafkaheaderceid": "7"}


class TestStructured:
    def test_json_data_stays_as_it_is_written(self) -> None:
        text = '{ "a" : 1.50, "b":\t"\\u00e9", "c": 1e400 }'
        body = json.dumps(CLOUD_EVENT)[:-1] + f', "data": {text}}}'
        event = decode(body.encode(), headers=STRUCTURED)
        assert event.fault is None
        assert event.data == text.encode()
        assert event.datacontenttype == "application/json"
        assert (event.id, event.source, event.type) == ("7", "/shop", "order.created")

    def test_attributes_pass_as_text(self) -> None:
        event = structured(flag=True, count=3, note="n", gone=None, time="2026-01-31T08:00:00Z")
        assert event.extensions == {"flag": "true", "count": "3", "note": "n"}
        assert event.time == datetime(2026, 1, 31, 8, tzinfo=UTC)
        assert event.data == b""

    def test_text_data_is_the_text(self) -> None:
        assert structured(datacontenttype="text/plain", data="hé").data == "hé".encode()

    def test_a_json_string_stays_json(self) -> None:
        assert structured(datacontenttype="application/json", data="x").data == b'"x"'
        assert structured(datacontenttype="application/vnd.a+json; v=1", data="x").data == b'"x"'

    def test_base64_data_is_decoded(self) -> None:
        event = structured(datacontenttype="image/png", data_base64="iVBO")
        assert (event.data, event.datacontenttype) == (b"\x89PN", "image/png")

    @pytest.mark.parametrize(
        ("body", "fault"),
        [
            (b"", "expected an event object"),
            (b"[]", "expected an event object"),
            (b'{"id": "1"', "found the end, expected ',' or '}'"),
            (b'{"id" "1"}', "found '\"', expected ':'"),
            (b'{"specversion": "1.0"} x', "expected nothing more"),
            (b"\xff", "JSON is not UTF-8"),
            (
                b'{"specversion": "1.0", "id": "1", "type": "t"}',
                "source: found nothing, expected a text",
            ),
            (b'{"data": ' + b"[" * 200_000, "nested too deeply"),
            (b'{"data": NaN}', "found NaN"),
            (b'{"id": {}}', "attribute 'id': found '{}', expected a string"),
        ],
    )
    def test_a_malformed_one_says_why(self, body: bytes, fault: str) -> None:
        event = decode(body, headers=STRUCTURED)
        assert event.fault is not None
        assert fault in event.fault
        assert (event.id, event.data) == ("3:42", body)

    @pytest.mark.parametrize(
        "members",
        [
            {"data": 1, "data_base64": "AAAA"},
            {"data_base64": "###"},
            {"data_base64": 7},
            {"ratio": 0.5},
            {"subject": "\ud800"},
            {"datacontenttype": "text/plain", "data": "\ud800"},
            {"Upper": "x"},
        ],
    )
    def test_what_json_format_does_not_allow_is_a_fault(self, members: dict[str, Any]) -> None:
        assert structured(**members).fault is not None

    def test_a_tombstone_is_not_one(self) -> None:
        assert decode(None, headers=STRUCTURED).fault is not None


@given(
    value=st.none() | st.binary(),
    key=st.none() | st.binary(),
    headers=st.lists(
        st.tuples(
            st.text(alphabet=st.characters(exclude_categories=["Cs"]))
            | st.sampled_from(["content-type", "ce_specversion", "ce_id", "ce_type", "ce_source"]),
            st.none()
            | st.binary()
            | st.sampled_from([b"1.0", b"application/cloudevents+json", b"text/plain"]),
        )
    ),
)
def test_any_record_becomes_an_event(value: bytes, key: bytes, headers: Any) -> None:
    event = decode(value, key, headers)
    assert event.data == (value or b"") or event.fault is None
    for name, text in event.extensions.items():
        assert name.isascii()
        assert name.isalnum()
        assert name == name.lower()
        text.encode()
    assert event.origin is not None
    assert event.origin().headers == tuple(headers)
