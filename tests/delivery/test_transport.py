"""The HTTP client against real sockets: servers on loopback that answer scripted bytes."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec

import pytest
import trustme
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerhub.delivery.transport import (
    Away,
    BrokenReply,
    Endpoint,
    NoReply,
    Transport,
    parse_endpoint,
)
from triggerhub.event import Reply

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;ext=1\r\nab\r\n3\r\ncde\r\n0\r\nTrailer: x\r\n\r\n"
)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


P = ParamSpec("P")


def on_both_loops(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run the test on asyncio's loop and on uvloop; any task error the loop reports fails it."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        new_loop = kwargs.pop("new_loop")
        assert callable(new_loop)
        reported: list[dict[str, Any]] = []
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: reported.append(context))
            runner.run(test(*args, **kwargs))
            gc.collect(1)
        assert reported == []

    signature = inspect.signature(test)
    added = inspect.Parameter("new_loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), added]
    )
    loops = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("new_loop", loops, ids=["asyncio", "uvloop"])(run)


@dataclass
class Exchange:
    """One request as the server saw it."""

    connection: int
    """Number of its connection, from 1."""
    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *pieces: bytes) -> None:
        """Each piece is on the wire, and seen by the client, before the next one goes."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            for _ in range(3):
                await asyncio.sleep(0)

    def reset(self) -> None:
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Exchange], Awaitable[None]]


class Server:
    """Reads requests and runs ``script`` for each, until the script closes the connection."""

    def __init__(self, script: Script, *, reads_bodies: bool, greeting: bytes) -> None:
        self.script = script
        self.greeting = greeting
        self.reads_bodies = reads_bodies
        self.exchanges: list[Exchange] = []
        self.accepted = 0
        self.open = 0
        self.most_open = 0
        self.endpoint: Endpoint
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        number = self.accepted
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            writer.write(self.greeting)
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                body = await reader.readexactly(length if self.reads_bodies else 0)
                exchange = Exchange(number, head, body, reader, writer)
                self.exchanges.append(exchange)
                await self.script(exchange)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self.open -= 1
            writer.transport.abort()

    async def stop(self) -> None:
        for _ in range(5):  # who was accepted just now
            await asyncio.sleep(0)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(tuple(self._tasks))


@asynccontextmanager
async def serving(
    script: Script | bytes,
    *,
    tls: ssl.SSLContext | None = None,
    reads_bodies: bool = True,
    greeting: bytes = b"",
) -> AsyncIterator[Server]:
    if isinstance(script, bytes):
        reply = script

        async def say(exchange: Exchange) -> None:
            await exchange.say(reply)

        script = say
    server = Server(script, reads_bodies=reads_bodies, greeting=greeting)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    scheme = "https" if tls else "http"
    server.endpoint = parse_endpoint(f"{scheme}://127.0.0.1:{port}/in?a=b")
    try:
        yield server
    finally:
        listener.close()
        await server.stop()


@asynccontextmanager
async def transporting(
    *,
    max_connections: int = 256,
    idle_timeout: float = 60.0,
    connect_timeout: float = 5.0,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Transport]:
    transport = Transport(
        max_connections=max_connections,
        idle_timeout=idle_timeout,
        connect_timeout=connect_timeout,
        ssl_context=ssl_context,
    )
    try:
        yield transport
    finally:
        await transport.close()
        assert transport.open_connections == {}


async def post(
    transport: Transport,
    server: Server,
    body: bytes = b"hello",
    *,
    timeout: float = 5.0,
    keep: int = 1024,
    once: bool = False,
) -> Reply:
    head = b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\n\r\n" % (
        server.endpoint.path.encode(),
        server.endpoint.host_header,
        len(body),
    )
    return await transport.send(server.endpoint, head, body, timeout, keep, once=once)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def silence(exchange: Exchange) -> None:
    """No answer; ends when the client closes."""
    await exchange.reader.read()


async def answer(script: Script | bytes, *, keep: int = 1024) -> tuple[Reply, bool]:
    """One reply, and whether its connection was used again."""
    async with serving(script) as server, transporting() as transport:
        reply = await post(transport, server, keep=keep)
        await post(transport, server, keep=keep)
        return reply, server.accepted == 1


