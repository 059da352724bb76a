"""Requests as events, and answers as bytes."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from triggerhub.event import Event, Reply, Request
from triggerhub_http.messages import (
    Field,
    Refusal,
    read_head,
    reply_fields,
    to_event,
)


def event(*fields: Field, body: bytes = b"") -> Event:
    head = read_head([(b"host", b"api.example"), *fields], "1.1")
    request = Request(method="POST", headers=tuple(head.kept))
    return to_event("/http/shop/in", head, request, "/in/7", body)


def kept(*fields: Field) -> dict[bytes, bytes]:
    return dict(read_head([(b"host", b"h"), *fields], "1.1").kept)


def test_a_plain_request_gets_the_triggers_attributes_and_a_fresh_id() -> None:
    one = event((b"content-type", b"text/plain"), body=b"\x00\xff")
    assert (one.source, one.type) == ("/http/shop/in", "dev.triggerhub.http.request")
    assert (one.subject, one.data, one.datacontenttype) == ("/in/7", b"\x00\xff", "text/plain")
    assert one.time is not None
    assert abs(one.time.timestamp() - time.time()) < 5
    assert len(one.id) == 26
    assert one.id != event().id


def test_the_id_is_the_idempotency_key_or_else_the_cloud_event_id() -> None:
    assert event((b"idempotency-key", b"k-1"), (b"ce-id", b"c-1")).id == "k-1"
    assert event((b"ce-id", b"c%201")).id == "c 1"


def test_a_cloud_event_keeps_its_own_attributes() -> None:
    one = event(
        (b"ce-specversion", b"1.0"),
        (b"ce-id", b"7"),
        (b"ce-source", b"/o%C3%BC"),
        (b"ce-type", b'"order created"'),
        (b"ce-subject", b"s"),
        (b"ce-time", b"2026-11-23T12:00:00Z"),
        (b"ce-partitionkey", b"p"),
        (b"ce-tenant", b"blue"),
        (b"idempotency-key", b"other"),
        (b"content-type", b"application/json"),
        body=b"{}",
    )
    assert (one.id, one.source, one.type, one.subject) == ("7", "/oü", "order created", "s")
    assert one.time == datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert (one.key, one.extensions) == ("p", {"tenant": "blue"})
    assert (one.data, one.datacontenttype) == (b"{}", "application/json")


def test_a_structured_cloud_event_is_known_by_its_own_attributes_and_stays_as_it_came() -> None:
    body = b'{"specversion":"1.0","id":"7","source":"/s","type":"t","data":{}}'
    one = event((b"content-type", b"Application/CloudEvents+json; charset=utf-8"), body=body)
    assert (one.id, one.source, one.type, one.data) == ("7", "/s", "t", body)
    assert one.datacontenttype == "Application/CloudEvents+json; charset=utf-8"
    assert one.request is not None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([(b"ce-specversion", b"0.3"), (b"ce-id", b"7")], "specversion"),
        ([(b"ce-specversion", b"1.0"), (b"ce-id", b"7"), (b"ce-source", b"/s")], "ce-type"),
        ([(b"content-type", b"application/cloudevents+json")], "JSON"),
    ],
)
def test_a_malformed_cloud_event_is_refused_with_the_reason(fields: list[Field], said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        event(*fields)
    assert caught.value.reply.status == 400


def test_what_says_no_version_is_a_plain_request() -> None:
    one = event((b"ce-id", b"7"), (b"ce-source", b"/s"), (b"ce-type", b"t"))
    assert (one.source, one.id) == ("/http/shop/in", "7")


def test_fields_of_the_connection_are_not_passed_on() -> None:
    assert kept(
        (b"connection", b"close, X-Mine"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-authorization", b"secret"),
        (b"te", b"trailers"),
        (b"trailer", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"expect", b"100-continue"),
        (b"content-length", b"3"),
        (b"x-mine", b"1"),
        (b"authorization", b"Bearer t"),
        (b"accept", b"*/*"),
    ) == {b"authorization": b"Bearer t", b"accept": b"*/*"}


@pytest.mark.parametrize("hosts", [0, 2])
def test_a_request_has_one_host(hosts: int) -> None:
    with pytest.raises(Refusal, match=f"found {hosts} Host fields") as caught:
        read_head([(b"host", b"h")] * hosts, "1.1")
    assert caught.value.reply.status == 400
    if not hosts:
        assert read_head([], "1.0").host == ""


@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-For", "Forwarded", "x_forwarded-for", "x-forwarded_host", "X_REAL_IP",
     "Triggerhub-Caller", "triggerhub_caller"],
)  # fmt: skip
def test_what_the_hub_says_itself_is_not_taken_from_a_request_however_it_is_spelt(
    name: str,
) -> None:
    assert kept((name.lower().encode(), b"a lie"), (b"x_other", b"1")) == {b"x_other": b"1"}


def test_an_answer_keeps_its_end_to_end_fields_and_gets_length_and_date() -> None:
    reply = Reply(
        201,
        (
            (b"content-length", b"99"),
            (b"connection", b"x-hop"),
            (b"x-hop", b"1"),
            (b"transfer-encoding", b"chunked"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        ),
        b"\x00hi",
    )
    assert reply_fields(reply, (b"date", b"now")) == [
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"date", b"now"),
        (b"content-length", b"3"),
    ]
    own = Reply(200, ((b"date", b"then"),))
    assert (b"date", b"then") in reply_fields(own, (b"date", b"now"))
    assert (b"date", b"now") not in reply_fields(own, (b"date", b"now"))


def test_answers_without_a_body_have_none() -> None:
    def fields(reply: Reply, *, head_only: bool = False) -> list[Field]:
        return reply_fields(reply, (b"date", b"now"), head_only=head_only, close=True)[1:]

    assert fields(Reply(204)) == [(b"connection", b"close")]
    assert fields(Reply(304, ((b"content-length", b"5"),))) == [(b"connection", b"close")]
    sized = Reply(200, ((b"content-length", b"512"),))
    assert fields(sized, head_only=True)[0] == (b"content-length", b"512")
    assert fields(Reply(200), head_only=True) == [(b"connection", b"close")]
    assert fields(Reply(404, (), b"no"), head_only=True)[0] == (b"content-length", b"2")


def test_a_refusal_is_a_whole_answer_that_ends_its_connection() -> None:
    head, _, body = Refusal(400, "BadRequest", "é").encoded().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ndate: ")
    assert head.endswith(b"content-length: %d\r\nconnection: close" % len(body))
    assert body.decode() == '{"error": "BadRequest", "message": "é"}'
