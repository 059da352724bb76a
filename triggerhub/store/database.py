"""The SQLite file of a data directory, written in groups; used from one thread only."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from triggerhub.connector import PositionConflict
from triggerhub.store.directory import make_directory, open_private
from triggerhub.store.records import StoreError
from triggerhub.store.schema import VERSION, check_version, migrate

FILE = "triggerhub.db"

_BUSY = 5.0
"""Seconds to wait for another process of this machine to end its transaction."""

_ITEM_FAULTS = {
    0,  # not from SQLite
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_TOOBIG,
}
"""Errors that undo one statement; after any other the transaction may be gone
(sqlite.org/lang_transaction.html, section 3)."""

_FAULTS = (sqlite3.Error, PositionConflict, StoreError, ValueError, OverflowError)

Work = Callable[[sqlite3.Connection], Any]
"""What to do in a transaction. It may be called twice (the first time is then undone), and may
raise ``PositionConflict``, ``StoreError``, ``ValueError`` and ``sqlite3.Error``."""


@dataclass(frozen=True, slots=True)
class Done:
    """What one work returned, or the error that its caller is to get."""

    value: Any = None
    error: Exception | None = None


class Database:
    """One connection to ``triggerhub.db``. All methods are to be called by the same thread."""

    def __init__(self, directory: Path, *, read_only: bool) -> None:
        self.file = directory / FILE
        self._directory = directory
        self._read_only = read_only
        self._inode: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self.trouble = ""
        """Why the last transaction was not committed. Any thread may look."""

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None, "the database is not open"
        return self._connection

    def open(self) -> None:
        """Raises ``StoreError``: no data (read-only), no permission, no database, too new."""
        try:
            if self._read_only:
                self._connection = self._connect_to_read()
            else:
                make_directory(self._directory)
                os.close(open_private(self.file))
                self._connection = self._connect("rw")
                self._prepare(self._connection)
        except sqlite3.Error as error:
            self.close()
            raise self._explain(error) from error
        except StoreError:
            self.close()
            raise
        self._inode = self._identity()

    def close(self) -> None:
        """Never fails: what was committed is in the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def write(self, works: Sequence[Work]) -> list[Done]:
        """All in one transaction, synced to disk on return. One that fails is undone alone; when
        the transaction cannot be committed all fail."""
        try:
            self._check_in_place()
            self._db.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, StoreError) as error:
            return self._failed(error, works)
        try:
            if len(works) == 1:  # what it leaves when it fails is undone with the transaction
                done = [Done(works[0](self._db))]
            else:
                done = [self._write_one(work) for work in works]
        except _FAULTS as error:
            self._roll_back()
            if len(works) == 1:
                return self._failed(error, works)
            # One of them brought the others down, e.g. the large one on a nearly full disk.
            return [self.write([work])[0] for work in works]
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            return self._failed(error, works)
        self.trouble = ""
        return done

    def read(self, work: Work) -> Done:
        """Outside of any transaction."""
        try:
            return Done(work(self._db))
        except (sqlite3.Error, StoreError, ValueError, OverflowError) as error:
            return Done(error=self._explain(error))

    def check_room(self, size: int, reserve: int) -> None:
        """Raises ``StoreError`` where ``size`` bytes more would leave less than ``reserve`` on the
        disk, or than a quarter of a small one. To remove takes room, too, and to take the WAL into
        the file: what has filled its disk could never be emptied again."""
        try:
            disk = os.statvfs(self._directory)
        except OSError:
            return
        kept = min(reserve, disk.f_blocks * disk.f_frsize // 4)
        # They are written twice: to the WAL, and to the file.
        left = disk.f_bavail * disk.f_frsize - 2 * size
        if left < kept:
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            (page,) = self._db.execute("PRAGMA page_size").fetchone()
            left += free * page
        if left < kept:
            raise StoreError(
                f"{self.file} cannot grow: the disk is full, but for the {kept // 1024**2} MiB "
                "that it takes to remove what is there"
            )

    def _write_one(self, work: Work) -> Done:
        """Raises ``sqlite3.Error`` when the whole transaction is lost."""
        db = self._db
        db.execute("SAVEPOINT item")
        try:
            value = work(db)
        except _FAULTS as error:
            if _code(error) not in _ITEM_FAULTS:
                raise
            db.execute("ROLLBACK TO item")
            db.execute("RELEASE item")
            return Done(error=self._explain(error))
        db.execute("RELEASE item")
        return Done(value)

    def _failed(self, error: Exception, works: Sequence[Work]) -> list[Done]:
        self.trouble = str(self._explain(error))
        return [Done(error=self._explain(error)) for _ in works]

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.file.absolute()))}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=_BUSY, isolation_level=None)

    def _prepare(self, db: sqlite3.Connection) -> None:
        # In this order: auto_vacuum counts only while the file is empty, and the switch to WAL
        # writes its first page.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._use_wal(db)
        db.execute("PRAGMA synchronous = FULL")
        # Debian's SQLite would write each page again that a large event had.
        db.execute("PRAGMA secure_delete = FAST")
        db.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
        migrate(db, str(self.file))

    def _use_wal(self, db: sqlite3.Connection) -> None:
        # SQLite does not wait here for other processes that open the file at the same moment.
        until = time.monotonic() + _BUSY
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _connect_to_read(self) -> sqlite3.Connection:
        try:
            size = self.file.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            size = 0
        except OSError as error:
            raise StoreError(f"{self.file} cannot be read: {error.strerror}") from error
        if not size:
            raise StoreError(f"no triggerhub data in {self._directory}")
        db = self._connect("ro")
        try:
            version = check_version(db, str(self.file))
        except sqlite3.OperationalError as error:
            db.close()
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            # SQLite reads a WAL database by two files beside it, which it cannot make where
            # nothing may be written. Without them no hub has it open, so it stands still.
            wal = self.file.with_name(FILE + "-wal")
            if wal.exists():
                raise StoreError(
                    f"{self.file} cannot be read: a hub left writes in {wal.name}, and to take "
                    f"them in, {self._directory} must be writable"
                ) from error
            db = self._connect("ro&immutable=1")
            version = check_version(db, str(self.file))
        if version < VERSION:
            db.close()
            raise StoreError(
                f"{self.file} was written by an older triggerhub (schema version {version}, "
                f"expected {VERSION}): a hub that runs on it once brings it up to date"
            )
        return db

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _check_in_place(self) -> None:
        # A file removed under an open connection goes on taking writes that nobody finds again.
        if self._identity() != self._inode:
            raise StoreError(
                f"{self.file} was removed or replaced while in use: restart the hub, "
                "or put the file back"
            )

    def _explain(self, error: Exception) -> Exception:
        """What the caller is to be told; a new ``StoreError`` for what SQLite refused."""
        if isinstance(error, StoreError):
            return StoreError(*error.args)
        if not isinstance(error, sqlite3.Error):
            return error
        code = _code(error)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._disk_is_full()):
            what = "cannot grow: the disk is full"
        elif code == sqlite3.SQLITE_NOTADB:
            what = "is no triggerhub data: expected an SQLite database"
        elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            what = f"is locked by another process for more than {_BUSY:g} s"
        elif code == sqlite3.SQLITE_CORRUPT:
            what = f"is damaged: {error}"
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            what = f"cannot be written: {error}"
        elif code == sqlite3.SQLITE_CANTOPEN:
            what = f"cannot be opened: {error}"
        else:
            what = f"cannot be used: {error} ({getattr(error, 'sqlite_errorname', 'no code')})"
        return StoreError(f"{self.file} {what}")

    def _disk_is_full(self) -> bool:
        try:
            room = os.statvfs(self._directory)
        except OSError:
            return False
        return room.f_bavail * room.f_frsize < 256 * 1024


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 where the error came from elsewhere."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
