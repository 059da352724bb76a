"""The example plugin is one, and keeps its promises."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.markdown import ROOT
from triggerhub.control.plugins import installed_kinds

_API = "apiVersion: triggerhub.dev/"


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example plugin can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "plugin"))


def test_the_example_plugin_comes_in_by_its_entry_point(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "examples/plugin/pyproject.toml").read_text())["project"]
    info = tmp_path / "triggerhub_spool-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    (group,) = project["entry-points"]
    lines = [f"{name} = {value}" for name, value in project["entry-points"][group].items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))
    kind = installed_kinds([str(tmp_path)])["SpoolTrigger"]
    assert (kind.distribution, kind.missing) == ("triggerhub-spool", "")
    assert kind.source is not None
    assert set(kind.source.model_fields) == {"folder", "every"}


async def test_the_example_plugin_passes_its_own_test(tmp_path: Path) -> None:
    module = importlib.import_module("test_spool")
    check: Callable[..., object] = module.test_the_spool_connector_keeps_the_contract_of_a_source
    try:
        await check(tmp_path)  # type: ignore[misc]
    finally:
        del sys.modules["test_spool"]
