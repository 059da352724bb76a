"""The first trigger of README.md, typed on a real hub."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cli.terminal import Ran, run
from tests.markdown import ROOT, blocks, commands, pages


@dataclass
class Hub:
    folder: Path
    admin: str = ""

    async def type(self, line: str) -> Ran:
        """A command as the README has it."""
        words = shlex.split(line, comments=True)
        return await run(*words[1:], env={"TRIGGERHUB_ADMIN": self.admin})

    async def get(self, path: str) -> str:
        """What the admin API answers; empty while it says 503."""

        def ask() -> str:
            try:
                with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as error:
                error.close()
                return ""

        return await asyncio.to_thread(ask)

    async def until(self, path: str, holds: Callable[[str], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds(await self.get(path)):
                await asyncio.sleep(0.05)

    async def url(self) -> str:
        functions = json.loads(await self.get("/v1/functions"))["functions"]
        return str(functions[0]["url"])


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Hub]:
    """A hub on ``folder``/mine, stopped by SIGTERM at the end."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "connectors")))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "triggerhub", "run", "-f", "mine/", "--plain",
        "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0",
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        cwd=folder, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    hub = Hub(folder)
    said = asyncio.Event()
    log: list[str] = []

    async def read() -> None:
        assert process.stderr is not None
        async for raw in process.stderr:
            log.append(raw.decode())
            if found := re.search(r"http://(\S+?)\"", log[-1]):
                hub.admin = found[1]
                said.set()

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            async with asyncio.timeout(20):
                await said.wait()
            await hub.until("/readyz", bool)
            yield hub
            process.terminate()
            async with asyncio.timeout(20):
                assert await process.wait() == 0, log
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_first_trigger_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    (manifest,) = [b for b in blocks("yaml") if b.page == "README.md"]
    file = tmp_path / manifest.mark[1]
    file.parent.mkdir()
    file.write_text(manifest.text)
    typed = [line for b in blocks("console") if b.page == "README.md" for line in commands(b)]
    assert typed.pop(0) == "triggerhub validate -f mine/"
    assert (await run("validate", "-f", str(file.parent))).code == 0
    assert typed.pop(0) == "triggerhub run -f mine/"

    async with running(tmp_path) as hub:
        assert "send-report" in (await hub.type(typed.pop(0))).out

        good, bad = await hub.type(typed.pop(0)), await hub.type(typed.pop(0))
        assert (good.code, "accepted with 200" in good.out) == (0, True)
        assert (bad.code, "attempt 3: status 500" in bad.out) == (1, True)
        found = re.search(r"Event (\w+) from", bad.out)
        assert found

        story = await hub.type(typed.pop(0).replace("ID", found[1]))
        assert "dead letter: AttemptsExhausted after 3 attempts" in story.out
        assert "AttemptsExhausted" in (await hub.type(typed.pop(0))).out

        (mended,) = re.findall(r"`(event\.data\.get\S+)`", pages()["README.md"])
        before = await hub.url()
        file.write_text(file.read_text().replace("event.data['to']", mended))
        assert file.read_text() != manifest.text
        async with asyncio.timeout(20):
            while await hub.url() == before:
                await asyncio.sleep(0.05)

        redriven = await hub.type(typed.pop(0))
        assert (redriven.code, "1 accepted" in redriven.out) == (0, True)
        assert not typed

        told = set(re.findall(r"`(\w+)`", metrics_table()))
        seen = set(re.findall(r"^# TYPE (\S+)", await hub.get("/metrics"), re.MULTILINE))
        assert {name for name in seen if not name.startswith("process_")} == told


def metrics_table() -> str:
    """The first column of the documented metrics."""
    text = pages()["docs/operating.md"].partition("<!-- metrics -->")[2]
    table = text[: text.index("\n\n")]
    return "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))


def test_the_readme_fits_one_screen() -> None:
    assert len(pages()["README.md"].splitlines()) <= 85
    assert any(b.language == "text" and "──►" in b.text for b in blocks("text"))
