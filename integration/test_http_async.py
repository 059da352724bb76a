"""Requests that are answered when they are safe: a real hub that is killed, paused, in several
processes."""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from integration.function import ACCEPT, Answer, Call, answering, reply
from integration.hub import Hub, function, running, trigger
from integration.nats_servers import Nats


def connect(hub: Hub) -> http.client.HTTPConnection:
    host, _, port = hub.listen.partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=30.0)


def ask(
    hub: Hub, method: str, path: str, body: bytes | None = None, **fields: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, JSON body and header fields of the answer."""
    with closing(connect(hub)) as connection:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, json.loads(answer.read()), headers


@contextmanager
def posting(hub: Hub, clients: int, said: Callable[[str], None]) -> Iterator[None]:
    """Clients that post until the block is left; ``said`` is told each id that was accepted."""
    over = threading.Event()

    def post(client: int) -> None:
        number = 0
        while not over.is_set():
            try:
                with closing(connect(hub)) as connection:
                    while not over.is_set():
                        number += 1
                        connection.request(
                            "POST", "/web", b"x" * 100, {"x-n": f"{client}-{number}"}
                        )
                        answer = connection.getresponse()
                        told = json.loads(answer.read())
                        if answer.status == 202:
                            said(told["id"])
            except (OSError, http.client.HTTPException):
                over.wait(0.05)

    with ThreadPoolExecutor(clients) as pool:
        done = [pool.submit(post, client) for client in range(clients)]
        try:
            yield
        finally:
            over.set()
    for one in done:
        one.result()


def web(name: str = "web", **source: Any) -> dict[str, Any]:
    return trigger("HTTPTrigger", name, "handle", {"path": "/web", "mode": "Async"} | source)


def waiting(hub: Hub) -> int:
    return int(hub.metric("triggerhub_inbox_events", trigger="web"))


def emptied(hub: Hub) -> bool:
    """Asked of the file: what the hub tells is a second old."""
    with closing(sqlite3.connect(hub.data / "triggerhub.db")) as db:
        (left,) = db.execute("SELECT count(*) FROM inbox").fetchone()
    return bool(left == 0)


def test_a_hub_that_is_killed_loses_nothing_that_it_had_accepted(tmp_path: Path) -> None:
    accepted: list[str] = []
    with (
        answering(lambda call: reply(200, after=0.002)) as handle,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("handle", handle.url), web())
        hub.start()
        with posting(hub, 8, accepted.append):
            for kill in range(1, 4):
                hub.wait(lambda: len(accepted) > 150 * kill, "accepted requests")  # noqa: B023
                hub.kill9()
                hub.start()
        hub.wait(
            lambda: set(accepted) <= {call.id for call in handle.calls if call.accepted},
            "delivery of all that was accepted",
            60.0,
        )
        hub.wait(lambda: emptied(hub), "an empty inbox")
        assert len(set(accepted)) == len(accepted)
        assert hub.stop() == 0


def test_what_was_accepted_waits_for_its_function_and_its_trigger(tmp_path: Path) -> None:
    answers: list[Answer] = [reply(503)]
    with answering(lambda call: answers[-1]) as handle, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("handle", handle.url))
        path = hub.write("t.yaml", web())
        hub.start()
        status, away, _ = ask(hub, "PUT", "/web/7?a=1", b"first", x_mine="yes")
        assert status == 202
        hub.wait(lambda: len(handle.calls) > 1, "attempts")
        assert ask(hub, "GET", away["status"])[1]["state"] == "waiting"

        paused = web()
        paused["spec"]["paused"] = True
        hub.write("t.yaml", paused)
        hub.wait(lambda: hub.condition("web") == "False Paused", "a paused trigger")
        answers.append(ACCEPT)
        status, held, _ = ask(hub, "POST", "/web", b"second")
        assert status == 202
        hub.wait(lambda: waiting(hub) == 2, "both in the inbox")
        made = len(handle.calls)

        path.unlink()
        hub.wait(lambda: not hub.conditions("web"), "the trigger to be gone")
        assert ask(hub, "POST", "/web", b"third")[0] == 404
        (row,) = [b for b in hub.get("/v1/bindings")["bindings"] if b["trigger"] == "web"]
        assert (row["state"], row["inbox"]) == ("Unbound", 2)
        assert "2 events wait in its inbox" in row["message"]
        assert len(handle.calls) == made

        hub.write("t.yaml", web())
        hub.wait(lambda: sum(call.accepted for call in handle.calls) == 2, "both delivered")
        first, second = handle.calls[made:]
        assert {first.id, second.id} == {away["id"], held["id"]}
        again = next(call for call in (first, second) if call.id == away["id"])
        assert (again.method, again.target, again.body) == ("PUT", "/in/7?a=1", b"first")
        assert again.headers["x-mine"] == "yes"
        hub.wait(lambda: emptied(hub), "an empty inbox")
        assert ask(hub, "GET", away["status"])[1]["state"] == "accepted"


def test_a_repeat_is_one_event_and_a_caller_may_wait_for_its_outcome(tmp_path: Path) -> None:
    def answer(call: Call) -> Answer:
        return reply(400) if call.body == b"bad" else reply(200, after=0.2)

    with answering(answer) as handle, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("handle", handle.url), web())
        hub.start()
        for prefer in ("wait=20", "respond-async"):
            status, told, fields = ask(
                hub, "POST", "/web", b"x", idempotency_key="order-7", prefer=prefer
            )
            assert fields["preference-applied"] == prefer
            assert told["id"] == "order-7"
            assert (status, told["state"]) == (
                (200, "accepted") if prefer == "wait=20" else (202, "waiting")
            )
        status, told, _ = ask(hub, "POST", "/web", b"bad", prefer="wait=20")
        assert (status, told["state"], told["attempts"]) == (200, "dead", 1)
        # What was settled a moment ago may still be in the inbox, and would come again.
        hub.wait(lambda: emptied(hub), "an empty inbox")
        hub.kill9()
        hub.start()
        assert ask(hub, "POST", "/web", b"x", idempotency_key="order-7")[0] == 202
        hub.wait(lambda: emptied(hub), "an empty inbox")
        assert [call.id for call in handle.calls if call.body == b"x"] == ["order-7"]
        (letter,) = hub.letters()
        assert letter["reason"] == "Rejected"


def test_of_two_hubs_on_one_store_the_other_delivers_what_a_killed_one_had_accepted(
    own_nats: Nats, tmp_path: Path
) -> None:
    accepted: list[str] = []
    store = ("--store", f"nats://{own_nats.server}")
    with (
        answering(lambda call: reply(200, after=0.01)) as handle,
        running(tmp_path / "one", *store, start=False) as one,
        running(tmp_path / "other", *store, start=False) as other,
    ):
        for hub in (one, other):
            hub.write("f.yaml", function("handle", handle.url), web())
            hub.start()
        with posting(one, 8, accepted.append):
            one.wait(lambda: len(accepted) > 200, "accepted requests")
            one.kill9()
        other.wait(
            lambda: set(accepted) <= {call.id for call in handle.calls if call.accepted},
            "delivery of all that was accepted",
            60.0,
        )
        assert len(set(accepted)) == len(accepted)


def test_workers_share_an_inbox_and_keep_the_order_of_keys(tmp_path: Path) -> None:
    keys, events = 6, 60
    seen: defaultdict[str, list[int]] = defaultdict(list)

    def answer(call: Call) -> Answer:
        seen[call.key].append(int(call.id))
        return ACCEPT

    def post(hub: Hub, key: str) -> None:
        for number in range(events):
            # A connection of its own each: any worker may take it.
            status, _, _ = ask(
                hub, "POST", "/web", b"x", ce_specversion="1.0", ce_id=f"{number}",
                ce_source=f"/{key}", ce_type="t", ce_partitionkey=key,
            )  # fmt: skip
            assert status == 202

    with answering(answer) as handle, running(tmp_path, "--workers", "2", start=False) as hub:
        hub.write("f.yaml", function("handle", handle.url), web())
        hub.start()
        with ThreadPoolExecutor(keys) as pool:
            for done in [pool.submit(post, hub, f"k{n}") for n in range(keys)]:
                done.result()
        hub.wait(lambda: len(handle.calls) >= keys * events, "all deliveries")
        assert dict(seen) == {f"k{n}": list(range(events)) for n in range(keys)}
