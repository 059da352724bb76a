"""Processes, with real children."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import structlog

from tests.functions.served import Answer, call, until
from triggerhub.functions.code import Code
from triggerhub.functions.processes import Processes
from triggerhub.functions.version import FunctionState

KEY = ("shop", "handle")
KEY_PATH = "/shop/handle"


def code(source: str, **more: object) -> Code:
    main = textwrap.dedent(source).encode()
    return Code(handler="main.handle", files={"main.py": main}, **more)  # type: ignore[arg-type]


ECHO = code("def handle(event, context): return event.body")
PID = code("import os\ndef handle(event, context): return os.getpid()")


@asynccontextmanager
async def running(folder: Path, *functions: Code) -> AsyncIterator[Processes]:
    async with Processes(folder, changed=lambda: None, grace=5.0) as processes:
        if functions:
            processes.converge(dict.fromkeys([KEY], functions[0]))
        yield processes


async def reached(processes: Processes, reason: str, seconds: float = 20.0) -> FunctionState:
    await until(lambda: processes.state(*KEY).reason == reason, seconds)
    return processes.state(*KEY)


async def ask(processes: Processes, body: bytes = b"", path: str = "") -> Answer:
    url = processes.state(*KEY).url
    assert url is not None
    parts = urlsplit(url)
    assert parts.port is not None
    return await call(parts.port, body, path=parts.path + path)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has reaped yet has ended all the same.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_wanted_function_runs_and_a_vanished_one_is_stopped(tmp_path: Path) -> None:
    async with running(tmp_path) as processes:
        assert processes.state(*KEY) == FunctionState(None, "Starting", "not started yet")
        processes.converge({KEY: PID})
        assert processes.state(*KEY).reason == "Starting"
        state = await reached(processes, "Ready")
        assert state.url is not None
        assert state.url.startswith("http://127.0.0.1:")
        assert state.message == ""
        pid = int((await ask(processes)).body)
        processes.converge({KEY: PID})
        processes.converge({})
        assert processes.state(*KEY).url is None
        await until(lambda: not alive(pid))


async def test_changed_is_called_for_every_new_state(tmp_path: Path) -> None:
    seen: list[str] = []
    async with Processes(
        tmp_path, changed=lambda: seen.append(processes.state(*KEY).reason)
    ) as processes:
        processes.converge({KEY: ECHO})
        await reached(processes, "Ready")
    assert seen[0] == "Starting"
    assert seen[-1] == "Ready"


async def test_leaving_lets_calls_end_and_leaves_nothing_behind(tmp_path: Path) -> None:
    slow = code(
        """
        import os, pathlib, time
        def handle(event, context):
            pathlib.Path(event.data.decode()).write_text(str(os.getpid()))
            time.sleep(0.5)
            return "done"
        """
    )
    called = tmp_path / "called"
    async with running(tmp_path / "data", slow) as processes:
        await reached(processes, "Ready")
        under_way = asyncio.create_task(ask(processes, str(called).encode()))
        await until(lambda: called.exists() and called.read_text())
    assert (await under_way).body == b"done"
    assert not alive(int(called.read_text()))


async def test_a_child_that_ignores_sigterm_is_killed_with_what_it_started(tmp_path: Path) -> None:
    stubborn = code(
        """
        import subprocess, threading
        child = subprocess.Popen(["sleep", "300"])
        def handle(event, context):
            threading.Thread(target=threading.Event().wait).start()
            return child.pid
        """,
        timeout=0.1,
    )
    async with Processes(tmp_path, changed=lambda: None, grace=0.5) as processes:
        processes.converge({KEY: stubborn})
        await reached(processes, "Ready")
        grandchild = int((await ask(processes)).body)
        assert alive(grandchild)
    await until(lambda: not alive(grandchild))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def handle(event, context):\n  x = = 1", "main.py, line 2: SyntaxError: invalid syntax"),
        ("import nowhere", "main.py, line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("\nraise OSError('no db')", "main.py, line 2: OSError: no db"),
        ("import sys\nsys.exit(0)", "main.py, line 2: SystemExit: 0"),
        ("x = 1", "main.py: main has no handle, which the handler names"),
        ("handle = 1", "main.py: main.handle is int, expected a function"),
        (
            "\ndef handle(event): ...",
            "main.py, line 2: main.handle takes (event), expected (event, context)",
        ),
    ],
)
async def test_code_that_cannot_be_loaded_says_what_and_where(
    tmp_path: Path, source: str, message: str
) -> None:
    async with running(tmp_path, code(source)) as processes:
        state = await reached(processes, "CodeError")
        assert state.url is None
        assert state.message.startswith(message)


async def test_code_that_can_never_load_is_not_started_again(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, code("x = = 1")) as processes:
            await reached(processes, "CodeError")
            await until(lambda: not processes._running)
    said = [entry["line"] for entry in logs if entry["event"] == "function.output"]
    assert said.count("SyntaxError: invalid syntax") == 2, "the traceback and the summary, once"


async def test_what_fails_while_loading_is_tried_again(tmp_path: Path) -> None:
    there = tmp_path / "there"
    source = f"open({str(there)!r})\ndef handle(event, context): return 'up'"
    async with running(tmp_path, code(source)) as processes:
        await reached(processes, "CodeError")
        there.touch()
        await reached(processes, "Ready")
        assert (await ask(processes)).body == b"up"


async def test_a_file_outside_its_folder_is_a_code_error(tmp_path: Path) -> None:
    bad = Code(handler="main.handle", files={"../main.py": b""})
    async with running(tmp_path / "data", bad) as processes:
        assert "'../main.py'" in (await reached(processes, "CodeError")).message
    assert not (tmp_path / "main.py").exists()


async def test_the_old_version_serves_until_the_new_one_is_ready(tmp_path: Path) -> None:
    go = tmp_path / "go"
    new = code(
        f"""
        import pathlib, time
        while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)
        def handle(event, context): return "new"
        """
    )
    async with running(tmp_path / "data", PID) as processes:
        before = await reached(processes, "Ready")
        old = int((await ask(processes)).body)
        processes.converge({KEY: new})
        await until(lambda: "new version: loading" in processes.state(*KEY).message)
        assert processes.state(*KEY).url == before.url
        assert processes.state(*KEY).reason == "Ready"
        assert int((await ask(processes)).body) == old
        go.touch()
        await until(lambda: processes.state(*KEY).url != before.url)
        assert (await ask(processes)).body == b"new"
        moment = asyncio.get_running_loop().time() + 0.6
        while asyncio.get_running_loop().time() < moment:
            # Who holds the old address may still use it.
            assert before.url is not None
            assert (await call(urlsplit(before.url).port or 0, path=KEY_PATH)).status == 200
        await until(lambda: not alive(old))


async def test_no_call_is_lost_while_a_version_is_replaced(tmp_path: Path) -> None:
    versions = [
        code(f"import time\ndef handle(event, context):\n  time.sleep(0.02)\n  return {n}")
        for n in range(3)
    ]
    async with running(tmp_path, versions[0]) as processes:
        await reached(processes, "Ready")
        said: set[bytes] = set()
        ended = False

        async def keep_asking() -> None:
            while not ended:
                answer = await ask(processes)
                assert answer.status == 200
                said.add(answer.body)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(keep_asking())
            for n, version in enumerate(versions):
                processes.converge({KEY: version})
                await until(lambda n=n: str(n).encode() in said)  # type: ignore[misc]
            await asyncio.sleep(1.2)  # the old one's last moment falls into this
            ended = True


async def test_a_broken_replacement_keeps_the_old_version_serving(tmp_path: Path) -> None:
    async with running(tmp_path, PID) as processes:
        before = await reached(processes, "Ready")
        old = int((await ask(processes)).body)
        processes.converge({KEY: code("def handle(:")})
        state = await reached(processes, "CodeError")
        assert state.url == before.url
        assert state.message.startswith("main.py, line 1: SyntaxError")
        assert state.message.endswith("(the version before goes on serving)")
        os.kill(old, signal.SIGKILL)
        await until(lambda: processes.state(*KEY).url != before.url)
        assert int((await ask(processes)).body) != old, "it is also started again"
        processes.converge({KEY: PID})
        assert processes.state(*KEY).reason == "Ready"
        processes.converge({KEY: ECHO})
        await until(lambda: processes._functions[KEY].serving is processes._functions[KEY].wanted)
        assert (await ask(processes, b"new")).body == b"new"


async def test_a_killed_child_is_started_again_and_its_address_stays_meanwhile(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, PID) as processes:
        before = await reached(processes, "Ready")
        os.kill(int((await ask(processes)).body), signal.SIGKILL)
        down = await reached(processes, "Crashed")
        assert (down.url, down.message) == (before.url, "killed by SIGKILL")
        with pytest.raises(OSError, match="refused"):
            await ask(processes)
        assert (await reached(processes, "Ready")).url != before.url
        assert (await ask(processes)).status == 200


async def test_a_handler_that_ends_the_process_crashes_it_with_its_last_words(
    tmp_path: Path,
) -> None:
    source = """
        import os, sys
        def handle(event, context):
            print("disk full", file=sys.stderr)
            os._exit(7)
    """
    async with running(tmp_path, code(source)) as processes:
        await reached(processes, "Ready")
        with pytest.raises((OSError, http.client.HTTPException)):
            await ask(processes)
        assert (await reached(processes, "Crashed")).message == "exit code 7: disk full"
        await reached(processes, "Ready")


async def test_a_process_that_dies_while_loading_is_tried_again(tmp_path: Path) -> None:
    there = tmp_path / "there"
    source = f"""
        import os
        if not os.path.exists({str(there)!r}): os._exit(9)
        def handle(event, context): ...
    """
    async with running(tmp_path, code(source)) as processes:
        assert (await reached(processes, "Crashed")).message == "exit code 9"
        there.touch()
        await reached(processes, "Ready")


async def test_a_flood_of_output_neither_blocks_the_child_nor_fills_the_log(
    tmp_path: Path,
) -> None:
    source = """
        import sys
        def handle(event, context):
            match event.data:
                case b"lines": sys.stdout.write(("x" * 99 + "\\n") * 100_000)
                case b"one": sys.stdout.write("y" * 10_000_000 + "\\n")
                case b"bad": sys.stdout.buffer.write(b"caf\\xe9\\n"); sys.stdout.flush()
            return "done"
    """
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path, code(source)) as processes:
            await reached(processes, "Ready")
            for said in (b"one", b"bad", b"lines"):
                assert (await ask(processes, said)).body == b"done"
    output = [entry for entry in logs if entry["event"] == "function.output"]
    assert all(entry["function"] == "shop/handle" for entry in output)
    lines = [entry["line"] for entry in output if entry["stream"] == "stdout"]
    assert lines[0] == "y" * 8192 + "…"
    assert lines[1] == "caf\N{REPLACEMENT CHARACTER}"
    assert 1000 <= len(lines) < 10_000
    dropped = sum(e["lines"] for e in logs if e["event"] == "function.output_dropped")
    assert len(lines) + dropped == 2 + 100_000


async def test_a_process_that_the_function_started_does_not_hold_up_the_end(
    tmp_path: Path,
) -> None:
    source = """
        import os, subprocess
        child = subprocess.Popen(["sleep", "300"])
        def handle(event, context):
            if event.data == b"pid": return child.pid
            os._exit(3)
    """
    async with running(tmp_path, code(source)) as processes:
        await reached(processes, "Ready")
        grandchild = int((await ask(processes, b"pid")).body)
        try:
            with contextlib.suppress(OSError, http.client.HTTPException):
                await ask(processes)
            assert (await reached(processes, "Crashed", 5)).message == "exit code 3"
        finally:
            os.kill(grandchild, signal.SIGKILL)
        await reached(processes, "Ready")
        second = int((await ask(processes, b"pid")).body)
    os.kill(second, signal.SIGKILL)


async def test_environment_variables_are_the_functions_own_and_not_the_hubs_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIGGERHUB_KAFKA_PASSWORD", "secret")
    monkeypatch.setenv("TIER", "hub")
    source = """
        import code, os
        assert code.InteractiveConsole, "Python's own module, not one that lies beside the runtime"
        def handle(event, context):
            return [os.environ["TIER"], os.environ.get("TRIGGERHUB_KAFKA_PASSWORD")]
    """
    async with running(tmp_path, code(source, env={"TIER": "gold"})) as processes:
        await reached(processes, "Ready")
        assert (await ask(processes)).body == b'["gold",null]'


async def test_metrics_of_all_children_are_one_set_of_families(tmp_path: Path) -> None:
    async with running(tmp_path) as processes:
        assert await processes.metrics() == []
        both = {KEY: ECHO, ("shop", "other"): PID, ("shop", "broken"): code("x")}
        processes.converge(both)
        await reached(processes, "Ready")
        await until(lambda: processes.state("shop", "other").reason == "Ready")
        await ask(processes)
        families = {family.name: family for family in await processes.metrics()}
        assert sorted(families) == [
            "function_calls",
            "function_duration_seconds",
            "function_failures",
        ]
        calls = {s.labels["function"]: s.value for s in families["function_calls"].samples}
        assert calls == {"handle": 1}


async def test_when_the_hub_is_killed_its_children_end(tmp_path: Path) -> None:
    hub = """
        import asyncio, sys
        from pathlib import Path
        from triggerhub.functions.code import Code
        from triggerhub.functions.processes import Processes

        async def main(folder):
            plain = b"import os, pathlib\\n"
            plain += b"pathlib.Path(os.environ['PIDS'], str(os.getpid())).touch()\\n"
            plain += b"def handle(event, context): ..."
            async with Processes(folder, changed=lambda: None) as processes:
                processes.converge({("shop", "plain"): Code(
                    handler="main.handle", files={"main.py": plain})})
                await asyncio.sleep(3600)

        asyncio.run(main(Path(sys.argv[1])))
    """
    pids = tmp_path / "pids"
    pids.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(hub), str(tmp_path / "data")],
        env={**os.environ, "PIDS": str(pids), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
    )
    try:
        await until(lambda: list(pids.iterdir()))
        (child,) = [int(path.name) for path in pids.iterdir()]
        assert alive(child)
    finally:
        process.kill()
        process.wait()
    await until(lambda: not alive(child), 10)
