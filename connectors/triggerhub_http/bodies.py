"""The body of a request, as it comes, and out of its gzip."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from triggerhub_http.messages import Field, Head, Refusal

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGIReceiveEvent

_CODING = b"content-encoding"
_PLAIN = (b"", b"identity")
_GZIP = (b"gzip", b"x-gzip")
_WINDOW = 16 + zlib.MAX_WBITS
"""As zlib says it: expect gzip's head and check sum (RFC 1952)."""
HELD = 256 * 1024
"""Bytes of a body that are there before the rest of it is passed on while it comes."""
_PIECE = 16 * 1024
_LARGE = 64 * 1024
"""Bytes that are not decoded on the event loop."""


class Gone(Exception):  # noqa: N818 - a fact about the client
    """The client went away before its request was read."""


class Incoming:
    """A body that comes: what there is of it, and the rest when it is asked for."""

    def __init__(
        self,
        receive: ASGIReceiveCallable,
        length: int,
        limit: int,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """``length``: as announced, 0 where it is not. ``leave`` is called where the body is not
        taken to its end: no other request can follow it. Raises ``Refusal`` (413)."""
        if length > limit:
            raise _too_large(f"{length} bytes", limit)
        self._receive = receive
        self._limit = limit
        self._leave = leave
        self._size = 0
        self.length = length or None
        self.ended = False

    async def read(self) -> bytes:
        """The next piece; empty: that was all. Raises ``Refusal`` (413) or ``Gone``."""
        piece = b""
        while not piece and not self.ended:
            piece = self.taken(await self._receive())
        return piece

    async def gather(self, enough: float = inf) -> bytes:
        """All of it, or somewhat more than ``enough``. Raises as ``read`` does."""
        pieces: list[bytes] = []
        while not self.ended and self._size <= enough:
            pieces.append(self.taken(await self._receive()))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def taken(self, message: ASGIReceiveEvent) -> bytes:
        """What a message brought."""
        if message["type"] != "http.request":
            raise Gone
        piece, self.ended = message["body"], not message["more_body"]
        self._size += len(piece)
        if self._size > self._limit:
            raise _too_large("longer", self._limit)
        return piece

    def close(self) -> None:
        """No more is wanted."""
        if not self.ended:
            self._leave()


async def read_short(receive: ASGIReceiveCallable, length: int, limit: int) -> bytes:
    """A body that is known to be short, with the least work. Raises as ``Incoming`` does."""
    if length <= limit:
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"]:
            return message["body"]
        incoming = Incoming(receive, 0, limit)
        return incoming.taken(message) + await incoming.gather()
    raise _too_large(f"{length} bytes", limit)


def zipped(head: Head) -> bool:
    """Whether the body is in gzip. Raises ``Refusal`` (415) for any other coding (RFC 9110,
    section 15.5.16)."""
    codings = b",".join(value for name, value in head.kept if name == _CODING)
    named = [one for one in (part.strip().lower() for part in codings.split(b",")) if one]
    wanted = [one for one in named if one not in _PLAIN]
    if not wanted:
        return False
    if len(wanted) == 1 and wanted[0] in _GZIP:
        return True
    found = codings.decode("latin-1")
    message = f"found content-encoding {found!r}, expected gzip or none"
    accepted: Field = (b"accept-encoding", b"gzip")
    raise Refusal(415, "UnsupportedEncoding", message, accepted, close=True)


async def unzipped(head: Head, body: bytes, limit: int) -> bytes:
    """What is in the gzip; ``head`` names the coding no longer. Raises ``Refusal``: 413 where it
    is more than ``limit`` bytes, 400 where it is broken."""
    if len(body) > _LARGE or limit > _LARGE:
        plain = await asyncio.to_thread(inflated, body, limit)
    else:
        plain = inflated(body, limit)
    head.kept[:] = [pair for pair in head.kept if pair[0] != _CODING]
    return plain


def inflated(body: bytes, limit: int) -> bytes:
    """Of all members, one after the other (RFC 1952, section 2.2). Unpacks no more than ``limit``
    bytes and one, however much is in there. Raises as ``unzipped`` does."""
    pieces: list[bytes] = []
    size = 0
    member, ended = zlib.decompressobj(_WINDOW), False
    try:
        # In pieces: what follows a member is copied, and there may be very many of them.
        for at in range(0, len(body), _PIECE):
            rest = body[at : at + _PIECE]
            while rest:
                if ended:
                    member, ended = zlib.decompressobj(_WINDOW), False
                pieces.append(member.decompress(rest, limit + 1 - size))
                size += len(pieces[-1])
                if size > limit:
                    message = f"the body is longer out of its gzip, expected at most {limit} bytes"
                    raise Refusal(413, "BodyTooLarge", message)
                ended = member.eof
                rest = member.unused_data if ended else member.unconsumed_tail
    except zlib.error as error:
        raise _broken(str(error)) from None
    if not ended:
        raise _broken("it ends early")
    return b"".join(pieces)


def _broken(why: str) -> Refusal:
    return Refusal(400, "BadEncoding", f"a body that is no gzip, as content-encoding says: {why}")


def _too_large(found: str, limit: int) -> Refusal:
    message = f"the body is {found}, expected at most {limit} bytes"
    return Refusal(413, "BodyTooLarge", message, close=True)
