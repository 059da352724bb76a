"""Works in one transaction: each fails alone, also when it loses the transaction for all."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from triggerhub.connector import PositionConflict
from triggerhub.store.database import Database, Done
from triggerhub.store.records import StoreError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path, read_only=False)
    opened.open()
    yield opened
    opened.close()


def _claim(key: str | None) -> Callable[[sqlite3.Connection], str | None]:
    def work(db: sqlite3.Connection) -> str | None:
        db.execute("INSERT INTO claims VALUES ('a.b.c', ?, 'me', 1.0, 2.0)", (key,))
        return key

    return work


def _failing(error: Exception) -> Callable[[sqlite3.Connection], None]:
    def work(db: sqlite3.Connection) -> None:
        _claim("undone")(db)
        raise error

    return work


def _claims(database: Database) -> list[str]:
    rows = database.read(lambda db: db.execute("SELECT key FROM claims ORDER BY key").fetchall())
    return [key for (key,) in rows.value]


@pytest.mark.parametrize("error", [PositionConflict("x"), ValueError("x"), StoreError("x")])
def test_a_work_that_fails_is_undone_alone(database: Database, error: Exception) -> None:
    first, failed, last = database.write([_claim("1"), _failing(error), _claim("2")])
    assert (first, last) == (Done("1"), Done("2"))
    assert type(failed.error) is type(error)
    assert _claims(database) == ["1", "2"]


def test_a_refused_row_fails_alone(database: Database) -> None:
    first, failed, last = database.write([_claim("1"), _claim(None), _claim("2")])
    assert (first, last) == (Done("1"), Done("2"))
    assert isinstance(failed.error, StoreError)
    assert _claims(database) == ["1", "2"]


def test_a_work_that_loses_the_transaction_fails_alone(database: Database) -> None:
    def lose(db: sqlite3.Connection) -> None:
        db.execute("ROLLBACK")
        raise sqlite3.OperationalError("lost")

    first, failed, last = database.write([_claim("1"), lose, _claim("2")])
    assert (first, last) == (Done("1"), Done("2"))
    assert isinstance(failed.error, StoreError)
    assert _claims(database) == ["1", "2"]


def test_an_error_of_the_program_is_not_hidden(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        database.write([_failing(ZeroDivisionError())])


def test_opening_waits_for_another_process_that_makes_the_file(tmp_path: Path) -> None:
    other = sqlite3.connect(
        tmp_path / "triggerhub.db", isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    release.start()
    database = Database(tmp_path, read_only=False)
    try:
        database.open()
    finally:
        release.join()
        other.close()
        database.close()
