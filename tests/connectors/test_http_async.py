"""Requests that are answered when they are safe: 202, once, and what became of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.connectors.test_http_connector import Rig, get, hub, post
from triggerhub.connector import Fate, InboxFull, Taken
from triggerhub.event import Event, Settled
from triggerhub.testing.fakes import MemoryIntake
from triggerhub_http.preferences import LONGEST_WAIT, Preferences, read_preferences

NAME = "shop.orders.handle"


class Intake(MemoryIntake):
    """Takes events when the gate is open; what became of them, the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fates: dict[int, Fate] = {}
        self.windows: list[float] = []

    async def put(self, event: Event, *, window: float = 0.0) -> Taken:
        self.windows.append(window)
        await self.gate.wait()
        return await super().put(event, window=window)

    async def fate(
        self, event_id: str, source: str, taken: int, within: float = 0.0
    ) -> Fate | None:
        return self.fates.get(taken) or await super().fate(event_id, source, taken, within)

    @property
    def events(self) -> list[Event]:
        return list(self.store.inbox.values())


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with hub() as made:
        made.inbox = Intake()
        yield made


def intake(rig: Rig) -> Intake:
    assert isinstance(rig.inbox, Intake)
    return rig.inbox


async def accepted(rig: Rig, *parts: str) -> dict[str, Any]:
    status, fields, body = await rig.ask(*parts)
    assert status == 202, body
    told: dict[str, Any] = json.loads(body)
    assert fields["location"] == told["status"]
    return told


async def test_what_could_not_be_an_address_or_says_who_it_is_twice_is_400(rig: Rig) -> None:
    await rig.serve({"mode": "Async"})
    await accepted(rig, post("/", "x", "Idempotency-Key: " + "ü" * 1024))
    for fields, said in (
        (["Idempotency-Key: " + "x" * 1025], b"found an id of 1025 characters"),
        (["Idempotency-Key: a", "Idempotency-Key: b"], b"found 2 Idempotency-Key fields"),
    ):
        status, _, body = await rig.ask(post("/", "x", *fields))
        assert (status, said in body) == (400, True), body
    assert len(intake(rig).events) == 1


