"""Long bodies over real sockets: what flows, what is whole before, who is blamed for a pause."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.connectors.test_http_connector import Client, Rig, get, hub, post
from triggerhub.connector import GivenBack
from triggerhub.event import Event, Outcome, Reply, Settled
from triggerhub_http.protocol import Protocol

LONG = bytes(range(256)) * 2048  # 512 KiB
EVENT = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":"%b"}' % (b"x" * 500_000)
FIELDS = f"content-length: {len(LONG)}"


def chunks(data: bytes) -> bytes:
    cut = (data[at : at + 50_000] for at in range(0, len(data), 50_000))
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in cut) + b"0\r\n\r\n"


class Reader:
    """A function that says when it reads, and how it answers."""

    def __init__(self, serve: Callable[[Event], Awaitable[Reply]]) -> None:
        self.serve = serve
        self.events: list[Event] = []
        self.raised: list[BaseException] = []

    async def __call__(self, event: Event) -> Outcome:
        self.events.append(event)
        try:
            return Outcome(Settled.ACCEPTED, await self.serve(event))
        except BaseException as error:
            self.raised.append(error)
            raise

    def release(self) -> None: ...

    def resume(self) -> None: ...


async def rest_of(event: Event) -> bytes:
    assert event.request is not None
    assert event.request.rest is not None
    got = event.data
    while piece := await event.request.rest.read():
        got += piece
    return got


async def measured(event: Event) -> Reply:
    return Reply(200, (), b"%d" % len(await rest_of(event)))


async def serving(
    rig: Rig, serve: Callable[[Event], Awaitable[Reply]], source: dict[str, Any] | None = None
) -> Reader:
    """A listener whose events go to a ``Reader``."""
    reader = Reader(serve)
    await rig.serve({"maxBodySize": "1Mi"} | (source or {}), emit=reader)
    return reader


async def rest_of_reply(client: Client) -> bytes:
    async with asyncio.timeout(5):
        return await client.reader.read()


@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_a_long_body_reaches_the_function_while_it_comes(framing: str) -> None:
    begun = asyncio.Event()

    async def serve(event: Event) -> Reply:
        begun.set()
        return await measured(event)

    async with hub() as rig:
        function = await serving(rig, serve)
        client = await rig.client()
        field = FIELDS if framing == "sized" else "transfer-encoding: chunked"
        wire = LONG if framing == "sized" else chunks(LONG)
        for _ in range(2):  # and the connection goes on
            begun.clear()
            client.send(get("/", field, method="POST"), wire[:400_000])
            async with asyncio.timeout(5):
                await begun.wait()
            client.send(wire[400_000:])
            assert (await client.reply())[2] == b"%d" % len(LONG)
        for event in function.events:
            assert event.request is not None
            assert event.request.length == (len(LONG) if framing == "sized" else None)
            assert len(event.data) > 256 * 1024


@pytest.mark.parametrize(
    ("source", "fields", "body"),
    [
        ({"mode": "Async"}, (), LONG),
        ({"mode": "Prefer"}, ("prefer: respond-async",), LONG),
        ({}, ("content-encoding: gzip",), gzip.compress(LONG, 0)),
        ({}, ("content-type: application/cloudevents+json",), EVENT),
        ({}, ("content-type: application/cloudevents-batch+json",), b"[%b]" % EVENT),
        ({}, (), LONG[: 256 * 1024]),
    ],
    ids=["async", "prefer-async", "gzip", "structured", "batch", "short"],
)
async def test_what_must_be_whole_before_is_whole(
    source: dict[str, Any], fields: tuple[str, ...], body: bytes
) -> None:
    async def serve(event: Event) -> Reply:
        return Reply(200)

    async with hub() as rig:
        function = await serving(rig, serve, source)
        client = await rig.client()
        client.send(get("/", f"content-length: {len(body)}", *fields, method="POST"), body[:9])
        client.send(body[9:])
        status, _, _ = await client.reply()
        assert status in (200, 202)
        events = [*function.events, *rig.inbox.store.inbox.values()]
        (event,) = events
        assert event.request is not None
        assert (event.request.rest, event.request.length) == (None, None)
        assert len(event.data) >= 256 * 1024


async def connection_of(rig: Rig) -> Protocol:
    """The only one."""
    while not (found := rig.connector._server._inner._connections()):
        await asyncio.sleep(0.005)
    (connection,) = found
    return connection


async def test_a_pause_of_the_function_is_not_the_clients() -> None:
    go_on = asyncio.Event()

    async def serve(event: Event) -> Reply:
        await go_on.wait()
        return await measured(event)

    async with hub() as rig, asyncio.timeout(10):
        await serving(rig, serve)
        client = await rig.client()
        client.send(get("/", FIELDS, method="POST"), LONG)
        connection = await connection_of(rig)
        while not connection.flow.read_paused:
            await asyncio.sleep(0.005)
        now = connection.since
        for later in (31.0, 62.0):
            connection.expire(now + later, 30.0)
        go_on.set()
        assert (await client.reply())[2] == b"%d" % len(LONG)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_stalls_is_cut_off_with_408_where_no_answer_has_begun(
    begun: bool,
) -> None:
    reading = asyncio.Event()

    async def serve(event: Event) -> Reply:
        assert event.request is not None
        assert event.request.caller is not None
        if begun:
            await event.request.caller.begin(Reply(200, (), b"some"))
        reading.set()
        return await measured(event)

    async with hub() as rig, asyncio.timeout(10):
        function = await serving(rig, serve)
        client = await rig.client()
        client.send(get("/", FIELDS, method="POST"), LONG[:-1])
        await reading.wait()
        connection = await connection_of(rig)
        while connection.flow.read_paused or len(connection.cycle.body):
            await asyncio.sleep(0.005)
        connection.expire(connection.since + 31.0, 30.0)
        said = await rest_of_reply(client)
        assert said.startswith(b"HTTP/1.1 200 OK" if begun else b"HTTP/1.1 408 ")
        if begun:
            assert said.endswith(b"\r\n\r\n4\r\nsome\r\n")
        assert [type(error).__name__ for error in function.raised] == ["Gone"]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_body_that_grows_too_long_ends_with_413_where_no_answer_has_begun(
    begun: bool,
) -> None:
    async def serve(event: Event) -> Reply:
        assert event.request is not None
        assert event.request.caller is not None
        if begun:
            await event.request.caller.begin(Reply(200, (), b"some"))
        return await measured(event)

    async with hub() as rig:
        function = await serving(rig, serve)
        client = await rig.client()
        client.send(get("/", "transfer-encoding: chunked", method="POST"), chunks(LONG * 3)[:-9])
        said = await rest_of_reply(client)
        assert said.startswith(b"HTTP/1.1 200 OK" if begun else b"HTTP/1.1 413 ")
        assert (b"connection: close" in said) is not begun
        if begun:
            assert said.endswith(b"\r\n\r\n4\r\nsome\r\n")
        assert [type(error).__name__ for error in function.raised] == ["Refusal"]


async def test_an_answer_before_the_bodys_end_is_the_last_of_its_connection() -> None:
    async def serve(event: Event) -> Reply:
        return Reply(403, (), b"no")

    async with hub() as rig:
        await serving(rig, serve)
        client = await rig.client()
        client.send(get("/", FIELDS, method="POST"), LONG[:-1])
        status, fields, said = await client.reply()
        assert (status, fields["connection"], said) == (403, "close", b"no")
        assert await client.closed()


async def test_a_long_request_that_is_not_served_is_answered_and_its_connection_ends() -> None:
    async def serve(event: Event) -> Reply:
        raise GivenBack("no function")

    async with hub() as rig:
        await serving(rig, serve)
        client = await rig.client()
        client.send(get("/", FIELDS, method="POST"), LONG[:-1])
        status, fields, _ = await client.reply()
        assert (status, fields["connection"]) == (503, "close")
        assert await client.closed()


async def test_a_client_that_leaves_within_its_body_ends_its_delivery() -> None:
    begun = asyncio.Event()

    async def serve(event: Event) -> Reply:
        begun.set()
        return await measured(event)

    async with hub() as rig:
        function = await serving(rig, serve)
        client = await rig.client()
        client.send(get("/", FIELDS, method="POST"), LONG[:-1])
        async with asyncio.timeout(5):
            await begun.wait()
            client.writer.transport.abort()
            while not function.raised:
                await asyncio.sleep(0.005)
        assert [type(error).__name__ for error in function.raised] in (["Gone"], ["CancelledError"])
        assert (await rig.ask(post("/", "x")))[0] == 500  # it has no rest to read


async def test_an_answer_that_has_begun_is_cut_when_the_grace_time_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve(event: Event) -> Reply:
        assert event.request is not None
        assert event.request.caller is not None
        await event.request.caller.begin(Reply(200, ((b"content-length", b"9"),), b"some"))
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with hub() as rig:
        reader = Reader(serve)
        listening = rig.listen(grace=0.05, emit=reader)
        await listening.report.until("connected")
        client = await rig.client()
        client.send(get())
        async with asyncio.timeout(5):
            assert (await client.reader.readuntil(b"some")).startswith(b"HTTP/1.1 200")
        await listening.stop()
        assert await client.closed()
    assert caplog.records == []


async def test_a_client_that_takes_in_little_is_not_taken_for_one_that_takes_in_nothing() -> None:
    async def serve(event: Event) -> Reply:
        return Reply(200, (), bytes(64 * 2**20))

    async with hub() as rig:
        await serving(rig, serve)
        client = await rig.client()
        client.send(get())
        async with asyncio.timeout(10):
            connection = await connection_of(rig)
            while not connection.flow.write_paused:
                await asyncio.sleep(0.005)
            now = connection.since
            for more in (20.0, 40.0, 60.0):
                connection.expire(now + more, 30.0)
                assert not connection.transport.is_closing()
                left = connection._outgoing.left()
                while connection._outgoing.left() == left:
                    await client.reader.read(2**20)
            # It reads no more, once its own buffer is full.
            at = now + 60.0
            while not connection.transport.is_closing():
                await asyncio.sleep(0.05)
                at += 40.0
                connection.expire(at, 30.0)
