"""Requests over real sockets: answered, in order, within limits, and never cut."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from triggerhub.connector import (
    Emit,
    GivenBack,
    Installation,
    Position,
    Sought,
    Subscription,
)
from triggerhub.control.references import references
from triggerhub.event import Event, Outcome, Reply, Settled
from triggerhub.testing.fakes import MemoryIntake
from triggerhub_http import HTTPConnector, HTTPSource

BORN = datetime(2026, 11, 23, 12, tzinfo=UTC)


class NoPositions:
    async def load(self, prefix: str = "") -> dict[str, Position]:
        raise NotImplementedError

    async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    async def claim(self, key: str, ttl: float) -> bool:
        raise NotImplementedError

    async def release(self, key: str) -> None:
        raise NotImplementedError


class Reported:
    def __init__(self) -> None:
        self.state = ""
        self.turned: list[str] = []
        self.changed = asyncio.Event()

    def connected(self, reason: str = "Connected", message: str = "") -> None:
        told = f" {reason}: {message}" if message else ""
        self.state = f"connected{told}"
        self.changed.set()

    def disconnected(self, reason: str, message: str = "") -> None:
        self.state = f"{reason}: {message}"
        self.changed.set()

    def lag(self, events: float, parts: object = None) -> None: ...

    def turned_away(self, reason: str) -> None:
        self.turned.append(reason)

    def sought(self, seek: Sought) -> None: ...

    async def until(self, start: str) -> str:
        async with asyncio.timeout(5):
            while not self.state.startswith(start):
                self.changed.clear()
                await self.changed.wait()
        return self.state


class Function:
    """Echoes, unless told otherwise; holds requests while ``open`` is cleared."""

    def __init__(self, name: str = "echo") -> None:
        self.name = name
        self.events: list[Event] = []
        self.open = asyncio.Event()
        self.open.set()
        self.most = self.now = 0
        self.gone = 0
        self.answer: Callable[[Event], Outcome] = self.echo

    def echo(self, event: Event) -> Outcome:
        assert event.request is not None
        said = f"{self.name} {event.request.method} {event.request.path}?{event.request.query} "
        body = said.encode() + event.data
        fields = ((b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)))
        return Outcome(Settled.ACCEPTED, Reply(200, fields, body))

    async def __call__(self, event: Event) -> Outcome:
        if event.request is not None and event.request.rest is not None:
            data = [event.data]
            while piece := await event.request.rest.read():
                data.append(piece)
            event = replace(event, data=b"".join(data), request=replace(event.request, rest=None))
        self.events.append(event)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.gone += 1
            raise
        finally:
            self.now -= 1
        return self.answer(event)

    def release(self) -> None: ...

    def resume(self) -> None: ...

    async def until(self, condition: Callable[[Function], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition(self):
                await asyncio.sleep(0.002)


@dataclass
class Listening:
    task: asyncio.Task[None]
    report: Reported
    function: Function

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task], timeout=10)


@dataclass
class Client:
    """A raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *parts: str | bytes) -> None:
        for part in parts:
            self.writer.write(part.encode() if isinstance(part, str) else part)

    async def reply(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(5):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines[1:])}
            length = 0 if head else int(fields.get("content-length", 0))
            return int(lines[0].split()[1]), fields, await self.reader.readexactly(length)

    async def closed(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read() == b""


@dataclass
class Rig:
    connector: HTTPConnector
    tasks: asyncio.TaskGroup
    listenings: list[Listening] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    inbox: MemoryIntake = field(default_factory=MemoryIntake)

    def listen(
        self,
        source: dict[str, Any] | None = None,
        *,
        name: str = "orders",
        age: int = 0,
        grace: float = 5.0,
        in_flight: int = 64,
        values: dict[str, bytes] | None = None,
        emit: Emit | None = None,
    ) -> Listening:
        """``values``: by the names of environment variables that the source refers to. ``emit``:
        instead of the function's."""
        function, report = Function(name), Reported()
        made = HTTPSource.model_validate(source or {})
        kept = {one: (values or {})[one.env or ""] for one in references(made)}
        subscription = Subscription(
            name=f"shop.{name}.handle",
            namespace="shop",
            trigger=name,
            function="handle",
            source=made,
            emit=emit or function,
            in_flight=in_flight,
            grace=grace,
            positions=NoPositions(),
            inbox=self.inbox,
            report=report,
            created=BORN - timedelta(days=age),
            values=kept,
        )
        task = self.tasks.create_task(self.connector.listen(subscription))
        listening = Listening(task, report, function)
        self.listenings.append(listening)
        return listening

    async def serve(self, source: dict[str, Any] | None = None, **more: Any) -> Function:
        listening = self.listen(source, **more)
        await listening.report.until("connected")
        return listening.function

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.connector.port))
        self.clients.append(client)
        return client

    async def uploading(self, path: str) -> Client:
        """A request that was let in, and whose body of four bytes is half there."""
        client = await self.client()
        client.send(get(path, "content-length: 4", "expect: 100-continue", method="POST"))
        async with asyncio.timeout(5):
            assert b" 100 " in await client.reader.readuntil(b"\r\n\r\n")
        client.send("bo")
        return client

    async def ask(self, *parts: str | bytes) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        client = await self.client()
        client.send(*parts)
        return await client.reply()


