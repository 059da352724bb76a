"""One process of a hub acts, and the next when that ends."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from triggerhub.store.turn import Turn, reset_turn

_ACT = """
import asyncio, sys
from pathlib import Path
from triggerhub.store.turn import Turn

async def act():
    turn = Turn(Path(sys.argv[1]))
    turn.stand()
    print(await turn.turn(), flush=True)
    await asyncio.Event().wait()

asyncio.run(act())
"""


@contextmanager
def another(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the turn."""
    with subprocess.Popen(
        [sys.executable, "-c", _ACT, directory], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def said(process: subprocess.Popen[str]) -> float:
    """What its turn brought, once it has it."""
    assert process.stdout is not None
    return float(await asyncio.to_thread(process.stdout.readline))


async def since_of(directory: Path) -> float:
    async with asyncio.timeout(10):
        turn = Turn(directory)
        turn.stand()
        await turn.own()
        return await turn.turn()


async def test_the_first_acts_from_now_on(tmp_path: Path) -> None:
    reset_turn(tmp_path)
    assert await since_of(tmp_path) == math.inf


async def test_the_next_acts_when_the_one_before_is_killed_and_since_the_first_did(
    tmp_path: Path,
) -> None:
    reset_turn(tmp_path)
    began = time.time()
    with another(tmp_path) as first:
        assert await said(first) == math.inf
        taken = time.time()
        with another(tmp_path) as second:
            saying = asyncio.create_task(said(second))
            await asyncio.wait([saying], timeout=0.5)
            assert not saying.done()
            first.kill()
            since = [await saying]
            second.kill()
            since.append(await since_of(tmp_path))
    assert began <= since[0] == since[1] <= taken


async def test_one_that_had_the_turn_before_the_hub_began_does_not_count(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        await said(process)
    reset_turn(tmp_path)
    assert await since_of(tmp_path) == math.inf


@pytest.mark.looptime(start=0)
async def test_who_comes_long_after_the_turn_was_taken_begins_now(tmp_path: Path) -> None:
    reset_turn(tmp_path)
    (tmp_path / "turn.lock").write_text("1 7.5\n")
    turn = Turn(tmp_path)
    turn.stand()
    assert await turn.turn() == 7.5
    await asyncio.sleep(61)
    assert await turn.turn() == math.inf
