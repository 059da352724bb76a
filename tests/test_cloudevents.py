"""CloudEvents as they come in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triggerhub.cloudevents import (
    CloudEventError,
    decode,
    from_attributes,
    from_json,
    is_json,
    media_type,
)
from triggerhub.event import Event, Headers

STRUCTURED = ((b"content-type", b"application/cloudevents+json; charset=UTF-8"),)
BATCH = ((b"content-type", b"Application/CloudEvents-Batch+JSON"),)
BINARY = (
    (b"ce-specversion", b"1.0"),
    (b"ce-id", b"7"),
    (b"ce-source", b"/shop"),
    (b"ce-type", b"order.created"),
)
REQUIRED = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.created"}

SPACE = st.text(" \t\r\n", max_size=3)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def written(draw: st.DrawFn) -> str:
    """JSON of any value in one of the many ways to write it; half a surrogate pair as an escape."""
    value = draw(VALUES)
    text = json.dumps(
        value,
        ensure_ascii=draw(st.booleans()) or "\\ud" in json.dumps(value),
        indent=draw(st.sampled_from([None, 1, "\t"])),
        separators=(draw(SPACE) + "," + draw(SPACE), draw(SPACE) + ":" + draw(SPACE)),
    )
    return draw(st.sampled_from([text, "1.50", "1e400", "-0", "9" * 5000, r'"\u0041\ud800"']))


def written_event(data: str, **attributes: Any) -> str:
    return json.dumps(REQUIRED | attributes)[:-1] + f', "data": {data}}}'


def structured(**members: Any) -> Event:
    return from_json(json.dumps(REQUIRED | members).encode())


@given(data=written(), before=SPACE, after=SPACE, mark=st.sampled_from(["", "\ufeff"]))
def test_any_json_data_stays_as_it_is_written(
    data: str, before: str, after: str, mark: str
) -> None:
    members = [f"{json.dumps(n)}{after}:{before}{json.dumps(v)}" for n, v in REQUIRED.items()]
    members.insert(2, f'{before}"data"{after}:{before}{data}{after}')
    text = f"{mark}{before}{{{','.join(members)}{after}}}{after}"
    assert from_json(text.encode()).data == data.encode()


@given(parts=st.lists(written(), max_size=4), space=SPACE)
def test_data_in_a_batch_stays_as_it_is_written(parts: list[str], space: str) -> None:
    body = f"{space},{space}".join(written_event(part, id=str(n)) for n, part in enumerate(parts))
    events = decode(BATCH, f"{space}[{space}{body}{space}]{space}".encode())
    assert [(event.id, event.data) for event in events] == [
        (str(n), part.encode()) for n, part in enumerate(parts)
    ]


@given(
    headers=st.sampled_from([STRUCTURED, BATCH, BINARY])
    | st.lists(
        st.tuples(st.sampled_from([name for name, _ in (*STRUCTURED, *BINARY)]), st.binary())
    ).map(tuple),
    body=st.binary() | st.text(' {}[]",:\\1eNau').map(str.encode),
)
@example(headers=STRUCTURED, body=b"[" * 200_000)
@example(headers=STRUCTURED, body=b'{"":' * 200_000)
@example(headers=BATCH, body=b"[" * 200_000)
@example(headers=BATCH, body=b'[{"data":' + b"[" * 200_000)
def test_bytes_that_are_no_event_raise_nothing_else(headers: Headers, body: bytes) -> None:
    try:
        events = decode(headers, body)
    except CloudEventError as error:
        said = str(error).encode()
    else:
        said = b""
        assert all(event.id and event.source and event.type for event in events)
    assert len(said) < 400


@given(data=written(), at=st.integers(0, 10_000), put=st.binary(max_size=2))
def test_an_event_that_was_damaged_on_its_way_raises_nothing_else(
    data: str, at: int, put: bytes
) -> None:
    body = written_event(data).encode()
    at %= len(body)
    for damaged in (body[:at], body[:at] + put + body[at + 1 :]):
        try:
            from_json(damaged)
        except CloudEventError:
            continue
        json.loads(damaged, parse_int=float)


def test_json_data_without_a_content_type_is_said_to_be_json() -> None:
    body = written_event("1").encode()
    assert from_json(body).datacontenttype == "application/json"
    assert structured().datacontenttype is None
    assert structured(data_base64="AAAA").datacontenttype is None
    assert structured(data_base64="AAAA", data=None).datacontenttype is None


@pytest.mark.parametrize(
    ("members", "data"),
    [
        ({}, b""),
        ({"data": None}, b"null"),
        ({"data": None, "datacontenttype": "application/json"}, b"null"),
        ({"data": None, "datacontenttype": "text/plain"}, b""),
        ({"data": "x"}, b'"x"'),
        ({"data": "x", "datacontenttype": "application/vnd.x+json; v=1"}, b'"x"'),
        ({"data": "h\u00e9", "datacontenttype": "text/plain"}, "hé".encode()),
        ({"data": "\U0001f600", "datacontenttype": "text/plain"}, "\U0001f600".encode()),
        ({"data": [1, 2], "datacontenttype": "text/plain"}, b"[1, 2]"),
        ({"data": "\ud800"}, rb'"\ud800"'),
        ({"data_base64": "iVBO", "datacontenttype": "image/png"}, b"\x89PN"),
        ({"data_base64": "iVBO", "data": None}, b"\x89PN"),
        ({"data_base64": None, "data": 1}, b"1"),
        ({"data_base64": None}, b""),
        ({"data_base64": ""}, b""),
    ],
)
def test_data_is_json_text_or_base64(members: dict[str, Any], data: bytes) -> None:
    assert structured(**members).data == data


def test_attributes_become_text_and_null_is_unset() -> None:
    event = structured(
        subject="s", partitionkey=9, flag=True, count=-3, note="é", gone=None, time=None
    )
    assert (event.subject, event.key, event.time) == ("s", "9", None)
    assert event.extensions == {"flag": "true", "count": "-3", "note": "é"}


def test_of_members_with_one_name_the_last_one_wins() -> None:
    body = json.dumps(REQUIRED).encode()[:-1] + b', "id": "8", "data": 1, "data": 2}'
    event = from_json(body)
    assert (event.id, event.data) == ("8", b"2")


def test_a_batch_is_its_events() -> None:
    items = [REQUIRED | {"id": str(n), "data": n} for n in range(3)]
    events = decode(BATCH, json.dumps(items).encode())
    assert [(e.id, e.data, e.datacontenttype) for e in events] == [
        (str(n), str(n).encode(), "application/json") for n in range(3)
    ]
    assert decode(BATCH, b" [ ] ") == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        (b"%e2%82%ac", "€"),
        (b"%2541", "%41"),
        (b"100%", "100%"),
        (b'"a \\"b\\" \\\\ c"', 'a "b" \\ c'),
        (b'"%41\\%42"', "AB"),
        (b'"', '"'),
        (b'"a" "b"', '"a" "b"'),
        ("käse".encode(), "käse"),
    ],
)
def test_a_header_is_unquoted_then_percent_decoded_once(value: bytes, text: str) -> None:
    (event,) = decode((*BINARY, (b"ce-note", value)), b"")
    assert event.extensions == {"note": text}


def test_binary_mode_takes_its_content_type_from_the_content_type_header_alone() -> None:
    (event,) = decode((*BINARY, (b"ce-datacontenttype", b"text/plain")), b"x")
    assert event == Event(id="7", source="/shop", type="order.created", data=b"x")
    (event,) = decode((*BINARY, (b"content-type", b"Text/Plain; a=B")), b"x")
    assert event.datacontenttype == "Text/Plain; a=B"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01t00:00:00z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01 00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T02:00:00+02:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00-00:00", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00.5Z", datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)),
        ("2026-01-01T00:00:00.123456789Z", datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_time_is_any_that_rfc_3339_has(text: str, moment: datetime) -> None:
    assert structured(time=text).time == moment


def test_a_time_keeps_its_offset() -> None:
    time = structured(time="2026-01-01T02:00:00+02:00").time
    assert time is not None
    assert time.utcoffset() == timedelta(hours=2)


@pytest.mark.parametrize(
    "text",
    [
        "", "noon", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00Z", "20260101T000000Z",
        "2026-W01-1T00:00:00Z", "2026-01-01T00:00:00,5Z", "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z", "2026-01-01T00:00:61Z", "2026-01-01T00:00:00+99:00",
        "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00Z\n", "0000-01-01T00:00:00Z",
        "٢٠٢٦-01-01T00:00:00Z",
    ],
)  # fmt: skip
def test_a_time_that_rfc_3339_does_not_have_is_refused(text: str) -> None:
    with pytest.raises(CloudEventError, match=r"^time: found '.*', expected an RFC 3339 time$"):
        structured(time=text)


def body(**members: Any) -> bytes:
    return json.dumps(REQUIRED | members).encode()


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ((), b"x", "no CloudEvent"),
        (((b"ce-specversion", b"0.3"),), b"", "ce-specversion: found '0.3', expected '1.0'"),
        (BINARY[:2], b"", "ce-source, ce-type: found nothing, expected a text"),
        ((*BINARY, (b"ce-x", b"%C0%A0")), b"", "ce-x: found '%C0%A0', expected percent-encoded"),
        ((*BINARY, (b"ce-x", b"\xe9")), b"", "ce-x: found 'é', expected percent-encoded UTF-8"),
        ((*BINARY, (b"ce-x-y", b"1")), b"", "attribute name: found 'ce-x-y'"),
        ((*BINARY, (b"ce-data", b"1")), b"", "attribute name: found 'ce-data'"),
        (((b"content-type", b"application/cloudevents+avro"),), b"",
         "content-type: found 'application/cloudevents.avro', expected application/cloudevents.j"),
        (STRUCTURED, b"", "character 0: found the end, expected an event object"),
        (STRUCTURED, b"[]", r"character 0: found '\[', expected an event object"),
        (STRUCTURED, b"{half", "character 1: found 'h', expected a name in double quotes"),
        (STRUCTURED, b'{"a":1,}', "character 7: found '}', expected a name in double quotes"),
        (STRUCTURED, b'{"a" 1}', "character 5: found '1', expected ':'"),
        (STRUCTURED, b'{"a":}', "JSON is broken: Expecting value"),
        (STRUCTURED, b'{"a":"\n"}', "JSON is broken: Invalid control character"),
        (STRUCTURED, b'{"a":01}', "found '1', expected ',' or '}'"),
        (STRUCTURED, b'{"a":1', "found the end, expected ',' or '}'"),
        (STRUCTURED, b"{} {}", "character 3: found '{', expected nothing more"),
        (STRUCTURED, b"{}\x00", "expected nothing more"),
        (STRUCTURED, b'{"data":' + b"[" * 200_000, "character 8: nested too deeply"),
        (STRUCTURED, b'{"data":[NaN]}', "found NaN"),
        (STRUCTURED, b'{"data":-Infinity}', "found -Infinity"),
        (STRUCTURED, b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (STRUCTURED, '{"a":1}'.encode("utf-16"), "not UTF-8 at byte 0"),
        (STRUCTURED, b'{"id":{}}', "attribute 'id': found '{}', expected a string"),
        (STRUCTURED, body(id=""), "id: found nothing, expected a text"),
        (STRUCTURED, body(id=None), "id: found nothing"),
        (STRUCTURED, body(specversion=None), "specversion: found nothing, expected '1.0'"),
        (STRUCTURED, body(x=[]), r"attribute 'x': found '\[\]', expected a string"),
        (STRUCTURED, body(x=0.5), "attribute 'x': found '0.5'"),
        (STRUCTURED, body(x=1e20), "attribute 'x': found '1e.20'"),
        (STRUCTURED, body(Upper="x"), "attribute name: found 'Upper'"),
        (STRUCTURED, body(**{"": "x"}), "attribute name: found ''"),
        (STRUCTURED, body(**{"\ud800": "x"}), r"attribute name: found '\\ud800'"),
        (STRUCTURED, body(subject="\ud800"), "subject: found half of a surrogate pair"),
        (STRUCTURED, body(datacontenttype="\udfff"), "datacontenttype: found half of a surrogate"),
        (STRUCTURED, body(datacontenttype="text/plain", data="a\ud800"), "data: found half of a"),
        (STRUCTURED, body(data=1, data_base64="eA=="), "both data and data_base64"),
        (STRUCTURED, body(data_base64="!"), "data_base64: found no valid base64"),
        (STRUCTURED, body(data_base64="é"), "data_base64: found no valid base64"),
        (STRUCTURED, body(data_base64=7), "data_base64: found no valid base64"),
        (BATCH, b"{}", "character 0: found '{', expected a list of events"),
        (BATCH, b"[1]", "character 1: found '1', expected an event object"),
        (BATCH, b"[" + body() + b",]", "found ']', expected an event object"),
        (BATCH, b"[" + body(), "found the end, expected ',' or ']'"),
        (BATCH, b"[] x", "found 'x', expected nothing more"),
        (BATCH, b"[" + body() + b"," + body(id=None) + b"]", r"^\[1\]\.id: found nothing"),
        (BATCH, b"[" + body(data=1, data_base64="") + b"]", r"^\[0\]\.data: found both data"),
    ],
)  # fmt: skip
def test_what_is_no_cloudevent_is_refused_with_the_reason(
    headers: Headers, body: bytes, said: str
) -> None:
    with pytest.raises(CloudEventError, match=said):
        decode(headers, body)


def test_binary_attributes_with_half_a_surrogate_pair_are_refused() -> None:
    with pytest.raises(CloudEventError, match=r"^x_id: found half of a surrogate pair"):
        from_attributes(REQUIRED | {"id": "\ud800"}, b"", None, "x_")


def test_media_types_are_compared_without_case_and_parameters() -> None:
    assert media_type(" Application/CloudEvents+JSON ; charset=x") == "application/cloudevents+json"
    assert media_type("text/plain") == "text/plain"
    assert is_json("Application/Problem+JSON; x=y")
    assert not is_json("application/jsonl")
