"""Records that the Kinesis Producer Library has put together, taken apart.

Such a record is the magic number, an ``AggregatedRecord`` in protocol buffers (proto2), and the MD5
of that message (aggregation-format.md in awslabs/amazon-kinesis-producer)::

    message AggregatedRecord {
      repeated string partition_key_table     = 1;
      repeated string explicit_hash_key_table = 2;
      repeated Record records                 = 3;
    }
    message Record {
      required uint64 partition_key_index     = 1;
      optional uint64 explicit_hash_key_index = 2;
      required bytes  data                    = 3;
      repeated Tag    tags                    = 4;    // "not yet implemented"
    }

Data whose digest does not fit is not aggregated, whatever it begins with: that is what the digest
is for, and what Amazon's own client library does. Where the digest fits and the message makes no
sense, its producer is at fault.

Amazon's client library also leaves out parts whose hash key lies outside the shard's range; the
producer library notices the same, and sends them again. Other producers do not, so here none is
left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import md5
from typing import NamedTuple

_MAGIC = b"\xf3\x89\x9a\xc2"
_DIGEST = 16
_SHORTEST = len(_MAGIC) + _DIGEST + 1

_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5

# Field numbers of AggregatedRecord, and of Record.
_KEYS, _HASH_KEYS, _RECORDS = 1, 2, 3
_KEY_INDEX, _HASH_KEY_INDEX, _DATA = 1, 2, 3


class AggregateError(ValueError):
    """It says that it is aggregated, and is not: what was found, what was expected, and where."""


class Part(NamedTuple):
    """What a producer calls a user record."""

    key: str
    """Its partition key."""
    hash_key: str | None
    """Its explicit hash key, a decimal number; None: its place follows from its partition key."""
    data: bytes


def is_aggregated(data: bytes) -> bool:
    """Whether it has the magic number and a digest that fits."""
    return (
        data.startswith(_MAGIC)
        and len(data) >= _SHORTEST
        and md5(data[4:-_DIGEST], usedforsecurity=False).digest() == data[-_DIGEST:]
    )


def unpack(data: bytes) -> list[Part]:
    """The parts of a record that ``is_aggregated``, in order; at least one. Raises
    ``AggregateError``, and nothing else."""
    keys: list[str] = []
    hash_keys: list[str] = []
    records: list[bytes] = []
    message = data[len(_MAGIC) : -_DIGEST]
    for number, value in _fields(message, "the message"):
        if number == _KEYS:
            keys.append(_text(value, f"partition key {len(keys)}"))
        elif number == _HASH_KEYS:
            hash_keys.append(_text(value, f"explicit hash key {len(hash_keys)}"))
        elif number == _RECORDS:
            records.append(_bytes(value, f"record {len(records)}"))
    if not records:
        raise AggregateError("found no records in it, expected one or more")
    # A table may come after the records that refer to it.
    return [_part(record, f"record {n}", keys, hash_keys) for n, record in enumerate(records)]


def _part(record: bytes, where: str, keys: list[str], hash_keys: list[str]) -> Part:
    key_index: int | bytes | None = None
    hash_index: int | bytes | None = None
    data: int | bytes | None = None
    for number, value in _fields(record, where):
        # Of equal fields the last one counts.
        if number == _DATA:
            data = value
        elif number == _KEY_INDEX:
            key_index = value
        elif number == _HASH_KEY_INDEX:
            hash_index = value
    if data is None or key_index is None:
        found = "no data" if data is None else "no partition key"
        raise AggregateError(f"{where}: found {found}, expected both")
    hash_key = (
        None if hash_index is None else _of(hash_keys, hash_index, where, "explicit hash key")
    )
    return Part(_of(keys, key_index, where, "partition key"), hash_key, _bytes(data, where))


def _of(table: list[str], index: int | bytes, where: str, what: str) -> str:
    if isinstance(index, bytes):
        raise AggregateError(f"{where}: found bytes, expected the number of a {what}")
    if index >= len(table):
        raise AggregateError(f"{where}: found {what} {index}, expected one of {len(table)}")
    return table[index]


def _bytes(value: int | bytes, where: str) -> bytes:
    if isinstance(value, int):
        raise AggregateError(f"{where}: found a number, expected bytes")
    return value


def _text(value: int | bytes, where: str) -> str:
    try:
        return _bytes(value, where).decode()
    except UnicodeDecodeError:
        raise AggregateError(f"{where}: found no UTF-8, expected a text") from None


def _fields(message: bytes, where: str) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message's fields, in order: varints, and what has a length."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at, where)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at, where)
            yield tag >> 3, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at, where)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise AggregateError(
                f"{where}: found wire type {wire} at byte {at}, expected 0, 1, 2, 5"
            )
        if length > end - at:
            raise AggregateError(f"{where}: found {end - at} bytes at byte {at}, expected {length}")
        at += length
        yield tag >> 3, message[at - length : at]


def _varint(message: bytes, at: int, where: str) -> tuple[int, int]:
    """An unsigned 64-bit number of up to ten bytes, and where what follows it begins."""
    if at < len(message) and message[at] < 0x80:
        return message[at], at + 1
    number = 0
    for n, byte in enumerate(message[at : at + 10]):
        number |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at + n + 1
    raise AggregateError(f"{where}: found no number at byte {at}, expected one")
