"""Dead letters in SQLite."""

from __future__ import annotations

import builtins
import json
import sqlite3
from collections.abc import Callable, Sequence

from triggerhub.store.codec import LETTER_COLUMNS, letter_of, letter_row, searchable
from triggerhub.store.records import DeadLetter, Deleted, Selection
from triggerhub.store.writer import Writer

_DELETED_AT_ONCE = 500
"""So that a purge of millions lets others write in between."""
_RESERVE = 8 * 1024 * 1024
"""Bytes of the disk that are not filled. Inboxes leave more: what they hold may become dead
letters."""


class SQLiteDeadLetters:
    """``DeadLetters`` over the writer of one store."""

    def __init__(self, writer: Writer, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock

    async def add(self, letter: DeadLetter) -> None:
        """Durable (synced to disk) when it returns. Adding an id twice is no error: the first
        stays."""
        row = letter_row(letter)
        size = sum(len(part) for part in row if part)

        def write(db: sqlite3.Connection) -> None:
            self._writer.check_room(size, _RESERVE)
            db.execute(
                f"INSERT INTO dead_letters ({LETTER_COLUMNS}, stored)"  # noqa: S608 - a constant
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (*row, self._clock()),
            )

        await self._writer.write(write, size=size)

    async def list(
        self, selection: Selection, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """Oldest first, at most ``limit``, those whose id is greater than ``after``."""
        where, values = self._where(selection)

        def read(db: sqlite3.Connection) -> builtins.list[DeadLetter]:
            rows = db.execute(
                f"SELECT {LETTER_COLUMNS} FROM dead_letters"  # noqa: S608 - from _where
                f" WHERE {where} AND id > ?"
                " ORDER BY id LIMIT ?",
                (*values, searchable(after), max(0, limit)),
            )
            return [letter_of(row) for row in rows]

        return await self._writer.read(read)

    async def get(self, letter_id: str) -> DeadLetter | None:
        found = await self.list(Selection(ids=(letter_id,)), limit=1)
        return found[0] if found else None

    async def delete(self, selection: Selection) -> Deleted:
        """What is stored after the call began stays."""
        where, values = self._where(selection)

        def last(db: sqlite3.Connection) -> int:
            (number,) = db.execute("SELECT max(number) FROM dead_letters").fetchone()
            return number or 0

        newest = await self._writer.read(last)

        def write(db: sqlite3.Connection) -> Deleted:
            found = db.execute(
                "SELECT number, elsewhere IS NOT NULL FROM dead_letters"  # noqa: S608 - from _where
                f" WHERE {where} AND number <= ? LIMIT ?",
                (*values, newest, _DELETED_AT_ONCE),
            ).fetchall()
            db.execute(
                "DELETE FROM dead_letters WHERE number IN (SELECT value FROM json_each(?))",
                (json.dumps([number for number, _ in found]),),
            )
            return Deleted(len(found), sum(elsewhere for _, elsewhere in found))

        gone = Deleted(0, 0)
        while True:
            step = await self._writer.write(write)
            gone = Deleted(gone.number + step.number, gone.elsewhere + step.elsewhere)
            if step.number < _DELETED_AT_ONCE:
                return gone

    async def counts(self) -> dict[tuple[str, str, str], int]:
        """How many there are, by (namespace, trigger, function). Reads one index, not the
        letters."""

        def read(db: sqlite3.Connection) -> dict[tuple[str, str, str], int]:
            rows = db.execute(
                "SELECT namespace, trigger, function, count(*) FROM dead_letters"
                " GROUP BY trigger, namespace, function"
            )
            return {(namespace, trigger, function): n for namespace, trigger, function, n in rows}

        return await self._writer.read(read)

    def _where(self, selection: Selection) -> tuple[str, builtins.list[str | float]]:
        """An SQL condition and the values of its question marks."""
        terms: builtins.list[str] = ["1"]
        values: builtins.list[str | float] = []

        def require(term: str, value: str | float) -> None:
            terms.append(term)
            values.append(value)

        if selection.ids:
            ids = json.dumps([searchable(letter_id) for letter_id in selection.ids])
            require("id IN (SELECT value FROM json_each(?))", ids)
        if selection.trigger:
            namespace, slash, name = selection.trigger.rpartition("/")
            require("trigger = ?", searchable(name))
            if slash:
                require("namespace = ?", searchable(namespace))
        if selection.function:
            require("function = ?", searchable(selection.function))
        if selection.reason:
            require("reason = ?", searchable(selection.reason))
        if selection.older_than is not None:
            require("stored <= ?", self._clock() - selection.older_than)
        return " AND ".join(terms), values