async def test_a_request_is_answered_when_it_is_safe_and_not_before(rig: Rig) -> None:
    function = await rig.serve({"mode": "Async", "path": "/in"})
    intake(rig).gate.clear()
    client = await rig.client()
    client.send(post("/in/7?q=1", "body", "X-Mine: Yes", "Prefer: respond-async"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.reader.readexactly(1)
    intake(rig).gate.set()
    status, fields, body = await client.reply()
    told = json.loads(body)
    assert (status, fields["preference-applied"]) == (202, "respond-async")
    assert told["state"] == "waiting"
    assert told["source"] == "/http/shop/orders"
    assert not function.events
    (event,) = intake(rig).events
    assert (event.id, event.data) == (told["id"], b"body")
    assert len(event.id) == 26
    request = event.request
    assert request is not None
    assert request.deferred
    assert (request.method, request.path, request.query) == ("POST", "/7", "q=1")
    assert dict(request.headers)[b"x-mine"] == b"Yes"
    assert b"prefer" not in dict(request.headers)


async def test_a_full_inbox_is_503_and_the_trigger_says_so_until_it_is_over(rig: Rig) -> None:
    listening = rig.listen({"mode": "Async"})
    await listening.report.until("connected")
    for error, reason in (
        (InboxFull("the inbox of /secret/place is full"), "InboxFull"),
        (OSError("/secret/place cannot grow: the disk is full"), "InboxUnavailable"),
    ):
        intake(rig).store.failure = error
        status, fields, body = await rig.ask(post("/", "x"))
        assert (status, fields["retry-after"]) == (503, "1")
        assert json.loads(body)["error"] == reason
        assert b"secret" not in body
        await listening.report.until(reason)
    intake(rig).store.failure = None
    await accepted(rig, post("/", "x"))
    assert listening.report.state == "connected"


@pytest.mark.parametrize(
    ("fields", "event_id", "window"),
    [
        (["Idempotency-Key: a b"], "a b", 86_400.0),
        (["ce-id: 7"], "7", 86_400.0),
        (["ce-specversion: 1.0", "ce-id: 7", "ce-source: /s", "ce-type: t"], "7", 86_400.0),
        ([], None, 0.0),
    ],
)
async def test_a_repeat_is_the_same_event(
    rig: Rig, fields: list[str], event_id: str | None, window: float
) -> None:
    await rig.serve({"mode": "Async"})
    first = await accepted(rig, post("/", "x", *fields))
    again = await accepted(rig, post("/", "x", *fields))
    assert intake(rig).windows == [window, window]
    if event_id is None:
        assert first["id"] != again["id"]
        assert len(intake(rig).events) == 2
    else:
        assert first["id"] == event_id
        assert first == again
        assert len(intake(rig).events) == 1


async def test_the_window_is_the_triggers(rig: Rig) -> None:
    await rig.serve({"mode": "Async", "idempotencyWindow": "90s"})
    await accepted(rig, post("/", "x", "Idempotency-Key: k"))
    assert intake(rig).windows == [90.0]


@pytest.mark.parametrize(
    ("mode", "prefer", "status", "applied"),
    [
        ("Sync", "respond-async", 200, None),
        ("Sync", "", 200, None),
        ("Prefer", "", 200, None),
        ("Prefer", "wait=5", 200, None),
        ("Prefer", "respond-async", 202, "respond-async"),
        ("Async", "", 202, None),
        ("Async", "handling=lenient", 202, None),
    ],
)
async def test_the_caller_chooses_where_the_trigger_allows_it(
    rig: Rig, mode: str, prefer: str, status: int, applied: str | None
) -> None:
    function = await rig.serve({"mode": mode})
    found, fields, _ = await rig.ask(post("/", "x", *([f"Prefer: {prefer}"] if prefer else [])))
    assert (found, fields.get("preference-applied")) == (status, applied)
    assert len(function.events) == (status == 200)
    assert len(intake(rig).events) == (status == 202)


async def test_a_caller_can_wait_for_the_outcome(rig: Rig) -> None:
    await rig.serve({"mode": "Async"})
    client = await rig.client()
    client.send(post("/", "x", "Prefer: respond-async, wait=30"))
    async with asyncio.timeout(5):
        while not intake(rig).events:
            await asyncio.sleep(0.01)
    intake(rig).fates[1] = Fate(waits=False, settled=Settled.DEAD, attempts=3, detail="secret")
    status, fields, body = await client.reply()
    assert (status, fields["preference-applied"]) == (200, "respond-async, wait=30")
    told = json.loads(body)
    assert (told["state"], told["attempts"]) == ("dead", 3)
    assert b"secret" not in body


async def test_a_wait_that_is_over_is_answered_202(rig: Rig) -> None:
    await rig.serve({"mode": "Async"})
    status, fields, body = await rig.ask(post("/", "x", "Prefer: wait=1"))
    assert (status, fields["preference-applied"]) == (202, "wait=1")
    assert json.loads(body)["state"] == "waiting"


async def test_who_waits_when_the_trigger_stops_hears_that_it_is_accepted(rig: Rig) -> None:
    listening = rig.listen({"mode": "Async"})
    await listening.report.until("connected")
    client = await rig.client()
    client.send(post("/", "x", "Prefer: wait=50"))
    async with asyncio.timeout(5):
        while not intake(rig).events:
            await asyncio.sleep(0.01)
    await listening.stop()
    status, _, body = await client.reply()
    assert status == 202, body


async def test_what_became_of_an_event_is_told_at_its_status_address(rig: Rig) -> None:
    await rig.serve({"mode": "Async"})
    told = await accepted(rig, post("/", "x", "Idempotency-Key: a/b ü?"))
    assert told["status"].startswith(f"/.triggerhub/events/{NAME}/1/a%2Fb")
    status, fields, body = await rig.ask(get(told["status"]))
    assert (status, fields["retry-after"], fields["cache-control"]) == (200, "1", "no-store")
    assert json.loads(body)["state"] == "waiting"
    assert json.loads(body)["id"] == told["id"]
    intake(rig).fates[1] = Fate(waits=False, settled=Settled.ACCEPTED, attempts=2)
    status, fields, body = await rig.ask(get(told["status"]))
    assert "retry-after" not in fields
    assert (json.loads(body)["state"], json.loads(body)["attempts"]) == ("accepted", 2)
    intake(rig).fates[1] = Fate(waits=False)
    _, _, body = await rig.ask(get(told["status"]))
    assert json.loads(body)["state"] == "settled"
    client = await rig.client()
    client.send(get(told["status"], method="HEAD"))
    status, _, _ = await client.reply(head=True)
    assert status == 200


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        (f"/.triggerhub/events/{NAME}/7/x", "GET", 404),
        (f"/.triggerhub/events/{NAME}/-1/x", "GET", 404),
        (f"/.triggerhub/events/{NAME}/%31/x", "GET", 404),
        (f"/.triggerhub/events/{NAME}/{'9' * 400}/x", "GET", 404),
        (f"/.triggerhub/events/{NAME}", "GET", 404),
        ("/.triggerhub/events/shop.other.handle/1/x", "GET", 404),
        ("/.triggerhub/events/", "GET", 404),
        (f"/.triggerhub/events/{NAME}/1/x", "DELETE", 405),
    ],
)
async def test_a_status_address_of_nothing_is_4xx(
    rig: Rig, path: str, method: str, status: int
) -> None:
    function = await rig.serve({"mode": "Async"})
    found, _, _ = await rig.ask(get(path, method=method))
    assert found == status
    assert not function.events
    assert not intake(rig).events


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Preferences()),
        ("respond-async", Preferences(respond_async=True)),
        ("Respond-Async , Wait = 10", Preferences(respond_async=True, wait=10.0)),
        ('respond-async, wait="10"', Preferences(respond_async=True, wait=10.0)),
        ("respond-async;x=1;y, wait=7; foo=bar", Preferences(respond_async=True, wait=7.0)),
        ("wait=5, wait=6", Preferences(wait=5.0)),
        ("wait=100000", Preferences(wait=LONGEST_WAIT)),
        ("wait=-1", Preferences()),
        ("wait=1.5", Preferences()),
        ("wait=٣", Preferences()),
        ("wait", Preferences()),
        ("respond-async=no", Preferences()),
        ('foo="a, respond-async", wait=2', Preferences(wait=2.0)),
        ("return=minimal, respond-async", Preferences(respond_async=True)),
        (',,"=;,,', Preferences()),
    ],
)
def test_preferences_are_read_as_rfc_7240_has_them(text: str, expected: Preferences) -> None:
    assert read_preferences(text) == expected
