"""Requests to one worker's admin API, on its own socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httptools

_PIECE = 64 * 1024


class NotAsked(OSError):  # noqa: N818 - a fact about the worker
    """Nobody took the request: it can be put to another worker."""


class Broken(OSError):  # noqa: N818 - a fact about the worker
    """The worker took the request, and ended before its answer did."""


class Answer:
    """What comes back; its body is read once, by ``whole`` or by ``lines``."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: deque[bytes] = deque()
        self._headed = self._complete = False
        self.status = 0
        self.kind = ""
        """Its content type."""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.kind = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._headed = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._complete = True

    async def head(self) -> None:
        """Wait for status and header fields. Raises ``Broken``."""
        while not self._headed:
            await self._read()

    async def whole(self) -> bytes:
        """The body. Raises ``Broken``."""
        while not self._complete:
            await self._read()
        return b"".join(self._pieces)

    async def lines(self) -> AsyncIterator[bytes]:
        """The body's lines, each as soon as it is there. Raises ``Broken``."""
        rest = b""
        while True:
            while self._pieces:
                *lines, rest = (rest + self._pieces.popleft()).split(b"\n")
                for line in lines:
                    yield line
            if self._complete:
                break
            await self._read()
        if rest:
            yield rest

    async def _read(self) -> None:
        try:
            piece = await self._reader.read(_PIECE)
            if not piece:
                raise Broken("the worker ended before its answer did")
            self._parser.feed_data(piece)
        except (ConnectionError, httptools.HttpParserError) as error:
            raise Broken(f"the worker ended before its answer did: {error}") from None


@asynccontextmanager
async def asked(place: Path, method: str, target: str, body: bytes = b"") -> AsyncIterator[Answer]:
    """The answer's head to one request; leaving the block ends the connection, and so the
    request. Raises ``NotAsked`` and ``Broken``."""
    try:
        reader, writer = await asyncio.open_unix_connection(place)
    except OSError as error:
        raise NotAsked(f"no worker answers at {place}: {error.strerror}") from None
    try:
        head = (
            f"{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode("latin-1") + body)
        answer = Answer(reader)
        await answer.head()
        yield answer
    finally:
        writer.close()


async def ask(place: Path, target: str, *, within: float) -> tuple[int, bytes]:
    """Status and body of a GET. Raises OSError, also when that takes longer than ``within``
    seconds (``TimeoutError``)."""
    async with asyncio.timeout(within), asked(place, "GET", target) as answer:
        return answer.status, await answer.whole()
