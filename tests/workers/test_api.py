"""Two small hubs behind one admin API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.admin.smallhub import Answer, SmallHub, request, small_hub
from tests.fakes import MemoryStore
from triggerhub.admin.front import open_front
from triggerhub.event import Event
from triggerhub.settings import Settings
from triggerhub.store.records import Trouble
from triggerhub.workers.api import Api
from triggerhub.workers.fleet import Fleet, Worker
from triggerhub.workers.process import Process


class Both:
    """Two workers on one store, and what is answered for them."""

    def __init__(self, hubs: list[SmallHub], fleet: Fleet, address: str) -> None:
        self.hubs = hubs
        self.fleet = fleet
        self._address = address

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        return await request(self._address, method, path, body, headers)

    async def dispatch(self, number: int, event_id: str) -> None:
        event = Event(id=event_id, source="/s", type="t")
        await self.hubs[number - 1].dispatcher.dispatch("shop.orders.handle", event)

    def end(self, number: int) -> None:
        """Of this number there is no process now."""
        self.fleet.ended(self.fleet.workers[number - 1])


@asynccontextmanager
async def two_workers(folder: Path, token: Path | None = None) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        workers, hubs = [], []
        for number in (1, 2):
            place = folder / f"{number}.sock"
            settings = Settings(paths=(), admin=f"unix:{place}", worker=number)
            hubs.append(await stack.enter_async_context(small_hub(folder / "data", settings)))
            hubs[-1].bind()
            workers.append(Worker(number, place))
            workers[-1].began(cast("Process", object()))
        fleet = Fleet(workers)
        front = open_front("127.0.0.1:0", token)
        await stack.enter_async_context(front.serving(Api(fleet).routes(), {}))
        await fleet.look()
        yield Both(hubs, fleet, front.address)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    async with two_workers(tmp_path) as made:
        yield made


async def test_bindings_and_metrics_are_those_of_both(both: Both) -> None:
    await both.dispatch(1, "1")
    await both.dispatch(2, "2")
    await both.dispatch(2, "3")
    [row] = (await both.ask("GET", "/v1/bindings")).json["bindings"]
    assert (row["name"], row["received"], row["state"]) == ("shop.orders.handle", 3, "Ready")
    text = (await both.ask("GET", "/metrics")).body.decode()
    labels = 'namespace="shop",trigger="orders",function="handle"'
    assert f"\ntriggerhub_events_received_total{{{labels}}} 3\n" in text
    assert '\ntriggerhub_bindings{state="Ready"} 1\n' in text
    both.end(2)
    await both.dispatch(1, "4")
    text = (await both.ask("GET", "/metrics")).body.decode()
    assert f"\ntriggerhub_events_received_total{{{labels}}} 4\n" in text
    [row] = (await both.ask("GET", "/v1/bindings")).json["bindings"]
    assert row["received"] == 2


async def test_each_is_waited_for(both: Both) -> None:
    ready = await both.ask("GET", "/readyz")
    assert (ready.status, ready.body) == (200, b"ready\n")
    both.hubs[1].manifests.snapshot, both.hubs[1].manifests.is_ready = None, False
    ready = await both.ask("GET", "/readyz")
    assert ready.status == 503
    assert ready.body == b"worker 2: the manifests have not been read yet\n"
    both.end(1)
    ready = await both.ask("GET", "/readyz")
    assert ready.body.decode().splitlines()[0] == "worker 1: has ended"


async def test_a_store_that_one_of_them_cannot_reach_is_told_of(both: Both) -> None:
    assert b"\ntriggerhub_store_available 1\n" in (await both.ask("GET", "/metrics")).body
    both.hubs[1].view.store = store = MemoryStore()
    store.trouble = Trouble("store s: away", refused=False)
    ready = await both.ask("GET", "/readyz")
    assert (ready.status, ready.body) == (200, b"ready\nworker 2: store s: away\n")
    assert b"\ntriggerhub_store_available 0\n" in (await both.ask("GET", "/metrics")).body


async def test_an_event_is_explained_by_whoever_knows_it(both: Both) -> None:
    both.hubs[0].function.status["BAD"] = 422
    await both.dispatch(2, "fine")
    await both.dispatch(1, "BAD")
    [fine] = (await both.ask("GET", "/v1/events?id=fine")).json["deliveries"]
    assert fine["settled"] == "accepted"
    [bad] = (await both.ask("GET", "/v1/events/%2Fs/BAD")).json["deliveries"]
    assert bad["settled"] == "dead"
    unknown = await both.ask("GET", "/v1/events?id=none")
    assert unknown.status == 404
    assert "nothing is known of event none" in unknown.json["message"]
    assert (await both.ask("GET", "/v1/events")).status == 400


async def test_triggers_functions_and_faults_are_listed_once(both: Both) -> None:
    [trigger] = (await both.ask("GET", "/v1/triggers")).json["triggers"]
    assert trigger["bindings"] == ["shop.orders.handle"]
    assert (await both.ask("GET", "/v1/functions")).json == {"functions": []}
    assert (await both.ask("GET", "/v1/faults")).json == {"faults": []}


async def test_dead_letters_go_through_one_of_them_line_by_line(both: Both) -> None:
    letters = [await both.hubs[1].bury(event_id=str(number)) for number in range(3)]
    listed = (await both.ask("GET", "/v1/dead-letters?limit=2")).json
    assert [letter["id"] for letter in listed["deadLetters"]] == [x.id for x in letters[:2]]
    redriven = await both.ask("POST", "/v1/dead-letters/redrive", {"all": True})
    assert redriven.headers["content-type"] == "application/jsonl"
    assert {line["outcome"] for line in redriven.lines} == {"accepted"}
    assert len(redriven.lines) == 3
    assert await both.hubs[1].letters() == []
    refused = await both.ask("DELETE", "/v1/dead-letters", {})
    assert (refused.status, refused.json["error"]) == (400, "BadRequest")


async def test_a_client_that_goes_away_ends_its_redrive(both: Both) -> None:
    await both.hubs[0].bury(event_id="1")
    function = both.hubs[0].function
    function.hold = asyncio.Event()
    asking = asyncio.create_task(both.ask("POST", "/v1/dead-letters/redrive", {"all": True}))
    async with asyncio.timeout(5):
        while not function.seen:
            await asyncio.sleep(0.005)
        [tally] = [link.tally for link in both.hubs[0].dispatcher.links()]
        asking.cancel()
        while tally.in_flight:
            await asyncio.sleep(0.005)
    assert len(await both.hubs[0].letters()) == 1
    function.hold.set()


async def test_a_test_event_goes_through_one_that_runs(both: Both) -> None:
    both.end(1)
    sent = await both.ask("POST", "/v1/bindings/orders/emit", {"data": "hello"})
    assert sent.json["outcome"] == "accepted"
    assert both.hubs[1].function.seen[0][1] == b"hello"
    assert both.hubs[0].function.seen == []


async def test_where_none_runs_that_is_said(both: Both) -> None:
    both.end(1)
    both.end(2)
    for path in ("/v1/bindings", "/v1/dead-letters", "/v1/events?id=1"):
        answer = await both.ask("GET", path)
        assert answer.status == 503
        assert answer.json["message"] == "nobody can say now: worker 1: has ended"
    assert (await both.ask("GET", "/metrics")).status == 200
    assert (await both.ask("GET", "/healthz")).status == 200


async def test_routes_and_methods_that_are_not_there_are_told_as_by_one_hub(both: Both) -> None:
    missing = await both.ask("GET", "/v1/nothing?x=1")
    assert (missing.status, missing.json["message"]) == (404, "there is nothing at /v1/nothing")
    wrong = await both.ask("POST", "/v1/bindings", {})
    assert (wrong.status, wrong.json["error"]) == (405, "MethodNotAllowed")


async def test_the_token_is_asked_for_at_the_door(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    async with two_workers(tmp_path, tmp_path / "token") as both:
        assert (await both.ask("GET", "/v1/bindings")).status == 401
        assert (await both.ask("GET", "/v1/bindings", authorization="Bearer secret")).status == 200
        assert (await both.ask("GET", "/metrics")).status == 200
        told = {"authorization": "Bearer secret", "origin": "http://evil.example"}
        assert (await both.ask("DELETE", "/v1/dead-letters", {"all": True}, **told)).status == 403


async def test_a_trigger_that_fails_in_one_says_in_which(both: Both) -> None:
    [name] = both.hubs[1].sources.states
    both.hubs[1].sources.states[name].disconnected("BrokerUnreachable", "no broker at b:9092")
    [row] = (await both.ask("GET", "/v1/bindings")).json["bindings"]
    assert (row["state"], row["message"]) == ("NotReady", "worker 2: no broker at b:9092")


async def test_one_that_ends_amid_its_answer_is_told(tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"redrive" in head:
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/jsonl\r\n"
                b'transfer-encoding: chunked\r\n\r\n9\r\n{"id":1}\n\r\n5\r\n{"id"\r\n'
            )
        writer.close()

    place = tmp_path / "1.sock"
    worker = Worker(1, place)
    worker.began(cast("Process", object()))
    front = open_front("127.0.0.1:0", None)
    routes = Api(Fleet([worker])).routes()
    async with await asyncio.start_unix_server(cut, place), front.serving(routes, {}):
        redriven = await request(front.address, "POST", "/v1/dead-letters/redrive", {}, {})
        assert redriven.lines[0] == {"id": 1}
        assert redriven.lines[1]["error"] == "WorkerGone"
        sent = await request(front.address, "POST", "/v1/bindings/orders/emit", {}, {})
        assert sent.status == 503
        assert "worker 1: the worker ended before its answer did" in sent.json["message"]
        listed: Any = json.loads((await request(front.address, "GET", "/v1/bindings")).body)
        assert listed["message"] == "nobody can say now: worker 1: starts"


async def test_an_answer_that_comes_after_its_worker_ended_is_not_counted(tmp_path: Path) -> None:
    asked, told = asyncio.Event(), asyncio.Event()
    figures = (
        b"# HELP triggerhub_x_total X.\n# TYPE triggerhub_x_total counter\ntriggerhub_x_total 5\n"
    )

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/metrics" in head and not asked.is_set():
            asked.set()
            await told.wait()
        body = figures if b"/metrics" in head else b"ready\n"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    worker = Worker(1, tmp_path / "1.sock")
    worker.began(cast("Process", object()))
    fleet = Fleet([worker])
    async with await asyncio.start_unix_server(slow, worker.place):
        looking = asyncio.create_task(fleet.look())
        await asked.wait()
        fleet.ended(worker)
        worker.began(cast("Process", object()))
        told.set()
        await looking
        assert fleet.total() == {}
        assert fleet.waits() == ["worker 1: starts"]
        await fleet.look()
        fleet.ended(worker)
    assert fleet.total()["triggerhub_x_total"].samples == {"triggerhub_x_total": 5}
    assert fleet.waits() == ["worker 1: has ended"]


async def test_a_workers_own_api_is_for_its_user_alone(tmp_path: Path) -> None:
    place = tmp_path / "1.sock"
    for _ in range(2):  # the second in the place of what the first left
        front = open_front(f"unix:{place}", None)
        assert place.stat().st_mode & 0o777 == 0o600
        for one in front.sockets:
            one.close()
    with pytest.raises(OSError, match=r"cannot listen on .*/none/1\.sock: No such file"):
        open_front(f"unix:{tmp_path}/none/1.sock", None)
