"""A NATS message as an event."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from triggerhub.event import Event
from triggerhub_nats.decode import Place, event_of

PLACE = Place("/nats/ORDERS", "7", datetime(2026, 1, 1, tzinfo=UTC), {"stream": "ORDERS"})


def decoded(data: bytes = b"x", by: str | None = None, **headers: str) -> Event:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return event_of(PLACE, "orders.new", named, data, by=by)


def test_a_plain_message_is_named_by_its_place() -> None:
    event = event_of(PLACE, "orders.new", None, b"x", redelivered=2)
    assert (event.source, event.id, event.type) == (
        "/nats/ORDERS", "7", "dev.triggerhub.nats.message",
    )  # fmt: skip
    assert (event.subject, event.key, event.time) == ("orders.new", "orders.new", PLACE.time)
    assert event.redelivered == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}', "application/json"),
        (b"[1]", "application/json"),
        (b"{x", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_json_is_known_by_its_ends(data: bytes, expected: str) -> None:
    assert event_of(PLACE, "s", None, data).datacontenttype == expected
    assert decoded(data, X="y").datacontenttype == expected
    assert decoded(data, Content_Type="text/csv").datacontenttype == "text/csv"


def test_headers_become_extensions() -> None:
    event = decoded(X_Kind="größe", traceparent="00-1", Nats_Msg_Id="m")
    assert event.extensions == {
        "natsheaderxkind": "größe", "traceparent": "00-1", "natsheadernatsmsgid": "m",
    }  # fmt: skip


def test_order_may_go_by_a_header_in_any_case() -> None:
    assert decoded(by="customer", Customer="ann").key == "ann"
    assert decoded(by="customer", other="ann").key is None
    assert event_of(PLACE, "s", None, b"", by="customer").key is None


def test_a_dead_letter_has_the_headers_and_the_place() -> None:
    event = decoded(X_Kind="größe")
    assert event.origin is not None
    origin = event.origin()
    assert origin.coordinates == {
        "subject": "orders.new", "stream": "ORDERS", "time": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert origin.headers == (("X-Kind", "größe".encode()),)


def test_a_binary_cloud_event_keeps_its_attributes() -> None:
    event = decoded(
        b"1,2", ce_specversion="1.0", ce_id="a%20b", ce_source="/s", ce_type="t",
        ce_subject="mine", ce_color="r%C3%B6t", Content_Type="text/csv", X_Kind="k",
    )  # fmt: skip
    assert (event.id, event.source, event.type, event.subject) == ("a b", "/s", "t", "mine")
    assert event.datacontenttype == "text/csv"
    assert event.extensions == {"color": "röt", "natsheaderxkind": "k"}
    assert event.key == "orders.new"


def test_a_binary_cloud_event_may_bear_its_content_type_as_an_attribute() -> None:
    event = decoded(
        ce_specversion="1.0", ce_id="1", ce_source="/s", ce_type="t", ce_datacontenttype="text/csv",
        ce_partitionkey="ann",
    )  # fmt: skip
    assert (event.datacontenttype, event.key) == ("text/csv", "ann")


def test_a_structured_cloud_event_keeps_its_attributes() -> None:
    body = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": 1.50}}
    event = decoded(json.dumps(body).encode(), content_type="application/cloudevents+json")
    assert (event.id, event.source, event.data) == ("1", "/s", b'{"a": 1.5}')


@pytest.mark.parametrize(
    "headers",
    [
        {"ce_specversion": "1.0", "ce_id": "1"},
        {"ce_specversion": "0.3", "ce_id": "1", "ce_source": "/s", "ce_type": "t"},
        {"ce_specversion": "1.0", "ce_id": "%ff", "ce_source": "/s", "ce_type": "t"},
        {"content_type": "application/cloudevents+json"},
        {"content_type": "application/cloudevents+avro"},
    ],
)
def test_what_claims_to_be_a_cloud_event_and_is_not_has_a_fault(headers: dict[str, str]) -> None:
    event = decoded(b"{", **headers)
    assert (event.fault or "").startswith("not a CloudEvent: ")
    assert (event.source, event.id, event.data) == ("/nats/ORDERS", "7", b"{")
