"""An asynchronous HTTP trigger: requests accepted, each synced to disk before its 202.

    python -m bench.http_async [--rounds 3] [--seconds 4]

In alternation, on one disk, each with the hub's own policy (WAL, synchronous = FULL: an fsync at
every commit, before anybody is answered; a commit takes all that waits):

- SQLite alone: a loop that commits as many rows at once as there are clients, without HTTP;
- the same behind uvicorn: the least that can be done for durable requests. An ASGI application that
  hands each body to a thread, and answers 202 when its commit is synced;
- the hub that accepts and holds (its trigger is paused);
- the hub that delivers at the same time, to nginx. Its CPU time counts until all is delivered.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from bench.http import CONNECTIONS, Server, child, measure, wrk
from bench.measure import Row, machine
from bench.sink import nginx_sink
from integration.hub import Hub, function, running, trigger
from integration.servers import free_port

_BYTES = 256


class Figure(NamedTuple):
    """Of one round."""

    rate: float
    """Requests, or rows, per second."""
    cpu: float
    """CPU µs of each."""


def opened(file: Path) -> sqlite3.Connection:
    """A database with a table of rows, written as the hub's store is."""
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE IF NOT EXISTS inbox (number INTEGER PRIMARY KEY, data BLOB)")
    return db


def commit(db: sqlite3.Connection, rows: list[tuple[bytes]]) -> None:
    """In one transaction, synced."""
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO inbox (data) VALUES (?)", rows)
    db.execute("COMMIT")


def bare(file: Path, seconds: float) -> Figure:
    """SQLite alone."""
    with closing(opened(file)) as db:
        group, rows = [(b"x" * _BYTES,)] * CONNECTIONS, 0
        began, end = time.process_time(), time.perf_counter() + seconds
        while time.perf_counter() < end:
            commit(db, group)
            rows += CONNECTIONS
        return Figure(rows / seconds, (time.process_time() - began) / rows * 1e6)


@contextmanager
def behind_uvicorn(file: Path) -> Iterator[Server]:
    """SQLite behind uvicorn, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "bench.http_async", "probe", str(port), str(file)]
    with child(command, port) as server:
        yield server


def probe(port: int, file: Path) -> None:
    """What ``behind_uvicorn`` runs."""
    thread = ThreadPoolExecutor(1)
    db = thread.submit(opened, file).result()
    waiting: list[tuple[bytes, asyncio.Future[None]]] = []
    writing: list[asyncio.Task[None]] = []

    async def write() -> None:
        loop = asyncio.get_running_loop()
        while waiting:
            group = waiting[:]
            waiting.clear()
            await loop.run_in_executor(thread, commit, db, [(body,) for body, _ in group])
            for _, safe in group:
                safe.set_result(None)
        writing.clear()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        safe = loop.create_future()
        waiting.append(((await receive())["body"], safe))
        if not writing:
            writing.append(loop.create_task(write()))
        await safe
        fields = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 202, "headers": fields})
        await send({"type": "http.response.body", "body": b""})

    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", interface="asgi3",
        lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
    )  # fmt: skip


def _web(path: str, *, paused: bool) -> dict[str, Any]:
    source = {"path": path, "mode": "Async"}
    made = trigger("HTTPTrigger", path.strip("/"), "sink", source, inFlight=CONNECTIONS)
    made["spec"]["paused"] = paused
    return made


def _start(hub: Hub, sink: str) -> None:
    held, sent = _web("/held", paused=True), _web("/sent", paused=False)
    hub.write("all.yaml", function("sink", sink), held, sent)

    def served() -> bool:
        return hub.condition("sent") == "True Ready" and hub.condition("held") == "False Paused"

    hub.wait(served, "served routes")


def _delivering(hub: Hub, seconds: int) -> Figure:
    """Until as many are delivered as were accepted."""
    before, began = hub.settled(), hub.cpu()
    rate = wrk(f"http://{hub.listen}/sent", seconds, post=True)
    last = -1.0
    while last != (last := hub.settled()):
        time.sleep(0.5)
    return Figure(rate, (hub.cpu() - began) / (last - before) * 1e6)


def main(rounds: int = 3, seconds: int = 4) -> list[Row]:
    print(f"      {machine()}")
    with (
        nginx_sink(free_port()) as sink,
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        behind_uvicorn(Path(folder, "probe.db")) as least,
        running(Path(folder), "--plain") as hub,
    ):
        _start(hub, sink)
        held = Server(f"http://{hub.listen}/held", hub.cpu)

        def asked(server: Server) -> Figure:
            figure = measure(server, seconds, post=True)
            return Figure(figure.rate, figure.cpu)

        ways: dict[str, Callable[[], Figure]] = {
            "SQLite": lambda: bare(Path(folder, "bare.db"), seconds),
            "behind uvicorn": lambda: asked(least),
            "held": lambda: asked(held),
            "sent": lambda: _delivering(hub, seconds),
        }
        found: dict[str, list[Figure]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                found[name].append(way())
            print("      " + "   ".join(
                f"{name} {taken[-1].rate:6.0f}/s {taken[-1].cpu:5.1f} us"
                for name, taken in found.items()
            ))  # fmt: skip

    def typical(name: str) -> Figure:
        taken = found[name]
        return Figure(*(statistics.median(values) for values in zip(*taken, strict=True)))

    def cost(name: str) -> float:
        pairs = zip(found[name], found["behind uvicorn"], strict=True)
        return statistics.median(one.cpu / least.cpu for one, least in pairs)

    below, alone = typical("behind uvicorn"), typical("SQLite")
    return [
        Row(
            f"HTTP, Async, POST of {_BYTES} bytes, {what}",
            f"{typical(name).rate:.0f}/s, {typical(name).cpu:.0f} us: {cost(name):.1f} x bare",
            f"bare uvicorn {below.rate:.0f}/s, {below.cpu:.0f} us; SQLite {alone.rate:.0f}/s",
            typical(name).rate > 0,
        )
        for name, what in (("held", "accepted and synced"), ("sent", "and delivered"))
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["probe"]:
        probe(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--seconds", type=int, default=4)
        chosen = parser.parse_args()
        for row in main(chosen.rounds, chosen.seconds):
            print(row)
