"""Positions and claims of one subscription in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from triggerhub.connector import Position, PositionConflict
from triggerhub.store.writer import Writer


class SQLitePositions:
    """``Positions`` over the writer of one store; ``holder`` is who claims.

    Claims end by the wall clock, read inside the transaction, so all processes of the machine
    see one order. When the clock jumps forward a claim ends early, and its holder learns so at
    its next renewal. When the clock jumps backwards, a claim seems to have been taken in the
    future: whoever asks for it next sets it to begin now, so it lasts once more its own time
    and never longer.
    """

    def __init__(
        self, writer: Writer, subscription: str, holder: str, clock: Callable[[], float]
    ) -> None:
        self._writer = writer
        self._subscription = subscription
        self._holder = holder
        self._clock = clock

    async def load(self, prefix: str = "") -> dict[str, Position]:
        """All stored positions whose key begins with ``prefix``. Raises ``StoreError``."""
        check_text(prefix)

        def read(db: sqlite3.Connection) -> dict[str, Position]:
            rows = db.execute(
                "SELECT key, value, revision FROM positions"
                " WHERE subscription = ? AND key >= ? ORDER BY key",
                (self._subscription, prefix),
            )
            found = {}
            for key, value, revision in rows:
                if not key.startswith(prefix):  # keys are sorted: none follows
                    break
                found[key] = Position(value, revision)
            return found

        return await self._writer.read(read)

    async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
        """Returns the new revision, greater than any before in this store. Raises
        ``PositionConflict``, ``StoreError``; ValueError for text that is not valid Unicode."""
        check_text(key, value)

        def write(db: sqlite3.Connection) -> int:
            if expect is not None:
                self._expect(db, key, expect)
            db.execute("UPDATE revisions SET last = last + 1")
            (revision,) = db.execute("SELECT last FROM revisions").fetchone()
            db.execute(
                "INSERT INTO positions (subscription, key, value, revision) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (subscription, key)"
                " DO UPDATE SET value = excluded.value, revision = excluded.revision",
                (self._subscription, key, value, revision),
            )
            return int(revision)

        return await self._writer.write(write, size=len(value))

    async def delete(self, key: str) -> None:
        """Forget one key; no error when it is not there. Raises ``StoreError``."""
        check_text(key)

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "DELETE FROM positions WHERE subscription = ? AND key = ?",
                (self._subscription, key),
            )

        await self._writer.write(write)

    async def claim(self, key: str, ttl: float) -> bool:
        """Take or renew ``key`` for ``ttl`` seconds. False: another process holds it. Raises
        ``StoreError``; ValueError unless ``ttl`` is positive."""
        check_text(key)
        if not ttl > 0:
            raise ValueError(f"a claim lasts {ttl!r} s: expected more than 0")

        def write(db: sqlite3.Connection) -> bool:
            now = self._clock()
            if self._held_by_another(db, key, now):
                return False
            db.execute(
                "INSERT OR REPLACE INTO claims (subscription, key, holder, taken, expires)"
                " VALUES (?, ?, ?, ?, ?)",
                (self._subscription, key, self._holder, now, now + ttl),
            )
            return True

        return await self._writer.write(write)

    async def release(self, key: str) -> None:
        """Give up a claim that this store holds; no error otherwise. Raises ``StoreError``."""
        check_text(key)

        def write(db: sqlite3.Connection) -> None:
            db.execute(
                "DELETE FROM claims WHERE subscription = ? AND key = ? AND holder = ?",
                (self._subscription, key, self._holder),
            )

        await self._writer.write(write)

    def _expect(self, db: sqlite3.Connection, key: str, expect: int) -> None:
        row = db.execute(
            "SELECT revision FROM positions WHERE subscription = ? AND key = ?",
            (self._subscription, key),
        ).fetchone()
        found = row[0] if row else 0
        if found != expect:
            raise PositionConflict(
                f"position {key!r} of {self._subscription}: found revision {found}, "
                f"expected {expect}"
            )

    def _held_by_another(self, db: sqlite3.Connection, key: str, now: float) -> bool:
        row = db.execute(
            "SELECT holder, taken, expires FROM claims WHERE subscription = ? AND key = ?",
            (self._subscription, key),
        ).fetchone()
        if row is None:
            return False
        holder, taken, expires = row
        if holder == self._holder:
            return False
        if now < taken:
            db.execute(
                "UPDATE claims SET taken = ?, expires = ? WHERE subscription = ? AND key = ?",
                (now, now + (expires - taken), self._subscription, key),
            )
            return True
        return bool(now < expires)


def check_text(*texts: str) -> None:
    """Raises ValueError in the caller: lone surrogates have no form in the file."""
    for text in texts:
        text.encode()
