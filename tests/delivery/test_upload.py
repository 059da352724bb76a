"""Long requests that are sent while they come, to real sockets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.delivery.test_transport import (
    OK,
    Exchange,
    Server,
    _contexts,
    eventually,
    on_both_loops,
    serving,
    transporting,
)
from tests.fakes import event
from triggerhub.delivery.exchange import Exchange as Attempt
from triggerhub.delivery.failures import Interrupted
from triggerhub.delivery.target import Target
from triggerhub.delivery.transport import Away, NoReply, Transport
from triggerhub.event import Reply, Request

BODY = bytes(range(256)) * (12 * 1024)  # 3 MiB
BEGIN = 300_000
"""Bytes that are there at once."""
sized = pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])


@dataclass
class Pieces:
    """The rest of a body. An exception is raised, and a future waited for."""

    left: list[bytes | Exception | asyncio.Event]
    taken: int = 0
    closed: bool = False

    async def read(self) -> bytes:
        while self.left:
            piece = self.left.pop(0)
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                self.taken += len(piece)
                return piece
            await piece.wait()
        return b""

    def close(self) -> None:
        self.closed = True


@dataclass
class Caller:
    heard: list[bytes] = field(default_factory=list)
    ended: bool = False

    async def begin(self, reply: Reply) -> None:
        self.heard.append(reply.body)

    async def take(self, piece: bytes) -> None:
        self.heard.append(piece)

    async def end(self) -> None:
        self.ended = True


def cut(data: bytes, size: int = 50_000) -> list[bytes | Exception | asyncio.Event]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def attempt(
    transport: Transport,
    server: Server,
    rest: Pieces,
    *,
    length: int | None = None,
    method: str = "POST",
    timeout: float = 5.0,
    caller: Caller | None = None,
) -> Attempt:
    request = Request(method=method, rest=rest, length=length, caller=caller or Caller())
    target = Target(
        namespace="shop", trigger="web", function="f", url=server.endpoint.url, timeout=timeout
    )
    one = event(data=BODY[:BEGIN], request=request)
    return Attempt(transport.send, server.endpoint, one, request, target)


async def body_of(exchange: Exchange) -> AsyncIterator[bytes]:
    """As it comes, to its end."""
    reader = exchange.reader
    if b"transfer-encoding: chunked" in exchange.head:
        while size := int(await reader.readline(), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        assert await reader.readline() == b"\r\n"
    else:
        left = int(exchange.head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        while left:
            piece = await reader.read(min(left, 65_536))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece


async def whole(exchange: Exchange) -> bytes:
    return b"".join([piece async for piece in body_of(exchange)])


@sized
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@on_both_loops
async def test_a_long_request_arrives_whole_and_its_connection_is_used_again(
    sized: bool, tls: bool
) -> None:
    got: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        got.append(await whole(exchange))
        await exchange.say(OK)

    mine, theirs = _contexts("127.0.0.1") if tls else (None, None)
    async with (
        serving(script, reads_bodies=False, tls=mine) as server,
        transporting(ssl_context=theirs) as transport,
    ):
        for _ in range(3):
            rest = Pieces(cut(BODY[BEGIN:]))
            length = len(BODY) if sized else None
            reply = await attempt(transport, server, rest, length=length).run()
            assert (reply.status, reply.body) == (200, b"ok")
        assert got == [BODY] * 3
        assert server.accepted == 1


@on_both_loops
async def test_both_bodies_flow_at_once() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        async for piece in body_of(exchange):
            await exchange.say(b"%x\r\n%b\r\n" % (len(piece), piece))
        await exchange.say(b"0\r\n\r\n")

    caller, heard = Caller(), asyncio.Event()
    rest = Pieces([b"first", heard, b"second"])
    async with (
        serving(script, reads_bodies=False) as server,
        transporting() as transport,
        asyncio.TaskGroup() as tasks,
    ):
        running = tasks.create_task(outcome(attempt(transport, server, rest, caller=caller)))
        await eventually(lambda: b"".join(caller.heard) == BODY[:BEGIN] + b"first")
        (pool,) = transport._pools.values()
        (connection,) = pool.connections
        assert connection.deadline == math.inf  # the function waits for the caller
        heard.set()
        await running
        assert b"".join(caller.heard) == BODY[:BEGIN] + b"firstsecond"
        assert caller.ended
        await attempt(transport, server, Pieces([]), caller=caller).run()
        assert server.accepted == 1


@sized
@on_both_loops
async def test_an_answer_before_the_end_ends_the_request_and_its_connection(sized: bool) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await exchange.reader.read()

    never = asyncio.Event()
    rest = Pieces([b"more", never, b"and more"])
    async with serving(script, reads_bodies=False) as server, transporting() as transport:
        length = len(BODY) if sized else None
        reply = await attempt(transport, server, rest, length=length).run()
        assert (reply.status, reply.body) == (413, b"big")
        assert rest.closed
        await eventually(lambda: server.open == 0)
        assert transport.open_connections == {}


@on_both_loops
async def test_a_function_that_does_not_read_holds_up_the_caller_for_its_time() -> None:
    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    rest = Pieces(cut(b"x" * 2**28, 2**20))
    async with serving(script, reads_bodies=False) as server, transporting() as transport:
        with pytest.raises(NoReply):
            await attempt(transport, server, rest, timeout=0.5).run()
        assert rest.taken < 2**27
        assert rest.closed


@on_both_loops
async def test_a_function_that_reads_late_gets_it_all() -> None:
    rest = Pieces(cut(b"x" * 2**25, 2**20))
    got = 0

    async def script(exchange: Exchange) -> None:
        nonlocal got
        taken = -1
        while taken != rest.taken:  # the kernel's buffers fill up
            taken = rest.taken
            await asyncio.sleep(0.1)
        assert taken < 2**25
        async for piece in body_of(exchange):
            got += len(piece)
        await exchange.say(OK)

    async with serving(script, reads_bodies=False) as server, transporting() as transport:
        assert (await attempt(transport, server, rest, timeout=20.0).run()).body == b"ok"
        assert got == BEGIN + 2**25


@sized
@on_both_loops
async def test_what_its_sender_raises_ends_the_request_short_of_its_end(sized: bool) -> None:
    ended: list[bool] = []

    async def script(exchange: Exchange) -> None:
        try:
            await whole(exchange)
            ended.append(True)
        except (asyncio.IncompleteReadError, ValueError, ConnectionError):
            ended.append(False)
        raise ConnectionError

    rest = Pieces([b"more", KeyError("gone")])
    async with serving(script, reads_bodies=False) as server, transporting() as transport:
        with pytest.raises(Interrupted) as broken:
            await attempt(transport, server, rest, length=len(BODY) if sized else None).run()
        assert isinstance(broken.value.cause, KeyError)
        await eventually(lambda: ended == [False])
        assert transport.open_connections == {}


@pytest.mark.parametrize("method", ["PUT", "POST"])
@on_both_loops
async def test_it_is_sent_once_more_only_while_nothing_of_the_rest_is_on_its_way(
    method: str,
) -> None:
    """The server ends the connection within a request that is not its first."""
    go_on = asyncio.Event()
    late = False
    numbers: list[int] = []

    async def script(exchange: Exchange) -> None:
        numbers.append(exchange.connection)
        if numbers.count(exchange.connection) > 1:
            async for piece in body_of(exchange):
                if piece == b"more" or not late:
                    exchange.writer.close()
                    return
        await whole(exchange)
        await exchange.say(OK)

    async with serving(script, reads_bodies=False) as server, transporting() as transport:
        await attempt(transport, server, Pieces([]), method=method).run()
        rest = Pieces([go_on, b"more"])
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(outcome(attempt(transport, server, rest, method=method)))
            await eventually(lambda: len(numbers) > 2 or running.done())
            go_on.set()
        assert (running.result(), numbers) == (
            (200, [1, 1, 2]) if method == "PUT" else (Away, [1, 1])
        )

        # Now some of the rest is sent, and it must not be said twice.
        late = True
        numbers.clear()
        await attempt(transport, server, Pieces([]), method=method).run()
        sent = Pieces([b"more", asyncio.Event()])
        assert await outcome(attempt(transport, server, sent, method=method)) is Away


async def outcome(one: Attempt) -> int | type[Exception]:
    try:
        return (await one.run()).status
    except Away:
        return Away
