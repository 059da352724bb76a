"""A function for end-to-end stories: a real HTTP server that notes every request and answers by
script, honestly or not."""

from __future__ import annotations

import asyncio
import random
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import unquote

import trustme

S = TypeVar("S", bound=socketserver.BaseServer)

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() resets the connection
_MEBIBYTE = bytes(1024 * 1024)
_LONGEST_HEAD = 1024 * 1024


@dataclass(slots=True, eq=False)
class Call:
    """One request as it came, and how it was answered. Times are ``time.monotonic()``."""

    began: float
    method: str
    target: str
    """Path and query, as on the request line."""
    headers: dict[str, str]
    body: bytes
    at_once: int
    """How many requests were under way when it came, itself included."""
    status: int | None = None
    """What was sent whole; None: nothing (yet)."""
    ended: float | None = None

    @property
    def id(self) -> str:
        return unquote(self.headers.get("ce-id", ""))

    @property
    def key(self) -> str:
        return unquote(self.headers.get("ce-partitionkey", ""))

    @property
    def attempt(self) -> int:
        return int(self.headers.get("triggerhub-attempt", "0"))

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Wire:
    """The connection that a call came on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.last = False
        """Whether the connection ends after this answer."""

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the client is gone."""
        self._writer.write(data)
        await self._writer.drain()

    async def wait(self, seconds: float | None) -> None:
        """Let time pass; None: until the client goes. Raises ConnectionError when it does."""
        try:
            async with asyncio.timeout(seconds):
                if not await self._reader.read(1):
                    raise ConnectionError("the client went away")
                raise ConnectionError("the client did not wait for its answer")
        except TimeoutError:
            return

    def reset(self) -> None:
        """Close with a TCP reset."""
        close_by_reset(self._writer)


Answer = Callable[[Wire], Awaitable[int | None]]
"""Writes an answer; returns its status when it was sent whole. Raising ConnectionError ends the
connection."""

Script = Callable[[Call], Answer]
"""Chooses the answer to a call. Called on the function's own thread, one call at a time."""


def reply(
    status: int = 200,
    body: bytes = b"",
    *,
    after: float = 0.0,
    headers: Iterable[tuple[str, str]] = (),
) -> Answer:
    """An honest answer, ``after`` seconds."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    head = f"{first}\r\n{lines}content-length: {len(body)}\r\n\r\n"
    last = any(line == ("connection", "close") for line in headers)

    async def answer(wire: Wire) -> int | None:
        if after:
            await wire.wait(after)
        await wire.write(head.encode() + body)
        wire.last = last
        return status

    return answer


ACCEPT = reply(200)


def raw(*pieces: bytes, status: int | None = None) -> Answer:
    """These bytes, and then the end of the connection, unless it was a whole answer with a
    ``status``."""

    async def answer(wire: Wire) -> int | None:
        for piece in pieces:
            await wire.write(piece)
            await asyncio.sleep(0)
        return status

    return answer


GARBAGE = raw(b"\x00\xff this is not HTTP \r\n\r\n")
HALF = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly some")
CHUNKED = raw(
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"1\r\n,\r\n6\r\n world\r\n0\r\n\r\n",
    status=200,
)
CONTINUE = raw(
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncontinued",
    status=200,
)
CLOSE = reply(200, b"and goodbye", headers=[("connection", "close")])


async def hang(wire: Wire) -> int | None:
    """No answer, for as long as the client waits."""
    await wire.wait(None)
    return None


async def reset(wire: Wire) -> int | None:
    """The connection ends before any answer."""
    wire.reset()
    raise ConnectionError("reset")


async def huge(wire: Wire) -> int | None:
    """A body of 1 GB, as far as the client takes it."""
    await wire.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
    for _ in range(1024):
        await wire.write(_MEBIBYTE)
    return 200


def unreliable(seed: int) -> Script:
    """Now and then a 500 or a 503; a short while for each answer."""
    chance = random.Random(seed)

    def script(call: Call) -> Answer:
        drawn = chance.random()
        if drawn < 0.05:
            return reply(500)
        if drawn < 0.07:
            return reply(503)
        return reply(200, after=chance.uniform(0, 0.02))

    return script


class Function:
    """A server in a thread of its own, on a port that it keeps while it is down."""

    def __init__(self, script: Script | None = None, context: ssl.SSLContext | None = None) -> None:
        self.script: Script = script or (lambda call: ACCEPT)
        """May be replaced at any time."""
        self._context = context
        self._calls: list[Call] = []
        self._accepted: list[Call] = []
        self._under_way = 0
        self._server: asyncio.Server | None = None
        self._socket = bound(0)
        self.port: int = self._socket.getsockname()[1]
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="function", daemon=True)
        self._thread.start()
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    @property
    def calls(self) -> list[Call]:
        """Every request so far, in order of arrival."""
        return self._calls.copy()

    @property
    def accepted(self) -> list[Call]:
        """Those that were answered 2xx, in order of the answers."""
        return self._accepted.copy()

    @property
    def under_way(self) -> int:
        """How many requests wait for their answer now."""
        return self._under_way

    def up(self) -> None:
        """Take connections."""
        self._do(self._up())

    def down(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._down())

    def close(self) -> None:
        """End it for good."""
        self._do(self._down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._socket.close()

    def _run(self) -> None:
        self._loop.run_forever()

    def _do(self, work: Awaitable[None]) -> None:
        async def done() -> None:
            await work

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    async def _up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve,
                sock=self._socket,
                backlog=1024,
                limit=_LONGEST_HEAD,
                ssl=self._context,
            )

    async def _down(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        if self._connections:
            await asyncio.wait(self._connections)
        # Bound and not listening: the port is kept, and the kernel refuses connections to it.
        self._socket = bound(self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._writers.add(writer)
        try:
            if self._server is not None:
                while await self._exchange(reader, writer):
                    pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer. False: the connection ends."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        fields = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self._under_way += 1
        call = Call(time.monotonic(), method, target, headers, body, self._under_way)
        self._calls.append(call)
        wire = Wire(reader, writer)
        try:
            call.status = await self.script(call)(wire)
        finally:
            self._under_way -= 1
            call.ended = time.monotonic()
        if call.accepted:
            self._accepted.append(call)
        return call.status is not None and not wire.last


def close_by_reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset, whatever is still to be sent."""
    end = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def bound(port: int) -> socket.socket:
    """A loopback socket that does not listen yet. 0: the kernel chooses the port."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """Of a server at 127.0.0.1, whose certificate that authority has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@contextmanager
def answering(
    script: Script | None = None, context: ssl.SSLContext | None = None
) -> Iterator[Function]:
    """A function that ends with the block; with a ``context``, it speaks TLS."""
    function = Function(script, context)
    try:
        yield function
    finally:
        function.close()


@contextmanager
def served(server: S) -> Iterator[S]:
    """A server of the test's own serves, in a thread of its own, while the block runs."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
