"""The runtime: pure decoding and encoding by tables, the rest with real processes."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from tests.functions.served import serve, until
from triggerhub.functions import runtime
from triggerhub.functions.runtime import BadRequestError, Event, LoadError, decode, encode, load


def event(body: bytes = b"", *, query: str = "", path: str = "/", **headers: str) -> Event:
    fields = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
    scope = {"headers": fields, "method": "POST", "query_string": query.encode()}
    return decode(scope, path, body)


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/json; charset=utf-8", '"é"'.encode(), "é"),
        ("Application/JSON;Charset=latin-1", '"é"'.encode("latin-1"), "é"),
        ("application/vnd.shop.order+json", b"[1]", [1]),
        ("application/json", b"", None),
        ("text/plain", "é".encode(), "é"),
        ('text/csv; charset="latin-1"', "é".encode("latin-1"), "é"),
        ("text/plain", b"", ""),
        ("application/octet-stream", b"\xff\x00", b"\xff\x00"),
        ("application/octet-stream", b"", b""),
        (None, b"\xff", b"\xff"),
        (None, b"", None),
    ],
)
def test_data_follows_the_content_type(content_type: str | None, body: bytes, data: Any) -> None:
    headers = {} if content_type is None else {"content_type": content_type}
    assert event(body, **headers).data == data


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff\xfe\xfd"),
        ("application/json", b"[" * 100_000),
        ("application/json; charset=klingon", b"{}"),
        ("text/plain", b"\xff"),
    ],
)
def test_a_body_that_is_not_its_content_type_is_a_bad_request(
    content_type: str, body: bytes
) -> None:
    with pytest.raises(BadRequestError, match="content-type is") as raised:
        event(body, content_type=content_type)
    assert "\n" not in str(raised.value)


def test_binary_mode_gives_the_attributes_decoded() -> None:
    found = event(
        b"{}",
        content_type="application/json",
        ce_specversion="1.0",
        ce_id="0:7",
        ce_source="/kafka/orders",
        ce_type="order.created",
        ce_subject="Euro%20%E2%82%AC%20%F0%9F%98%80%25",
        ce_time="2026-05-04T03:02:01.123456789Z",
        ce_partitionkey="k%22",
        ce_region='"a \\" b"',
        triggerhub_attempt="3",
    )
    assert (found.id, found.source, found.type) == ("0:7", "/kafka/orders", "order.created")
    assert found.subject == "Euro € 😀%"
    assert found.time == datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
    assert found.key == 'k"'
    assert found.extensions == {"region": 'a " b'}
    assert found.attempt == 3


def test_percent_decoding_is_a_single_round() -> None:
    assert event(ce_subject="%2525").subject == "%25"


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"data": {"a": 1}}, {"a": 1}),
        ({"datacontenttype": "application/json", "data": "text"}, "text"),
        ({"datacontenttype": "text/plain", "data": "text"}, "text"),
        ({"datacontenttype": "application/xml", "data": "<é/>"}, "<é/>".encode()),
        ({"data_base64": base64.b64encode(b"\xff").decode()}, b"\xff"),
        ({"datacontenttype": "application/json", "data_base64": "WzFd"}, [1]),
        ({}, None),
    ],
)
def test_structured_mode_gives_the_same_event(fields: dict[str, Any], data: Any) -> None:
    told = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "partitionkey": "k"}
    body = json.dumps({**told, "tier": 3, **fields}).encode()
    found = event(body, content_type="application/cloudevents+json; charset=utf-8")
    assert found.data == data
    assert (found.id, found.source, found.type, found.key) == ("1", "/s", "t", "k")
    assert found.extensions == {"tier": 3}


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"id": 1}', b'{"time": "noon"}', b'{"data_base64": "*"}']
)
def test_a_broken_structured_event_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        event(body, content_type="application/cloudevents+json")


def test_a_plain_request_has_none_for_what_it_lacks() -> None:
    found = event(b"hi", content_type="text/plain", query="a=1&a=2&b=", path="/x y")
    assert (found.id, found.source, found.type, found.subject) == (None, None, None, None)
    assert (found.time, found.key, found.extensions, found.attempt) == (None, None, {}, 1)
    assert found.query == {"a": ["1", "2"], "b": [""]}
    assert found.query.raw == "a=1&a=2&b="
    assert found.path == "/x y"
    assert found.headers["Content-Type"] == "text/plain"


def test_items_are_the_attributes_and_the_names_that_kubeless_used() -> None:
    found = event(
        b"1", content_type="application/json", ce_id="7", ce_time="2026-01-01T00:00:00Z", ce_x="y"
    )
    assert found["data"] == found.data == 1
    assert found["event-id"] == "7"
    assert found["event-time"] == "2026-01-01T00:00:00+00:00"
    assert found["event-type"] is None
    assert found["extensions"] == {"x": "y"}
    assert found.get("nothing") is None
    assert "event-id" in found
    assert event(event_namespace="cli.kubeless.io")["event-namespace"] == "cli.kubeless.io"
    with pytest.raises(KeyError):
        found["nothing"]


@pytest.mark.parametrize(
    ("result", "status", "content_type", "body"),
    [
        (None, 204, None, b""),
        ("", 200, "text/plain; charset=utf-8", b""),
        ("é", 200, "text/plain; charset=utf-8", "é".encode()),
        (b"\xff", 200, "application/octet-stream", b"\xff"),
        (bytearray(b"x"), 200, "application/octet-stream", b"x"),
        ({"é": [1, None]}, 200, "application/json", '{"é":[1,null]}'.encode()),
        ([], 200, "application/json", b"[]"),
        (0, 200, "application/json", b"0"),
        (1.5, 200, "application/json", b"1.5"),
        (False, 200, "application/json", b"false"),
        ((201, {"a": 1}), 201, "application/json", b'{"a":1}'),
        ((404, None), 404, None, b""),
        ((200, "<p>", {"Content-Type": "text/html"}), 200, "text/html", b"<p>"),
        ((302, None, [("Location", "/x")]), 302, None, b""),
    ],
)
def test_what_a_handler_returns_is_its_answer(
    result: Any, status: int, content_type: str | None, body: bytes
) -> None:
    answer = encode(result)
    assert (answer.status, answer.body) == (status, body)
    said = dict(answer.headers).get(b"content-type")
    assert said == (content_type.encode() if content_type else None)


@pytest.mark.parametrize(
    "result",
    [
        object(),
        {"at": datetime(2026, 1, 1, tzinfo=UTC)},
        {1, 2},
        float("nan"),
        "\ud800",
        (200,),
        (True, ""),
        ("200", ""),
        (99, ""),
        (600, ""),
        (200, object()),
        (200, "", {"x": "a\r\nset-cookie: b"}),
        (200, "", {"a b": "c"}),
        (200, "", {"x": "€"}),
    ],
)
def test_what_cannot_be_an_answer_is_an_error(result: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(result)


def test_fields_that_belong_to_the_connection_are_not_the_functions_to_set() -> None:
    headers = {"Content-Length": "7", "Transfer-Encoding": "chunked", "X-A": "1"}
    assert encode((200, b"x", headers)).headers == (
        (b"x-a", b"1"),
        (b"content-type", b"application/octet-stream"),
    )


def test_a_module_named_like_one_of_pythons_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def handle(event, context): ...")
    with pytest.raises(LoadError, match="rename"):
        load(tmp_path, "json.handle")


async def test_a_request_becomes_a_call_and_its_result_the_answer(tmp_path: Path) -> None:
    source = """
        def handle(event, context):
            if event.path == "/echo":
                return 201, event.body, {"x-type": event.datacontenttype or ""}
            return {
                "data": event.data, "path": event.path, "query": event.query,
                "method": event.method, "id": event.id, "trace": context.trace,
                "function": [context.namespace, context["function-name"], context.timeout],
                "left": (context.deadline - __import__("datetime").datetime.now(
                    __import__("datetime").UTC)).total_seconds() > 5,
            }
    """
    async with serve(tmp_path, source, "--path", "/shop/handle") as function:
        answer = await function.call(
            b"[1]",
            method="PUT",
            path="/shop/handle/a%20b?q=1",
            headers={"content-type": "application/json", "ce-id": "7", "traceparent": "00-a"},
        )
        assert json.loads(answer.body) == {
            "data": [1],
            "path": "/a b",
            "query": {"q": ["1"]},
            "method": "PUT",
            "id": "7",
            "trace": "00-a",
            "function": ["shop", "handle", 30.0],
            "left": True,
        }
        huge = os.urandom(1 << 20) * 20
        echoed = await function.call(huge, path="/shop/handle/echo")
        assert (echoed.status, echoed.body) == (201, huge)
        head = await function.call(None, method="HEAD", path="/shop/handle")
        assert (head.status, head.body) == (200, b"")
        stranger = await function.call(b"", path="/shop/handle-other")
        assert stranger.status == 503, "a port that now is another function's is an outage"
        assert (await function.call(b"", path="/")).status == 503
        health = await function.call(None, method="GET", path="/_triggerhub/healthz")
        assert (health.status, health.body) == (200, b"OK")
        assert (await function.call(path="/_triggerhub/else")).status == 404
        wrong = await function.call(
            b"{", path="/shop/handle", headers={"content-type": "application/json"}
        )
        assert wrong.status == 400
        assert b"JSONDecodeError" in wrong.body


async def test_an_error_is_a_500_with_one_line_and_the_traceback_on_stderr(tmp_path: Path) -> None:
    source = """
        import sys
        def handle(event, context):
            match event.data:
                case "raise": raise ValueError("no such\\norder")
                case "exit": sys.exit(3)
                case "interrupt": raise KeyboardInterrupt
                case "odd": return object()
                case "status": return 503, "later"
                case "later": return later()
            return "fine"
        async def later(): ...
    """
    with structlog.testing.capture_logs() as logs:
        async with serve(tmp_path, source) as function:
            text = {"content-type": "text/plain"}
            for said, body in (
                (b"raise", b"ValueError: no such order"),
                (b"exit", b"SystemExit: 3"),
                (b"interrupt", b"KeyboardInterrupt"),
                (b"odd", b"TypeError: Object of type object is not JSON serializable"),
                (b"later", b"TypeError: coroutine was returned: declare the handler async def"),
            ):
                answer = await function.call(said, headers=text)
                assert (answer.status, answer.body) == (500, body)
            assert (await function.call(b"status", headers=text)).status == 503
            assert (await function.call(b"", headers=text)).body == b"fine"
            metrics = await function.call(None, method="GET", path="/_triggerhub/metrics")
    lines = [entry["line"] for entry in logs if entry["event"] == "function.output"]
    assert any(line.startswith("Traceback") for line in lines)
    assert not any("runtime.py" in line and "_run" in line for line in lines)
    families = {f.name: f for f in text_string_to_metric_families(metrics.body.decode())}
    labels = {"namespace": "shop", "function": "handle", "method": "POST"}
    assert families["function_calls"].samples[0].value == 7
    assert families["function_calls"].samples[0].labels == labels
    assert families["function_failures"].samples[0].value == 6
    counts = [s for s in families["function_duration_seconds"].samples if s.name.endswith("_count")]
    assert counts[0].value == 7


async def test_an_async_handler_is_cancelled_at_its_time_limit(tmp_path: Path) -> None:
    source = """
        import asyncio
        cancelled = 0
        async def handle(event, context):
            global cancelled
            if event.path == "/count":
                return cancelled
            if event.path == "/exit":
                raise SystemExit(1)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                raise
    """
    async with serve(tmp_path, source, "--timeout", "0.3") as function:
        late = await function.call()
        assert (late.status, late.body) == (408, b"no result within the time limit of 0.3 s")
        assert (await function.call(path="/count")).body == b"1"
        assert (await function.call(path="/exit")).status == 500
        metrics = await function.call(None, method="GET", path="/_triggerhub/metrics")
        assert b'function_failures_total{namespace="shop",function="handle",method="POST"} 2' in (
            metrics.body
        )


async def test_a_plain_call_past_its_limit_keeps_its_slot_until_it_ends(tmp_path: Path) -> None:
    source = """
        import pathlib, time
        def handle(event, context):
            if event.path == "/slow":
                while not pathlib.Path("go").exists():
                    time.sleep(0.01)
            return "done"
    """
    options = ("--timeout", "0.5", "--concurrency", "2")
    async with serve(tmp_path, source, *options) as function:
        assert (await function.call(path="/slow")).status == 408
        assert (await function.call()).body == b"done"
        (tmp_path / "go").touch()
        assert (await function.call(path="/slow")).body == b"done"


async def test_when_every_slot_is_stuck_the_process_ends_and_says_why(tmp_path: Path) -> None:
    source = """
        def handle(event, context):
            while True: pass
    """
    options = ("--timeout", "0.3", "--concurrency", "2")
    async with serve(tmp_path, source, *options) as function:
        async with asyncio.TaskGroup() as calls:
            answers = [calls.create_task(function.call()) for _ in range(2)]
        assert [answer.result().status for answer in answers] == [408, 408]
        ending = await asyncio.wait_for(function.child.ended(), 10)
        assert ending == (
            "exit code 75: all 2 calls at once are past 0.3 s; exiting, to be started again"
        ) or ending.startswith("exit code 75: no result within")


async def test_a_blocked_event_loop_ends_the_process_and_says_where(tmp_path: Path) -> None:
    source = """
        import time
        async def handle(event, context):
            time.sleep(60)
    """
    options = ("--timeout", "1", "--stall", "1")
    with structlog.testing.capture_logs() as logs:
        async with serve(tmp_path, source, *options) as function:
            with pytest.raises((OSError, http.client.HTTPException)):
                await function.call()
            ending = await asyncio.wait_for(function.child.ended(), 10)
    assert ending == "exit code 1: Timeout (0:00:02)!"
    lines = [entry["line"] for entry in logs if entry["event"] == "function.output"]
    assert any('main.py", line 4 in handle' in line for line in lines)


@pytest.mark.parametrize(
    ("definition", "pause"),
    [("def", "time.sleep(0.05)"), ("async def", "await asyncio.sleep(0.05)")],
)
async def test_more_calls_than_slots_wait_for_their_turn(
    tmp_path: Path, definition: str, pause: str
) -> None:
    source = f"""
        import asyncio, threading, time
        running, most, lock = 0, 0, threading.Lock()
        {definition} handle(event, context):
            global running, most
            with lock:
                running += 1
                most = max(most, running)
            {pause}
            with lock:
                running -= 1
            return most
    """
    async with serve(tmp_path, source, "--concurrency", "3") as function:
        async with asyncio.TaskGroup() as calls:
            answers = [calls.create_task(function.call()) for _ in range(12)]
        assert {answer.result().status for answer in answers} == {200}
        assert max(int(answer.result().body) for answer in answers) == 3


async def test_a_call_that_finds_no_slot_within_the_time_limit_finds_the_function_away(
    tmp_path: Path,
) -> None:
    source = """
        import asyncio
        async def handle(event, context):
            await asyncio.sleep(60)
    """
    options = ("--timeout", "0.5", "--concurrency", "1")
    async with serve(tmp_path, source, *options) as function:
        async with asyncio.TaskGroup() as calls:
            tasks = [calls.create_task(function.call()) for _ in range(4)]
        answers = [task.result() for task in tasks]
        assert {answer.status for answer in answers} == {408, 503}
        away = next(answer for answer in answers if answer.status == 503)
        assert away.headers["retry-after"] == "1"


async def test_a_call_whose_caller_left_before_its_turn_is_not_made(tmp_path: Path) -> None:
    source = """
        import pathlib, time
        def handle(event, context):
            with pathlib.Path("called").open("a") as called:
                called.write(event.path)
            while not pathlib.Path("go").exists():
                time.sleep(0.01)
    """
    async with serve(tmp_path, source, "--concurrency", "1") as function:
        async with asyncio.TaskGroup() as calls:
            calls.create_task(function.call(path="/first"))
            await until((tmp_path / "called").exists)
            _, writer = await asyncio.open_connection("127.0.0.1", function.port)
            writer.write(b"POST /gone HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            # Served in the order of arrival: this answer shows that the one before was read.
            await function.call(None, method="GET", path="/_triggerhub/healthz")
            writer.close()
            await function.call(None, method="GET", path="/_triggerhub/healthz")
            calls.create_task(function.call(path="/next"))
            (tmp_path / "go").touch()
        await function.call(path="/last")
        assert "gone" not in (tmp_path / "called").read_text()


async def test_a_body_over_the_limit_is_413_and_the_connection_goes_on(tmp_path: Path) -> None:
    source = "def handle(event, context): return len(event.body)"
    async with serve(tmp_path, source, "--max-body", "1000000") as function:
        assert (await function.call(bytes(1_000_000))).body == b"1000000"
        assert (await function.call(bytes(80_000_000))).status == 413
        status = Path(f"/proc/{function.child.pid}/status")
        if status.exists():
            peak = next(line for line in status.read_text().splitlines() if "VmHWM" in line)
            assert int(peak.split()[1]) < 60_000, "what is too long is not kept"
        assert (await function.call(bytes(5))).body == b"5"


async def test_sigterm_lets_calls_end_and_exits_with_0(tmp_path: Path) -> None:
    source = """
        import pathlib, time
        def handle(event, context):
            pathlib.Path("called").touch()
            time.sleep(0.5)
            return "done"
    """
    async with serve(tmp_path, source) as function:
        call = asyncio.create_task(function.call())
        await until((tmp_path / "called").exists)
        os.kill(function.child.pid, signal.SIGTERM)
        assert (await call).body == b"done"
        assert await asyncio.wait_for(function.child.ended(), 5) == "exit code 0"
        with pytest.raises(OSError, match="refused"):
            await function.call()


async def test_a_process_that_hangs_in_its_end_still_goes_with_its_parent(tmp_path: Path) -> None:
    source = """
        import asyncio, pathlib, threading, time
        loop = None
        def linger():
            while loop is None or not loop.is_closed():
                time.sleep(0.01)
            pathlib.Path("closed").touch()
            threading.Event().wait()
        threading.Thread(target=linger).start()
        async def handle(event, context):
            global loop
            loop = asyncio.get_running_loop()
    """
    async with serve(tmp_path, source) as function:
        child = function.child
        await function.call()
        os.kill(child.pid, signal.SIGTERM)
        await until((tmp_path / "closed").exists)
        os.close(child._alive)
        child._alive = -1
        assert (await asyncio.wait_for(child.ended(), 10)).startswith("exit code 1")


async def test_a_function_finds_its_files_and_nothing_on_stdin(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text("[7]")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "rates.py").write_text(
        "import json\nRATES = json.load(open('rates.json'))"
    )
    source = """
        import sys
        from shop.rates import RATES
        def handle(event, context):
            return [RATES, sys.stdin.read(), "triggerhub" in sys.modules]
    """
    async with serve(tmp_path, source) as function:
        assert (await function.call()).body == b'[[7],"",false]'


async def test_the_start_is_quick_and_the_process_small(tmp_path: Path) -> None:
    began = time.monotonic()
    async with serve(tmp_path, "def handle(event, context): ...") as function:
        seconds = time.monotonic() - began
        assert seconds < 5, "0.2 to 0.4 s where nothing else runs"
        assert (await function.call()).status == 204
        status = Path(f"/proc/{function.child.pid}/status")
        if status.exists():
            rss = next(line for line in status.read_text().splitlines() if "VmRSS" in line)
            assert int(rss.split()[1]) < 40_000


def test_the_runtime_names_no_module_of_the_hub() -> None:
    source = Path(runtime.__file__).read_text()
    assert "import triggerhub" not in source
    assert "from triggerhub" not in source
