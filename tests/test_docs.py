"""What the documents say is what the code does."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from tests.markdown import (
    ROOT,
    Block,
    blocks,
    commands,
    leaves,
    pages,
    prose,
    slugs,
)
from triggerhub.cli import app
from triggerhub.control.plugins import Kind, installed_kinds
from triggerhub.control.sources.files import FolderSource

_API = "apiVersion: triggerhub.dev/"
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NAMED = re.compile(r"`([^`]+)`")


def kinds() -> dict[str, Kind]:
    """The installed ones, and the example plugin's."""

    def load() -> object:
        return importlib.import_module("triggerhub_spool").SpoolConnector

    return {**installed_kinds(), "SpoolTrigger": Kind("SpoolTrigger", load)}


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example plugin can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "plugin"))


def manifests() -> list[Block]:
    return [b for b in blocks("yaml") if _API in b.text or "kind: Secret\n" in b.text]


@pytest.mark.parametrize("block", manifests(), ids=str)
def test_each_manifest_in_the_documents_is_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_text(block.text)
    snapshot = FolderSource([tmp_path], kinds()).load()
    assert not snapshot.faults, [str(fault) for fault in snapshot.faults]
    assert snapshot.triggers or snapshot.functions or snapshot.values


EXAMPLES = sorted({path.parent for path in ROOT.glob("examples/**/*.yaml")})


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_example_is_valid(folder: Path) -> None:
    snapshot = FolderSource([folder], kinds()).load()
    assert not snapshot.faults, [str(fault) for fault in snapshot.faults]
    assert snapshot.triggers


def hub_commands() -> list[str]:
    """Every `triggerhub …` that a document or example tells to type. In prose, the name of a
    command stands for itself."""
    bare = {"cron", "dlq", "inbox", *leaves(typer.main.get_command(app))}
    typed = {line for block in blocks("console", "sh") for line in commands(block)}
    for text in pages().values():
        named = (found for found in _NAMED.findall(prose(text)) if "…" not in found)
        typed |= {found for found in named if found.removeprefix("triggerhub ") not in bare}
    for path in ROOT.glob("examples/**/*.yaml"):
        typed |= {line.lstrip("# ") for line in path.read_text().splitlines() if line[:1] == "#"}
    return sorted(line for line in typed if line.startswith("triggerhub "))


@pytest.mark.parametrize("line", hub_commands())
def test_each_command_in_the_documents_can_be_typed(line: str) -> None:
    parse(shlex.split(line.partition("|")[0], comments=True))


def parse(words: list[str]) -> None:
    """Raises click's UsageError for what the command line does not take; runs nothing."""
    command = typer.main.get_command(app)
    context = command.make_context(words[0], words[1:] or ["--version"], resilient_parsing=False)
    while isinstance(command, TyperGroup) and (rest := [*context._protected_args, *context.args]):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        if not rest and isinstance(found, TyperGroup):
            return
        command, context = found, found.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", sorted(pages()))
def test_links_lead_somewhere(page: str) -> None:
    for target in _LINK.findall(prose(pages()[page])):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in slugs(there.read_text()), target


def test_what_is_included_from_a_file_is_that_file() -> None:
    included = [block for block in blocks("python", "toml", "yaml") if block.mark[0] == "file"]
    assert included
    for block in included:
        assert block.text == (ROOT / block.mark[1]).read_text(), str(block)


def plan() -> set[str]:
    """The modules and folders that the floor plan names."""
    (text,) = re.findall(
        r"## Floor plan\n\n```text\n(.*?)```", pages()["ARCHITECTURE.md"], re.DOTALL
    )
    found: set[str] = set()
    folders: list[str] = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"\s*((?:[\w/]+(?:\.py|/)(?:\s\s?(?=[\w/]+(?:\.py|/)))?)+)", line)
        assert names, line
        del folders[depth:]
        for name in names[1].split():
            found.add("".join([*folders, name]))
        folders.append(names[1].split()[0])
    return found


def test_the_floor_plan_names_exactly_what_is_there() -> None:
    there = {"docs/", "examples/", "tests/", "integration/", "bench/"}
    for root in ("triggerhub", "connectors"):
        there.add(f"{root}/")
        for path in (ROOT / root).rglob("*.py"):
            relative = str(path.relative_to(ROOT))
            if path.name == "__init__.py":
                there.add(relative.removesuffix("__init__.py"))
            else:
                there.add(relative)
    planned = plan()
    assert not planned - there, f"planned, and not there: {sorted(planned - there)}"
    assert not there - planned, f"there, and not in the plan: {sorted(there - planned)}"
