"""An asynchronous HTTP trigger: requests accepted, each synced to disk before its 202.

    python -m bench.http_async [--rounds 3] [--seconds 4]

In alternation, on one disk: a bare SQLite loop, which commits as many rows at once as there are
clients (WAL, synchronous = FULL, as the hub's store); the hub that accepts and holds (its trigger
is paused); and the hub that delivers at the same time, to nginx.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.http import CONNECTIONS, Server, measure
from bench.measure import Row, machine
from bench.sink import nginx_sink
from integration.hub import Hub, function, running, trigger
from integration.servers import free_port

_BYTES = 256


def bare(file: Path, seconds: float) -> float:
    """Rows per second."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS inbox (number INTEGER PRIMARY KEY, data BLOB)")
        row, rows = (b"x" * _BYTES,), 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            db.execute("BEGIN IMMEDIATE")
            for _ in range(CONNECTIONS):
                db.execute("INSERT INTO inbox (data) VALUES (?)", row)
            db.execute("COMMIT")
            rows += CONNECTIONS
    return rows / seconds


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


def main(rounds: int = 3, seconds: int = 4) -> list[Row]:
    print(f"      {machine()}")
    with (
        nginx_sink(free_port()) as sink,
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain") as hub,
    ):
        _start(hub, sink)
        asked: dict[str, Callable[[], tuple[float, float]]] = {
            "bare SQLite": lambda: (bare(Path(folder, "bare.db"), seconds), 0.0)
        }
        for path in ("held", "sent"):
            server = Server(f"http://{hub.listen}/{path}", hub.cpu)

            def one(server: Server = server) -> tuple[float, float]:
                figure = measure(server, seconds, post=True)
                return figure.rate, figure.cpu

            asked[path] = one
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
        for _ in range(rounds):
            for name, ask in asked.items():
                found[name].append(ask())
            print("      " + "   ".join(
                f"{name} {taken[-1][0]:6.0f}/s"
                + (f" {taken[-1][1]:5.1f} us" if taken[-1][1] else "")
                for name, taken in found.items()
            ))  # fmt: skip

    def typical(name: str) -> float:
        return statistics.median(rate for rate, _ in found[name])

    rate, below = typical("held"), typical("bare SQLite")
    return [
        Row(
            f"HTTP, Async, POST of {_BYTES} bytes, accepted per second",
            f"{rate:.0f}/s, while delivering {typical('sent'):.0f}/s",
            f"beside bare SQLite: {below:.0f}/s",
            rate > 0,
        )
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    chosen = parser.parse_args()
    for row in main(chosen.rounds, chosen.seconds):
        print(row)
