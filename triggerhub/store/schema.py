"""The tables of the SQLite file, and how an older file becomes a present one."""

from __future__ import annotations

import sqlite3

from triggerhub.store.records import StoreError

APPLICATION_ID = 0x54485542  # "THUB"

_FIRST = (
    # Revisions come from one counter, so that a position deleted and made again never repeats
    # one that somebody still expects.
    "CREATE TABLE revisions (last INTEGER NOT NULL)",
    "INSERT INTO revisions VALUES (0)",
    """CREATE TABLE positions (
        subscription TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        revision INTEGER NOT NULL,
        PRIMARY KEY (subscription, key)
    ) WITHOUT ROWID""",
    """CREATE TABLE claims (
        subscription TEXT NOT NULL,
        key TEXT NOT NULL,
        holder TEXT NOT NULL,
        taken REAL NOT NULL,
        expires REAL NOT NULL,
        PRIMARY KEY (subscription, key)
    ) WITHOUT ROWID""",
    # Numbers are never used again: a purge goes by them, and must not meet what came later.
    # The large columns come last: what searches by the others reads none of their pages.
    """CREATE TABLE dead_letters (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        stored REAL NOT NULL,
        namespace TEXT NOT NULL,
        trigger TEXT NOT NULL,
        function TEXT NOT NULL,
        reason TEXT NOT NULL,
        evidence TEXT NOT NULL,
        last_response BLOB NOT NULL,
        origin_key BLOB,
        data BLOB NOT NULL
    )""",
    "CREATE INDEX dead_letters_by_binding ON dead_letters (trigger, namespace, function)",
    """CREATE TABLE deliveries (
        number INTEGER PRIMARY KEY,
        noted REAL NOT NULL,
        event_id TEXT NOT NULL,
        source TEXT NOT NULL,
        delivery TEXT NOT NULL
    )""",
    "CREATE INDEX deliveries_by_event ON deliveries (event_id)",
    "CREATE INDEX deliveries_by_time ON deliveries (noted)",
)

# Set where the store has but an entry, and the letter lies in its source's own system: JSON.
_ELSEWHERE = ("ALTER TABLE dead_letters ADD COLUMN elsewhere TEXT",)

_INBOXES = (
    # What is counted here need not be counted where a million entries wait. ``last`` is the number
    # of the last entry put: the inbox's own numbers begin at ``id`` * 2^40.
    """CREATE TABLE inboxes (
        id INTEGER PRIMARY KEY,
        binding TEXT NOT NULL UNIQUE,
        last INTEGER NOT NULL,
        events INTEGER NOT NULL,
        size INTEGER NOT NULL
    )""",
    # The number alone says which inbox: one tree, in which each inbox lies together and grows at
    # its own end.
    """CREATE TABLE inbox (
        number INTEGER PRIMARY KEY,
        size INTEGER NOT NULL,
        event TEXT NOT NULL,
        data BLOB NOT NULL
    )""",
    """CREATE TABLE once (
        inbox INTEGER NOT NULL,
        key TEXT NOT NULL,
        number INTEGER NOT NULL,
        ends REAL NOT NULL,
        PRIMARY KEY (inbox, key)
    ) WITHOUT ROWID""",
    "CREATE INDEX once_by_end ON once (ends)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _ELSEWHERE, _INBOXES)
"""Entry *n* brings a file of version *n* to version *n* + 1. Entries are only ever added."""

VERSION = len(MIGRATIONS)


def migrate(db: sqlite3.Connection, where: str) -> None:
    """Bring the file to ``VERSION``. Raises ``StoreError`` and ``sqlite3.Error``."""
    if check_version(db, where) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Again, now that no other process can be at it.
        for version in range(check_version(db, where), VERSION):
            for statement in MIGRATIONS[version]:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def check_version(db: sqlite3.Connection, where: str) -> int:
    """The file's schema version, 0 when it is empty. Raises ``StoreError`` when this hub cannot
    use it."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise StoreError(f"{where} is a database of another application, not of triggerhub")
    if version > VERSION:
        raise StoreError(
            f"{where} was written by a newer triggerhub: found schema version {version}, "
            f"expected at most {VERSION}"
        )
    return int(version)
