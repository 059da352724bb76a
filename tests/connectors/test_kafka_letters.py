"""Dead letters and answers as records, and dead letters back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triggerhub.connector import Letter
from triggerhub.event import Event, Origin, Reply
from triggerhub_kafka.decode import decoder
from triggerhub_kafka.letters import event_of, letter_record, what_died
from triggerhub_kafka.records import Found, Outgoing
from triggerhub_kafka.replies import reply_record

EVIDENCE = {"reason": "Rejected", "detail": "status 422: é", "attempts": "2"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_BYTES = st.binary(max_size=12)
_RECORDS = st.builds(
    Found,
    topic=st.just("orders"),
    partition=st.integers(0, 9),
    offset=st.integers(0, 2**60),
    timestamp=st.integers(0, 4 * 10**12),
    key=st.none() | _BYTES,
    value=st.none() | _BYTES,
    headers=st.lists(st.tuples(st.text(max_size=8), st.none() | _BYTES), max_size=4).map(tuple),
)


def record(value: bytes | None = b"x", **changes: Any) -> Found:
    plain: dict[str, Any] = {
        "topic": "orders", "partition": 3, "offset": 17, "timestamp": 1_700_000_000_123,
        "key": b"k", "headers": (),
    }  # fmt: skip
    return Found(value=value, **(plain | changes))


def letter_of(died: Found) -> Letter:
    event = decoder(died.topic, died.partition)(died)
    assert event.origin is not None
    return Letter(
        id="01J", event=replace(event, origin=None), origin=event.origin(), evidence=EVIDENCE
    )


def lying(written: Outgoing, offset: int = 5) -> Found:
    """The written record as it is found in its topic."""
    return Found(
        topic=written.topic, partition=0, offset=offset,
        timestamp=-1 if written.timestamp is None else written.timestamp,
        key=written.key, value=written.value, headers=written.headers,
    )  # fmt: skip


def back_of(found: Found) -> Event:
    died = what_died(found)
    return event_of(died, decoder(died.topic, died.partition))


def same(one: Event, other: Event) -> bool:
    assert one.origin is not None
    assert other.origin is not None
    return replace(one, origin=None) == replace(other, origin=None) and (
        one.origin() == other.origin()
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_RECORDS)
def test_what_died_comes_back_as_it_was_decoded_first(died: Found) -> None:
    back = back_of(lying(letter_record("dead", letter_of(died))))
    assert same(back, decoder(died.topic, died.partition)(died))


def test_a_letter_of_a_letter_comes_back_as_the_letter_that_died() -> None:
    first = lying(letter_record("dead", letter_of(record())))
    second = lying(letter_record("deader", letter_of(first)), 9)
    back = back_of(second)
    assert (back.source, back.id) == ("/kafka/dead", "0:5")
    assert back.origin is not None
    assert back.origin().headers == first.headers
    assert same(back_of(first), decoder("orders", 3)(record()))


def test_the_evidence_stands_behind_the_headers_that_the_record_had() -> None:
    written = letter_record("dead", letter_of(record(headers=(("h", None),))))
    assert (written.key, written.value, written.timestamp) == (b"k", b"x", 1_700_000_000_123)
    assert written.headers == (
        ("h", None),
        ("triggerhub-dead-letter", b"01J"),
        ("triggerhub-reason", b"Rejected"),
        ("triggerhub-detail", "status 422: é".encode()),
        ("triggerhub-attempts", b"2"),
        ("triggerhub-event-id", b"3:17"),
        ("triggerhub-event-source", b"/kafka/orders"),
        ("triggerhub-source-topic", b"orders"),
        ("triggerhub-source-partition", b"3"),
        ("triggerhub-source-offset", b"17"),
        ("triggerhub-source-timestamp", b"1700000000123"),
    )


def test_the_whole_record_is_kept_of_an_event_that_was_but_a_part_of_it() -> None:
    whole = b'{"specversion":"1.0","id":"a","source":"/s","type":"t","data":{"n":1}}'
    died = record(whole, headers=(("content-type", b"application/cloudevents+json"),))
    letter = letter_of(died)
    assert letter.event.data == b'{"n":1}'
    written = letter_record("dead", letter)
    assert written.value == whole
    assert back_of(lying(written)).id == "a"


def test_a_test_event_which_was_no_record_is_written_as_a_cloudevent() -> None:
    event = Event(
        id="01T", source="/emit/shop/orders", type="dev.triggerhub.emit", data=b"{}", key="k",
        datacontenttype="application/json", time=datetime(2026, 1, 1, tzinfo=UTC),
        extensions={"a": "é"},
    )  # fmt: skip
    letter = Letter(id="01J", event=event, origin=Origin(), evidence=EVIDENCE)
    written = letter_record("dead", letter)
    assert (written.key, written.value, written.timestamp) == (b"k", b"{}", None)
    back = back_of(lying(written))
    assert replace(back, origin=None) == event
    assert back.origin is not None
    assert back.origin().coordinates == {}


def test_a_record_that_is_no_letter_is_told() -> None:
    with pytest.raises(ValueError, match="found no header triggerhub-dead-letter"):
        back_of(record())


def answered(died: Found, *headers: tuple[bytes, bytes], body: bytes = b"done") -> Outgoing:
    event = decoder(died.topic, died.partition)(died)
    return reply_record("answers", event, Reply(200, headers, body))


@pytest.mark.parametrize("key", [None, b"k", b"\xff", b""])
def test_an_answer_has_the_key_of_its_record(key: bytes | None) -> None:
    written = answered(record(key=key))
    assert (written.topic, written.key, written.value) == ("answers", key, b"done")
    assert written.timestamp is None
    assert written.headers == (("triggerhub-correlation-id", b"/kafka/orders/3:17"),)


def test_an_answer_keeps_the_trace_of_its_record_or_goes_on_with_its_own() -> None:
    died = record(headers=(("traceparent", TRACE.encode()), ("tracestate", b"a=1")))
    assert answered(died).headers[:2] == (("traceparent", TRACE.encode()), ("tracestate", b"a=1"))
    own = TRACE.replace("b7ad", "b7ae").encode()
    assert answered(died, (b"traceparent", own)).headers[0] == ("traceparent", own)


def test_an_answer_that_is_a_cloudevent_stays_one() -> None:
    written = answered(
        record(),
        (b"content-type", b"text/plain"), (b"ce-specversion", b"1.0"), (b"ce-id", b"r1"),
        (b"ce-subject", b"%C3%A9%25"), (b"x-else", b"1"), (b"connection", b"close"),
    )  # fmt: skip
    assert written.headers[:-1] == (
        ("ce_specversion", b"1.0"), ("ce_id", b"r1"), ("ce_subject", "é%".encode()),
        ("content-type", b"text/plain"),
    )  # fmt: skip


def test_an_answer_to_a_test_event_has_its_key_too() -> None:
    event = Event(id="1", source="/emit/a/b", type="t", key="k")
    written = reply_record("answers", event, Reply(200, (), b"done"))
    assert written.key == b"k"
