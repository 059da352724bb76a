"""Events that were accepted and are not delivered yet, in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

from triggerhub.connector import InboxFull
from triggerhub.event import Event
from triggerhub.store.codec import entry_of, entry_text, searchable
from triggerhub.store.records import Entry, Put, Room, Waiting
from triggerhub.store.writer import Writer

_NUMBERS = 1 << 40
"""So many numbers each inbox has."""
_AT_ONCE = 2_000
"""So many entries a purge removes in one transaction."""
_RESERVE = 16 * 1024 * 1024
"""Bytes of the disk that are not filled: more than other works need, which go on."""
_ROWS = 64
"""So many one statement writes, or looks for."""
_KNOWN = f"""SELECT key, number FROM once
    WHERE inbox = ? AND ends > ? AND key IN ({", ".join("?" * _ROWS)})"""  # noqa: S608 - question marks


class _Putting(NamedTuple):
    """What is to be put."""

    text: str
    data: bytes
    size: int
    key: str
    """Empty: nobody asks whether it was put before."""
    window: float


class _Row(NamedTuple):
    id: int
    last: int
    events: int
    size: int


class SQLiteInbox:
    """``Inbox`` of one binding over the writer of one store."""

    def __init__(
        self, writer: Writer, binding: str, room: Room, clock: Callable[[], float]
    ) -> None:
        self._writer = writer
        self._binding = binding
        self._room = room
        self._clock = clock

    async def put(self, event: Event, *, once: str = "", window: float = 0.0) -> Put:
        """Durable (synced to disk) when it returns. Raises ``InboxFull``, ``StoreError``."""
        text, data = entry_text(event), event.data
        size = len(text) + len(data)
        putting = _Putting(text, data, size, searchable(once) if once else "", window)
        done = await self._writer.write_together(self._put, putting, size=size)
        if done is None:
            raise InboxFull(
                f"the inbox of {self._binding} is full: it holds at most {self._room.events} "
                f"events and {self._room.size} bytes"
            )
        return done

    def _put(self, db: sqlite3.Connection, items: Sequence[_Putting]) -> list[Put | None]:
        """None: there is no room for it."""
        now = self._clock()
        inbox = self._row(db) or self._made(db)
        known = _known(db, inbox.id, [item.key for item in items if item.key], now)
        done: list[Put | None] = []
        rows: list[tuple[int, int, str, bytes]] = []
        keys: list[tuple[int, str, int, float]] = []
        _, last, events, size = inbox
        for item in items:
            if item.key in known:
                done.append(Put(known[item.key], fresh=False))
            elif events and not (
                events < self._room.events and size + item.size <= self._room.size
            ):
                done.append(None)
            else:
                done.append(Put(last + 1, fresh=True, before=last % _NUMBERS and last))
                last, events, size = last + 1, events + 1, size + item.size
                rows.append((last, item.size, item.text, item.data))
                if item.key:
                    known[item.key] = last
                    keys.append((inbox.id, item.key, last, now + item.window))
        if rows:
            self._writer.check_room(size - inbox.size, _RESERVE)
            _insert(db, "INSERT INTO inbox", rows)
            _insert(db, "INSERT OR REPLACE INTO once", keys)
            db.execute(
                "UPDATE inboxes SET last = ?, events = ?, size = ? WHERE id = ?",
                (last, events, size, inbox.id),
            )
        return done

    async def read(
        self, after: int = 0, *, limit: int = 256, size: int = 8 * 1024 * 1024
    ) -> Sequence[Entry]:
        """See ``Inbox.read``. Raises ``StoreError``."""

        def read(db: sqlite3.Connection) -> list[Entry]:
            inbox = self._row(db)
            if inbox is None:
                return []
            rows = db.execute(
                # As bytes: what is no text any more must not end the reading.
                "SELECT number, CAST(event AS BLOB), CAST(data AS BLOB) FROM inbox"
                " WHERE number > ? AND number <= ? ORDER BY number LIMIT ?",
                (max(after, inbox.id * _NUMBERS), inbox.last, max(0, limit)),
            )
            found: list[Entry] = []
            left = size
            for number, text, data in rows:
                left -= len(data)
                if found and left < 0:
                    break
                found.append(entry_of(number, text, data))
            return found

        return await self._writer.read(read)

    async def remove(self, numbers: Collection[int]) -> None:
        """They are settled; no error for one that is not there. Raises ``StoreError``."""
        if numbers:
            await self._delete(numbers)

    async def purge(self) -> int:
        """See ``Inbox.purge``. Raises ``StoreError``."""

        inbox = await self._writer.read(self._row)
        if inbox is None:
            return 0

        def read(db: sqlite3.Connection) -> list[int]:
            rows = db.execute(
                "SELECT number FROM inbox WHERE number > ? AND number <= ? LIMIT ?",
                (inbox.id * _NUMBERS, inbox.last, _AT_ONCE),
            )
            return [number for (number,) in rows]

        gone = 0
        # In steps: other bindings wait for each.
        while numbers := await self._writer.read(read):
            gone += await self._delete(numbers)
        return gone

    async def _delete(self, numbers: Collection[int]) -> int:
        """Returns how many were there."""
        wanted = json.dumps(list(numbers))

        def write(db: sqlite3.Connection) -> int:
            inbox = self._row(db)
            if inbox is None:
                return 0
            gone = db.execute(
                "DELETE FROM inbox WHERE number IN (SELECT value FROM json_each(?))"
                " AND number > ? AND number <= ? RETURNING CAST(size AS INTEGER)",
                (wanted, inbox.id * _NUMBERS, inbox.last),
            ).fetchall()
            db.execute(
                "UPDATE inboxes SET events = events - ?, size = size - ? WHERE id = ?",
                (len(gone), sum(size for (size,) in gone), inbox.id),
            )
            return len(gone)

        return await self._writer.write(write)

    async def has(self, number: int) -> bool | None:
        """Whether it is there; False: it was; None: it never was. Raises ``StoreError``."""

        def read(db: sqlite3.Connection) -> bool | None:
            inbox = self._row(db)
            if inbox is None or not inbox.id * _NUMBERS < number <= inbox.last:
                return None
            return bool(db.execute("SELECT 1 FROM inbox WHERE number = ?", (number,)).fetchone())

        return await self._writer.read(read)

    def _row(self, db: sqlite3.Connection) -> _Row | None:
        row = db.execute(
            "SELECT id, last, events, size FROM inboxes WHERE binding = ?", (self._binding,)
        ).fetchone()
        return None if row is None else _Row(*row)

    def _made(self, db: sqlite3.Connection) -> _Row:
        (highest,) = db.execute("SELECT max(id) FROM inboxes").fetchone()
        made = _Row((highest or 0) + 1, ((highest or 0) + 1) * _NUMBERS, 0, 0)
        db.execute(
            "INSERT INTO inboxes VALUES (?, ?, ?, 0, 0)", (made.id, self._binding, made.last)
        )
        return made


def count_waiting(db: sqlite3.Connection) -> dict[str, Waiting]:
    """What each inbox holds, by binding, but for the empty ones."""
    rows = db.execute("SELECT binding, events, size FROM inboxes WHERE events > 0")
    return {binding: Waiting(events, size) for binding, events, size in rows}


def forget_old(db: sqlite3.Connection, now: float) -> None:
    """What was put once, and may be put again."""
    db.execute("DELETE FROM once WHERE ends <= ?", (now,))


def _known(db: sqlite3.Connection, inbox: int, keys: Sequence[str], now: float) -> dict[str, int]:
    """The numbers under which they were put, of those that were."""
    known: dict[str, int] = {}
    for at in range(0, len(keys), _ROWS):
        some = keys[at : at + _ROWS]
        # Always as many: a statement is compiled once.
        padded = (*some, *[some[0]] * (_ROWS - len(some)))
        known.update(db.execute(_KNOWN, (inbox, now, *padded)))
    return known


def _insert(db: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """By few statements, whose texts are few: each is compiled once."""
    for at in range(0, len(rows), _ROWS):
        some = rows[at : at + _ROWS]
        columns, number = len(some[0]), 1
        while number < len(some):
            number *= 2
        values = [value for row in some for value in row]
        values += [None] * (columns * number - len(values))
        db.execute(_insertion(into, columns, number), values)


@cache
def _insertion(into: str, columns: int, number: int) -> str:
    """Of at most so many rows: those whose first column is NULL are none."""
    row = f"({', '.join('?' * columns)})"
    rows = ", ".join([row] * number)
    return f"{into} SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL"  # noqa: S608 - marks
