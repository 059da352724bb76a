"""Dead letters as messages, and back; notes of seeks; subjects."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.connector import Letter
from triggerhub.event import Event, Origin
from triggerhub.nats.headers import Headers, Pairs, block_of, pairs_of
from triggerhub_nats.decode import Place, event_of
from triggerhub_nats.letters import event_that_died, letter_message
from triggerhub_nats.notes import Done, Note, described, read_note
from triggerhub_nats.subjects import covers

_EVIDENCE = {"reason": "Rejected", "detail": "status 422: größe"}
_names = st.from_regex(r"[!-9;-~]{1,12}", fullmatch=True)
_values = st.binary(max_size=12).map(lambda raw: raw.translate(None, b"\r\n").strip())
_odd = st.sampled_from(
    ["Nats-Msg-Id", "nats-rollup", "triggerhub-header-Nats-TTL", "ce-id", "content-type",
     "triggerhub-dead-letter", "triggerhub-event-id"]
)  # fmt: skip


def letter(event: Event) -> Letter:
    assert event.origin is not None
    return Letter(
        id="L1", event=replace(event, origin=None), origin=event.origin(), evidence=_EVIDENCE
    )


def message_event(pairs: Pairs, data: bytes, time: datetime | None, by: str | None) -> Event:
    texts = {name: value.decode("utf-8", "replace") for name, value in pairs}
    headers = Headers(texts, block_of(pairs)) if pairs else None
    place = Place("/nats/ORDERS", "7", time, {"stream": "ORDERS", "sequence": "7"})
    return event_of(place, "orders.größe", headers, data, by=by)


@given(
    st.lists(st.tuples(_names | _odd, _values), max_size=6).map(tuple),
    st.binary(max_size=40),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.sampled_from([None, "key"]),
)
def test_a_letter_comes_back_as_it_was_even_when_it_died_before(
    pairs: Pairs, data: bytes, time: datetime | None, by: str | None
) -> None:
    event = message_event(pairs, data, time, by)
    for _ in range(2):
        message = letter_message("dead", "shop.orders.f", letter(event))
        back = event_that_died(message.headers, message.data, by)
        assert event.origin is not None
        assert back.origin is not None
        assert replace(back, origin=None) == replace(event, origin=None)
        assert back.origin() == event.origin()
        event = back


def test_a_streams_own_headers_are_out_of_its_reach_and_its_identity_stands_first() -> None:
    event = message_event((("Nats-Rollup", b"all"), ("nats-msg-id", b"x")), b"1", None, None)
    first, *others = pairs_of(letter_message("dead", "shop.orders.f", letter(event)).headers)
    assert first[0] == "Nats-Msg-Id"
    assert not [name for name, _ in others if name.lower().startswith("nats-")]


def test_the_identity_is_another_for_another_message_of_the_same_place() -> None:
    def named(data: bytes, day: int, binding: str = "b", again: str = "") -> bytes:
        event = message_event((), data, datetime(2026, 1, day, tzinfo=UTC), None)
        message = letter_message("dead", binding, letter(event), again)
        return dict(pairs_of(message.headers))["Nats-Msg-Id"]

    assert named(b"1", 1) == named(b"1", 1)
    others = {named(b"2", 1), named(b"1", 2), named(b"1", 1, "c"), named(b"1", 1, again="L")}
    assert len(others | {named(b"1", 1)}) == 5


def test_a_test_event_comes_back_as_a_cloudevent() -> None:
    event = Event(
        id="1 2", source="/größe", type="t", data=b"\x00", subject="a b", key="k%",
        datacontenttype="text/plain", extensions={"x": '"'}, time=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    own = Letter(id="L1", event=event, origin=Origin(), evidence=_EVIDENCE)
    message = letter_message("dead", "b", own)
    back = event_that_died(message.headers, message.data, "key")
    assert replace(back, origin=None) == event
    assert back.origin is not None
    assert back.origin() == Origin()


def test_another_message_is_no_dead_letter() -> None:
    with pytest.raises(ValueError, match="found no header triggerhub-dead-letter"):
        event_that_died(block_of((("a", b"b"),)), b"", None)


@pytest.mark.parametrize(
    ("pattern", "subject", "means"),
    [
        ("a", "a", True), ("a", "a.b", False), ("a.b", "a", False), ("*", "a", True),
        ("*", "a.b", False), ("a.*.c", "a.b.c", True), ("a.*.c", "a.b.d", False),
        (">", "a.b", True), ("a.>", "a", False), ("a.>", "a.b.c", True),
        ("b.>", "a.b", False), ("a.b", "a.c", False),
    ],
)  # fmt: skip
def test_a_pattern_means_the_subjects_that_nats_brings_for_it(
    pattern: str, subject: str, means: bool
) -> None:
    assert covers(pattern, subject) is means


def test_a_description_holds_the_last_eight_seeks_beside_what_was_there() -> None:
    note, text = Note(), "ours [seek of x]"
    for number in range(10):
        note = note.sought(Done(f"id-{number}", 1_700_000_000 + number, number))
        text = described(text, note)
        assert read_note(text) == note
    assert text.startswith("ours [seek of x] [seek=id-9@1700000009,9 before=id-8,")
    assert [note.done(f"id-{n}") for n in range(10)] == [False] * 2 + [True] * 8
    assert read_note("ours [seek of x]") == Note()
    long = described("ü" * 4000, note)
    assert len(long.encode()) <= 4096
    assert read_note(long) == note
