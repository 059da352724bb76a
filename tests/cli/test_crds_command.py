"""`triggerhub crds`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.cli.terminal import run
from triggerhub.control.crds import crd
from triggerhub.control.plugins import installed_kinds

ALL = ["Function", *installed_kinds()]


async def test_every_installed_kind_is_printed_as_yaml() -> None:
    ran = await run("crds")
    assert ran.code == 0
    found = list(yaml.safe_load_all(ran.out))
    assert [one["spec"]["names"]["kind"] for one in found] == ALL
    assert found == [crd(kind, installed_kinds()) for kind in ALL]


async def test_the_kinds_that_are_named_are_printed() -> None:
    ran = await run("crds", "KafkaTrigger", "Function", "-o", "json")
    assert ran.json["kind"] == "List"
    names = [one["spec"]["names"]["kind"] for one in ran.json["items"]]
    assert names == ["KafkaTrigger", "Function"]


async def test_an_unknown_kind_is_one_sentence_with_the_nearest() -> None:
    ran = await run("crds", "kafkatriger")
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err == (
        "triggerhub: no kind 'kafkatriger' is installed here (did you mean KafkaTrigger?)\n"
    )


async def test_a_folder_gets_a_file_a_kind(tmp_path: Path) -> None:
    ran = await run("crds", "-d", str(tmp_path))
    assert (ran.code, ran.out) == (0, "")
    files = {path.name: yaml.safe_load(path.read_text()) for path in tmp_path.iterdir()}
    assert files == {f"{kind.lower()}s.yaml": crd(kind, installed_kinds()) for kind in ALL}
    ran = await run("crds", "-d", str(tmp_path / "none"))
    assert ran.code == 1
    assert "none" in ran.err
    assert ran.err.count("\n") == 1


PLUGIN = """
from pydantic import BaseModel
class Source(BaseModel):
    queue: str
class Connector:
    kind = "QueueTrigger"
    source = Source
"""


@pytest.mark.parametrize("works", [True, False])
async def test_a_plugins_kind_is_one_of_them(tmp_path: Path, works: bool) -> None:
    info = tmp_path / "queue-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: queue\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[triggerhub.connectors]\nQueueTrigger = crds_queue:Connector [client]\n"
    )
    (tmp_path / "crds_queue.py").write_text(PLUGIN if works else "import no_such_client\n")
    root = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (root, root / "connectors", tmp_path)))
    named = await run("crds", "QueueTrigger", env={"PYTHONPATH": path})
    all_ = await run("crds", env={"PYTHONPATH": path})
    if works:
        assert yaml.safe_load(named.out)["metadata"]["name"] == "queuetriggers.triggerhub.dev"
        assert "queuetriggers" in all_.out
    else:
        needs = "QueueTrigger needs: pip install 'queue[client]'\n"
        assert (named.code, named.out, named.err) == (1, "", f"triggerhub: {needs}")
        assert (all_.code, all_.err) == (0, f"triggerhub: left out: {needs}")
        assert "queuetriggers" not in all_.out
        assert "kafkatriggers" in all_.out
