"""Core subjects as the NATS connector hears them, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from integration import nats_tools as tools
from integration.fakes import FakeEmit, Listening, eventually, listening
from integration.nats_servers import Nats
from triggerhub.connector import Installation
from triggerhub.event import Event, Outcome, Reply, Settled
from triggerhub_nats import NATSConnector, NATSSource
from triggerhub_nats.core import MOST_WAITING

_numbers = iter(range(1_000_000))


@pytest.fixture
def subject() -> str:
    return f"core{next(_numbers)}"


@asynccontextmanager
async def listen(
    nats: Nats, subject: str, spec: dict[str, Any] | None = None, **rest: Any
) -> AsyncIterator[Listening]:
    body = {"servers": [nats.server], "subject": subject} | (spec or {})
    source = NATSSource.model_validate(body)
    async with (
        NATSConnector(Installation()) as connector,
        listening(connector, source, **rest) as running,
    ):
        await running.connected()
        yield running


async def publish(nats: Nats, subject: str, *values: bytes, **options: Any) -> None:
    async with tools.connected(nats.server) as client:
        for value in values:
            await client.publish(subject, value, **options)
        await client.flush()


async def test_a_message_is_named_by_its_id_or_a_fresh_one(nats: Nats, subject: str) -> None:
    async with listen(nats, f"{subject}.*") as running:
        await publish(nats, f"{subject}.a", b"1", headers={"Nats-Msg-Id": "o-7"})
        await publish(nats, f"{subject}.a", b"2", b"3")
        await running.accepted(3)
    named, one, other = running.emit.accepted
    assert (named.source, named.id, named.subject) == (f"/nats/{subject}.*", "o-7", f"{subject}.a")
    assert len({one.id, other.id}) == 2


async def test_what_core_nats_cannot_promise_is_said(nats: Nats, subject: str) -> None:
    async with listen(nats, subject) as running:
        assert running.report.messages[-1].startswith("core NATS keeps nothing")


async def test_several_subjects_are_heard_and_a_queue_shares_them(nats: Nats, subject: str) -> None:
    spec = {"subject": None, "subjects": [f"{subject}.a", f"{subject}.b"]}
    async with listen(nats, "", spec) as one, listen(nats, "", spec) as other:
        for _ in range(20):
            await publish(nats, f"{subject}.a", b"a")
            await publish(nats, f"{subject}.b", b"b")
        both = (one.emit, other.emit)
        await eventually(lambda: sum(len(e.accepted) for e in both) >= 40, "all of them")
        await asyncio.sleep(0.2)  # what must not come
        assert sum(len(e.accepted) for e in both) == 40


async def test_stopping_brings_what_came_to_its_end(nats: Nats, subject: str) -> None:
    async def slow(event: Event) -> None:
        await asyncio.sleep(0.2)

    async with listen(nats, subject, handle=slow, in_flight=1) as running:
        await publish(nats, subject, b"1", b"2", b"3", b"4")
        await eventually(lambda: bool(running.emit.begun), "a delivery")
        assert await running.stop() < 3
    assert running.emit.data() == [b"1", b"2", b"3", b"4"]


async def test_what_came_outlives_the_connection(own_nats: Nats, subject: str) -> None:
    gate = asyncio.Event()

    async def slow(event: Event) -> None:
        await gate.wait()

    async with listen(own_nats, subject, handle=slow, in_flight=1) as running:
        await publish(own_nats, subject, b"1", b"2", b"3")
        await eventually(lambda: bool(running.emit.begun), "a delivery")
        own_nats.kill9()
        await running.state("ServerUnreachable")
        gate.set()
        await running.accepted(3)
        own_nats.start()
        await running.connected()
        await publish(own_nats, subject, b"4")
        await running.accepted(4)
    assert running.emit.data() == [b"1", b"2", b"3", b"4"]


async def test_more_than_can_wait_is_dropped_counted_and_said(nats: Nats, subject: str) -> None:
    gate = asyncio.Event()

    async def slow(event: Event) -> None:
        await gate.wait()

    async with listen(nats, subject, handle=slow, in_flight=1, grace=30.0) as running:
        await publish(nats, subject, *[b"x"] * (MOST_WAITING + 100))
        await eventually(
            lambda: any("messages were dropped" in text for text in running.report.messages),
            "a word of it",
        )
        said = running.report.messages[-1]
        dropped = int(said.split()[0])
        assert 0 < dropped <= 100
        gate.set()
        await running.accepted(MOST_WAITING + 100 - dropped)


class TestReply:
    async def test_who_asks_gets_the_functions_answer(self, nats: Nats, subject: str) -> None:
        emit = FakeEmit()
        emit.outcome = Outcome(
            Settled.ACCEPTED, Reply(201, ((b"content-type", b"text/plain"),), b"done")
        )
        async with (
            listen(nats, subject, {"reply": True}, emit=emit) as running,
            tools.connected(nats.server) as client,
        ):
            answer = await client.request(subject, b'{"a": 1}', timeout=5)
        assert answer.data == b"done"
        assert answer.headers == {"Triggerhub-Status": "201", "content-type": "text/plain"}
        [event] = running.emit.accepted
        assert event.request is not None
        assert event.request.headers == ((b"content-type", b"application/json"),)

    async def test_who_asks_hears_that_the_function_failed(self, nats: Nats, subject: str) -> None:
        emit = FakeEmit()
        emit.outcome = Outcome(None, Reply(422, (), b"no such customer\nat all"))
        async with (
            listen(nats, subject, {"reply": True}, emit=emit),
            tools.connected(nats.server) as client,
        ):
            answer = await client.request(subject, b"x", timeout=5)
        assert answer.data == b"no such customer\nat all"
        assert answer.headers == {
            "Triggerhub-Status": "422",
            "Nats-Service-Error": "no such customer",
            "Nats-Service-Error-Code": "422",
        }

    async def test_an_answer_that_is_too_large_is_said(self, nats: Nats, subject: str) -> None:
        emit = FakeEmit()
        emit.outcome = Outcome(Settled.ACCEPTED, Reply(200, (), bytes(2_000_000)))
        async with (
            listen(nats, subject, {"reply": True}, emit=emit),
            tools.connected(nats.server) as client,
        ):
            answer = await client.request(subject, b"x", timeout=5)
        assert (answer.headers or {})["Nats-Service-Error-Code"] == "502"

    async def test_what_asks_for_nothing_is_an_event_like_any_other(
        self, nats: Nats, subject: str
    ) -> None:
        async with listen(nats, subject, {"reply": True}) as running:
            await publish(nats, subject, b"x")
            await running.accepted(1)
        assert running.emit.accepted[0].request is None
