from __future__ import annotations

import asyncio
import io
import os
import pty
import signal
import sys
from collections import deque
from pathlib import Path

import pytest
from rich.console import Console

from tests.admin.smallhub import SmallHub, status
from triggerhub.cli.live import Line, frame
from triggerhub.control.faults import Fault
from triggerhub.control.resources import Snapshot
from triggerhub.control.status import Condition, State
from triggerhub.event import Event
from triggerhub.settings import Settings

SETTINGS = Settings(paths=(Path("manifests"),))


def drawn(hub: SmallHub, width: int, height: int, lines: deque[Line] | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(frame(hub.view, SETTINGS, lines or deque(), width, height))
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue().splitlines()


def crowd(hub: SmallHub, number: int) -> None:
    for index in range(number):
        ready = Condition(
            "Ready", State.FALSE, "FunctionNotFound", f"function f{index} is not there"
        )
        hub.manifests.unbound.append(status("CronTrigger", "shop", f"t{index}", (), ready))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 12), (200, 60)])
@pytest.mark.parametrize("number", [0, 1, 300])
async def test_a_picture_fits_its_terminal(
    hub: SmallHub, width: int, height: int, number: int
) -> None:
    hub.bind()
    crowd(hub, number)
    faults = tuple(Fault("a.yaml", n, "", "spec.x" * 30, "unknown field") for n in range(1, 9))
    hub.manifests.snapshot = Snapshot(faults=faults)
    lines: deque[Line] = deque(
        {"level": "warning", "event": "listener.failed", "error": "e" * 300} for _ in range(50)
    )
    rows = drawn(hub, width, height, lines)
    assert len(rows) <= height
    assert max(len(row) for row in rows) <= width
    assert "Ctrl-C" in rows[-1]


async def test_many_bindings_show_the_troubled_and_the_busy_first(hub: SmallHub) -> None:
    for index in range(50):
        hub.bind(f"calm{index}")
    busy = hub.bind("busy")
    away = hub.bind("zzz-away")
    hub.sources.states[away].disconnected("BrokerUnreachable", "no broker answers")
    hub.view._sample()
    for index in range(5):
        await hub.dispatcher.dispatch(busy, Event(id=str(index), source="/s", type="t"))
    rows = drawn(hub, 100, 24)
    text = "\n".join(rows)
    assert text.index("zzz-away") < text.index("busy") < text.index("calm")
    assert "no broker answers" in text
    assert "more" in text


async def test_warnings_and_function_output_are_the_only_lines_shown(hub: SmallHub) -> None:
    lines: deque[Line] = deque(
        [
            {"level": "info", "event": "hub.started", "timestamp": "2026-01-01T00:00:00Z"},
            {"level": "warning", "event": "listener.failed", "binding": "a.b.c"},
            {"level": "info", "event": "function.output", "function": "x/y", "line": "hi\x1b[2J"},
        ]
    )
    text = "\n".join(drawn(hub, 100, 30, lines))
    assert "hub.started" not in text
    assert "listener.failed" in text
    assert "x/y: hi" in text
    assert "\x1b" not in text


async def test_on_a_terminal_a_hub_draws_and_leaves_the_screen_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    master, slave = pty.openpty()
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "triggerhub", "run", "-f", "m", "--admin", "127.0.0.1:0",
        "--listen", "127.0.0.1:0",
        stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join((str(root), str(root / "connectors"))),
            "TERM": "xterm-256color",
        },
    )  # fmt: skip
    os.close(slave)
    seen = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            seen.extend(os.read(master, 65536))
        except OSError:
            loop.remove_reader(master)

    loop.add_reader(master, read)
    try:
        async with asyncio.timeout(20):
            while b"no triggers yet" not in seen:
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
            while b"\x1b[?1049l" not in seen:
                await asyncio.sleep(0.02)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(master)
        os.close(master)
    after = seen[seen.rindex(b"\x1b[?1049l") :]
    assert b"TRIGGER" not in after
    assert b"Traceback" not in seen
