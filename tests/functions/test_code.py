"""Code as a value."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from triggerhub.functions.code import Code

CODE = Code(handler="main.handle", files={"main.py": b"1", "lib/a.py": b"2"})


@pytest.mark.parametrize(
    "change",
    [
        {"handler": "main.other"},
        {"files": {"main.py": b"1", "lib/a.py": b"3"}},
        {"files": {"main.py": b"1", "lib/b.py": b"2"}},
        {"requirements": ("iniconfig",)},
        {"timeout": 5.0},
        {"concurrency": 1},
        {"env": {"A": "b"}},
    ],
)
def test_every_change_changes_the_digest(change: dict[str, Any]) -> None:
    assert dataclasses.replace(CODE, **change).digest != CODE.digest


def test_the_digest_does_not_depend_on_the_order_of_files() -> None:
    turned = Code(handler="main.handle", files={"lib/a.py": b"2", "main.py": b"1"})
    assert turned.digest == CODE.digest
    assert turned == CODE


def test_secrets_in_the_environment_are_not_in_the_repr() -> None:
    assert "hunter2" not in repr(dataclasses.replace(CODE, env={"PASSWORD": "hunter2"}))


@pytest.mark.parametrize(
    "change",
    [
        {"handler": "handle"},
        {"handler": "main."},
        {"handler": "main/x.handle"},
        {"files": {"/etc/x": b""}},
        {"files": {"a/../../x": b""}},
        {"files": {"": b""}},
        {"requirements": ("--index-url=http://elsewhere",)},
        {"requirements": ("a\nb",)},
        {"requirements": ("",)},
    ],
)
def test_what_can_never_run_has_a_problem(change: dict[str, Any]) -> None:
    assert dataclasses.replace(CODE, **change).problem()
    assert not CODE.problem()


def test_placing_again_mends_what_is_missing_or_changed(tmp_path: Path) -> None:
    folder = CODE.place(tmp_path)
    (folder / "main.py").unlink()
    (folder / "lib" / "a.py").write_bytes(b"half")
    assert CODE.place(tmp_path) == folder
    assert (folder / "main.py").read_bytes() == b"1"
    assert (folder / "lib" / "a.py").read_bytes() == b"2"
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["a.py", "main.py"]


def test_other_files_have_another_folder(tmp_path: Path) -> None:
    other = dataclasses.replace(CODE, files={"main.py": b"1"})
    assert other.place(tmp_path) != CODE.place(tmp_path)
