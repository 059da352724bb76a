"""A dead letter and a delivery survive being rows, whatever is in them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triggerhub.event import Event, Origin, Request, Settled
from triggerhub.store.codec import (
    delivery_of,
    delivery_text,
    entry_of,
    letter_of,
    letter_row,
    searchable,
)
from triggerhub.store.records import Attempt, DeadLetter, Delivery, Elsewhere, StoreError

_ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
_NAME = st.text("abc-", min_size=1, max_size=8)
_MAYBE_TEXT = st.none() | _ANY_TEXT
_BYTES = st.binary(max_size=16)
_SECONDS = st.floats(0, 4e9)
_STATUS = st.none() | st.integers(100, 599)
_ZONES = st.builds(
    timezone, st.integers(-86_399, 86_399).map(lambda seconds: timedelta(seconds=seconds))
)

_EVENTS = st.builds(
    Event,
    id=_ANY_TEXT,
    source=_ANY_TEXT,
    type=_ANY_TEXT,
    data=_BYTES,
    datacontenttype=_MAYBE_TEXT,
    subject=_MAYBE_TEXT,
    time=st.none() | st.datetimes(timezones=st.none() | _ZONES),
    key=_MAYBE_TEXT,
    extensions=st.dictionaries(_ANY_TEXT, _ANY_TEXT, max_size=3),
    origin=st.none(),
    request=st.none(),
    fault=_MAYBE_TEXT,
)
_ORIGINS = st.builds(
    Origin,
    coordinates=st.dictionaries(_ANY_TEXT, _ANY_TEXT, max_size=3),
    key=st.none() | _BYTES,
    headers=st.lists(st.tuples(_ANY_TEXT, st.none() | _BYTES), max_size=3).map(tuple),
    value=st.none() | _BYTES,
)
_ELSEWHERE = st.builds(
    Elsewhere,
    kind=_ANY_TEXT,
    coordinates=st.dictionaries(_ANY_TEXT, _ANY_TEXT, max_size=3),
    size=st.integers(0, 2**40),
)
_LETTERS = st.builds(
    DeadLetter,
    id=_NAME,
    namespace=_NAME,
    trigger=_NAME,
    function=_NAME,
    event=_EVENTS,
    origin=_ORIGINS,
    reason=_NAME,
    detail=_ANY_TEXT,
    last_status=_STATUS,
    last_response=_BYTES,
    attempts=st.integers(0, 1000),
    first_time=_SECONDS,
    last_time=_SECONDS,
    elsewhere=st.none() | _ELSEWHERE,
)
_DELIVERIES = st.builds(
    Delivery,
    binding=_ANY_TEXT,
    source=_ANY_TEXT,
    id=_ANY_TEXT,
    type=_ANY_TEXT,
    received=_SECONDS,
    ended=st.none() | _SECONDS,
    settled=st.none() | st.sampled_from(Settled),
    detail=_ANY_TEXT,
    attempts=st.lists(
        st.builds(
            Attempt,
            number=st.integers(1, 100),
            time=_SECONDS,
            seconds=_SECONDS,
            status=_STATUS,
            error=_ANY_TEXT,
        ),
        max_size=3,
    ).map(tuple),
    dead_letter=_ANY_TEXT,
)

# A busy machine is no fault of the codec.
_calmly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_calmly
@given(_LETTERS)
def test_a_letter_is_the_same_after_its_row(letter: DeadLetter) -> None:
    assert letter_of(letter_row(letter)) == letter


@_calmly
@given(_DELIVERIES)
def test_a_delivery_is_the_same_after_its_text(delivery: Delivery) -> None:
    assert delivery_of(delivery_text(delivery)) == delivery


@_calmly
@given(_ANY_TEXT)
def test_every_text_has_a_searchable_form(text: str) -> None:
    searchable(text).encode()
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert searchable(text) == text


def test_what_belongs_to_the_process_is_left_out() -> None:
    event = Event(id="1", source="s", type="t")
    letter = DeadLetter(
        id="A",
        namespace="n",
        trigger="t",
        function="f",
        event=replace(event, origin=Origin, request=Request(method="GET")),
        origin=Origin(),
        reason="Rejected",
        detail="",
        last_status=None,
        last_response=b"",
        attempts=1,
        first_time=1.0,
        last_time=1.0,
    )
    assert letter_of(letter_row(letter)).event == event


def test_a_request_that_nobody_waits_for_is_kept() -> None:
    asked = Request(method="PUT", headers=((b"x-a", b"\xff"),), deferred=True)
    event = Event(id="1", source="s", type="t", request=asked)
    letter = DeadLetter(
        id="A", namespace="n", trigger="t", function="f", event=event, origin=Origin(),
        reason="Rejected", detail="", last_status=None, last_response=b"", attempts=1,
        first_time=1.0, last_time=1.0,
    )  # fmt: skip
    assert letter_of(letter_row(letter)).event == event


_PUT = '{"event": {"id": "1", "source": "s", "type": "t"}, "time": null, "extensions": {}}'


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff\xfe", b"{}", b"[]", b"null", b"7", b"[" * 100_000,
        _PUT.replace('"1"', "1").encode(),
        _PUT.replace('"s"', "null").encode(),
        _PUT.replace("null", '"noon"').encode(),
        _PUT.replace("{}", "[1]").encode(),
        _PUT.replace("{}", '{"a": 1}').encode(),
        _PUT.replace("{}", '{}, "request": ["GET", 1, "", []]').encode(),
        _PUT.replace("{}", '{}, "request": "GET"').encode(),
        _PUT.replace("{}", '{}, "coordinates": {}').encode(),
    ],
    ids=lambda text: str(text[:90]),
)  # fmt: skip
def test_an_entry_that_makes_no_sense_is_to_become_a_dead_letter_with_its_bytes(
    text: bytes,
) -> None:
    assert entry_of(7, _PUT.encode(), b"data").event.fault is None
    number, event = entry_of(7, text, b"data")
    assert event.fault is not None
    assert event.fault.startswith("entry 7 of the inbox is damaged: ")
    assert event.origin is not None
    assert (number, event.id, event.data) == (7, "7", b"data")
    assert event.origin().value == text + b"\ndata"


def test_data_that_the_source_has_as_it_is_is_kept_once() -> None:
    event = Event(id="1", source="s", type="t", data=b"as it is")
    letter = DeadLetter(
        id="A", namespace="n", trigger="t", function="f", event=event,
        origin=Origin(value=b"as it is"), reason="Rejected", detail="", last_status=None,
        last_response=b"", attempts=1, first_time=1.0, last_time=1.0,
    )  # fmt: skip
    row = letter_row(letter)
    assert "value" not in row[5]
    assert letter_of(row).origin == letter.origin


@pytest.mark.parametrize("evidence", ["", "[]", "{}", '{"event": {"colour": 1}, "time": "noon"}'])
def test_a_damaged_letter_is_named(evidence: str) -> None:
    with pytest.raises(StoreError, match="dead letter 01J is damaged"):
        letter_of(("01J", "n", "t", "f", "Rejected", evidence, b"", None, b"", None))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settled": "gone", "attempts": []}'])
def test_a_damaged_delivery_is_said_to_be_so(text: str) -> None:
    with pytest.raises(StoreError, match="delivery in the journal is damaged"):
        delivery_of(text)
