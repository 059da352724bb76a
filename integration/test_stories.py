"""HTTP, cron and the hub itself, end to end: a real process, real functions, real signals."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration.function import (
    ACCEPT,
    CHUNKED,
    CLOSE,
    CONTINUE,
    GARBAGE,
    HALF,
    Answer,
    Wire,
    answering,
    hang,
    huge,
    reply,
    reset,
)
from integration.hub import Hub, function, running, trigger
from integration.servers import eventually, unavailable

EVERY_SECOND = "* * * * * *"
GRACE = 25.0
"""Seconds that deliveries under way get at the end, where nothing else is said."""


def ask(
    hub: Hub, path: str, method: str = "GET", body: bytes | None = None, within: float = 30.0
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the answer to a request to the HTTP triggers."""
    host, _, port = hub.listen.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=within)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, answer.read(), headers
    finally:
        connection.close()


def status_of(hub: Hub, path: str) -> int:
    """0: nobody listens."""
    try:
        return ask(hub, path)[0]
    except OSError:
        return 0


@contextmanager
def aside() -> Iterator[Callable[..., Future[Any]]]:
    """Runs calls in threads of their own; waits for them at the end."""
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit


def code(name: str, text: str) -> dict[str, Any]:
    """A Function manifest whose code is the file main.py."""
    spec = {"code": {"runtime": "python", "handler": "main.handle", "inline": {"main.py": text}}}
    return function(name, "") | {"spec": spec}


def http_trigger(name: str, to: str, path: str, **delivery: Any) -> dict[str, Any]:
    return trigger("HTTPTrigger", name, to, {"path": path}, **delivery)


def cron_trigger(name: str, to: str, **delivery: Any) -> dict[str, Any]:
    return trigger("CronTrigger", name, to, {"schedule": EVERY_SECOND}, **delivery)


