from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from triggerhub_kafka.fetching import mend

Header = tuple[bytes, bytes | None]
Record = tuple[bytes | None, bytes | None, list[Header]]
BAD = b"x\xff\xfey"


class Name(str):
    """A header's name as bytes that need not be UTF-8."""

    data: bytes

    def __new__(cls, data: bytes) -> Name:
        made = super().__new__(cls, data.decode(errors="replace"))
        made.data = data
        return made

    def encode(self, *_: Any) -> bytes:
        return self.data


def batch(*records: Record, codec: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 2**20)
    for offset, (key, value, headers) in enumerate(records):
        pairs = [(Name(name), content) for name, content in headers]
        builder.append(offset, 1_700_000_000_000 + offset, key, value, pairs)
    return bytes(builder.build())


def read(batches: bytes) -> list[tuple[int, bytes | None, bytes | None, list[Any]]]:
    found = []
    records = MemoryRecords(batches)
    while records.has_next():
        one = records.next_batch()
        assert one is not None
        assert one.validate_crc()
        found += [(r.offset, r.key, r.value, r.headers) for r in one]
    return found


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_a_name_that_is_not_utf_8_can_be_read_and_all_else_is_as_it_was(codec: int) -> None:
    records: list[Record] = [
        (b"k", b"v" * 500, [(b"good", b"\xff")]),
        (None, b"", [("ü".encode(), None), (BAD, b"content"), (b"", b"")]),
        (b"", None, []),
    ]
    made = batch(*records, codec=codec)
    with pytest.raises(UnicodeDecodeError):
        read(made)
    assert read(mend(made)) == [
        (0, b"k", b"v" * 500, [("good", b"\xff")]),
        (1, None, b"", [("ü", None), ("x??y", b"content"), ("", b"")]),
        (2, b"", None, []),
    ]


def test_only_the_batch_that_needs_it_is_changed() -> None:
    good = batch((b"k", b"v", [(b"a", b"b")]), codec=1)
    bad = batch((b"k", b"v", [(BAD, b"b")]))
    mended = mend(good + bad + good[:70])
    assert mended.startswith(good)
    assert mended.endswith(good[:70])
    assert len(mended) == len(good + bad + good[:70])


def test_a_damaged_batch_stays_damaged() -> None:
    made = bytearray(batch((b"k", b"v", [(BAD, b"b")])))
    made[-1] ^= 1
    assert mend(bytes(made)) == bytes(made)


@given(st.binary(max_size=300), st.integers(0, 10))
def test_nothing_that_is_no_batch_raises(noise: bytes, number: int) -> None:
    good = batch((b"k", b"v", []))
    for text in (noise, good[:61] + noise, good + noise, good[: len(good) - number]):
        mend(text)
    # Also where the checksum fits what cannot be read.
    made = bytearray(good[:61] + noise)
    struct.pack_into(">i", made, 8, len(made) - 12)
    struct.pack_into(">I", made, 17, calc_crc32c(bytes(made[21:])))
    mend(bytes(made))
