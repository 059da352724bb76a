"""Replies that are handed over while they come, from real sockets."""

from __future__ import annotations

import asyncio
import math

import pytest

from tests.delivery.test_transport import (
    Exchange,
    Server,
    _contexts,
    eventually,
    on_both_loops,
    serving,
    transporting,
)
from triggerhub.delivery.transport import Away, BrokenReply, NoReply, Transport
from triggerhub.event import Reply, Rest

KIB = 1024
BODY = bytes(range(256)) * (12 * KIB)  # 3 MiB
SIZED, CHUNKED, UNTIL_CLOSE = FRAMINGS = (
    b"Content-Length: %d\r\n\r\n" % len(BODY),
    b"Transfer-Encoding: chunked\r\n\r\n",
    b"\r\n",
)
framed = pytest.mark.parametrize("framing", FRAMINGS, ids=["sized", "chunked", "until-close"])


async def ask(transport: Transport, server: Server, pace: float = 5.0) -> Reply:
    head = b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % server.endpoint.host_header
    return await transport.send(server.endpoint, head, b"", 5.0, 2**26, pace=pace)


async def flowing(transport: Transport, server: Server, pace: float = 5.0) -> tuple[bytes, Rest]:
    """What is there at once, and the rest."""
    reply = await ask(transport, server, pace)
    assert (reply.status, reply.truncated) == (200, False)
    assert reply.rest is not None
    return reply.body, reply.rest


async def read(rest: Rest) -> bytes:
    got: list[bytes] = []
    async with asyncio.timeout(20):
        while piece := await rest.read():
            got.append(piece)
    return b"".join(got)


def chunk(data: bytes, size: int = 50_000) -> bytes:
    cut = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut)


async def head(exchange: Exchange, framing: bytes) -> None:
    await exchange.say(b"HTTP/1.1 200 OK\r\n" + framing)


