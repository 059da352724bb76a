"""Records that the Kinesis Producer Library has put together."""

from __future__ import annotations

import contextlib
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kpl import MAGIC, aggregate, field, number, sealed, varint
from triggerhub_kinesis.aggregated import AggregateError, Part, is_aggregated, unpack

# Written by Google's own library, from the messages of the format's document, with tags.
BY_GOOGLE = bytes.fromhex(
    "f3899ac20a04626c61750a056772c3bc6e1227313730313431313833343630343639323331373331363837333033"
    "3731353838343130353732381a0b08001a077b226e223a317d1a0e080110001a0022060a01611201621a0808001a"
    "0478787878054ed5cc7d345847762ae1ed1b87f0ae"
)
KEY_AND_DATA = number(1, 0) + field(3, b"x")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def test_what_another_library_wrote_is_read() -> None:
    assert is_aggregated(BY_GOOGLE)
    assert unpack(BY_GOOGLE) == [
        Part("blau", None, b'{"n":1}'),
        Part("grün", "170141183460469231731687303715884105728", b""),
        Part("blau", None, b"xxxx"),
    ]


@given(
    st.lists(
        st.tuples(texts, st.none() | st.integers(0, 2**128 - 1).map(str), st.binary(max_size=300)),
        min_size=1,
        max_size=200,
    )
)
def test_what_was_put_together_comes_apart(records: list[tuple[str, str | None, bytes]]) -> None:
    data = aggregate(records)
    assert is_aggregated(data)
    assert unpack(data) == [Part(*record) for record in records]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        MAGIC + b"x" * 15,
        sealed(b""),
        b"\xf3text",
        BY_GOOGLE[:-1],
        BY_GOOGLE + b"\0",
        BY_GOOGLE[:50] + b"\0" + BY_GOOGLE[51:],
        b"\0" + BY_GOOGLE[1:],
    ],
)
def test_data_whose_digest_does_not_fit_is_not_aggregated(data: bytes) -> None:
    assert not is_aggregated(data)


def test_a_table_may_follow_the_records_that_refer_to_it() -> None:
    assert unpack(sealed(field(3, KEY_AND_DATA) + field(1, b"k"))) == [Part("k", None, b"x")]


def test_fields_of_later_versions_are_passed_over() -> None:
    later = number(9, 2**64 - 1) + varint(10 << 3 | 1) + bytes(8) + varint(11 << 3 | 5) + bytes(4)
    record = field(3, later + KEY_AND_DATA + field(4, b"tag") + later)
    assert unpack(sealed(later + field(1, b"k") + record)) == [Part("k", None, b"x")]


def test_the_last_of_equal_fields_counts() -> None:
    record = number(1, 7) + field(3, b"first") + KEY_AND_DATA
    assert unpack(sealed(field(1, b"k") + field(3, record))) == [Part("k", None, b"x")]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (field(1, b"k"), "found no records in it, expected one or more"),
        (field(3, KEY_AND_DATA), "record 0: found partition key 0, expected one of 0"),
        (field(1, b"k") + field(3, number(1, 0)), "record 0: found no data, expected both"),
        (field(1, b"k") + field(3, field(3, b"")), "record 0: found no partition key"),
        (
            field(1, b"k") + field(3, KEY_AND_DATA + number(2, 0)),
            "record 0: found explicit hash key 0, expected one of 0",
        ),
        (field(1, b"k\xff"), "partition key 0: found no UTF-8, expected a text"),
        (field(2, b"\xff"), "explicit hash key 0: found no UTF-8, expected a text"),
        (number(3, 1), "record 0: found a number, expected bytes"),
        (
            field(1, b"k") + field(3, field(1, b"") + field(3, b"")),
            "record 0: found bytes, expected the number of a partition key",
        ),
        (
            field(1, b"k") + field(3, number(1, 0) + number(3, 1)),
            "record 0: found a number, expected bytes",
        ),
        (b"\x0a\x05ab", "the message: found 2 bytes at byte 2, expected 5"),
        (b"\x09abc", "the message: found 3 bytes at byte 1, expected 8"),
        (b"\x0a", "the message: found no number at byte 1, expected one"),
        (b"\xff" * 11, "the message: found no number at byte 0, expected one"),
        (b"\x0b", "the message: found wire type 3 at byte 1, expected 0, 1, 2, 5"),
    ],
)
def test_a_message_that_makes_no_sense_says_where(message: bytes, said: str) -> None:
    assert is_aggregated(sealed(message))
    with pytest.raises(AggregateError) as caught:
        unpack(sealed(message))
    assert str(caught.value).startswith(said)


@given(st.binary(max_size=60))
def test_no_message_breaks_the_reader(message: bytes) -> None:
    with contextlib.suppress(AggregateError):
        assert unpack(sealed(message))


@given(st.data())
def test_no_damage_breaks_the_reader(data: st.DataObject) -> None:
    message = bytearray(BY_GOOGLE[4:-16])
    for at in data.draw(st.lists(st.integers(0, len(message) - 1), min_size=1, max_size=4)):
        message[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(AggregateError):
        assert unpack(sealed(bytes(message)))


def test_the_digest_is_md5_of_the_message_alone() -> None:
    assert BY_GOOGLE[-16:] == md5(BY_GOOGLE[4:-16], usedforsecurity=False).digest()
