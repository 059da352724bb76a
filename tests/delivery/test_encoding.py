"""CloudEvents over HTTP, both ways."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.cloudevents import decode
from triggerhub.delivery.encoding import (
    encode_binary,
    encode_request,
    encode_structured,
    head_prefix,
)
from triggerhub.event import Event, Headers, Request

PREFIX = head_prefix("/in?x=1", b"f.test:8080", "triggerhub/test")
LEGAL = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters='"'), min_size=1
)


def parse(head: bytes) -> tuple[str, Headers]:
    first, *lines = head.decode("latin-1").split("\r\n")
    assert lines[-2:] == ["", ""]
    fields = [line.split(": ", 1) for line in lines[:-2]]
    return first, tuple((k.encode("latin-1"), v.encode("latin-1")) for k, v in fields)


EVENTS = st.builds(
    Event,
    id=LEGAL,
    source=LEGAL,
    type=LEGAL,
    data=st.binary(),
    datacontenttype=st.sampled_from([None, "text/plain", "application/octet-stream"]),
    subject=st.none() | LEGAL,
    time=st.none() | st.datetimes(timezones=st.just(UTC)),
    key=st.none() | LEGAL,
    extensions=st.dictionaries(
        st.from_regex(r"x[a-z0-9]{1,10}", fullmatch=True), LEGAL, max_size=3
    ),
)


@given(event=EVENTS)
def test_binary_mode_comes_back_as_it_went(event: Event) -> None:
    head, body = encode_binary(PREFIX, event, 1)
    _, headers = parse(head)
    assert decode(headers, body) == [event]


@given(event=EVENTS)
def test_structured_mode_comes_back_as_it_went(event: Event) -> None:
    head, body = encode_structured(PREFIX, event, 1)
    _, headers = parse(head)
    assert decode(headers, body) == [event]


@given(value=st.text(max_size=40), name=st.text(max_size=8))
def test_no_value_breaks_out_of_its_header_field(value: str, name: str) -> None:
    event = Event(
        id=value, source=value, type=value, subject=value, key=value, datacontenttype=value,
        extensions={name: value, "traceparent": value},
    )  # fmt: skip
    head, _ = encode_binary(PREFIX, event, 1)
    assert head.count(b"\r\n\r\n") == 1
    allowed = {
        "host", "user-agent", "ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject",
        "ce-partitionkey", "content-type", "content-length", "idempotency-key", "traceparent",
        "triggerhub-attempt", f"ce-{name}",
    }  # fmt: skip
    _, headers = parse(head)
    assert {k.decode("latin-1") for k, _ in headers} <= allowed


def test_the_request_bears_identity_attempt_and_trace() -> None:
    event = Event(
        id="3:1042", source="/kafka/orders", type="dev.triggerhub.kafka.record", data=b"{}",
        time=datetime(2026, 11, 23, 12, 0, 0, 5000, tzinfo=UTC), key="käse 1",
    )  # fmt: skip
    head, body = encode_binary(PREFIX, event, 2)
    first, headers = parse(head)
    fields = {k.decode(): v.decode() for k, v in headers}
    assert first == "POST /in?x=1 HTTP/1.1"
    assert fields["host"] == "f.test:8080"
    assert fields["ce-id"] == "3:1042"
    assert fields["ce-time"] == "2026-11-23T12:00:00.005000Z"
    assert fields["ce-partitionkey"] == "k%C3%A4se%201"
    assert fields["idempotency-key"] == "/kafka/orders/3:1042"
    assert fields["triggerhub-attempt"] == "2"
    assert fields["content-length"] == "2"
    assert len(fields["traceparent"]) == 55
    assert body == b"{}"


def test_a_trace_that_came_with_the_event_is_kept() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    head, _ = encode_binary(
        PREFIX, Event(id="1", source="/s", type="t", extensions={"traceparent": trace}), 1
    )
    assert f"traceparent: {trace}\r\n".encode() in head
    assert b"ce-traceparent" not in head


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        ("application/json", b'{"a": 1}', {"data": {"a": 1}}),
        ("application/vnd.x+json; charset=utf-8", b"[1]", {"data": [1]}),
        ("application/json", b"{half", {"data_base64": base64.b64encode(b"{half").decode()}),
        ("text/plain", "é".encode(), {"data": "é"}),
        ("text/plain", b"\xff", {"data_base64": "/w=="}),
        (None, b"x", {"data_base64": "eA=="}),
        ("image/png", b"\x89PNG", {"data_base64": "iVBORw=="}),
    ],
)
def test_structured_data_is_json_text_or_base64(
    content_type: str | None, data: bytes, expected: dict[str, Any]
) -> None:
    _, body = encode_structured(
        PREFIX, Event(id="1", source="/s", type="t", datacontenttype=content_type, data=data), 1
    )
    got = json.loads(body)
    assert {k: v for k, v in got.items() if k.startswith("data") and k != "datacontenttype"} == (
        expected
    )


def test_half_a_surrogate_pair_harms_nothing() -> None:
    event = Event(
        id="\ud800",
        source="s",
        type="t",
        data=rb'{"a":"\udfff"}',
        datacontenttype="application/json",
    )
    encode_binary(PREFIX, event, 1)
    _, body = encode_structured(PREFIX, event, 1)
    assert json.loads(body)["data"] == {"a": "\udfff"}


def test_a_proxied_request_keeps_method_path_query_headers_and_body() -> None:
    request = Request(
        method="PUT", path="/7/items%20x", query="a=1&b=2",
        headers=((b"accept", b"text/html"), (b"cookie", b"\xe9"), (b"host", b"evil"),
                 (b"ce-id", b"theirs"), (b"content-length", b"99")),
    )  # fmt: skip
    event = Event(
        id="01J ", source="/http/shop/api", type="t", data=b"body", subject="/in", key="k%1",
        time=datetime(2026, 11, 23, 12, tzinfo=UTC), extensions={"tenant": "blau ü"},
        request=request,
    )  # fmt: skip
    head, body = encode_request("/base?k=v", b"f.test", event, request)
    first, headers = parse(head)
    assert first == "PUT /base/7/items%20x?k=v&a=1&b=2 HTTP/1.1"
    fields = dict(headers)
    assert fields[b"accept"] == b"text/html"
    assert fields[b"cookie"] == b"\xe9"
    assert fields[b"host"] == b"f.test"
    assert fields[b"content-length"] == b"4"
    assert fields[b"ce-id"] == b"01J%20"
    assert fields[b"idempotency-key"] == b"01J%20"
    assert fields[b"ce-specversion"] == b"1.0"
    assert fields[b"ce-source"] == b"/http/shop/api"
    assert fields[b"ce-subject"] == b"/in"
    assert fields[b"ce-time"] == b"2026-11-23T12:00:00Z"
    assert fields[b"ce-partitionkey"] == b"k%251"
    assert fields[b"ce-tenant"] == b"blau%20%C3%BC"
    assert len(fields[b"traceparent"]) == 55
    assert len(headers) == len(fields)
    assert body == b"body"


IDS = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


@pytest.mark.parametrize(
    ("came", "passed_on"),
    [
        ([f"00-{IDS}-00"], True),
        ([f"01-{IDS}-01-what.comes"], True),
        ([f"00-{IDS}-01-what"], False),
        ([f"ff-{IDS}-01"], False),
        ([f"00-{'0' * 32}-b7ad6b7169203331-01"], False),
        ([f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"], False),
        ([f"00-{IDS.upper()}-01"], False),
        ([f"00-{IDS}-01", f"00-{IDS}-01"], False),
        (["garbage"], False),
        ([], False),
    ],
)
def test_a_trace_that_is_well_formed_goes_on_with_its_state_and_else_a_new_one_begins(
    came: list[str], passed_on: bool
) -> None:
    fields = [(b"traceparent", value.encode()) for value in came] + [(b"tracestate", b"a=b")]
    request = Request(method="GET", headers=tuple(fields))
    event = Event(id="1", source="/s", type="t", request=request)
    headers = parse(encode_request("/", b"f.test", event, request)[0])[1]
    parents = [value for name, value in headers if name == b"traceparent"]
    states = [value for name, value in headers if name == b"tracestate"]
    if passed_on:
        assert (parents, states) == ([came[0].encode()], [b"a=b"])
    else:
        assert (len(parents), states) == (1, [])
        assert parents[0].decode() not in came
        assert len(parents[0]) == 55


def test_a_get_without_a_body_says_no_length() -> None:
    request = Request(method="GET")
    event = Event(id="1", source="/s", type="t", request=request)
    head, _ = encode_request("/", b"f.test", event, request)
    assert b"content-length" not in head


def test_structured_json_data_stays_as_it_is_written() -> None:
    data = b'{ "a" : 1.50, "c": 1e400 }'
    event = Event(id="1", source="/s", type="t", data=data, datacontenttype="application/json")
    head, body = encode_structured(PREFIX, event, 1)
    assert data in body
    assert decode(parse(head)[1], body) == [event]


@pytest.mark.parametrize("data", [b'{"a":NaN}', b'"\xff"', b"{half"])
def test_data_that_is_not_the_json_it_claims_to_be_travels_as_bytes(data: bytes) -> None:
    event = Event(id="1", source="/s", type="t", data=data, datacontenttype="application/json")
    head, body = encode_structured(PREFIX, event, 1)
    assert decode(parse(head)[1], body) == [event]