def children(pid: int) -> set[int]:
    """Processes that this one started and that still run."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(child) for child in text.split()}


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


STOPPING = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@STOPPING
def test_a_signal_lets_deliveries_end_and_the_exit_code_is_zero(
    number: signal.Signals, tmp_path: Path
) -> None:
    with (
        answering(lambda call: reply(200, b"done", after=1.5)) as slow,
        running(tmp_path, start=False) as hub,
        aside() as run,
    ):
        hub.write("f.yaml", function("slow", slow.url), code("quick", "def handle(e, c): return 1"))
        hub.write("t.yaml", http_trigger("web", "slow", "/"), cron_trigger("tick", "slow"))
        hub.start()
        asked = [run(ask, hub, "/") for _ in range(3)]
        hub.wait(lambda: Counter(c.method for c in slow.calls)["GET"] == 3, "requests under way")
        hub.wait(lambda: slow.under_way > 3, "a tick under way")
        started = children(hub.pid)
        assert started
        began = time.monotonic()
        hub.signal(number)
        assert hub.exit_code() == 0
        assert time.monotonic() - began < GRACE, "it waited for nothing but what was under way"
        assert [each.result()[:2] for each in asked] == [(200, b"done")] * 3
        # What was under way was answered, and nothing was begun twice.
        assert {call.status for call in slow.calls} == {200}
        eventually(lambda: not any(map(alive, started)), "end of the code function", 10)
        assert '"hub.stopped"' in hub.said()
        assert "Traceback" not in hub.said()


@STOPPING
def test_a_second_signal_ends_the_hub_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with (
        answering(lambda call: hang) as target,
        running(tmp_path, start=False) as hub,
        aside() as run,
    ):
        hub.write("f.yaml", function("f", target.url), code("quick", "def handle(e, c): return 1"))
        hub.write("t.yaml", http_trigger("web", "f", "/"))
        hub.start()
        asked = run(ask, hub, "/")
        hub.wait(lambda: target.under_way == 1, "a request under way")
        started = children(hub.pid)
        hub.signal(number)
        hub.wait(lambda: '"hub.stopping"' in hub.said(), "the beginning of the end")
        began = time.monotonic()
        hub.signal(number)
        assert hub.exit_code() == 128 + number
        assert time.monotonic() - began < GRACE
        assert isinstance(asked.exception(), OSError | http.client.HTTPException)
        eventually(lambda: not any(map(alive, started)), "end of the code function", 10)


def test_when_the_grace_time_is_over_a_caller_hears_so(tmp_path: Path) -> None:
    with (
        answering(lambda call: hang) as target,
        running(tmp_path, "--grace", "1s", start=False) as hub,
        aside() as run,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", http_trigger("web", "f", "/"))
        hub.start()
        asked = run(ask, hub, "/")
        hub.wait(lambda: target.under_way == 1, "a request under way")
        began = time.monotonic()
        assert hub.stop() == 0
        assert 0.9 < time.monotonic() - began < GRACE
        status, body, headers = asked.result()
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["error"] == "Stopping"


def test_a_change_takes_effect_and_touches_no_other_binding(
    tmp_path: Path,
) -> None:
    changed = threading.Event()

    async def held(wire: Wire) -> int | None:
        while not changed.is_set():
            await wire.wait(0.02)
        return await reply(200, b"a")(wire)

    with (
        answering(lambda call: held if call.target == "/in/slow" else reply(200, b"a")) as a,
        answering(lambda call: reply(200, b"b")) as b,
        answering(lambda call: reply(200, b"c")) as c,
        running(tmp_path, start=False) as hub,
        aside() as run,
    ):
        hub.write("a.yaml", function("a", a.url), http_trigger("a", "a", "/a"))
        hub.start()
        done = threading.Event()

        def poll() -> Counter[int]:
            statuses: Counter[int] = Counter()
            while not done.wait(0.02):
                statuses[status_of(hub, "/a")] += 1
            return statuses

        asked = run(ask, hub, "/a/slow")
        polled = run(poll)
        hub.wait(lambda: a.under_way >= 1, "a slow delivery")

        def soon(path: str, status: int, body: bytes | None, what: str) -> None:
            def holds() -> bool:
                found = ask(hub, path)
                return found[0] == status and body in (None, found[1])

            hub.wait(holds, what)

        hub.write("f.yaml", function("b", b.url))
        hub.write("t.yaml", http_trigger("b", "b", "/b"))
        soon("/b", 200, b"b", "an added trigger")
        hub.write("f.yaml", function("b", c.url))
        soon("/b", 200, b"c", "a function that moved")
        hub.write("t.yaml", http_trigger("b", "b", "/other"))
        soon("/other", 200, b"c", "a trigger that moved")
        soon("/b", 404, None, "a route that is gone")
        hub.delete("f.yaml")
        soon("/other", 404, None, "a function that is gone")
        assert hub.condition("b", "Bound") == "False FunctionNotFound"
        hub.write("f.yaml", function("b", b.url))
        soon("/other", 200, b"b", "a function that is back")
        hub.delete("t.yaml")
        soon("/other", 404, None, "a trigger that is gone")
        assert hub.conditions("b") == {}
        assert not asked.done()
        changed.set()
        assert asked.result()[:2] == (200, b"a")
        done.set()
        assert set(polled.result()) == {200}


@pytest.mark.parametrize("spoilt", [b"kind: [", b"", b"kind: HTTPTrigger\nspec: {sorce: {}}\n"])
def test_a_broken_file_keeps_what_it_held_and_says_so_until_it_is_well(
    spoilt: bytes, tmp_path: Path
) -> None:
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        path = hub.write("t.yaml", http_trigger("web", "f", "/web"))
        hub.start()
        assert hub.get("/v1/faults")["faults"] == []
        good = path.read_bytes()
        path.write_bytes(spoilt)
        hub.wait(lambda: hub.get("/v1/faults")["faults"] != [], "the fault", 2)
        fault = hub.get("/v1/faults")["faults"][0]
        assert fault["file"] == str(path)
        assert status_of(hub, "/web") == 200
        assert hub.condition("web") == "True Ready"
        hub.write("g.yaml", function("g", target.url), http_trigger("other", "g", "/other"))
        hub.wait(lambda: status_of(hub, "/other") == 200, "what another file holds", 2)
        assert status_of(hub, "/web") == 200
        path.write_bytes(good)
        hub.wait(lambda: hub.get("/v1/faults")["faults"] == [], "the end of the fault", 2)
        assert status_of(hub, "/web") == 200


def test_of_two_triggers_with_one_route_the_older_has_it_until_it_goes(tmp_path: Path) -> None:
    with (
        answering(lambda call: reply(200, b"older")) as older,
        answering(lambda call: reply(200, b"younger")) as younger,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("older", older.url), function("younger", younger.url))
        hub.write("older.yaml", http_trigger("older", "older", "/web"))
        hub.start()
        hub.write("younger.yaml", http_trigger("younger", "younger", "/web"))
        hub.wait(lambda: hub.condition("younger") == "False RouteTaken", "the younger's trouble", 2)
        assert "default/older" in hub.conditions("younger")["Ready"]["message"]
        assert hub.condition("older") == "True Ready"
        assert ask(hub, "/web")[1] == b"older"
        hub.delete("older.yaml")
        hub.wait(lambda: ask(hub, "/web")[1] == b"younger", "the younger's turn", 2)
        assert hub.condition("younger") == "True Ready"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own. Only root may mount one."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        unavailable("this machine does not let root mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(filler: Path) -> None:
    """Write until not a byte fits any more."""
    size = 1024 * 1024
    with filler.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def test_on_a_full_disk_dead_letters_wait_and_no_tick_is_lost(tmp_path: Path) -> None:
    big = "x" * 200_000
    with (
        small_disk(tmp_path / "data", "4m") as disk,
        answering(lambda call: reply(400, b"never")) as refusing,
        answering() as target,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("refusing", refusing.url), function("f", target.url))
        hub.write(
            "t.yaml",
            http_trigger("web", "refusing", "/", retry={"initial": "50ms", "max": "500ms"}),
            cron_trigger("tick", "f"),
        )
        hub.start()
        hub.wait(lambda: len(target.accepted) >= 2, "ticks")
        filler = disk / "filler"
        fill_up(filler)
        answer = hub.emit("web", id="poison", data=big, timeout="1s")
        assert answer["outcome"] == "under way"
        hub.wait(
            lambda: hub.condition("web") == "False DeadLetterUnavailable", "DeadLetterUnavailable"
        )
        full = hub.conditions("web")["Ready"]["message"]
        assert str(disk) in full, full
        assert hub.letters() == []
        account = hub.accounts()["default.web.refusing"]
        assert (account.in_flight, account.settled["dead"]) == (1, 0)
        hub.wait(lambda: hub.condition("tick").startswith("False"), "the cron trigger's trouble")
        assert str(disk) in hub.conditions("tick")["Ready"]["message"]
        hub.wait(lambda: hub.metric("triggerhub_store_available") == 0, "the metric of the store")
        status, said = hub.request("GET", "/readyz")
        assert status == 200
        assert str(disk) in said.decode()
        filler.unlink()
        hub.wait(lambda: len(hub.letters()) == 1, "the dead letter", 10)
        assert b64decode(hub.letters()[0]["event"]["data_base64"]) == big.encode()
        hub.wait(lambda: hub.condition("web") == "True Ready", "recovery", 10)
        assert hub.metric("triggerhub_store_available") == 1
        assert len(refusing.calls) == 1
        count = len(target.accepted)
        hub.wait(lambda: len(target.accepted) > count + 1, "ticks again", 40)
        assert hub.condition("tick") == "True Ready"
        ticks = sorted(datetime.fromisoformat(call.id) for call in target.accepted)
        assert ticks == [ticks[0] + timedelta(seconds=n) for n in range(len(ticks))]


def test_a_second_hub_on_the_same_data_or_admin_address_says_why_it_ends(tmp_path: Path) -> None:
    with (
        answering() as target,
        running(tmp_path / "1") as first,
        running(tmp_path / "2", start=False) as second,
    ):
        first.write("t.yaml", function("f", target.url), http_trigger("web", "f", "/"))
        first.wait(lambda: status_of(first, "/") == 200, "service")
        own_data, own_admin = second.data, second.admin
        for data, admin, sentence in (
            (first.data, own_admin, f"{first.data} is in use by another triggerhub (pid"),
            (own_data, first.admin, "address already in use"),
        ):
            second.data, second.admin = data, admin
            second.log.unlink(missing_ok=True)
            second.start(ready=False)
            assert second.exit_code() == 1
            said = second.said().strip()
            assert sentence in said
            plain = [line for line in said.splitlines() if not line.startswith("{")]
            assert len(plain) == 1, said
            assert plain[0].startswith("triggerhub: ")
        assert status_of(first, "/") == 200
        assert first.ready()
        assert first.stop() == 0


def test_a_taken_listen_address_is_said_in_the_condition_and_heals(tmp_path: Path) -> None:
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("t.yaml", function("f", target.url), http_trigger("web", "f", "/"))
        hub.write("c.yaml", cron_trigger("tick", "f"))
        with socket.socket() as other:
            other.bind(("127.0.0.1", int(hub.listen.rpartition(":")[2])))
            other.listen()
            hub.start()
            assert hub.condition("web", "Connected").startswith("False")
            message = hub.conditions("web")["Ready"]["message"]
            assert hub.listen in message
            assert "in use" in message
            hub.wait(lambda: len(target.accepted) > 0, "a tick: the rest of the hub runs")
        hub.wait(lambda: status_of(hub, "/") == 200, "healing", 35)
        assert hub.condition("web") == "True Ready"


def test_http_faults_of_callers_and_functions_have_their_status(tmp_path: Path) -> None:
    answers: dict[str, Answer] = {
        "/in/ok": reply(201, b"made", headers=[("x-own", "yes")]),
        "/in/no": reply(404, b"not mine"),
        "/in/broken": reply(500, b"sorry"),
        "/in/garbage": GARBAGE,
        "/in/half": HALF,
        "/in/hang": hang,
        "/in/reset": reset,
        "/in/chunked": CHUNKED,
        "/in/continue": CONTINUE,
        "/in/close": CLOSE,
    }
    with (
        answering(lambda call: answers.get(call.target.partition("?")[0], ACCEPT)) as target,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        web = http_trigger("web", "f", "/web", timeout="1s")
        web["spec"]["source"] |= {"methods": ["GET", "POST"], "maxBodySize": "1Ki"}
        hub.write("t.yaml", web)
        hub.start()

        def error(path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
            status, text, _ = ask(hub, path, method, body)
            return status, json.loads(text)["message"]

        status, text, headers = ask(hub, "/web/ok?a=1&b=%20", "POST", b"x" * 1024)
        assert (status, text, headers["x-own"]) == (201, b"made", "yes")
        call = target.calls[-1]
        assert (call.method, call.target, call.body) == ("POST", "/in/ok?a=1&b=%20", b"x" * 1024)

        assert ask(hub, "/elsewhere")[0] == 404
        assert ask(hub, "/website")[0] == 404
        status, _, headers = ask(hub, "/web", "DELETE")
        assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
        assert ask(hub, "/web", "POST", b"x" * 1025)[0] == 413
        # The function's own answers are passed on, good or bad.
        assert ask(hub, "/web/no")[:2] == (404, b"not mine")
        assert ask(hub, "/web/broken")[:2] == (500, b"sorry")
        # What is not an answer is the hub's to tell.
        assert error("/web/garbage")[0] == 502
        assert error("/web/half")[0] == 502
        began = time.monotonic()
        status, message = error("/web/hang")
        assert (status, message) == (504, "function f gave no answer within 1 s")
        assert time.monotonic() - began > 0.9
        assert error("/web/reset")[0] == 503
        for _ in range(3):
            assert ask(hub, "/web/chunked")[:2] == (200, b"hello, world")
            assert ask(hub, "/web/continue")[:2] == (200, b"continued")
            assert ask(hub, "/web/close")[:2] == (200, b"and goodbye")
        target.down()
        status, _, headers = ask(hub, "/web/ok")
        assert (status, headers["retry-after"]) == (503, "1")
        target.up()
        assert ask(hub, "/web/ok")[0] == 201
        hub.delete("f.yaml")
        hub.wait(lambda: ask(hub, "/web/ok")[0] == 404, "the end of the route", 2)
        account = hub.accounts().get("default.web.f")
        assert account is None or account.in_flight == 0


def test_an_event_function_may_answer_as_it_likes(tmp_path: Path) -> None:
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", trigger(
            "CronTrigger", "events", "f", {"schedule": "0 0 1 1 *"}, timeout="500ms",
            retry={"attempts": 2, "initial": "10ms", "max": "20ms"},
        ))  # fmt: skip
        hub.start()
        for answer, outcome, attempts in (
            (CHUNKED, "accepted", 1),
            (CONTINUE, "accepted", 1),
            (CLOSE, "accepted", 1),
            (huge, "accepted", 1),
            (GARBAGE, "dead", 2),
            (HALF, "dead", 2),
            (hang, "dead", 2),
            (reply(500), "dead", 2),
            (reply(302, headers=[("location", "/")]), "dead", 1),
            (reply(400), "dead", 1),
        ):
            target.script = lambda call, answer=answer: answer  # type: ignore[misc]
            before = len(target.calls)
            assert hub.emit("events")["outcome"] == outcome
            assert len(target.calls) - before == attempts
        assert hub.resident() < 300
        reasons = Counter(letter["reason"] for letter in hub.letters())
        assert reasons == {"AttemptsExhausted": 4, "Rejected": 2}


def test_a_code_function_that_does_not_load_says_where_and_is_mended(tmp_path: Path) -> None:
    with running(tmp_path, start=False) as hub:
        hub.write("f.yaml", code("f", "import json\n\ndef handle(event, context)\n    return 1\n"))
        hub.write("t.yaml", http_trigger("web", "f", "/"))
        hub.start()
        assert hub.condition("web", "Bound") == "False FunctionNotReady"
        message = hub.conditions("web")["Bound"]["message"]
        assert "main.py" in message
        assert "line 3" in message or "main.py:3" in message, message
        assert ask_or_none(hub) == (0, b"")
        hub.write(
            "f.yaml", code("f", "def handle(event, context):\n    return {'path': event.path}")
        )
        hub.wait(lambda: ask_or_none(hub)[0] == 200, "the mended function", 10)
        assert json.loads(ask(hub, "/deep/down")[1]) == {"path": "/deep/down"}
        assert hub.condition("web") == "True Ready"


def ask_or_none(hub: Hub) -> tuple[int, bytes]:
    try:
        return ask(hub, "/")[:2]
    except OSError:
        return 0, b""


def test_a_tick_that_was_under_way_when_the_hub_was_killed_comes_again(tmp_path: Path) -> None:
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", cron_trigger("tick", "f"))
        hub.start()
        hub.wait(lambda: len(target.accepted) >= 3, "ticks")
        target.script = lambda call: hang
        hub.wait(lambda: target.under_way >= 2, "ticks under way")
        lost = [call.id for call in target.calls if call.ended is None]
        hub.kill9()
        target.script = lambda call: ACCEPT
        accepted = len(target.accepted)
        hub.start()
        hub.wait(lambda: len(target.accepted) >= accepted + len(lost) + 2, "ticks again")
        hub.wait(lambda: set(lost) <= {call.id for call in target.accepted}, "all that were lost")
        assert hub.stop() == 0
        ids = [call.id for call in target.accepted]
        again = ids[accepted:]  # those that were under way come at once, in any order
        assert set(lost) <= set(again)
        assert len(set(ids)) == len(ids)
        assert {call.headers["ce-source"] for call in target.calls} == {"/cron/default/tick"}
        for run in (ids[:accepted] + lost, sorted(set(again) - set(lost))):
            times = [datetime.fromisoformat(each) for each in run]
            assert times == [times[0] + timedelta(seconds=n) for n in range(len(times))]


def test_a_connector_that_is_not_installed_says_what_to_install(tmp_path: Path) -> None:
    stub = tmp_path / "stub" / "aiokafka"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'aiokafka'\", name='aiokafka')\n"
    )
    path = os.pathsep.join(filter(None, [str(stub.parent), os.environ.get("PYTHONPATH")]))
    with answering() as target, running(tmp_path, start=False, env={"PYTHONPATH": path}) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write(
            "t.yaml",
            trigger("KafkaTrigger", "orders", "f", {"topic": "orders"}),
            http_trigger("web", "f", "/"),
            cron_trigger("tick", "f"),
        )
        hub.start()
        assert hub.condition("orders") == "False ConnectorNotInstalled"
        message = hub.conditions("orders")["Accepted"]["message"]
        assert "pip install 'triggerhub[kafka]'" in message
        assert status_of(hub, "/") == 200
        hub.wait(lambda: any(call.method == "POST" for call in target.calls), "a tick")
        assert hub.condition("web") == hub.condition("tick") == "True Ready"
        assert "Traceback" not in hub.said()