@framed
@on_both_loops
async def test_a_long_body_comes_whole_and_its_connection_is_used_again(framing: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await head(exchange, framing)
        if framing is CHUNKED:
            await exchange.say(chunk(BODY), b"0\r\nTrailer: x\r\n\r\n")
        else:
            await exchange.say(BODY)
        if framing is UNTIL_CLOSE:
            exchange.writer.close()

    async with serving(script) as server, transporting() as transport:
        for _ in range(3):
            begun, rest = await flowing(transport, server)
            assert begun + await read(rest) == BODY
            assert await rest.read() == b""
            rest.close()  # says nothing any more
        assert server.accepted == (3 if framing is UNTIL_CLOSE else 1)


@on_both_loops
async def test_a_body_that_says_that_it_is_short_is_waited_for() -> None:
    short = BODY[: 256 * KIB]

    async def script(exchange: Exchange) -> None:
        await head(exchange, b"Content-Length: %d\r\n\r\n" % len(short))
        await exchange.say(short[:7])
        await asyncio.sleep(0.2)
        await exchange.say(short[7:])

    async with serving(script) as server, transporting() as transport:
        reply = await ask(transport, server)
        assert (reply.body, reply.rest) == (short, None)


@framed
@on_both_loops
async def test_what_comes_slowly_is_handed_over_as_it_comes(framing: bytes) -> None:
    seen = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await head(exchange, framing)
        for number in range(3):
            await exchange.say(chunk(b"%d" % number) if framing is CHUNKED else b"%d" % number)
            await seen.wait()
            seen.clear()

    async with serving(script) as server, transporting() as transport:
        got, rest = await flowing(transport, server)
        for expected in (b"0", b"01", b"012"):
            while got != expected:
                got += await rest.read()
            seen.set()
        rest.close()


@framed
@pytest.mark.parametrize("how", ["ended", "reset"])
@on_both_loops
async def test_a_body_that_breaks_off_is_not_taken_for_whole(framing: bytes, how: str) -> None:
    broken = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await head(exchange, framing)
        exchange.writer.write(chunk(BODY[:500_000]) if framing is CHUNKED else BODY[:500_000])
        await broken.wait()
        exchange.reset() if how == "reset" else exchange.writer.close()

    async with serving(script) as server, transporting() as transport:
        got, rest = await flowing(transport, server)
        while len(got) < 500_000:
            got += await rest.read()
        broken.set()
        if (framing, how) == (UNTIL_CLOSE, "ended"):
            assert await rest.read() == b""
        else:
            with pytest.raises(BrokenReply):
                await rest.read()
        assert got == BODY[:500_000]
        assert transport.open_connections == {}


@framed
@on_both_loops
async def test_each_piece_has_its_time_and_then_it_is_no_reply(framing: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await head(exchange, framing)
        await exchange.say(chunk(b"abc") if framing is CHUNKED else b"abc")
        await exchange.reader.read()

    async with serving(script) as server, transporting() as transport:
        got, rest = await flowing(transport, server, pace=0.2)
        while got != b"abc":
            got += await rest.read()
        with pytest.raises(NoReply):
            await rest.read()
        await eventually(lambda: server.open == 0)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@on_both_loops
async def test_who_does_not_read_holds_up_the_function_however_long(tls: bool) -> None:
    size, sent = 256 * 2**20, 0

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        await head(exchange, b"Content-Length: %d\r\n\r\n" % size)
        while sent < size:
            exchange.writer.write(BODY[:65_536])
            await exchange.writer.drain()
            sent += 65_536

    mine, theirs = _contexts("127.0.0.1") if tls else (None, None)
    async with serving(script, tls=mine) as server, transporting(ssl_context=theirs) as transport:
        begun, rest = await flowing(transport, server)
        (pool,) = transport._pools.values()
        (connection,) = pool.connections
        before = -1
        while before != sent:  # the kernel's buffers fill up
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size // 2
        assert connection.deadline == math.inf  # it is not the function that takes its time
        got = len(begun)
        for _ in range(200):
            got += len(await rest.read())
        assert got > 200 * 1024
        assert connection.deadline < math.inf or rest.full  # type: ignore[attr-defined]
        await eventually(lambda: sent > before)
        rest.close()
        await eventually(lambda: server.open == 0)


@on_both_loops
async def test_who_wants_no_more_ends_the_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await head(exchange, SIZED)
        await exchange.say(BODY[:1000])
        await exchange.reader.read()

    async with serving(script) as server, transporting() as transport:
        _, rest = await flowing(transport, server)
        waiting = asyncio.create_task(read(rest))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        rest.close()
        await eventually(lambda: server.open == 0)
        assert transport.open_connections == {}
        _, rest = await flowing(transport, server)
        assert server.accepted == 2
        await transport.close()
        with pytest.raises(Away, match="the hub is stopping"):
            await read(rest)


@pytest.mark.parametrize(
    "filler",
    [b"5;" + b"x" * 600_000, b"0\r\n" + b"a: b\r\n" * 100_000],
    ids=["extension", "trailers"],
)
@on_both_loops
async def test_endless_extensions_and_trailers_within_a_flow_are_given_up(filler: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await head(exchange, CHUNKED)
        exchange.writer.write(chunk(BODY[:300_000]))
        exchange.writer.write(filler)
        await exchange.reader.read()

    async with serving(script) as server, transporting() as transport:
        _, rest = await flowing(transport, server)
        with pytest.raises(BrokenReply, match="within a body"):
            await read(rest)
        await eventually(lambda: server.open == 0)


@on_both_loops
async def test_what_follows_a_body_spoils_its_connection() -> None:
    async def script(exchange: Exchange) -> None:
        await head(exchange, SIZED)
        await exchange.say(BODY + b"more")

    async with serving(script) as server, transporting() as transport:
        for _ in range(2):
            begun, rest = await flowing(transport, server)
            assert begun + await read(rest) == BODY
        assert server.accepted == 2