@asynccontextmanager
async def hub(
    listen: str = "127.0.0.1:0", patience: float = 30.0, **more: Any
) -> AsyncIterator[Rig]:
    connector = HTTPConnector(Installation(listen=listen, **more), patience=patience)
    async with connector, asyncio.TaskGroup() as tasks:
        rig = Rig(connector, tasks)
        try:
            yield rig
        finally:
            for client in rig.clients:
                client.writer.close()
            for listening in rig.listenings:
                listening.function.open.set()
                listening.task.cancel()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with hub() as made:
        yield made


def get(path: str = "/", *fields: str, method: str = "GET") -> str:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: shop.example", *fields, "", ""])


def post(path: str, body: str, *fields: str) -> str:
    return get(path, f"content-length: {len(body)}", *fields, method="POST") + body


async def test_a_request_reaches_the_function_and_its_answer_comes_back(rig: Rig) -> None:
    function = await rig.serve({"path": "/in"})
    function.answer = lambda event: Outcome(
        None, Reply(418, ((b"x-tea", b"\xfc"), (b"content-type", b"a/b")), b"\x00\xff\r\n")
    )
    client = await rig.client()
    client.send(post("/in/7?q=%20&r", "\x00body", "X-Mine: Yes", "Content-Type: x/y"))
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(
        b"HTTP/1.1 418 I'm a Teapot\r\nx-tea: \xfc\r\ncontent-type: a/b\r\ndate: "
    )
    assert head.endswith(b" GMT\r\ncontent-length: 4\r\n\r\n")
    assert await client.reader.readexactly(4) == b"\x00\xff\r\n"
    (event,) = function.events
    assert event.request is not None
    assert (event.request.method, event.request.path) == ("POST", "/7")
    assert (event.request.query, event.data) == ("q=%20&r", b"\x00body")
    assert (event.source, event.subject) == ("/http/shop/orders", "/in/7")
    assert dict(event.request.headers) == {
        b"x-mine": b"Yes",
        b"content-type": b"x/y",
        b"x-forwarded-for": b"127.0.0.1",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"shop.example",
        b"forwarded": b"for=127.0.0.1;host=shop.example;proto=http",
    }


async def test_the_parameters_of_a_path_reach_the_function_and_nobody_else_sets_them(
    rig: Rig,
) -> None:
    function = await rig.serve({"path": "/shops/{shop}/orders/{Order-ID}"})
    forged = ("triggerhub-parameter-shop: x", "Triggerhub_Parameter_Order_ID: y", "x-kept: z")
    assert (await rig.ask(get("/shops/caf%C3%A9%20a/orders/a%2Fb/items?q", *forged)))[0] == 200
    (event,) = function.events
    assert event.request is not None
    assert (event.request.path, event.request.query) == ("/items", "q")
    fields = [pair for pair in event.request.headers if b"forwarded" not in pair[0]]
    assert fields == [
        (b"x-kept", b"z"),
        (b"triggerhub-parameter-shop", b"caf%C3%A9%20a"),
        (b"triggerhub-parameter-order-id", b"a%2Fb"),
    ]


