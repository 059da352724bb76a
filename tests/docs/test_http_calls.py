"""The calls that docs/http.md tells to type are let in by the triggers beside them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.markdown import Block, blocks
from triggerhub.connector import Installation
from triggerhub.control.plugins import installed_kinds
from triggerhub.control.references import resolve
from triggerhub.control.resources import Snapshot
from triggerhub.control.sources.files import FolderSource
from triggerhub.event import Outcome, Reply, Settled
from triggerhub.testing.fakes import RecordingReport, ScriptedEmit, subscription
from triggerhub_http import HTTPConnector, HTTPSource

PAGE = "docs/http.md"
ADDRESS = "127.0.0.1:8080"


def calls() -> list[Block]:
    return [block for block in blocks("sh") if block.page == PAGE and block.mark[0] == "calls"]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("http")
    text = "\n---\n".join(b.text for b in blocks("yaml") if b.page == PAGE)
    (folder / "all.yaml").write_text(text)
    made = FolderSource([folder], installed_kinds()).load()
    assert not made.faults
    return made


class Echo(ScriptedEmit):
    async def __call__(self, event: object) -> Outcome:
        return Outcome(Settled.ACCEPTED, Reply(200, (), b"from the function"))


async def said(script: str, folder: Path) -> str:
    """What it prints."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.mark.parametrize("block", calls(), ids=lambda block: block.mark[1])
async def test_what_is_to_be_typed_is_let_in(
    block: Block, snapshot: Snapshot, tmp_path: Path
) -> None:
    path = block.mark[1]
    (trigger,) = (
        one for one in snapshot.triggers
        if isinstance(one.source, HTTPSource) and one.source.path == path
    )  # fmt: skip
    source = trigger.source
    assert isinstance(source, HTTPSource)
    values, missing = resolve(source, trigger.namespace, snapshot, {})
    assert not missing
    report = RecordingReport()
    given = subscription(source, emit=Echo(), values=values, report=report)
    connector = HTTPConnector(Installation(listen="127.0.0.1:0"))
    async with connector, asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(connector.listen(given))
        async with asyncio.timeout(30):
            while not report.is_connected:
                await asyncio.sleep(0.005)
        address = f"127.0.0.1:{connector.port}"
        assert ADDRESS in block.text
        answer = await said(block.text.replace(ADDRESS, address), tmp_path)
        assert answer.startswith("HTTP/1.1 200 OK"), answer
        assert "from the function" in answer
        assert not report.turned
        bare = await said(f"curl -si http://{address}{path} -d x", tmp_path)
        assert bare.split()[1] in ("401", "403")
        listening.cancel()


async def test_the_line_of_a_token_is_made_by_the_command_beside_it(tmp_path: Path) -> None:
    (block,) = (b for b in blocks("sh") if b.page == PAGE and "sha256:$(" in b.text)
    name, hashed = (await said(block.text, tmp_path)).split()
    assert name == "ci"
    assert len(hashed.removeprefix("sha256:")) == 64
