"""The rest of a reply's body, handed over as it comes."""

from __future__ import annotations

import asyncio
from typing import Protocol

_AHEAD = 64 * 1024
"""Bytes that wait to be read before nothing more is taken from the function."""


class Source(Protocol):
    """The connection that it comes on."""

    def read_on(self) -> None:
        """After ``Flow.full`` was true."""

    def drop(self) -> None:
        """The rest is not wanted."""


class Flow:
    """Bounded: who does not read in time holds up the function."""

    __slots__ = ("_ended", "_error", "_pieces", "_size", "_source", "_wakes", "full")

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._pieces: list[bytes] = []
        self._size = 0
        self._error: Exception | None = None
        self._wakes: asyncio.Future[None] | None = None
        self.full = False

    # What the connection calls.

    def put(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            self.full = self._size > _AHEAD
            self._wake()

    def finish(self, error: Exception | None = None) -> None:
        """No more will come, and the connection is somebody else's. ``error``: it broke off."""
        self._source = None
        self._error = error
        self._wake()

    # What the reader calls.

    async def read(self) -> bytes:
        """All that has come since; empty: that was all. Raises ``BrokenReply``, ``NoReply`` or
        ``Away``."""
        while not self._pieces and self._source is not None:
            self._wakes = asyncio.get_running_loop().create_future()
            await self._wakes
        if not self._pieces and self._error is not None:
            raise self._error
        pieces, self._pieces = self._pieces, []
        self._size = 0
        if self.full:
            self.full = False
            if self._source is not None:
                self._source.read_on()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """End the connection, unless all has come."""
        source, self._source = self._source, None
        if source is not None:
            source.drop()

    def _wake(self) -> None:
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_result(None)