async def test_an_unknown_path_is_404_and_a_known_one_with_another_method_405(rig: Rig) -> None:
    await rig.serve({"path": "/a", "methods": ["GET", "PUT"]})
    client = await rig.client()
    client.send(post("/b", "ignored"), get("/a", method="DELETE"), get("/a"))
    status, fields, body = await client.reply()
    assert (status, fields["content-type"]) == (404, "application/json")
    assert json.loads(body) == {
        "error": "NotFound",
        "message": "no trigger serves /b on host shop.example",
    }
    status, fields, body = await client.reply()
    assert (status, fields["allow"]) == (405, "GET, HEAD, PUT")
    assert "does not take DELETE" in json.loads(body)["message"]
    assert (await client.reply())[0] == 200


async def test_head_has_the_length_of_get_and_no_body(rig: Rig) -> None:
    function = await rig.serve({"methods": ["GET"]})
    function.answer = lambda event: Outcome(
        Settled.ACCEPTED, Reply(200, ((b"content-length", b"1234"),))
    )
    client = await rig.client()
    client.send(get(method="HEAD"), get("/nowhere/..", method="HEAD"), get())
    assert (await client.reply(head=True))[1]["content-length"] == "1234"
    assert (await client.reply(head=True))[0] == 400
    assert (await client.reply())[0] == 200


async def test_pipelined_requests_are_answered_in_order_on_one_connection(rig: Rig) -> None:
    function = await rig.serve()
    client = await rig.client()
    client.send(*(post(f"/{n}", str(n)) for n in range(50)))
    bodies = [(await client.reply())[2] for _ in range(50)]
    assert bodies == [f"orders POST /{n}? {n}".encode() for n in range(50)]
    assert function.most == 1


@pytest.mark.parametrize(
    "request_text",
    [get("/", "connection: close"), "GET / HTTP/1.0\r\n\r\n", get("/", "Connection: CLOSE")],
)
async def test_a_client_that_wants_the_connection_closed_gets_that(
    rig: Rig, request_text: str
) -> None:
    await rig.serve()
    client = await rig.client()
    client.send(request_text)
    status, fields, _ = await client.reply()
    assert (status, fields["connection"]) == (200, "close")
    assert await client.closed()