# What a reply is


@on_both_loops
async def test_request_and_reply_arrive_as_they_were_sent() -> None:
    wire = b"HTTP/1.1 201 Made\r\nX-One:  1 \r\nx-one: 2\r\nContent-Length: 2\r\n\r\nok"
    async with serving(wire) as server, transporting() as transport:
        reply = await post(transport, server, b"\x00\xffdata")
    assert reply == Reply(
        201, ((b"x-one", b"1"), (b"x-one", b"2"), (b"content-length", b"2")), b"ok"
    )
    assert server.exchanges[0].body == b"\x00\xffdata"
    assert server.exchanges[0].head.startswith(b"POST /in?a=b HTTP/1.1\r\nhost: 127.0.0.1:")


@pytest.mark.parametrize(
    ("wire", "status", "body", "reused"),
    [
        (OK, 200, b"ok", True),
        (NO_CONTENT, 204, b"", True),
        (b"HTTP/1.1 204 N\r\nContent-Length: 7\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 304 N\r\nContent-Length: 7\r\n\r\n", 304, b"", True),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302, b"", True),
        (b"HTTP/1.1 500 E\r\nContent-Length: 1\r\n\r\ne", 500, b"e", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok", True),
        (b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\nHTTP/1.1 100 C\r\n\r\n" + OK, 200, b"ok", True),
        (CHUNKED, 200, b"abcde", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", False),
        (OK + b"H", 200, b"ok", False),
        (OK + b"surplus", 200, b"ok", False),
        (OK + OK, 200, b"ok", False),
    ],
)
@on_both_loops
async def test_a_reply_is_read_and_its_connection_reused_only_where_http_allows(
    wire: bytes, status: int, body: bytes, reused: bool
) -> None:
    reply, was_reused = await answer(wire)
    assert (reply.status, reply.body, reply.truncated) == (status, body, False)
    assert was_reused is reused


@on_both_loops
async def test_trailers_and_interim_fields_are_not_fields_of_the_reply() -> None:
    reply, _ = await answer(
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n"
    )
    assert reply.headers == ((b"transfer-encoding", b"chunked"),)


@on_both_loops
async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async def until_close(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 200 OK\r\n\r\n", b"all ", b"of it")
        exchange.writer.close()

    reply, reused = await answer(until_close)
    assert reply.body == b"all of it"
    assert not reused


@on_both_loops
async def test_a_head_reply_has_no_body_and_its_connection_is_used_again() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")

    async with serving(script) as server, transporting() as transport:
        for _ in range(3):
            reply = await transport.send(
                server.endpoint, b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", b"", 5.0, head_request=True
            )
            assert (reply.status, reply.body) == (200, b"")
        assert server.accepted == 1


@on_both_loops
async def test_a_head_reply_that_has_a_body_all_the_same_spoils_its_connection() -> None:
    async with serving(OK) as server, transporting() as transport:
        for _ in range(2):
            reply = await transport.send(
                server.endpoint, b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", b"", 5.0, head_request=True
            )
            assert reply.body == b""
        assert server.accepted == 2


@on_both_loops
async def test_a_reply_in_segments_of_one_byte_is_the_same_reply() -> None:
    wire = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA:\r\nLong-Name: a value\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\nA\r\n0123456789\r\n0\r\nT: t\r\n\r\n"
    )

    async def slowly(exchange: Exchange) -> None:
        await exchange.say(*(wire[i : i + 1] for i in range(len(wire))))

    reply, reused = await answer(slowly)
    assert reply == (await answer(wire))[0]
    assert reply.body == b"x0123456789"
    assert reused


_token = st.from_regex(rb"\A[A-Za-z-]{1,12}\Z")
_value = st.from_regex(rb"\A[!-~]{0,12}\Z")


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Valid replies that leave their connection usable."""
    fields = draw(st.lists(st.tuples(_token.map(lambda name: b"x-" + name), _value), max_size=4))
    head = b"HTTP/1.1 %d Some Reason\r\n" % draw(st.sampled_from([200, 201, 404, 503]))
    head += b"".join(b"%b: %b\r\n" % pair for pair in fields)
    chunks = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    if draw(st.booleans()):
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        wire = head + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    else:
        body = b"".join(chunks)
        wire = head + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    return draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"])) + wire


@settings(max_examples=60, deadline=None)
@given(wire=replies(), data=st.data())
@on_both_loops
async def test_any_split_of_a_reply_gives_the_same_reply(wire: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=8)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]

    async def script(exchange: Exchange) -> None:
        await exchange.say(*([wire] if len(server.exchanges) == 1 else pieces))

    async with serving(script) as server, transporting() as transport:
        whole = await post(transport, server, keep=50)
        split = await post(transport, server, keep=50)
        assert split == whole
        assert server.accepted == 1


# What is no reply


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 2xx OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nbroken field\r\n\r\n",
    ],
)
@on_both_loops
async def test_what_is_not_a_valid_reply_is_broken(wire: bytes) -> None:
    async with serving(wire) as server, transporting() as transport:
        with pytest.raises(BrokenReply) as caught:
            await post(transport, server)
        assert str(caught.value)
        assert "\n" not in str(caught.value)
        await eventually(lambda: server.open == 0)


@pytest.mark.parametrize("at", [1, 12, 38, len(OK) - 1])
@pytest.mark.parametrize("how", ["close", "reset"])
@on_both_loops
async def test_a_connection_that_ends_within_a_reply_is_a_broken_reply(at: int, how: str) -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.say(OK[:at])
        exchange.writer.close() if how == "close" else exchange.reset()

    async with serving(half) as server, transporting() as transport:
        with pytest.raises(BrokenReply, match=f"within a reply: {at} bytes"):
            await post(transport, server)
        assert server.accepted == 1


@on_both_loops
async def test_a_chunked_body_without_its_end_is_a_broken_reply() -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        exchange.writer.close()

    async with serving(half) as server, transporting() as transport:
        with pytest.raises(BrokenReply):
            await post(transport, server)


@on_both_loops
async def test_a_body_until_close_that_is_reset_is_a_broken_reply() -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 200 OK\r\n\r\nab")
        exchange.reset()

    async with serving(half) as server, transporting() as transport:
        with pytest.raises(BrokenReply):
            await post(transport, server)


@pytest.mark.parametrize("name", [b"One: ", b"X: y\r\n"])
@on_both_loops
async def test_a_huge_header_section_is_a_broken_reply(name: bytes) -> None:
    sent = 0

    async def endless(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.say(b"HTTP/1.1 200 OK\r\n", name)
        while True:
            piece = name * 200 if b"\n" in name else b"x" * 1000
            await exchange.say(piece)
            sent += len(piece)

    async with serving(endless) as server, transporting() as transport:
        with pytest.raises(BrokenReply, match="header section of more than 64 KiB"):
            await post(transport, server)
        await eventually(lambda: server.open == 0)
    assert 60_000 < sent < 1_000_000


@on_both_loops
async def test_a_huge_header_section_in_one_segment_is_a_broken_reply() -> None:
    wire = b"HTTP/1.1 200 OK\r\nX: %b\r\nContent-Length: 0\r\n\r\n" % (b"x" * 66_000)
    async with serving(wire) as server, transporting() as transport:
        with pytest.raises(BrokenReply, match="header section"):
            await post(transport, server)


@on_both_loops
async def test_endless_trailers_and_chunk_extensions_are_given_up() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ")
        while True:
            await exchange.say(b"x" * 50_000)

    async with serving(endless) as server, transporting() as transport:
        with pytest.raises(BrokenReply, match="bytes for a body of 0"):
            await post(transport, server)


# Bodies of some size


@on_both_loops
async def test_a_longer_body_is_cut_and_its_connection_still_used_again() -> None:
    reply, reused = await answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n" + b"x" * 30_000, keep=10
    )
    assert (reply.body, reply.truncated, reused) == (b"x" * 10, True, True)


@on_both_loops
async def test_a_body_of_just_what_is_kept_is_not_cut() -> None:
    reply, _ = await answer(OK, keep=2)
    assert (reply.body, reply.truncated) == (b"ok", False)
    reply, _ = await answer(OK, keep=1)
    assert (reply.body, reply.truncated) == (b"o", True)
    reply, _ = await answer(OK, keep=0)
    assert (reply.body, reply.truncated) == (b"", True)


@pytest.mark.parametrize("chunked", [False, True])
@on_both_loops
async def test_a_gigabyte_is_not_read_to_its_end(chunked: bool) -> None:
    sent = 0

    async def stream(exchange: Exchange) -> None:
        nonlocal sent
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % 2**30
        await exchange.say(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        block = b"y" * 65_536
        piece = b"10000\r\n%b\r\n" % block if chunked else block
        while sent < 2**30:
            exchange.writer.write(piece)
            await exchange.writer.drain()
            sent += len(piece)

    async with serving(stream) as server, transporting() as transport:
        reply = await post(transport, server, keep=100)
        assert (reply.status, reply.body, reply.truncated) == (200, b"y" * 100, True)
        await eventually(lambda: server.open == 0)
    assert sent < 32 * 2**20


@pytest.mark.parametrize("size", [65_536, 65_537, 20_000_003])
@on_both_loops
async def test_a_large_request_body_arrives_whole(size: int) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    async with serving(OK) as server, transporting() as transport:
        for _ in range(2):
            assert (await post(transport, server, body)).body == b"ok"
        assert [exchange.body == body for exchange in server.exchanges] == [True, True]
        assert server.accepted == 1


@on_both_loops
async def test_a_reply_before_the_request_was_written_whole_counts_and_closes() -> None:
    async def early(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(60)

    async with serving(early, reads_bodies=False) as server, transporting() as transport:
        reply = await post(transport, server, b"z" * 50_000_000)
        assert reply.status == 413
        assert transport.open_connections == {}


# Connections: reuse, staleness, bound


@on_both_loops
async def test_the_connection_that_came_back_last_is_used_first() -> None:
    gate = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        if exchange.body == b"wait":
            await gate.wait()
        await exchange.say(OK)

    async with serving(script) as server, transporting() as transport:
        async with asyncio.TaskGroup() as tasks:
            slow = tasks.create_task(post(transport, server, b"wait"))
            await eventually(lambda: server.accepted == 1)
            await post(transport, server, b"fast")
            gate.set()
            await slow
        await post(transport, server, b"again")
        await post(transport, server, b"again")
        assert [exchange.connection for exchange in server.exchanges] == [1, 2, 1, 1]


@pytest.mark.parametrize("how", ["close", "reset"])
@on_both_loops
async def test_a_request_on_a_stale_connection_is_sent_once_more_on_a_fresh_one(how: str) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.connection == 1 and len(server.exchanges) == 2:
            # As if it had closed before it saw the request.
            exchange.writer.close() if how == "close" else exchange.reset()
        else:
            await exchange.say(OK)

    async with serving(script) as server, transporting(max_connections=1) as transport:
        await post(transport, server)
        assert (await post(transport, server)).body == b"ok"
        assert [exchange.connection for exchange in server.exchanges] == [1, 1, 2]
        assert list(transport.open_connections.values()) == [1]


@pytest.mark.parametrize("size", [5, 300_000])
@pytest.mark.parametrize("how", ["close", "reset"])
@on_both_loops
async def test_what_must_not_be_sent_twice_is_not_sent_once_more(how: str, size: int) -> None:
    async def script(exchange: Exchange) -> None:
        if len(server.exchanges) == 2:
            exchange.writer.close() if how == "close" else exchange.reset()
        else:
            await exchange.say(OK)

    async with serving(script) as server, transporting(max_connections=1) as transport:
        await post(transport, server)
        with pytest.raises(Away, match=r"closed before a reply|reset by peer"):
            await post(transport, server, b"x" * size, once=True)
        assert [exchange.connection for exchange in server.exchanges] == [1, 1]
        # The room of the one that ended is free again.
        assert (await post(transport, server, once=True)).body == b"ok"
        assert list(transport.open_connections.values()) == [1]


@on_both_loops
async def test_of_which_nothing_was_written_may_be_sent_on_a_fresh_connection() -> None:
    async with serving(OK) as server, transporting(max_connections=1) as transport:
        await post(transport, server)
        (pool,) = transport._pools.values()
        (connection,) = pool.idle
        again = asyncio.ensure_future(post(transport, server, once=True))
        # As if its end came in the same turn of the loop, just before the request goes out.
        asyncio.get_running_loop().call_soon(connection.eof_received)
        assert (await again).body == b"ok"
        assert [exchange.connection for exchange in server.exchanges] == [1, 2]


@on_both_loops
async def test_a_fresh_connection_that_ends_before_a_reply_is_not_tried_again() -> None:
    async def script(exchange: Exchange) -> None:
        exchange.writer.close()

    async with serving(script) as server, transporting() as transport:
        with pytest.raises(Away, match="closed before a reply"):
            await post(transport, server)
        assert len(server.exchanges) == 1


@on_both_loops
async def test_a_stale_connection_and_a_fresh_one_that_fails_too_is_away() -> None:
    async def script(exchange: Exchange) -> None:
        if len(server.exchanges) == 1:
            await exchange.say(OK)
        else:
            exchange.reset()

    async with serving(script) as server, transporting() as transport:
        await post(transport, server)
        with pytest.raises(Away, match="connection reset by peer"):
            await post(transport, server)
        assert len(server.exchanges) == 3
        assert transport.open_connections == {}


@on_both_loops
async def test_a_server_that_was_restarted_is_found_again_without_an_error() -> None:
    async with transporting() as transport:
        async with serving(OK) as server:
            await post(transport, server)
            endpoint = server.endpoint
        listener = await asyncio.start_server(server.serve, "127.0.0.1", endpoint.port)
        try:
            assert (await post(transport, server)).status == 200
        finally:
            listener.close()
            await server.stop()


@on_both_loops
async def test_bytes_nobody_asked_for_close_an_idle_connection() -> None:
    async with serving(OK) as server, transporting() as transport:
        await post(transport, server)
        server.exchanges[0].writer.write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await eventually(lambda: not transport.open_connections)
        assert (await post(transport, server)).status == 200
        assert server.accepted == 2


@on_both_loops
async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with serving(OK) as server, transporting(idle_timeout=0.1) as transport:
        begun = asyncio.get_running_loop().time()
        await post(transport, server)
        assert server.open == 1
        await eventually(lambda: server.open == 0)
        assert asyncio.get_running_loop().time() - begun >= 0.095
        assert transport.open_connections == {}


@on_both_loops
async def test_connections_are_bounded_and_who_waits_is_served_in_order() -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(0.001)
        await exchange.say(OK)

    async with serving(script) as server, transporting(max_connections=3) as transport:
        async with asyncio.TaskGroup() as tasks:
            for number in range(30):
                tasks.create_task(post(transport, server, b"%d" % number))
        assert server.most_open == 3
        assert server.accepted == 3
        order = [int(exchange.body) for exchange in server.exchanges]
        assert sorted(order) == list(range(30))
        assert max(abs(place - number) for place, number in enumerate(order)) <= 3


@on_both_loops
async def test_a_connection_that_closes_makes_room_for_who_waits() -> None:
    wire = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with serving(wire) as server, transporting(max_connections=2) as transport:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(post(transport, server))
        assert server.accepted == 10
        assert transport.open_connections == {}


@on_both_loops
async def test_a_failed_connect_makes_room_for_who_waits() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = parse_endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}")
        async with transporting(max_connections=1) as transport:

            async def refused() -> None:
                with pytest.raises(Away, match=r"^connection refused$"):
                    await transport.send(endpoint, b"", b"", 5.0)

            async with asyncio.TaskGroup() as tasks:
                for _ in range(5):
                    tasks.create_task(refused())


@on_both_loops
async def test_who_waits_for_a_connection_too_long_is_told_so() -> None:
    async with (
        serving(silence) as server,
        transporting(max_connections=1) as transport,
        asyncio.TaskGroup() as tasks,
    ):
        busy = tasks.create_task(post(transport, server))
        await eventually(lambda: len(server.exchanges) == 1)
        with pytest.raises(Away, match="all 1 connections were busy"):
            await post(transport, server, timeout=0.1)
        busy.cancel()


@on_both_loops
async def test_a_cancelled_waiter_takes_no_connection_with_it() -> None:
    gate = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await gate.wait()
        await exchange.say(OK)

    async with serving(script) as server, transporting(max_connections=1) as transport:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(post(transport, server, b"1"))
            await eventually(lambda: len(server.exchanges) == 1)
            second = tasks.create_task(post(transport, server, b"2"))
            third = tasks.create_task(post(transport, server, b"3"))
            await asyncio.sleep(0)
            second.cancel()
            gate.set()
            assert (await first).body == (await third).body == b"ok"
        assert [exchange.body for exchange in server.exchanges] == [b"1", b"3"]
        assert server.accepted == 1


@pytest.mark.parametrize("turns", range(16))
@pytest.mark.parametrize("reusable", [True, False])
@on_both_loops
async def test_a_waiter_cancelled_as_its_turn_comes_gives_the_turn_on(
    reusable: bool, turns: int
) -> None:
    wire = OK if reusable else OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    gate = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await gate.wait()
        exchange.writer.write(wire)

    async with (
        asyncio.timeout(5),
        serving(script) as server,
        transporting(max_connections=1) as transport,
    ):
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(post(transport, server, b"1"))
            await eventually(lambda: len(server.exchanges) == 1)
            second = tasks.create_task(post(transport, server, b"2"))
            third = tasks.create_task(post(transport, server, b"3"))
            await asyncio.sleep(0)
            gate.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            # In one of these turns it comes between the handing over and the taking.
            asyncio.get_running_loop().call_soon(second.cancel)
            assert (await first).body == (await third).body == b"ok"
        assert (await post(transport, server)).body == b"ok"
        assert server.most_open <= 2


# Time and cancellation


@on_both_loops
async def test_no_reply_in_time_ends_the_attempt_and_its_connection() -> None:
    async with serving(silence) as server, transporting() as transport:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(NoReply, match="no reply in time") as caught:
            await post(transport, server, timeout=0.1)
        assert caught.value.reason == "timeout"
        assert 0.09 <= loop.time() - begun < 1.0
        assert transport.open_connections == {}
        await eventually(lambda: server.open == 0)


@on_both_loops
async def test_half_a_reply_in_time_is_no_reply() -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.say(OK[:-1])
        await asyncio.sleep(60)

    async with serving(half) as server, transporting() as transport:
        with pytest.raises(NoReply, match="part of a reply"):
            await post(transport, server, timeout=0.1)


@on_both_loops
async def test_a_short_timeout_is_kept_beside_long_ones() -> None:
    async with serving(silence) as server, transporting() as transport:
        loop = asyncio.get_running_loop()
        ends: list[float] = []

        async def attempt(timeout: float) -> None:
            begun = loop.time()
            with pytest.raises(NoReply):
                await post(transport, server, timeout=timeout)
            ends.append(loop.time() - begun - timeout)

        async with asyncio.TaskGroup() as tasks:
            long = tasks.create_task(attempt(30.0))
            await eventually(lambda: len(server.exchanges) == 1)
            async with asyncio.TaskGroup() as short:
                for timeout in (0.3, 0.1, 0.2):
                    short.create_task(attempt(timeout))
            long.cancel()
        assert len(ends) == 3
        assert min(ends) >= -0.01
        assert max(ends) < 1.0


@on_both_loops
async def test_a_request_body_that_is_not_taken_waits_uncopied_and_ends_with_the_timeout() -> None:
    async def never(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    body = b"z" * 50_000_000
    async with serving(never, reads_bodies=False) as server, transporting() as transport:
        tracemalloc.start()
        try:
            with pytest.raises(NoReply):
                await post(transport, server, body, timeout=0.2)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


@on_both_loops
async def test_a_cancelled_attempt_closes_its_connection() -> None:
    async with serving(silence) as server, transporting(max_connections=1) as transport:
        async with asyncio.TaskGroup() as tasks:
            attempt = tasks.create_task(post(transport, server))
            await eventually(lambda: len(server.exchanges) == 1)
            attempt.cancel()
        assert attempt.cancelled()
        assert transport.open_connections == {}
        await eventually(lambda: server.open == 0)


@on_both_loops
async def test_an_attempt_cancelled_as_its_reply_comes_harms_nobody() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.say(OK)

    async with serving(script) as server, transporting(max_connections=1) as transport:

        async def attempt() -> None:
            await post(transport, server)

        # Cancelled after each number of loop turns: before, as and after the reply comes.
        for turns in range(30):
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(attempt())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
            assert (await post(transport, server)).body == b"ok"
            assert list(transport.open_connections.values()) == [1]


@on_both_loops
async def test_an_attempt_cancelled_while_it_connects_leaves_no_connection() -> None:
    async with serving(OK) as server, transporting(max_connections=1) as transport:
        for turns in range(12):
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(post(transport, server))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
            async with asyncio.timeout(5):
                await post(transport, server)
            server.exchanges[-1].reset()
            await eventually(lambda: not transport.open_connections)
            await eventually(lambda: server.open == 0)


@on_both_loops
async def test_close_ends_what_is_under_way_and_what_waits() -> None:
    async with serving(silence) as server, transporting(max_connections=1) as transport:

        async def attempt() -> None:
            with pytest.raises(Away, match="stopping"):
                await post(transport, server)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(attempt())
            await eventually(lambda: len(server.exchanges) == 1)
            tasks.create_task(attempt())
            await asyncio.sleep(0)
            async with asyncio.timeout(2):
                await transport.close()
        with pytest.raises(Away, match="stopping"):
            await post(transport, server)
        await eventually(lambda: server.open == 0)


# No connection


@on_both_loops
async def test_a_name_that_does_not_resolve_is_away() -> None:
    host = ".".join(["a" * 60] * 5)  # longer than DNS allows: no server is asked
    async with transporting() as transport:
        with pytest.raises(Away, match=f"^name does not resolve: {host}$"):
            await transport.send(parse_endpoint(f"http://{host}/"), b"", b"", 5.0)


@on_both_loops
async def test_a_refused_connection_is_away_on_every_address_of_a_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = parse_endpoint(f"http://localhost:{taken.getsockname()[1]}")
        async with transporting() as transport:
            with pytest.raises(Away, match=r"^connection refused$"):
                await transport.send(endpoint, b"", b"", 5.0)
            assert transport.open_connections == {}


@on_both_loops
async def test_a_connection_that_takes_too_long_is_away() -> None:
    # TCP connects, TLS is never answered.
    async with serving(OK) as server, transporting(connect_timeout=0.1) as transport:
        server.endpoint = parse_endpoint(f"https://127.0.0.1:{server.endpoint.port}/")
        with pytest.raises(Away, match="no connection in time"):
            await post(transport, server)
        assert transport.open_connections == {}


@on_both_loops
async def test_close_ends_a_connection_that_is_being_opened() -> None:
    async with serving(OK) as server, transporting() as transport:
        server.endpoint = parse_endpoint(f"https://127.0.0.1:{server.endpoint.port}/")

        async def attempt() -> None:
            with pytest.raises(Away, match="stopping"):
                await post(transport, server)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(attempt())
            await eventually(lambda: server.open == 1)
            async with asyncio.timeout(2):
                await transport.close()


# TLS


def _contexts(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for ``name``, and a client's that trusts it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@on_both_loops
async def test_tls_replies_arrive_and_connections_are_used_again() -> None:
    theirs, ours = _contexts("127.0.0.1")
    body = b"0123456789" * 300_000
    async with serving(OK, tls=theirs) as server, transporting(ssl_context=ours) as transport:
        for sent in (b"small", body, b"small"):
            assert (await post(transport, server, sent)).body == b"ok"
        assert server.exchanges[1].body == body
        assert server.accepted == 1


@on_both_loops
async def test_tls_names_the_host_to_the_server() -> None:
    theirs, ours = _contexts("localhost")
    named: list[str | None] = []
    theirs.sni_callback = lambda _socket, name, _context: named.append(name)
    async with serving(OK, tls=theirs) as server, transporting(ssl_context=ours) as transport:
        server.endpoint = parse_endpoint(f"https://localhost:{server.endpoint.port}/")
        assert (await post(transport, server)).status == 200
    assert named == ["localhost"]


@on_both_loops
async def test_a_certificate_of_an_unknown_authority_is_away() -> None:
    theirs, _ = _contexts("127.0.0.1")
    async with serving(OK, tls=theirs) as server, transporting() as transport:
        with pytest.raises(Away, match=r"^TLS: certificate verify failed: .*issuer certificate$"):
            await post(transport, server)
        assert server.exchanges == []
        assert transport.open_connections == {}


@on_both_loops
async def test_a_certificate_for_another_name_is_away() -> None:
    theirs, ours = _contexts("other.example")
    async with serving(OK, tls=theirs) as server, transporting(ssl_context=ours) as transport:
        with pytest.raises(Away, match=r"^TLS: certificate verify failed: .*not valid for"):
            await post(transport, server)
        assert server.exchanges == []


@on_both_loops
async def test_tls_to_a_server_without_tls_is_away() -> None:
    refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    async with serving(OK, greeting=refusal) as server, transporting() as transport:
        server.endpoint = parse_endpoint(f"https://127.0.0.1:{server.endpoint.port}/")
        with pytest.raises(Away, match=r"^TLS: "):
            await post(transport, server)


# URLs


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "host_header"),
    [
        ("http://orders.example", "orders.example", 80, "/", b"orders.example"),
        ("http://orders.example:80/", "orders.example", 80, "/", b"orders.example"),
        ("https://h:443/a/../b?x=%20&y", "h", 443, "/a/../b?x=%20&y", b"h"),
        ("HTTP://Orders.Example:8080?q", "orders.example", 8080, "/?q", b"orders.example:8080"),
        ("http://[::1]:8080/x", "::1", 8080, "/x", b"[::1]:8080"),
        ("http://127.0.0.1:1", "127.0.0.1", 1, "/", b"127.0.0.1:1"),
        ("http://my_service:8000", "my_service", 8000, "/", b"my_service:8000"),
        (
            "http://bücher.example/ü",
            "xn--bcher-kva.example",
            80,
            "/%C3%BC",
            b"xn--bcher-kva.example",
        ),
    ],
)
def test_a_url_is_taken_apart(
    url: str, host: str, port: int, path: str, host_header: bytes
) -> None:
    endpoint = parse_endpoint(url)
    assert endpoint.url == url
    assert (endpoint.host, endpoint.port, endpoint.path) == (host, port, path)
    assert endpoint.host_header == host_header


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "http or https"),
        ("orders.example/in", "http or https"),
        ("ftp://orders.example/", "http or https"),
        ("http://", "without a host"),
        ("http:///in", "without a host"),
        ("http://:80/", "without a host"),
        ("http://h:0/", "port from 1 to 65535"),
        ("http://h:/", "port from 1 to 65535"),
        ("http://h:65536/", "[Pp]ort"),
        ("http://h:http/", "[Pp]ort"),
        ("http://h/#part", "fragment"),
        ("http://h/a b", "white space"),
        ("http://h/a\r\nx: y", "white space or control"),
        ("http://[::1/", "not a URL"),
        ("http://[::zz]/", "IPv6|not a URL"),
        ("http://[fe80::1%25eth0]/", "IPv6|not a URL"),
        ("http://a%20b/", "not a host name"),
        ("http://" + "a" * 64 + ".example/", "not a host name"),
    ],
)
def test_a_url_that_cannot_be_sent_to_is_refused_with_its_fault(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_endpoint(url)


def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="user or password") as caught:
        parse_endpoint("http://user:secret@h/")
    assert "secret" not in str(caught.value)
