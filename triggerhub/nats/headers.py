"""The headers of a message (ADR-4): as nats-py reads them, and byte for byte."""

from __future__ import annotations

from collections.abc import Iterable

VERSION = b"NATS/1.0"
_END = b"\r\n"

Pairs = tuple[tuple[str, bytes], ...]
"""Names and values in the order of the wire; a name may be there several times."""


class Headers(dict[str, str]):
    """By name; of equal names the last. ``raw`` has all of them: the lines of the wire."""

    __slots__ = ("raw",)

    def __init__(self, texts: dict[str, str], raw: bytes) -> None:
        super().__init__(texts)
        self.raw = raw


def pairs_of(raw: bytes) -> Pairs:
    """Of the lines of a block, with or without the version before them. White space around a value
    is no part of it."""
    found = []
    for line in raw.removeprefix(VERSION + _END).split(_END):
        name, colon, value = line.partition(b":")
        if colon:
            found.append((name.strip().decode("utf-8", "replace"), value.strip()))
    return tuple(found)


def block_of(pairs: Iterable[tuple[str, bytes]]) -> bytes:
    """As it stands before a message's data."""
    lines = (name.encode() + b": " + _one_line(value) + _END for name, value in pairs)
    return VERSION + _END + b"".join(lines) + _END


def _one_line(value: bytes) -> bytes:
    return value.replace(b"\r", b" ").replace(b"\n", b" ")
