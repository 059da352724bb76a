"""Batches of events, the handshake of webhooks, pages of other origins, and limits."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.connectors.test_http_connector import Rig, get, hub, post
from triggerhub.event import Event, Outcome, Reply, Settled
from triggerhub_http.edge import Limits
from triggerhub_http.limits import Turnstile
from triggerhub_http.messages import Refusal

BATCH = "content-type: application/cloudevents-batch+json"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with hub() as made:
        yield made


def event(number: int, **more: Any) -> dict[str, Any]:
    made = {"specversion": "1.0", "id": f"{number}", "source": "/s", "type": "t"}
    return made | {"datacontenttype": "text/plain", "data": f"data {number}"} | more


async def test_each_event_of_a_batch_is_one_of_its_own(rig: Rig) -> None:
    function = await rig.serve()
    some = [event(1), event(2, datacontenttype="a/b\r\nx: y"), event(3, data={"a": 1}, ext="e")]
    del some[2]["datacontenttype"]
    status, fields, body = await rig.ask(post("/in", json.dumps(some), BATCH, "x-own: kept"))
    assert (status, fields["content-type"]) == (200, "application/json")
    told = json.loads(body)["events"]
    assert told == [{"source": "/s", "id": f"{n}", "status": 200} for n in (1, 2, 3)]
    assert [one.id for one in function.events] == ["1", "2", "3"]
    assert [one.data for one in function.events] == [b"data 1", b"data 2", b'{"a": 1}']
    kinds = []
    for one in function.events:
        assert one.request is not None
        headers = dict(one.request.headers)
        kinds.append(headers[b"content-type"])
        assert headers[b"x-own"] == b"kept"
        assert one.request.path == "/in"
    assert kinds == [b"text/plain", b"a/bx: y", b"application/json"]
    assert function.events[2].extensions == {"ext": "e"}


async def test_a_batch_tells_what_became_of_each(rig: Rig) -> None:
    function = await rig.serve()

    def answer(one: Event) -> Outcome:
        return Outcome(Settled.ACCEPTED, Reply(int(one.id)))

    function.answer = answer
    for ids, expected in (
        ([200, 204, 202], 200),
        ([204, 204], 200),
        ([202, 202], 202),
        ([200, 503, 404], 503),
        ([422], 422),
        ([], 200),
    ):
        status, _, body = await rig.ask(post("/", json.dumps([event(n) for n in ids]), BATCH))
        assert status == expected
        assert [one["status"] for one in json.loads(body)["events"]] == ids


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        ("{}", "expected a list of events"),
        ("", "expected a list of events"),
        (json.dumps([event(1), event(2) | {"id": ""}]), "[1].id: found nothing"),
        (json.dumps([event(1, specversion="0.3")]), "[0].specversion: found '0.3'"),
        (json.dumps([event(1), 5]), "expected an event object"),
        (json.dumps([event(1, time="now")]), "expected an RFC 3339 time"),
    ],
)
async def test_of_a_batch_with_a_violation_nothing_is_delivered(
    rig: Rig, batch: str, why: str
) -> None:
    function = await rig.serve()
    status, _, body = await rig.ask(post("/", batch, BATCH))
    told = json.loads(body)
    assert (status, told["error"]) == (400, "BadCloudEvent")
    assert why in told["message"]
    assert not function.events


@pytest.mark.parametrize(
    ("webhook", "sender", "allowed"),
    [
        ({"origins": ["emitter.example.com"]}, "Emitter.example.com", True),
        ({"origins": ["*"]}, "other.example", True),
        ({"origins": ["emitter.example.com"]}, "evil.example", False),
    ],
)
async def test_a_sender_of_webhooks_asks_for_leave(
    rig: Rig, webhook: dict[str, Any], sender: str, allowed: bool
) -> None:
    """CloudEvents, HTTP 1.1 Web Hooks for Event Delivery, section 4: without authorization."""
    source = {"methods": ["POST"], "webhook": webhook, "limits": {"rate": 5, "per": "2s"}}
    listening = rig.listen(
        source | {"auth": {"bearer": {"env": "K"}}}, values={"K": b"a sha256:" + b"0" * 64}
    )
    await listening.report.until("connected")
    fields = [f"webhook-request-origin: {sender}", "webhook-request-rate: 120"]
    status, told, body = await rig.ask(get("/", *fields, method="OPTIONS"))
    assert (status, told["allow"], body) == (200, "POST", b"")
    assert told.get("webhook-allowed-origin") == (sender if allowed else None)
    assert told.get("webhook-allowed-rate") == ("150" if allowed else None)
    assert (await rig.ask(post("/", "{}")))[0] == 401
    assert not listening.function.events


async def test_who_agrees_with_no_sender_does_not_answer_for_the_function(rig: Rig) -> None:
    fields = "webhook-request-origin: a.example"
    await rig.serve({"path": "/post", "methods": ["POST"]}, name="post")
    assert (await rig.ask(get("/post", fields, method="OPTIONS")))[0] == 405
    function = await rig.serve()
    assert (await rig.ask(get("/", fields, method="OPTIONS")))[2] == b"orders OPTIONS ? "
    assert len(function.events) == 1


CORS = {"origins": ["https://app.example", "https://*.shop.example"], "headers": ["X-Page"],
        "exposeHeaders": ["X-Total"], "credentials": True, "maxAge": "10m"}  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.example", True),
        ("https://a.b.shop.example", True),
        ("http://app.example", False),
        ("https://shop.example", False),
        ("https://evilshop.example", False),
        ("https://app.example.evil", False),
        ("null", False),
    ],
)
async def test_a_page_of_another_origin_may_call_where_it_is_named(
    rig: Rig, origin: str, allowed: bool
) -> None:
    source = {"methods": ["GET", "PUT"], "cors": CORS, "auth": {"bearer": {"env": "K"}}}
    listening = rig.listen(source, values={"K": b"a sha256:" + b"0" * 64})
    await listening.report.until("connected")
    ask = [f"origin: {origin}", "access-control-request-method: PUT"]
    status, told, _ = await rig.ask(get("/", *ask, method="OPTIONS"))
    assert (status, told["vary"]) == (204, "origin")
    found = {n.removeprefix("access-control-"): v for n, v in told.items() if "access-c" in n}
    assert found == (
        {"allow-origin": origin, "allow-methods": "GET, PUT", "allow-headers": "X-Page",
         "allow-credentials": "true", "max-age": "600"} if allowed else {}
    )  # fmt: skip
    status, told, _ = await rig.ask(get("/", f"origin: {origin}"))
    assert status == 401, "and a page may read why"
    assert told.get("access-control-allow-origin") == (origin if allowed else None)
    assert told.get("access-control-expose-headers") == ("X-Total" if allowed else None)


async def test_without_cors_a_preflight_is_the_functions_and_with_it_its_fields_are_not(
    rig: Rig,
) -> None:
    await rig.serve()
    ask = ["origin: https://a", "access-control-request-method: PUT"]
    assert (await rig.ask(get("/", *ask, method="OPTIONS")))[2] == b"orders OPTIONS ? "
    own = ((b"access-control-allow-origin", b"*"), (b"x-own", b"1"))
    function = await rig.serve({"path": "/open", "cors": {"origins": ["*"]}}, name="open")
    function.answer = lambda _: Outcome(Settled.ACCEPTED, Reply(200, own))
    _, told, _ = await rig.ask(get("/open", "origin: https://a"))
    assert (told["access-control-allow-origin"], told["x-own"]) == ("https://a", "1")
    _, told, _ = await rig.ask(get("/open"))
    assert "access-control-allow-origin" not in told


def test_a_rate_is_kept_over_time_and_a_burst_is_what_was_saved_up() -> None:
    now = [0.0]
    turned: list[str] = []
    spec = Limits.model_validate({"rate": 2, "per": "1s", "burst": 3})
    turnstile = Turnstile(spec, turned.append, now=lambda: now[0])

    def takes() -> str:
        try:
            with turnstile:
                return ""
        except Refusal as refusal:
            return dict(refusal.reply.headers)[b"retry-after"].decode()

    assert [takes() for _ in range(4)] == ["", "", "", "1"]
    now[0] = 0.5
    assert [takes(), takes()] == ["", "1"]
    now[0] = 100.0
    assert [takes() for _ in range(4)] == ["", "", "", "1"]
    assert turned == ["TooManyRequests"] * 3
    slow = Turnstile(Limits.model_validate({"rate": 1, "per": "1m"}), turned.append, lambda: now[0])
    turnstile = slow
    assert [takes(), takes()] == ["", "60"]


async def test_no_more_than_so_many_are_under_way(rig: Rig) -> None:
    listening = rig.listen({"limits": {"concurrent": 1}})
    await listening.report.until("connected")
    listening.function.open.clear()
    first = await rig.client()
    first.send(get())
    await listening.function.until(lambda f: f.now == 1)
    status, fields, body = await rig.ask(get())
    assert (status, fields["retry-after"]) == (429, "1")
    assert json.loads(body)["error"] == "TooManyRequests"
    listening.function.open.set()
    assert (await first.reply())[0] == 200
    assert (await rig.ask(get()))[0] == 200
    assert listening.report.turned == ["TooManyRequests"]
