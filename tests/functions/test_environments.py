"""Environments, built with the real installer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest
import structlog

from triggerhub.functions.code import Code
from triggerhub.functions.environments import Environments, RequirementsError, find_uv
from triggerhub.functions.processes import Processes

SMALL = "iniconfig==2.1.0"


def reachable() -> bool:
    """Whether the installer finds the package, from a registry or its own cache."""
    uv = find_uv()
    if uv is None:
        return False
    command = [uv, "pip", "compile", "--quiet", "--no-header", "-"]
    try:
        return (
            subprocess.run(
                command, input=SMALL.encode(), timeout=60, capture_output=True
            ).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture(scope="module")
def registry() -> None:
    if not os.environ.get("CI") and not reachable():
        pytest.skip(f"uv cannot find {SMALL}: no package registry here")


async def test_requirements_are_installed_once_and_found_by_the_function(
    tmp_path: Path, registry: None
) -> None:
    source = b"""
import iniconfig, sys
def handle(event, context):
    return [sys.prefix, "triggerhub" in sys.modules]
"""
    code = Code(handler="main.handle", files={"main.py": source}, requirements=(SMALL,))
    told: list[tuple[str, str]] = []

    def changed() -> None:
        state = processes.state("shop", "a")
        told.append((state.reason, state.message))

    async def ready(name: str) -> None:
        async with asyncio.timeout(120):
            while processes.state("shop", name).reason != "Ready":
                await asyncio.sleep(0.02)

    with structlog.testing.capture_logs() as logs:
        async with Processes(tmp_path, changed=changed) as processes:
            processes.converge({("shop", "a"): code})
            await ready("a")
            processes.converge({("shop", "a"): code, ("shop", "b"): code})
            await ready("b")
    assert ("Installing", f"installing {SMALL} (0 s)") in told
    assert [e["event"] for e in logs if "install" in e["event"]] == [
        "function.install_started",
        "function.install_ended",
    ]
    (environment,) = (tmp_path / "venvs").iterdir()
    assert not environment.name.startswith("partial-")


async def test_of_processes_that_want_one_environment_one_builds_and_all_get_it(
    tmp_path: Path, registry: None
) -> None:
    venvs = tmp_path / "venvs"
    with structlog.testing.capture_logs() as log:
        async with asyncio.TaskGroup() as tasks:
            builds = [
                tasks.create_task(Environments(venvs, uv=find_uv()).python([SMALL], function="f"))
                for _ in range(3)
            ]
    pythons = {build.result() for build in builds}
    assert len(pythons) == 1
    assert [path.name for path in venvs.iterdir()] == [pythons.pop().parent.parent.name]
    assert [line["event"] for line in log].count("function.install_started") == 1


async def test_what_cannot_be_installed_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    environments = Environments(tmp_path / "venvs", uv=find_uv())
    with pytest.raises(RequirementsError, match="nowhere"):
        await environments.python(["thing @ file:///nowhere/thing.whl"], function="f")
    assert list((tmp_path / "venvs").iterdir()) == []


async def test_without_the_installer_the_message_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(RequirementsError, match=r"pip install 'triggerhub\[python\]'"):
        await Environments(tmp_path / "venvs", uv=None).python([SMALL], function="f")


async def test_a_cancelled_build_leaves_no_half_environment(tmp_path: Path) -> None:
    sleeper = tmp_path / "uv"
    sleeper.write_text("#!/bin/sh\nexec sleep 300\n")
    sleeper.chmod(0o755)
    venvs = tmp_path / "venvs"
    build = asyncio.create_task(Environments(venvs, uv=str(sleeper)).python([SMALL], function="f"))
    async with asyncio.timeout(10):
        while not venvs.exists() or not list(venvs.iterdir()):
            await asyncio.sleep(0.01)
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert list(venvs.iterdir()) == []


async def test_what_a_killed_hub_left_behind_is_swept_away(tmp_path: Path) -> None:
    venvs = tmp_path / "venvs"
    old, new = venvs / "partial-old", venvs / "partial-new"
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    with pytest.raises(RequirementsError):
        await Environments(venvs, uv="/bin/false").python([SMALL], function="f")
    assert [path.name for path in venvs.iterdir()] == ["partial-new"]
