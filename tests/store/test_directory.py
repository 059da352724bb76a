"""The data directory is private, and held by one hub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from triggerhub.store.directory import directory_name, lock_directory, make_directory
from triggerhub.store.records import StoreError

_HOLD = """
import sys
from pathlib import Path
from triggerhub.store.directory import lock_directory
with lock_directory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_hub_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(StoreError) as refused, lock_directory(tmp_path):
                pass
            assert str(refused.value) == (
                f"{tmp_path} is in use by another triggerhub (pid {holder.pid})"
            )
        finally:
            holder.kill()
    with lock_directory(tmp_path):
        assert (tmp_path / "hub.lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_is_given_up_at_the_end_also_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock_directory(tmp_path):
        raise KeyError
    refusal = pytest.raises(StoreError, match=f"in use .*pid {os.getpid()}")
    with lock_directory(tmp_path), refusal, lock_directory(tmp_path):
        pass
    with lock_directory(tmp_path):
        pass


def test_a_program_started_by_the_hub_does_not_keep_the_lock(tmp_path: Path) -> None:
    with lock_directory(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with lock_directory(tmp_path):
            pass
    finally:
        child.communicate(b"\n")


def test_what_is_made_is_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    with lock_directory(directory):
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "hub.lock").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    make_directory(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("below", ["", "data"])
def test_a_file_in_its_place_is_said_to_be_one(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / below
    with pytest.raises(StoreError) as refused, lock_directory(directory):
        pass
    assert str(refused.value) == (
        f"{directory} cannot hold data: expected a directory, found a file"
    )


def test_a_directory_keeps_the_name_that_it_was_given(tmp_path: Path) -> None:
    name = directory_name(tmp_path)
    assert re.fullmatch("hub-[0-9a-f]{12}", name)
    assert directory_name(tmp_path) == name
    assert [file.name for file in tmp_path.iterdir()] == ["replica"]
    assert (tmp_path / "replica").stat().st_mode & 0o777 == 0o600


def test_processes_that_ask_at_once_are_told_one_name(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def ask(_: int) -> str:
        together.wait()
        return directory_name(tmp_path)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["replica"]


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "replica").write_text("../x\n")
    with pytest.raises(StoreError) as refused:
        directory_name(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / 'replica'} holds '../x', expected hub- and twelve digits: remove it, and the "
        "hub makes another"
    )
