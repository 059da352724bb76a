"""What a supervisor refuses before it starts anything; the rest needs real processes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from triggerhub.settings import Settings
from triggerhub.store.directory import lock_directory
from triggerhub.workers.supervisor import run


def settings(data: Path, listen: str = "127.0.0.1:0", admin: str = "127.0.0.1:0") -> Settings:
    return Settings(paths=(data.parent,), data=data, listen=listen, admin=admin)


def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    data = tmp_path / ("d" * (95 - len(str(tmp_path))))
    with pytest.raises(OSError, match="--data: found a path of 96 bytes, expected at most 92 "):
        run(settings(data), 2)


def test_an_address_where_another_program_listens_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for option in ("listen", "admin"):
            with pytest.raises(OSError, match=f"{address}: address already in use.*--{option}"):
                run(settings(tmp_path / "data", **{option: address}), 2)


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="--listen: found 'nonsense', expected host:port"):
        run(settings(tmp_path / "data", listen="nonsense"), 2)


def test_data_that_another_hub_holds_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with lock_directory(data), pytest.raises(OSError, match="in use by another triggerhub"):
        run(settings(data), 2)