@pytest.mark.parametrize(
    "request_text",
    [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nbad header: b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /../etc HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /?\xff HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_400_and_the_connection_ends(
    rig: Rig, request_text: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    function = await rig.serve()
    client = await rig.client()
    client.send(request_text)
    status, fields, body = await client.reply()
    assert (status, fields["connection"]) == (400, "close")
    assert json.loads(body)["error"] == "BadRequest"
    assert await client.closed()
    assert function.events == []
    assert caplog.records == []


async def test_what_is_malformed_does_not_pass_the_answer_before_it(rig: Rig) -> None:
    await rig.serve()
    client = await rig.client()
    client.send(get("/a"), "nonsense\r\n\r\n")
    assert (await client.reply())[0] == 200
    assert (await client.reply())[0] == 400
    assert await client.closed()


async def test_a_broken_body_is_400_after_the_answers_to_what_came_before(rig: Rig) -> None:
    function = await rig.serve()
    function.open.clear()
    client = await rig.client()
    chunked = get("/c", "transfer-encoding: chunked", method="POST")
    client.send(get("/a"), get("/b"), chunked, "zz\r\n", get("/d"))
    await function.until(lambda f: f.now == 1)
    function.open.set()
    statuses = [(await client.reply())[0] for _ in range(3)]
    assert statuses == [200, 200, 400]
    assert await client.closed()
    assert [event.subject for event in function.events] == ["/a", "/b"]


async def test_a_client_that_sends_ahead_without_end_is_not_read_ahead_of(rig: Rig) -> None:
    function = await rig.serve()
    served = asyncio.Semaphore(0)

    def block_later(event: Event) -> Outcome:
        served.release()
        if len(function.events) == 100:
            function.open.clear()
        return function.echo(event)

    function.answer = block_later
    client = await rig.client()
    client.send(post("/", "y" * 500) * 60_000)
    await function.until(lambda f: len(f.events) == 101)
    for _ in range(100):
        await client.reply()
    unsent = client.writer.transport.get_write_buffer_size()
    assert unsent > 24_000_000


async def test_a_client_that_sends_thousands_at_once_does_not_hold_up_others(rig: Rig) -> None:
    await rig.serve({"path": "/a"})
    client = await rig.client()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = rig.tasks.create_task(others())
    client.send(get("/nowhere") * 2000)
    for _ in range(2000):
        assert (await client.reply())[0] == 404
    other.cancel()
    assert turns > 1900


async def test_trailers_are_no_fields_and_do_not_go_on_for_ever(rig: Rig) -> None:
    function = await rig.serve()
    client = await rig.client()
    client.send(get("/", "transfer-encoding: chunked", method="POST"))
    client.send("3\r\nabc\r\n0\r\nhost: b\r\nx-late: 1\r\n\r\n")
    assert (await client.reply())[0] == 200
    assert function.events[0].request is not None
    assert b"x-late" not in dict(function.events[0].request.headers)
    client.send(get("/", "transfer-encoding: chunked", method="POST"), "3\r\nabc\r\n0\r\n")
    client.send("x-endless: " + "y" * 90_000)
    assert (await client.reply())[0] == 431
    assert await client.closed()
    assert len(function.events) == 1


async def test_a_malformed_cloud_event_is_400_and_the_connection_goes_on(rig: Rig) -> None:
    await rig.serve()
    client = await rig.client()
    client.send(post("/", "{}", "ce-specversion: 1.0", "ce-id: 7"), get())
    status, _, body = await client.reply()
    assert (status, json.loads(body)["error"]) == (400, "BadCloudEvent")
    assert (await client.reply())[0] == 200


async def test_a_body_over_the_limit_is_413_before_it_is_read(rig: Rig) -> None:
    function = await rig.serve({"maxBodySize": 10})
    status, fields, body = await rig.ask(get("/", "content-length: 11", method="POST"))
    assert (status, fields["connection"]) == (413, "close")
    assert json.loads(body)["message"] == "the body is 11 bytes, expected at most 10 bytes"
    assert (await rig.ask(post("/", "x" * 10)))[0] == 200
    assert len(function.events) == 1


async def test_a_client_still_sending_sees_the_413(rig: Rig) -> None:
    await rig.serve({"maxBodySize": 10})
    client = await rig.client()
    client.send(get("/", "content-length: 5000000", method="POST"))
    for _ in range(50):
        client.send(b"x" * 100_000)
    await client.writer.drain()
    assert (await client.reply())[0] == 413


async def test_a_chunked_body_is_read_whole_and_413_as_soon_as_it_is_too_long(rig: Rig) -> None:
    function = await rig.serve({"maxBodySize": 10})
    client = await rig.client()
    client.send(get("/", "transfer-encoding: chunked", method="POST"))
    client.send("3\r\nabc\r\n4\r\ndefg\r\n0\r\ntrailer: x\r\n\r\n")
    assert (await client.reply())[2] == b"orders POST /? abcdefg".replace(b"/?", b"?")
    client.send(get("/", "transfer-encoding: chunked", method="POST"))
    client.send("6\r\nabcdef\r\n5\r\nghijk\r\n")
    assert (await client.reply())[0] == 413
    assert await client.closed()
    assert len(function.events) == 1


async def test_a_client_that_asks_first_is_told_to_go_on_or_refused(rig: Rig) -> None:
    await rig.serve({"path": "/a", "maxBodySize": 10})
    client = await rig.client()
    client.send(get("/a", "content-length: 2", "expect: 100-continue", method="POST"))
    async with asyncio.timeout(5):
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send("hi")
    assert (await client.reply())[2].endswith(b"hi")
    client.send(get("/b", "content-length: 2", "expect: 100-continue", method="POST"))
    status, fields, _ = await client.reply()
    assert (status, fields["connection"]) == (404, "close")
    big = get("/a", "content-length: 20", "expect: 100-continue", method="POST")
    assert (await rig.ask(big))[0] == 413


@pytest.mark.parametrize("pieces", [1, 90])
async def test_a_head_over_the_limit_is_431(rig: Rig, pieces: int) -> None:
    await rig.serve()
    client = await rig.client()
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-long: ")
    for _ in range(pieces):
        client.send("y" * (90_000 // pieces))
        await client.writer.drain()
        await asyncio.sleep(0)
    if pieces == 1:
        client.send("\r\n\r\n")
    status, _, body = await client.reply()
    assert (status, json.loads(body)["error"]) == (431, "HeaderTooLarge")
    assert await client.closed()


async def test_a_client_that_sends_slowly_is_served_and_one_that_stops_is_not() -> None:
    async with hub(patience=0.3) as rig:
        await rig.serve()
        slow, head, body, silent = [await rig.client() for _ in range(4)]
        head.send("GET / HTTP/1.1\r\nhost:")
        body.send(get("/", "content-length: 5", method="POST"), "ab")
        text = post("/", "0123456789")
        for piece in (text[:20], text[20:-5], text[-5:-2], text[-2:]):
            slow.send(piece)
            await asyncio.sleep(0.1)
        assert (await slow.reply())[2].endswith(b"0123456789")
        for client in (head, body):
            assert (await client.reply())[0] == 408
            assert await client.closed()
        assert await silent.closed()


async def test_of_many_clients_the_longest_idle_makes_room_and_nobody_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triggerhub_http.server._MOST", 8)
    async with hub() as rig:
        function = await rig.serve()
        silent = await rig.client()
        kept = [await rig.client() for _ in range(5)]
        for one in kept:
            one.send(get())
            assert (await one.reply())[0] == 200
        halfway = await rig.client()
        halfway.send("GET / HT")
        function.open.clear()
        waiting = await rig.client()
        waiting.send(get())
        await function.until(lambda f: f.now == 1)
        for one in (silent, *kept):
            waits = await rig.client()
            waits.send(get())
            assert await one.closed()
        await function.until(lambda f: f.now == 7)
        turned_away = await rig.client()
        with suppress(ConnectionError):
            assert await turned_away.closed()
        function.open.set()
        halfway.send("TP/1.1\r\nhost: a\r\n\r\n")
        for one in (halfway, waiting, *rig.clients[8:-1]):
            assert (await one.reply())[0] == 200
        assert (await rig.ask(get()))[0] == 200


async def test_a_client_that_is_gone_ends_its_delivery_quietly(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    function = await rig.serve(in_flight=1)
    function.open.clear()
    clients = [await rig.client() for _ in range(3)]
    for client in clients:
        client.send(get())
    await function.until(lambda f: f.now == 1)
    for client in clients[:2]:
        client.writer.close()
    await function.until(lambda f: len(f.events) >= 2 and f.now == 1)
    function.open.set()
    assert (await clients[2].reply())[0] == 200
    assert function.gone >= 1
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_no_more_than_in_flight_are_delivered_at_once_and_the_rest_wait(rig: Rig) -> None:
    function = await rig.serve(in_flight=2)
    function.open.clear()
    clients = [await rig.client() for _ in range(40)]
    for client in clients:
        client.send(get())
    statuses = asyncio.gather(*(client.reply() for client in clients))
    await function.until(lambda f: f.now == 2)
    function.open.set()
    assert sorted(status for status, _, _ in await statuses) == [200] * 34 + [503] * 6
    assert function.most == 2


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome(Settled.FILTERED), 204),
        (Outcome(Settled.ACCEPTED), 204),
        (Outcome(Settled.DEAD), 502),
        (Outcome(None, Reply(200, (), b"hal", truncated=True)), 502),
        (Outcome(None, Reply(101)), 502),
    ],
)
async def test_an_outcome_without_an_answer_still_gets_one(
    rig: Rig, outcome: Outcome, status: int
) -> None:
    function = await rig.serve()
    function.answer = lambda event: outcome
    assert (await rig.ask(get()))[0] == status


async def test_a_request_that_is_given_back_is_503_with_a_time_to_try_again(rig: Rig) -> None:
    function = await rig.serve()

    def give_back(event: Event) -> Outcome:
        raise GivenBack("gone")

    function.answer = give_back
    status, fields, body = await rig.ask(get())
    assert (status, fields["retry-after"]) == (503, "1")
    assert "/http/shop/orders" in json.loads(body)["message"]


@pytest.mark.parametrize("hub_stops", [True, False])
async def test_stopping_answers_what_is_under_way_and_takes_nothing_new(hub_stops: bool) -> None:
    async with hub(stopping=lambda: hub_stops) as rig:
        listening = rig.listen()
        await listening.report.until("connected")
        listening.function.open.clear()
        early, late = await rig.client(), await rig.client()
        early.send(get("/early"))
        await listening.function.until(lambda f: f.now == 1)
        listening.task.cancel()
        await asyncio.sleep(0)
        late.send(get("/late"))
        if hub_stops:
            status, fields, _ = await late.reply()
            assert (status, fields["retry-after"]) == (503, "1")
        assert not listening.task.done()
        listening.function.open.set()
        assert (await early.reply())[2] == b"orders GET /early? "
        await asyncio.wait([listening.task], timeout=5)
        assert listening.task.cancelled()
        if not hub_stops:
            assert (await late.reply())[0] == 404, "it had waited for another to take over"
            late.send(get("/later"))
            assert (await late.reply())[0] == 404
        assert len(listening.function.events) == 1


async def test_a_listener_that_is_started_anew_drops_no_request(rig: Rig) -> None:
    """As for a changed manifest or Secret: one ends, and then another begins."""
    old = rig.listen({"path": "/a"})
    await old.report.until("connected")
    other = await rig.serve({"path": "/"}, name="other")
    uploading = await rig.uploading("/a/0")
    old.function.open.clear()
    slow = await rig.client()
    slow.send(get("/a/1"))
    await old.function.until(lambda f: f.now == 1)
    old.task.cancel()
    while not old.task.cancelling():
        await asyncio.sleep(0)
    waiting = [await rig.client() for _ in range(20)]
    for client in waiting:
        client.send(get("/a/2"))
    await asyncio.sleep(0.05)
    assert not other.events, "a less specific trigger does not take its place"
    old.function.open.set()
    assert (await slow.reply())[0] == 200
    await asyncio.wait([old.task], timeout=5)
    late = await rig.client()
    late.send(get("/a/3"))
    await asyncio.sleep(0.02)
    new = rig.listen({"path": "/a"})
    uploading.send("dy")
    for client in (*waiting, late, uploading):
        assert (await client.reply())[0] == 200
    assert len(new.function.events) == 22
    assert not other.events
    await rig.ask(get("/b"))
    assert len(other.events) == 1


async def test_what_one_trigger_let_in_is_not_delivered_by_another(rig: Rig) -> None:
    old = rig.listen({"path": "/a"})
    await old.report.until("connected")
    other = await rig.serve({"path": "/"}, name="other")
    uploading = await rig.uploading("/a")
    await old.stop()
    uploading.send("dy")
    status, fields, _ = await uploading.reply()
    assert (status, fields["retry-after"]) == (503, "1")
    assert not other.events


async def test_a_path_is_not_unknown_because_the_hub_stops() -> None:
    """One listener has ended and another still drains: whoever asks shall ask again."""
    stop = asyncio.Event()
    async with hub(stopping=stop.is_set) as rig:
        ended, draining = rig.listen({"path": "/a"}), rig.listen({"path": "/b"}, name="slow")
        for listening in (ended, draining):
            await listening.report.until("connected")
        draining.function.open.clear()
        early, late = await rig.client(), await rig.client()
        early.send(get("/b"))
        await draining.function.until(lambda f: f.now == 1)
        stop.set()
        for listening in (ended, draining):
            listening.task.cancel()
        await asyncio.wait([ended.task], timeout=5)
        late.send(get("/a"))
        status, fields, _ = await late.reply()
        assert (status, fields["retry-after"]) == (503, "1")
        draining.function.open.set()
        assert (await early.reply())[0] == 200


async def test_what_outlasts_the_grace_time_is_503(rig: Rig) -> None:
    listening = rig.listen(grace=0.05)
    await listening.report.until("connected")
    listening.function.open.clear()
    client = await rig.client()
    client.send(get())
    await listening.function.until(lambda f: f.now == 1)
    await listening.stop()
    assert (await client.reply())[0] == 503
    await listening.function.until(lambda f: f.gone == 1)
    client.send(get())
    assert (await client.reply())[0] == 404


async def test_leaving_the_connector_writes_answers_and_ends_connections() -> None:
    async with hub() as rig:
        function = await rig.serve()
        function.answer = lambda event: Outcome(Settled.ACCEPTED, Reply(200, (), b"x" * 300_000))
        idle, busy = await rig.client(), await rig.client()
        idle.send(get())
        await idle.reply()
        busy.send(get())
        await function.until(lambda f: len(f.events) == 2)
        rig.clients.clear()
        port = rig.connector.port
    assert len((await busy.reply())[2]) == 300_000
    assert await idle.closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    for client in (idle, busy):
        client.writer.close()


async def test_of_two_triggers_on_one_route_the_older_serves_and_the_other_takes_over(
    rig: Rig,
) -> None:
    young = rig.listen({"path": "/in"}, name="young")
    await young.report.until("connected")
    old = rig.listen({"path": "/in/"}, name="old", age=3)
    await old.report.until("connected")
    assert await young.report.until("RouteTaken") == (
        "RouteTaken: /in is held by shop/old (function handle) since 2026-11-20T12:00:00Z; "
        "choose another host, path or method"
    )
    assert (await rig.ask(get("/in")))[2].startswith(b"old ")
    old.function.open.clear()
    client = await rig.client()
    client.send(get("/in"))
    await old.function.until(lambda f: f.now == 1)
    old.task.cancel()
    await young.report.until("connected")
    assert (await rig.ask(get("/in")))[2].startswith(b"young ")
    old.function.open.set()
    assert (await client.reply())[2].startswith(b"old ")


async def test_a_port_in_use_is_said_plainly_and_taken_when_it_is_free() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        async with hub(address) as rig:
            with pytest.raises(BaseExceptionGroup) as caught:
                async with asyncio.TaskGroup() as tasks:
                    Rig(rig.connector, tasks).listen()
            assert str(caught.value.exceptions[0]).endswith(
                f"cannot listen on {address}: address already in use (another triggerhub, or "
                "another program); choose another with --listen"
            )
            other.close()
            await rig.serve()
            assert (await rig.ask(get()))[0] == 200


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:x", "127.0.0.1:70000"])
async def test_an_address_that_is_none_is_said_plainly(address: str) -> None:
    async with hub(address) as rig:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with asyncio.TaskGroup() as tasks:
                Rig(rig.connector, tasks).listen()
        assert str(caught.value.exceptions[0]) == (
            f"cannot listen on {address!r}: expected host:port"
        )


async def test_a_full_url_as_target_is_read(rig: Rig) -> None:
    await rig.serve({"host": "shop.example", "path": "/a"})
    assert (await rig.ask(get("http://shop.example/a/b?c")))[2] == b"orders GET /b?c "


async def test_a_client_that_does_not_read_holds_up_no_other() -> None:
    async with hub(patience=0.3) as rig:
        function = await rig.serve()
        function.answer = lambda event: Outcome(Settled.ACCEPTED, Reply(200, (), b"x" * 8_000_000))
        stuck = await rig.client()
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
        stuck.send(get(), get())
        await function.until(lambda f: len(f.events) == 1)
        status, _, body = await rig.ask(get())
        assert (status, len(body)) == (200, 8_000_000)
        stuck.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def test_sockets_that_others_listen_on_are_taken_once_it_is_known_what_serves() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        known = asyncio.Event()

        async def sockets() -> list[int]:
            await known.wait()
            return [bound.fileno()]

        async with hub(sockets=sockets) as rig:
            served = [
                asyncio.create_task(rig.serve({"path": path}, name=f"shop.{path[1:]}.f"))
                for path in ("/a", "/b")
            ]
            await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*bound.getsockname())
            known.set()
            await asyncio.gather(*served)
            assert rig.connector.port == bound.getsockname()[1]
            for path in ("/a", "/b"):
                assert (await rig.ask(get(path)))[0] == 200
        # The other processes' clients are not turned away because this one ends.
        _, writer = await asyncio.open_connection(*bound.getsockname())
        writer.close()
