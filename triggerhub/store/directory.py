"""The data directory: made for one user, held by one hub."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from triggerhub.store.records import StoreError

_LOCK = "hub.lock"
_NAME = "replica"


def make_directory(directory: Path) -> None:
    """Make the data directory, mode 0700, unless it is there. Raises ``StoreError``."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{directory} cannot hold data: expected a directory, found a file") from (
            None
        )
    except OSError as error:
        raise StoreError(f"{directory} cannot be made: {error.strerror}") from error


def open_private(file: Path, flags: int = os.O_RDWR) -> int:
    """Open a file of the data directory, made with mode 0600 if it is not there; returns its
    descriptor. Raises ``StoreError``."""
    try:
        return os.open(file, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}") from error


def directory_name(directory: Path) -> str:
    """A name of this data directory, ``hub-`` and twelve digits: made at random when it is first
    asked for, and kept in the directory, which must be there. Raises ``StoreError``."""
    file = directory / _NAME
    while True:
        try:
            name = file.read_text("ascii", "replace").strip()
        except FileNotFoundError:
            _write_once(file, f"hub-{secrets.token_hex(6)}\n")
            continue
        except OSError as error:
            raise StoreError(f"{file} cannot be read: {error.strerror}") from error
        if not re.fullmatch(r"hub-[0-9a-f]{12}", name):
            raise StoreError(
                f"{file} holds {name[:40]!r}, expected hub- and twelve digits: remove it, and the "
                "hub makes another"
            )
        return name


@contextmanager
def lock_directory(directory: Path) -> Iterator[int]:
    """Hold the data directory for this hub, and make it if need be.

    The kernel gives the lock up when the process ends, however it ends, and with it those that
    were given the descriptor, which is yielded. Raises ``StoreError`` when another hub holds it.
    """
    make_directory(directory)
    descriptor = open_private(directory / _LOCK)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreError(
                f"{directory} is in use by another triggerhub (pid {holder})"
            ) from None
        except OSError as error:
            raise StoreError(f"{directory / _LOCK} cannot be locked: {error.strerror}") from error
        _write_pid(descriptor, directory)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_once(file: Path, text: str) -> None:
    """Whole or not at all, and unless it is there: several processes may do this at once."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(6)}")
    descriptor = open_private(draft, os.O_WRONLY | os.O_EXCL)
    try:
        with suppress(FileExistsError):
            os.write(descriptor, text.encode("ascii"))
            os.link(draft, file)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)


def _write_pid(descriptor: int, directory: Path) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise StoreError(f"{directory / _LOCK} cannot be written: {error.strerror}") from error
