"""Several processes of one hub: killed, stopped, and looked at as one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from integration.function import Call, Function, answering, reply
from integration.hub import Hub, function, running
from integration.room import Room, hub_of
from integration.servers import Kafka, eventually
from integration.streams import (
    Stream,
    accepted_at_least,
    arrived,
    end_of_prefix,
    firsts,
    in_order,
    kafka_trigger,
)
from integration.test_stories import alive, ask, code, cron_trigger, http_trigger
from triggerhub.workers.asking import ask as ask_worker

TWO = ("--workers", "2")


def pids(hub: Hub) -> dict[int, int]:
    """Of each worker, the process that was started last."""
    found = {}
    for line in hub.said().splitlines():
        if '"worker.started"' in line:
            told = json.loads(line)
            found[told["worker"]] = told["pid"]
    return found


def cli(hub: Hub, *arguments: str) -> Any:
    """What a command says of this hub, as JSON."""
    ran = subprocess.run(
        [sys.executable, "-m", "triggerhub", *arguments, "--admin", hub.admin, "-o", "json"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


class Books:
    """Looks at the metrics again and again, in a thread: at every moment they must add up, and
    no counter may go back."""

    def __init__(self, hub: Hub) -> None:
        self.looks = 0
        self.wrong: list[str] = []
        self._hub = hub
        self._last: dict[tuple[str, str], int] = {}

    def look(self) -> None:
        self.looks += 1
        for name, account in self._hub.accounts().items():
            out = sum(account.settled.values()) + account.in_flight
            if account.received != out:
                self.wrong.append(f"{name}: {account} do not add up")
            for what, number in {"received": account.received, **account.settled}.items():
                if number < self._last.get((name, what), 0):
                    self.wrong.append(f"{name}: {what} goes back to {number}")
                self._last[name, what] = number


@contextmanager
def audited(hub: Hub) -> Iterator[Books]:
    """The books are looked at while the block runs."""
    books, done = Books(hub), threading.Event()

    def look() -> None:
        while not done.is_set():
            books.look()
            time.sleep(0.05)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield books
    finally:
        done.set()
        thread.join(30)


class Clients:
    """Ask the hub again and again, a few at once, each time on a connection of its own."""

    def __init__(self, hub: Hub, path: str) -> None:
        self.answers: Counter[int] = Counter()
        """By status; 0: the connection broke."""
        self._hub = hub
        self._path = path
        self._done = threading.Event()

    def _ask(self) -> None:
        while not self._done.is_set():
            try:
                status = ask(self._hub, self._path)[0]
            except OSError:
                status = 0
            self.answers[status] += 1

    @contextmanager
    def asking(self, number: int = 4) -> Iterator[Clients]:
        threads = [threading.Thread(target=self._ask) for _ in range(number)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._done.set()
            for thread in threads:
                thread.join(30)


def ticks(calls: list[Call]) -> list[datetime]:
    """Due times of the ticks that a function was sent, in the order of their first attempts."""
    return [
        datetime.fromisoformat(call.id)
        for call in firsts(calls)
        if call.headers.get("ce-type") == "dev.triggerhub.cron.tick"
    ]


def ticked(target: Function, least: int) -> bool:
    return len(ticks(target.calls)) >= least


def every_second(found: list[datetime]) -> bool:
    """Whether none is missing."""
    second = timedelta(seconds=1)
    return all(later - earlier == second for earlier, later in pairwise(sorted(found)))


def lag_of(hub: Hub, name: str) -> float | None:
    rows = hub.get("/v1/bindings")["bindings"]
    return next((row["lag"] for row in rows if row["trigger"] == name), None)


def kill_the_one_that_ticks(hub: Hub) -> None:
    """And wait for the next of its number."""
    holder = int((hub.data / "turn.lock").read_text().split()[0])
    number = next(n for n, pid in pids(hub).items() if pid == holder)
    os.kill(holder, signal.SIGKILL)
    hub.wait(lambda: pids(hub)[number] != holder and hub.ready(), "replacement", 40)


def test_a_worker_that_is_killed_is_replaced_and_no_event_is_lost(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=4)
    with (
        answering(lambda call: reply(200, after=0.01)) as orders,
        answering() as clock,
        running(tmp_path, *TWO, start=False) as hub,
    ):
        hub.write(
            "f.yaml", function("orders", orders.url), function("clock", clock.url),
            code("pages", "import time\ndef handle(event, context): time.sleep(0.02)"),
        )  # fmt: skip
        hub.write(
            "t.yaml", kafka_trigger(stream, "orders", "orders", inFlight=8),
            cron_trigger("tick", "clock"), http_trigger("web", "pages", "/"),
        )  # fmt: skip
        hub.start()
        hub.wait(lambda: len(ticks(clock.calls)) > 1, "ticks")
        killed = 2
        with audited(hub) as books, Clients(hub, "/").asking() as clients, stream.flowing(200):
            for time_round in range(1, killed + 1):
                many = partial(accepted_at_least, orders, 150 * time_round)
                hub.wait(many, "flow", 40)
                kill_the_one_that_ticks(hub)
                later = len(ticks(clock.calls)) + 3
                hub.wait(partial(ticked, clock, later), "more ticks", 10)
        hub.wait(lambda: arrived(orders, stream), "delivery of every record", 60)
        books.look()
        hub.wait(lambda: lag_of(hub, "orders") == 0, "no lag")
        assert books.wrong == []
        assert books.looks > 20
        # What was on a connection to the one that was killed broke; nothing else did.
        assert set(clients.answers) <= {204, 0}, clients.answers
        assert clients.answers[0] <= 4 * killed
        assert clients.answers[204] > 100
        assert hub.stop() == 0
        assert stream.committed("orders") == end_of_prefix(stream.sent, dict.fromkeys(range(4), 0))
    assert in_order(firsts(orders.accepted))
    assert every_second(ticks(clock.calls))
    again = Counter(call.id for call in clock.accepted)
    assert sum(again.values()) - len(again) <= killed, again.most_common(3)
    log = hub.said()
    assert log.count('"how": "killed by SIGKILL"') == killed
    assert "Traceback" not in log
    print(f"{len(stream.sent)} records, {len(orders.accepted)} accepted; {clients.answers}; "
          f"{books.looks} looks")  # fmt: skip


def test_a_supervisor_that_is_killed_takes_its_workers_along_and_frees_the_data(
    tmp_path: Path,
) -> None:
    with answering() as target, running(tmp_path, *TWO, start=False) as hub:
        hub.write("f.yaml", function("f", target.url), code("own", "def handle(e, c): return 1"))
        hub.write("t.yaml", cron_trigger("tick", "f"), http_trigger("web", "own", "/"))
        hub.start()
        started = set(pids(hub).values())
        of_functions = {
            int(child)
            for pid in started
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        }
        assert len(started) == 2
        assert of_functions
        hub.kill9()
        eventually(lambda: not any(map(alive, started | of_functions)), "end of all", 10)
        hub.start()
        assert ask(hub, "/")[0] == 200
        assert hub.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_stops_all_workers_in_order_under_load(
    number: signal.Signals, kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=4)
    with (
        answering(lambda call: reply(200, after=0.3)) as target,
        running(tmp_path, *TWO, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write(
            "t.yaml", kafka_trigger(stream, "orders", "f", inFlight=8),
            http_trigger("web", "f", "/"),
        )  # fmt: skip
        hub.start()
        with Clients(hub, "/").asking() as clients, stream.flowing(100):
            hub.wait(lambda: len(target.accepted) > 60, "flow")
            # To each of them, as a terminal would.
            for pid in (hub.pid, *(pids(hub).values() if number is signal.SIGTERM else ())):
                os.kill(pid, number)
            assert hub.exit_code(30) == 0
        assert stream.committed("orders") == end_of_prefix(
            {call.id for call in target.accepted}, dict.fromkeys(range(4), 0)
        )
        assert {call.status for call in target.calls} == {200}
        assert len(firsts(target.accepted)) == len(target.accepted)
        # Those that came while it stopped were told so, or found nobody.
        assert set(clients.answers) <= {200, 503, 0}
        assert hub.said().count('"hub.stopped"') == 3
        assert "Traceback" not in hub.said()


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    with (
        answering(lambda call: reply(200, after=20.0)) as target,
        running(tmp_path, *TWO, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", cron_trigger("tick", "f"))
        hub.start()
        hub.wait(lambda: target.under_way > 0, "a tick under way")
        started = pids(hub).values()
        hub.signal(signal.SIGTERM)
        hub.wait(lambda: '"hub.stopping"' in hub.said(), "the begin of its end")
        hub.signal(signal.SIGTERM)
        assert hub.exit_code(5) == 128 + signal.SIGTERM
        eventually(lambda: not any(map(alive, started)), "end of the workers", 5)


def test_ctrl_c_on_the_terminal_is_one_signal(tmp_path: Path) -> None:
    """The whole process group of the terminal gets it."""
    with (
        answering(lambda call: reply(200, after=1.0)) as target,
        running(tmp_path, *TWO, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", cron_trigger("tick", "f"))
        hub.start()
        hub.wait(lambda: target.under_way > 0, "a tick under way")
        group = os.getpgid(hub.pid)
        assert all(os.getpgid(pid) != group for pid in pids(hub).values())
        hub.signal(signal.SIGINT)
        assert hub.exit_code(10) == 0
        assert {call.status for call in target.calls} == {200}


def test_commands_see_one_hub(kafka: Kafka, tmp_path: Path) -> None:
    stream = Stream(kafka.broker, partitions=4)

    def picky(call: Call) -> Any:
        return reply(400, b"no") if call.body.endswith(b":3") and not mended else reply(200)

    mended: list[bool] = []
    with answering(picky) as target, running(tmp_path, *TWO, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, "orders", "f"), http_trigger("web", "f", "/"))
        hub.start()
        stream.send(80)
        hub.wait(lambda: hub.metric("triggerhub_events_settled_total", trigger="orders") == 80,
                 "all settled")  # fmt: skip
        hub.wait(lambda: hub.metric("triggerhub_dead_letters", trigger="orders") == 8, "a count")
        rows = {row["trigger"]: row for row in cli(hub, "bindings")}
        assert {name: row["state"] for name, row in rows.items()} == {
            "orders": "Ready", "web": "Ready",
        }  # fmt: skip
        assert (rows["orders"]["received"], rows["orders"]["accepted"]) == (80, 72)
        assert (rows["orders"]["dead"], rows["orders"]["deadLetters"]) == (8, 8)
        hub.wait(lambda: lag_of(hub, "orders") == 0, "no lag")
        # Both had their part of it, and each is asked for what it alone knows.
        assert all(received > 0 for received in map(partial(received_by, hub), (1, 2)))
        for call in target.accepted[:20]:
            (known,) = cli(hub, "why", call.id, "--source", f"/kafka/{stream.topic}")
            assert known["settled"] == "accepted"
        assert cli(hub, "emit", "orders", "--data", "hello")["outcome"] == "accepted"
        assert hub.metric("triggerhub_bindings", state="Ready") == 2
        letters = cli(hub, "dlq", "list")
        assert len(letters) == 8
        mended.append(True)
        redriven = cli(hub, "dlq", "redrive", "--all")
        assert [one["outcome"] for one in redriven] == ["accepted"] * 8
        assert cli(hub, "dlq", "list") == []
        status, body = hub.request("POST", "/v1/bindings/orders/replay", {"from": "1h"})
        assert (status, json.loads(body.splitlines()[-1])["events"]) == (200, {"accepted": 80})
        status, body = hub.request("GET", "/v1/nothing")
        assert (status, json.loads(body)["error"]) == (404, "NotFound")
        assert hub.request("POST", "/v1/bindings")[0] == 405
        assert hub.request("GET", "/healthz") == (200, b"ok\n")
        assert hub.stop() == 0


def received_by(hub: Hub, number: int) -> int:
    """How many events one worker has brought, as its own admin API says."""
    place = hub.data / "workers" / f"{number}.sock"
    status, body = asyncio.run(ask_worker(place, "/v1/bindings", within=5.0))
    assert status == 200
    return sum(row["received"] for row in json.loads(body)["bindings"])


def test_a_second_hub_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, *TWO, start=False) as hub:
        hub.start()
        other = Hub(tmp_path, "--workers", "3")
        other.start(ready=False)
        assert other.exit_code() == 1
        assert f"is in use by another triggerhub (pid {hub.pid})" in hub.said()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--kubeconfig", "nowhere"), "there is no kubeconfig at nowhere"),
        (("-f", "nowhere"), "nowhere: no such file or folder"),
    ],
)
def test_a_hub_whose_workers_cannot_start_ends_with_their_sentence(
    options: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "triggerhub", "run", *options, *TWO, "--data", "data",
         "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("triggerhub: ")
    assert sentence in last
    assert "Traceback" not in ran.stderr


def test_in_a_cluster_one_of_a_hubs_workers_leads_and_the_next_when_it_is_killed(
    room: Room, tmp_path: Path
) -> None:
    with answering() as clock, hub_of(room, tmp_path, *TWO) as hub:
        room.apply(function("clock", clock.url), cron_trigger("tick", "clock"))
        hub.wait(lambda: room.condition("CronTrigger", "tick") == "True Ready", "Ready")
        hub.wait(partial(ticked, clock, 2), "ticks")
        kill_the_one_that_ticks(hub)
        hub.wait(lambda: hub.said().count('"leader.elected"') == 2, "the next leader", 30)
        hub.wait(partial(ticked, clock, len(ticks(clock.calls)) + 3), "more ticks")
        room.patch("CronTrigger", "tick", {"spec": {"paused": True}})
        hub.wait(lambda: room.condition("CronTrigger", "tick") == "False Paused", "the pause")
        assert hub.stop() == 0
    assert every_second(ticks(clock.calls))
    again = Counter(call.id for call in clock.accepted)
    assert sum(again.values()) - len(again) <= 1
