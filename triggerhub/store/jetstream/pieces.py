"""Bytes of any size under one subject: in as many messages as the server's limit makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from triggerhub.store.jetstream.server import Changed, Message, Server
from triggerhub.store.jetstream.streams import Stream
from triggerhub.store.records import StoreError

_PIECES = "Triggerhub-Pieces"
_HEADERS = 1024
"""Bytes that headers may take of what the server's limit allows."""
_LEAST = 256


class Missing(StoreError):  # noqa: N818 - a fact about the message
    """A piece is not there. ``found``: the bytes of those that are."""

    def __init__(self, message: str, found: bytes) -> None:
        super().__init__(message)
        self.found = found


@dataclass(frozen=True, slots=True)
class Pieces:
    """The first piece's message makes the whole be there: it comes last. What it lacks is under
    another subject, with the piece's number as one more word."""

    server: Server
    stream: Stream

    async def write(self, subject: str, rest: str, data: bytes) -> int | None:
        """Once it returns, all is stored: the sequence of the first piece. None: something was
        there under that subject, and stays. Raises ``StoreError``."""
        size = max(_LEAST, await self.server.max_payload() - _HEADERS)
        parts = [data[start : start + size] for start in range(size, len(data), size)]
        for number, part in enumerate(parts, 1):
            try:
                # The size is part of the name: another server may have another limit.
                await self.server.put(f"{rest}.{size}-{number}", part, last=0)
            except Changed:
                continue  # from a try before this one
        headers = {_PIECES: f"{size} {len(parts)}"} if parts else None
        try:
            return await self.server.put(subject, data[:size], last=0, headers=headers)
        except Changed:
            return None

    def one(self, first: Message) -> bool:
        """It has no further pieces."""
        return _PIECES not in first.headers

    async def whole(self, first: Message, rest: str) -> bytes:
        """All of it. Raises ``StoreError``, and ``Missing`` where a piece is."""
        size, _, number = first.headers.get(_PIECES, "0 0").partition(" ")
        subjects = [f"{rest}.{size}-{n}" for n in range(1, int(number) + 1)]
        parts = [first.data]
        missing = []
        for subject, part in zip(
            subjects, await self.server.get_all(self.stream, subjects), strict=True
        ):
            if part is None:
                missing.append(subject)
            else:
                parts.append(part.data)
        if missing:
            what = f"stream {self.stream.name}: {missing[0]} is missing"
            raise Missing(what, b"".join(parts))
        return b"".join(parts)
