"""Who may call a real hub: Secrets that change under load, and what is told of those refused."""

from __future__ import annotations

import hashlib
import http.client
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from integration.function import answering, reply
from integration.hub import Hub, function, running, trigger


def secret(*tokens: str) -> dict[str, Any]:
    hashes = (hashlib.sha256(one.encode()).hexdigest() for one in tokens)
    lines = (f"caller{at} sha256:{one}\n" for at, one in enumerate(hashes))
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "callers"},
        "stringData": {"tokens": "".join(lines)},
    }  # fmt: skip


def ask(connection: http.client.HTTPConnection, token: str) -> int:
    connection.request("POST", "/in", b"x" * 100, {"authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def connect(hub: Hub) -> http.client.HTTPConnection:
    host, _, port = hub.listen.partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=60.0)


def status(hub: Hub, token: str) -> int:
    """0: nobody listens there (yet)."""
    with closing(connect(hub)) as connection:
        try:
            return ask(connection, token)
        except ConnectionRefusedError:
            return 0


def test_a_secret_that_changes_under_load_costs_no_request_and_then_counts(tmp_path: Path) -> None:
    kept = {"secretRef": {"name": "callers", "key": "tokens"}}
    source = {"path": "/in", "auth": {"bearer": kept}}
    over = threading.Event()
    seen: Counter[int] = Counter()

    def load(hub: Hub) -> None:
        with closing(connect(hub)) as connection:
            while not over.is_set():
                seen[ask(connection, "steady-canary")] += 1

    with answering() as told, running(tmp_path) as hub:
        told.script = lambda _: reply(200, after=0.02)
        hub.write("secret.yaml", secret("steady-canary", "old-canary"))
        hub.write("all.yaml", function("f", told.url), trigger("HTTPTrigger", "in", "f", source))
        hub.wait(lambda: status(hub, "old-canary") == 200, "a caller who is let in")
        with ThreadPoolExecutor(8) as pool:
            done = [pool.submit(load, hub) for _ in range(8)]
            try:
                for number in range(5):
                    name = f"new-canary-{number}"
                    hub.write("secret.yaml", secret("steady-canary", name))
                    hub.wait(lambda name=name: status(hub, name) == 200, "the new Secret")  # type: ignore[misc]
            finally:
                over.set()
        for one in done:
            one.result()
        assert set(seen) == {200}, seen
        assert status(hub, "old-canary") == 401
        refused = hub.metric("triggerhub_requests_refused_total", reason="BadCredentials")
        assert refused >= 1
        metrics = hub.request("GET", "/metrics")[1]
        shown = metrics + repr(hub.get("/v1/triggers")).encode() + hub.said().encode()
        assert b"-canary" not in shown
        assert all("authorization" not in call.headers for call in told.calls)
        assert {call.headers["triggerhub-caller"] for call in told.calls} == {"caller0", "caller1"}

        hub.write(
            "secret.yaml", secret() | {"stringData": {"tokens": "in the clear: steady-canary"}}
        )
        hub.wait(
            lambda: "line 1 of key tokens of Secret callers" in repr(hub.conditions("in")),
            "word of the line that is no token",
        )
        assert status(hub, "steady-canary") == 404
        assert "canary" not in repr(hub.conditions("in")) + hub.said()
