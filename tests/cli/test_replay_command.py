"""`triggerhub replay`, as it is typed."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.admin.smallhub import SmallHub, small_hub, until
from tests.cli.terminal import Ran, run
from triggerhub.settings import Settings
from triggerhub.testing.memory import MemoryLog


def log_of(hub: SmallHub, records: int = 10) -> None:
    log = hub.sources.logs["orders"] = MemoryLog("orders")
    for n in range(records):
        log.append(b"%d" % n, f"k{n % 3}")


async def replay(hub: SmallHub, *arguments: str) -> Ran:
    return await run("replay", *arguments, "--admin", hub.view.address)


async def test_a_replay_ends_with_a_sum(hub: SmallHub) -> None:
    hub.bind()
    log_of(hub)
    hub.function.status["3"] = 422
    ran = await replay(hub, "shop/orders", "--from", "2")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "8 events: 7 accepted, 1 dead\n"


async def test_as_json_each_line_is_a_document(hub: SmallHub) -> None:
    hub.bind()
    log_of(hub)
    ran = await replay(hub, "orders", "--from", "0", "--to", "4", "--rate", "4", "-o", "json")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert len(lines) >= 2
    assert [line["done"] for line in lines] == sorted(line["done"] for line in lines)
    assert lines[-1]["events"] == {"accepted": 4}
    assert lines[-1]["ended"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nope", "--from", "1h"), 1, "there is no trigger nope"),
        (("orders", "--from", "17.5"), 1, "found 17.5, expected an offset such as 17"),
        (("orders", "--from", "2030-01-01T00:00:00Z"), 1, "which is yet to come"),
        (("orders", "--from", "10"), 1, "nothing lies in that window"),
        (("orders", "--from", "0", "--rate", "-1"), 1, "rate: found -1.0"),
        (("orders", "--from", "0", "--function", "g"), 1, "not bound to function g, but to handle"),
    ],
)
async def test_what_cannot_be_is_one_sentence(
    hub: SmallHub, arguments: tuple[str, ...], code: int, says: str
) -> None:
    hub.bind()
    log_of(hub)
    ran = await replay(hub, *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert says in ran.err


def heeds_sigint() -> None:
    """What was started in the background ignores it, and so would a child."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_ctrl_c_ends_it_and_tells_the_command_that_goes_on(hub: SmallHub) -> None:
    hub.bind()
    log_of(hub, 300)
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "triggerhub", "replay", "orders", "--from", "0", "--rate", "10",
        "--admin", hub.view.address, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, cwd=root, preexec_fn=heeds_sigint,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(root), str(root / "connectors")))},
    )  # fmt: skip
    await until(lambda: len(hub.function.seen) >= 12, 20)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    said, _, command = err.decode().strip().partition("; go on with: ")
    assert said.startswith("triggerhub: stopped; ")
    words = shlex.split(command)
    assert words[:5] == ["triggerhub", "replay", "shop/orders", "--function", "handle"]
    await until(lambda: not hub.dispatcher.link("shop.orders.handle").tally.in_flight)
    reached = len(hub.function.seen)
    words[words.index("--rate") + 1] = "1000"
    ran = await run(*words[1:])
    assert ran.code == 0
    assert {event for event, _ in hub.function.seen} == {str(n) for n in range(300)}
    assert len(hub.function.seen) < 300 + reached


async def test_a_hub_that_stops_in_the_middle_tells_how_far_it_came(tmp_path: Path) -> None:
    async with small_hub(tmp_path, Settings(paths=(), admin="127.0.0.1:0")) as hub:
        hub.bind()
        log_of(hub, 100)
        replaying = asyncio.create_task(replay(hub, "orders", "--from", "0", "--rate", "20"))
        await until(lambda: len(hub.function.seen) >= 15, 20)
    ran = await replaying
    assert ran.code == 1
    assert ran.err.startswith("triggerhub: the hub stops; ")
    assert "--from " in ran.err
    assert "--to 100 --rate 20 --admin 127.0.0.1:" in ran.err
