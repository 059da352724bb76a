"""Aggregated records as the Kinesis Producer Library writes them."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import md5

MAGIC = b"\xf3\x89\x9a\xc2"

UserRecord = tuple[str, str | None, bytes]
"""Partition key, explicit hash key, data."""


def aggregate(records: Iterable[UserRecord]) -> bytes:
    """One record's data: each key once in its table, as the library does it."""
    keys: dict[str, int] = {}
    hash_keys: dict[str, int] = {}
    parts = b""
    for key, hash_key, data in records:
        part = number(1, keys.setdefault(key, len(keys)))
        if hash_key is not None:
            part += number(2, hash_keys.setdefault(hash_key, len(hash_keys)))
        parts += field(3, part + field(3, data))
    tables = b"".join(field(1, key.encode()) for key in keys)
    tables += b"".join(field(2, hash_key.encode()) for hash_key in hash_keys)
    return sealed(tables + parts)


def sealed(message: bytes) -> bytes:
    """A message between the magic number and its digest."""
    return MAGIC + message + md5(message, usedforsecurity=False).digest()


def number(of: int, value: int) -> bytes:
    """A field that is a number."""
    return varint(of << 3) + varint(value)


def field(of: int, value: bytes) -> bytes:
    """A field that has a length."""
    return varint(of << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])
