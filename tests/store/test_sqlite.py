"""What the SQLite store promises beyond the contract: processes, crashes, disks, old files."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from triggerhub.event import Event, Origin
from triggerhub.store.codec import letter_row
from triggerhub.store.inbox import SQLiteInbox
from triggerhub.store.records import DeadLetter, Delivery, Elsewhere, Room, Selection, StoreError
from triggerhub.store.schema import APPLICATION_ID, MIGRATIONS
from triggerhub.store.sqlite import SQLiteStore
from triggerhub.store.ulid import new_ulid

EVERYTHING = Selection()


def _letter(data: bytes = b"{}") -> DeadLetter:
    return DeadLetter(
        id=new_ulid(),
        namespace="shop",
        trigger="orders",
        function="handle",
        event=Event(id="0:7", source="/kafka/orders", type="order.created", data=data),
        origin=Origin(),
        reason="Rejected",
        detail="",
        last_status=400,
        last_response=b"",
        attempts=1,
        first_time=1.0,
        last_time=1.0,
    )


def _delivery(number: int) -> Delivery:
    return Delivery(
        binding="shop.orders.handle",
        source="/kafka/orders",
        id=f"0:{number}",
        type="t",
        received=1.0,
        ended=2.0,
        settled=None,
    )


async def _stored(directory: Path, *, read_only: bool = False) -> set[str]:
    async with SQLiteStore(directory, read_only=read_only) as store:
        letters = await store.dead_letters.list(EVERYTHING, limit=1_000_000)
    return {letter.id for letter in letters}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def store(directory: Path, clock: Clock) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(directory, clock=clock) as opened:
        yield opened


_CHILD = """
import asyncio, os, sys
from pathlib import Path
from triggerhub.connector import PositionConflict
from triggerhub.event import Event, Origin
from triggerhub.store.records import DeadLetter, Selection, StoreError
from triggerhub.store.sqlite import SQLiteStore
from triggerhub.store.ulid import new_ulid

directory = Path(sys.argv[1])

def letter():
    return DeadLetter(
        id=new_ulid(), namespace="shop", trigger="orders", function="handle",
        event=Event(id="1", source="s", type="t", data=b"x" * 2000), origin=Origin(),
        reason="Rejected", detail="", last_status=400, last_response=b"", attempts=1,
        first_time=1.0, last_time=1.0)

async def add_forever(store):
    while True:
        added = letter()
        await store.dead_letters.add(added)
        print(added.id, flush=True)

async def count(store):
    positions = store.positions("a.b.c")
    done = 0
    while done < 50:
        kept = (await positions.load()).get("n")
        value, expect = (int(kept.value), kept.revision) if kept else (0, 0)
        try:
            await positions.save("n", str(value + 1), expect=expect)
            done += 1
        except PositionConflict:
            pass
        await store.dead_letters.add(letter())
"""


def _start(directory: Path, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD + script, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestProcesses:
    async def test_several_may_make_and_use_one_file_at_once(self, directory: Path) -> None:
        script = """
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with SQLiteStore(directory) as store:
        await count(store)
asyncio.run(main())
"""
        children = [_start(directory, script) for _ in range(3)]
        try:
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
            for child in children:
                assert child.stdin is not None
                child.stdin.write("\n")
                child.stdin.flush()
            for child in children:
                _, complaint = child.communicate(timeout=60)
                assert (child.returncode, complaint) == (0, "")
        finally:
            for child in children:
                child.kill()
                child.wait()
        async with SQLiteStore(directory) as store:
            kept = await store.positions("a.b.c").load()
            letters = await store.dead_letters.counts()
        assert kept["n"].value == "150"
        assert sum(letters.values()) >= 150

    @pytest.mark.parametrize("after", [1, 40, 300])
    async def test_what_was_added_before_a_kill_is_there(self, directory: Path, after: int) -> None:
        script = """
async def main():
    async with SQLiteStore(directory) as store, asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(add_forever(store))
asyncio.run(main())
"""
        child = _start(directory, script)
        try:
            assert child.stdout is not None
            printed = [child.stdout.readline() for _ in range(after)]
            child.kill()
            printed += child.stdout.read().splitlines(keepends=True)
        finally:
            child.kill()
            child.communicate()
        added = {line.strip() for line in printed if line.endswith("\n")}
        assert len(added) >= after
        assert added <= await _stored(directory)

    async def test_the_loop_runs_on_while_another_process_writes(
        self, store: SQLiteStore, directory: Path
    ) -> None:
        other = sqlite3.connect(directory / "triggerhub.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        add = asyncio.create_task(store.dead_letters.add(_letter()))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not add.done()
        other.execute("COMMIT")
        other.close()
        async with asyncio.timeout(5):
            await add

    async def test_an_add_cancelled_in_the_queue_stores_nothing(
        self, store: SQLiteStore, directory: Path
    ) -> None:
        other = sqlite3.connect(directory / "triggerhub.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        first, second, third = _letter(), _letter(), _letter()
        adds = [asyncio.create_task(store.dead_letters.add(first))]
        await asyncio.sleep(0.05)
        adds += [asyncio.create_task(store.dead_letters.add(each)) for each in (second, third)]
        await asyncio.sleep(0)
        adds[1].cancel()
        await asyncio.wait([adds[1]])
        other.execute("COMMIT")
        other.close()
        async with asyncio.timeout(10):
            await asyncio.wait(adds)
        assert await store.dead_letters.list(EVERYTHING) == [first, third]


class TestClosing:
    async def test_it_waits_for_what_is_queued(self, directory: Path) -> None:
        letters = [_letter() for _ in range(300)]
        async with SQLiteStore(directory) as store:
            adds = [asyncio.create_task(store.dead_letters.add(letter)) for letter in letters]
            await asyncio.sleep(0)
        await asyncio.wait(adds)
        assert [add.exception() for add in adds] == [None] * 300
        assert len(await _stored(directory)) == 300

    async def test_it_waits_also_when_the_block_failed(self, directory: Path) -> None:
        adds = []

        async def fail() -> None:
            async with SQLiteStore(directory) as store:
                adds.append(asyncio.create_task(store.dead_letters.add(_letter())))
                await asyncio.sleep(0)
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        await adds[0]
        assert len(await _stored(directory)) == 1

    async def test_no_thread_and_no_second_file_stays(self, directory: Path) -> None:
        async with SQLiteStore(directory) as store:
            await store.dead_letters.add(_letter())
            assert _threads()
        assert not _threads()
        assert [file.name for file in directory.iterdir()] == ["triggerhub.db"]

    async def test_a_failed_opening_leaves_no_thread(self, tmp_path: Path) -> None:
        (tmp_path / "triggerhub.db").mkdir()
        with pytest.raises(StoreError):
            await SQLiteStore(tmp_path).__aenter__()
        assert not _threads()

    async def test_a_cancelled_owner_leaves_no_thread(self, directory: Path) -> None:
        opened = asyncio.Event()

        async def own() -> None:
            async with SQLiteStore(directory):
                opened.set()
                await asyncio.Event().wait()

        owner = asyncio.create_task(own())
        await opened.wait()
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        assert not _threads()

    async def test_an_error_of_the_program_ends_its_owner(self, directory: Path) -> None:
        async def own() -> None:
            async with SQLiteStore(directory) as store:
                await store._writer.write(lambda _: 1 / 0)

        with pytest.raises(ExceptionGroup) as ended:
            await own()
        assert ended.group_contains(ZeroDivisionError)
        assert not _threads()

    async def test_a_closed_store_says_so(self, directory: Path) -> None:
        store = SQLiteStore(directory)
        with pytest.raises(StoreError, match="not open"):
            await store.dead_letters.add(_letter())
        async with store:
            pass
        with pytest.raises(StoreError, match="closed"):
            await store.dead_letters.add(_letter())
        store.journal.note(_delivery(1))


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "triggerhub-store" in thread.name]


class TestOpening:
    async def test_what_is_made_is_for_its_owner_only(
        self, store: SQLiteStore, directory: Path
    ) -> None:
        await store.dead_letters.add(_letter())
        assert directory.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in directory.iterdir()} == {0o600}

    async def test_every_commit_is_synced(self, store: SQLiteStore) -> None:
        def settings(db: sqlite3.Connection) -> list[object]:
            names = ("journal_mode", "synchronous", "auto_vacuum")
            return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        assert await store._writer.read(settings) == ["wal", 2, 2]

    async def test_a_file_of_a_newer_hub_is_refused(self, directory: Path) -> None:
        await _stored(directory)
        file = directory / "triggerhub.db"
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        for read_only in (False, True):
            with pytest.raises(StoreError) as refused:
                await _stored(directory, read_only=read_only)
            assert str(refused.value) == (
                f"{file} was written by a newer triggerhub: found schema version 99, "
                "expected at most 3"
            )

    async def test_a_file_of_the_first_version_is_brought_up_to_date_with_its_letters(
        self, tmp_path: Path
    ) -> None:
        letter = _letter()
        _written_by_the_first_version(tmp_path / "triggerhub.db", letter)
        with pytest.raises(StoreError, match=r"older triggerhub \(schema version 1, expected 3\)"):
            await _stored(tmp_path, read_only=True)
        elsewhere = Elsewhere(kind="KafkaTrigger", coordinates={"offset": "3"}, size=9)
        entry = replace(_letter(b""), elsewhere=elsewhere)
        async with SQLiteStore(tmp_path) as store:
            await store.dead_letters.add(entry)
            found = await store.dead_letters.list(EVERYTHING)
            await store.inbox("a.b.c").put(letter.event)
            waiting = await store.waiting()
        assert [one.id for one in found] == [letter.id, entry.id]
        assert waiting["a.b.c"].events == 1
        assert found[0].event == letter.event
        assert [one.elsewhere for one in found] == [None, elsewhere]

    async def test_a_file_that_is_no_database_is_refused_and_left_alone(
        self, tmp_path: Path
    ) -> None:
        file = tmp_path / "triggerhub.db"
        file.write_bytes(b"not a database, " * 500)
        for read_only in (False, True):
            with pytest.raises(StoreError) as refused:
                await _stored(tmp_path, read_only=read_only)
            assert str(refused.value) == (
                f"{file} is no triggerhub data: expected an SQLite database"
            )
        assert file.read_bytes() == b"not a database, " * 500

    async def test_the_database_of_another_application_is_refused(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "triggerhub.db") as db:
            db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.close()
        with pytest.raises(StoreError, match="is a database of another application"):
            await _stored(tmp_path)

    @pytest.mark.parametrize("below", ["", "data"])
    async def test_a_directory_that_is_a_file_is_refused(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="expected a directory, found a file"):
            await _stored(tmp_path / "file" / below)

    async def test_a_directory_that_may_not_be_written_is_refused(self, public: Path) -> None:
        public.chmod(0o555)
        told = await _as_nobody(public, "SQLiteStore(directory)")
        assert told == f"{public}/triggerhub.db cannot be written: Permission denied"
        told = await _as_nobody(public, "SQLiteStore(directory / 'data')")
        assert told == f"{public}/data cannot be made: Permission denied"


def _written_by_the_first_version(file: Path, letter: DeadLetter) -> None:
    db = sqlite3.connect(file, isolation_level=None)
    for statement in MIGRATIONS[0]:
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")
    *row, _ = letter_row(letter)
    db.execute(
        "INSERT INTO dead_letters (id, namespace, trigger, function, reason, evidence,"
        " last_response, origin_key, data, stored) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1.0)",
        row,
    )
    db.close()


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can reach, which pytest's own are not."""
    made = Path(tempfile.mkdtemp(prefix="triggerhub-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        made.chmod(0o755)
        shutil.rmtree(made)


async def _as_nobody(directory: Path, store: str) -> str:
    """What a user without special rights gets: the number of dead letters, or the error."""
    script = f"""
async def main():
    try:
        async with {store} as store:
            print(sum((await store.dead_letters.counts()).values()))
    except StoreError as error:
        print(error)

if os.geteuid() == 0:
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
asyncio.run(main())
"""
    child = _start(directory, script)
    try:
        said, complaint = await asyncio.to_thread(child.communicate, timeout=30)
    finally:
        child.kill()
        child.wait()
    assert complaint == ""
    return said.strip()


class TestReadOnly:
    async def test_it_reads_beside_a_hub_that_writes(
        self, store: SQLiteStore, directory: Path
    ) -> None:
        letter = _letter()
        await store.dead_letters.add(letter)
        async with SQLiteStore(directory, read_only=True) as reader:
            assert await reader.dead_letters.list(EVERYTHING) == [letter]
            later = _letter()
            await store.dead_letters.add(later)
            assert await reader.dead_letters.get(later.id) == later

    async def test_it_reads_while_no_hub_runs(self, directory: Path) -> None:
        async with SQLiteStore(directory) as store:
            await store.dead_letters.add(_letter())
        assert len(await _stored(directory, read_only=True)) == 1

    async def test_it_reads_what_a_killed_hub_left(self, directory: Path, tmp_path: Path) -> None:
        async with SQLiteStore(directory) as store:
            await store.dead_letters.add(_letter())
            shutil.copytree(directory, tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
        assert (tmp_path / "copy" / "triggerhub.db-wal").stat().st_size > 0
        assert len(await _stored(tmp_path / "copy", read_only=True)) == 1

    async def test_it_reads_where_nothing_may_be_written(self, public: Path) -> None:
        async with SQLiteStore(public) as store:
            await store.dead_letters.add(_letter())
        (public / "triggerhub.db").chmod(0o444)
        public.chmod(0o555)
        assert await _as_nobody(public, "SQLiteStore(directory, read_only=True)") == "1"
        assert [file.name for file in public.iterdir()] == ["triggerhub.db"]

    async def test_it_reads_beside_the_hub_of_another_user(self, public: Path) -> None:
        async with SQLiteStore(public) as store:
            await store.dead_letters.add(_letter())
            for file in public.iterdir():
                file.chmod(0o444)
            public.chmod(0o555)
            assert await _as_nobody(public, "SQLiteStore(directory, read_only=True)") == "1"
            public.chmod(0o755)

    async def test_what_cannot_be_read_without_writing_is_said_to_be_so(
        self, directory: Path, public: Path
    ) -> None:
        async with SQLiteStore(directory) as store:
            await store.dead_letters.add(_letter())
            for suffix in ("", "-wal"):
                shutil.copy(directory / f"triggerhub.db{suffix}", public)
        for file in public.iterdir():
            file.chmod(0o444)
        public.chmod(0o555)
        said = await _as_nobody(public, "SQLiteStore(directory, read_only=True)")
        assert said == (
            f"{public}/triggerhub.db cannot be read: a hub left writes in triggerhub.db-wal, "
            f"and to take them in, {public} must be writable"
        )

    async def test_it_writes_nothing(self, directory: Path) -> None:
        await _stored(directory)
        async with SQLiteStore(directory, read_only=True) as reader:
            reader.journal.note(_delivery(1))
            for write in (
                reader.dead_letters.add(_letter()),
                reader.dead_letters.delete(EVERYTHING),
                reader.positions("a.b.c").save("k", "v"),
                reader.positions("a.b.c").claim("k", 1.0),
                reader.sweep(),
            ):
                with pytest.raises(StoreError, match="cannot be written"):
                    await write

    @pytest.mark.parametrize("made", ["nothing", "directory", "empty file"])
    async def test_no_data_is_said_to_be_none(self, directory: Path, made: str) -> None:
        if made != "nothing":
            directory.mkdir()
        if made == "empty file":
            (directory / "triggerhub.db").touch()
        with pytest.raises(StoreError) as refused:
            await _stored(directory, read_only=True)
        assert str(refused.value) == f"no triggerhub data in {directory}"
        assert directory.exists() == (made != "nothing")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB; skips where this user may not mount one."""
    yield from _disk(tmp_path / "disk", "4m")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """One of 32 MB: of more than what SQLite keeps in its WAL."""
    yield from _disk(tmp_path / "disk", "32m")


def _disk(mounted: Path, size: str) -> Iterator[Path]:
    mounted.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "none", mounted],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no small disk: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)


def _fill_disk(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


class TestFullDisk:
    async def test_it_fails_in_one_sentence_and_works_again_once_there_is_room(
        self, small_disk: Path
    ) -> None:
        ballast = small_disk / "ballast"
        directory = small_disk / "data"
        async with SQLiteStore(directory) as store:
            before = _letter()
            await store.dead_letters.add(before)
            _fill_disk(ballast)
            for data in (bytes(100_000), b"{}" * 2_500, bytes(3_000_000)):
                with pytest.raises(StoreError) as refused:
                    await store.dead_letters.add(_letter(data))
                assert str(refused.value).startswith(
                    f"{directory}/triggerhub.db cannot grow: the disk is full"
                )
            assert await store.dead_letters.list(EVERYTHING) == [before]
            ballast.unlink()
            after = _letter(bytes(100_000))
            await store.dead_letters.add(after)
            assert await store.dead_letters.list(EVERYTHING) == [before, after]
        assert await _stored(directory) == {before.id, after.id}

    @pytest.mark.parametrize("kept", ["letters", "inbox"])
    async def test_what_filled_it_can_be_removed_and_makes_room(
        self, disk: Path, kept: str
    ) -> None:
        async with SQLiteStore(disk / "data") as store:
            inbox = store.inbox("a.b.c")

            async def put(number: int) -> None:
                for _ in range(number):
                    if kept == "letters":
                        await store.dead_letters.add(_letter(bytes(50_000)))
                    else:
                        await inbox.put(_letter(bytes(50_000)).event)

            for _ in range(2):
                with pytest.raises(StoreError, match="the disk is full, but for the 8 MiB"):
                    await put(1_000)
                gone = (await store.dead_letters.delete(EVERYTHING)).number + await inbox.purge()
                assert gone > 200
            await put(200)

    async def test_on_a_full_one_a_repeat_is_known_and_what_is_smaller_is_taken(
        self, disk: Path
    ) -> None:
        async with SQLiteStore(disk / "data") as store:
            inbox = store.inbox("a.b.c")
            known = await inbox.put(_letter().event, once="key", window=60.0)
            sizes = [0, 20_000_000, 100]
            first, large, small = (
                asyncio.create_task(
                    inbox.put(_letter(bytes(size)).event, once="" if size else "key", window=60.0)
                )
                for size in sizes
            )
            await asyncio.wait([first, large, small])
            assert await first == known._replace(fresh=False, before=None)
            assert isinstance(large.exception(), StoreError)
            assert (await small).fresh
            _fill_disk(disk / "ballast")
            assert (await inbox.put(_letter().event, once="key", window=60.0)) == await first
            with pytest.raises(StoreError, match="the disk is full"):
                await inbox.put(_letter().event)

    async def test_the_one_that_does_not_fit_takes_no_other_with_it(self, small_disk: Path) -> None:
        async with SQLiteStore(small_disk) as store:
            small = [asyncio.create_task(store.dead_letters.add(_letter())) for _ in range(20)]
            large = asyncio.create_task(store.dead_letters.add(_letter(bytes(8_000_000))))
            small += [asyncio.create_task(store.dead_letters.add(_letter())) for _ in range(20)]
            await asyncio.wait([*small, large])
            assert [add.exception() for add in small] == [None] * 40
            assert isinstance(large.exception(), StoreError)
            assert len(await store.dead_letters.list(EVERYTHING)) == 40

    async def test_the_same_holds_for_a_file_that_may_not_grow(self, directory: Path) -> None:
        """The page limit stands in for the disk where none can be mounted."""
        async with SQLiteStore(directory) as store:

            def limit(pages: int) -> None:
                store._writer._database._db.execute(f"PRAGMA max_page_count = {pages}")

            def used(db: sqlite3.Connection) -> int:
                return int(db.execute("PRAGMA page_count").fetchone()[0])

            pages = await store._writer.read(used)
            await store._writer.read(lambda _: limit(pages + 5))
            small = [asyncio.create_task(store.dead_letters.add(_letter())) for _ in range(5)]
            large = asyncio.create_task(store.dead_letters.add(_letter(bytes(100_000))))
            await asyncio.wait([*small, large])
            assert [add.exception() for add in small] == [None] * 5
            assert "cannot grow: the disk is full" in str(large.exception())
            await store._writer.read(lambda _: limit(1_000_000))
            await store.dead_letters.add(_letter(bytes(100_000)))
        assert len(await _stored(directory)) == 6

    async def test_a_purge_gives_the_room_back(self, store: SQLiteStore, directory: Path) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(7):
                tasks.create_task(store.dead_letters.add(_letter(bytes(1_000_000))))
        await store.dead_letters.delete(EVERYTHING)
        await store.sweep()
        await store._writer.read(
            lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        )
        assert (directory / "triggerhub.db").stat().st_size < 5_000_000


class TestLostFile:
    async def test_a_file_removed_while_in_use_is_noticed(
        self, store: SQLiteStore, directory: Path
    ) -> None:
        await store.dead_letters.add(_letter())
        assert store.trouble is None
        file = directory / "triggerhub.db"
        file.rename(directory / "aside")
        with pytest.raises(StoreError, match="was removed or replaced while in use"):
            await store.dead_letters.add(_letter())
        assert store.trouble is not None
        assert "was removed or replaced" in store.trouble.text
        assert not store.trouble.refused
        (directory / "aside").rename(file)
        await store.dead_letters.add(_letter())
        assert store.trouble is None


class TestClaims:
    async def test_a_claim_lasts_its_time_by_the_clock(
        self, store: SQLiteStore, directory: Path, clock: Clock
    ) -> None:
        async with SQLiteStore(directory, clock=clock) as other:
            mine, theirs = store.positions("a.b.c"), other.positions("a.b.c")
            assert await mine.claim("slot", 30.0)
            clock.now += 29.0
            assert not await theirs.claim("slot", 30.0)
            assert await mine.claim("slot", 30.0)
            clock.now += 29.0
            assert not await theirs.claim("slot", 30.0)
            clock.now += 1.0
            assert await theirs.claim("slot", 30.0)

    async def test_a_clock_that_jumps_back_makes_no_claim_eternal(
        self, store: SQLiteStore, directory: Path, clock: Clock
    ) -> None:
        async with SQLiteStore(directory, clock=clock) as other:
            mine, theirs = store.positions("a.b.c"), other.positions("a.b.c")
            assert await mine.claim("slot", 30.0)
            clock.now -= 86_400.0
            assert not await theirs.claim("slot", 30.0)
            clock.now += 29.0
            assert not await theirs.claim("slot", 30.0)
            clock.now += 1.0
            assert await theirs.claim("slot", 30.0)

    async def test_a_holder_renews_across_a_jump(
        self, store: SQLiteStore, directory: Path, clock: Clock
    ) -> None:
        async with SQLiteStore(directory, clock=clock) as other:
            mine, theirs = store.positions("a.b.c"), other.positions("a.b.c")
            assert await mine.claim("slot", 30.0)
            clock.now -= 86_400.0
            assert await mine.claim("slot", 30.0)
            assert not await theirs.claim("slot", 30.0)
            clock.now += 30.0
            assert await theirs.claim("slot", 30.0)

    async def test_a_sweep_drops_only_ended_claims(self, store: SQLiteStore, clock: Clock) -> None:
        positions = store.positions("a.b.c")
        await positions.claim("short", 10.0)
        await positions.claim("long", 100.0)
        clock.now += 10.0
        await store.sweep()
        left = await store._writer.read(lambda db: db.execute("SELECT key FROM claims").fetchall())
        assert left == [("long",)]


class TestInbox:
    async def test_a_window_lasts_as_long_as_its_put_said(
        self, store: SQLiteStore, clock: Clock
    ) -> None:
        inbox = store.inbox("a.b.c")
        first = await inbox.put(_letter().event, once="key", window=60.0)
        clock.now += 59.0
        assert not (await inbox.put(_letter().event, once="key", window=3600.0)).fresh
        await store.sweep()
        clock.now += 0.5
        assert not (await inbox.put(_letter().event, once="key", window=60.0)).fresh
        clock.now += 0.5
        later = await inbox.put(_letter().event, once="key", window=60.0)
        assert later.fresh
        assert later.number > first.number

    async def test_a_sweep_forgets_windows_that_are_over(
        self, store: SQLiteStore, clock: Clock
    ) -> None:
        for key, window in (("short", 10.0), ("long", 100.0)):
            await store.inbox("a.b.c").put(_letter().event, once=key, window=window)
        clock.now += 10.0
        await store.sweep()
        left = await store._writer.read(lambda db: db.execute("SELECT key FROM once").fetchall())
        assert left == [("long",)]

    async def test_what_a_damaged_row_holds_stops_nothing_behind_it(
        self, store: SQLiteStore
    ) -> None:
        inbox = store.inbox("a.b.c")
        numbers = [(await inbox.put(_letter().event)).number for _ in range(4)]
        rows = ((b"\xff{", b"data", 9), ("{", "\u00e9", "x"), (7, 8, 9))

        def damage(db: sqlite3.Connection) -> None:
            for number, row in zip(numbers, rows, strict=False):
                db.execute(
                    "UPDATE inbox SET event = ?, data = ?, size = ? WHERE number = ?",
                    (*row, number),
                )

        await store._writer.write(damage)
        entries = await inbox.read()
        assert [entry.number for entry in entries] == numbers
        assert [entry.event.fault is None for entry in entries] == [False] * 3 + [True]
        assert [entry.event.data for entry in entries[:3]] == [b"data", "\u00e9".encode(), b"8"]
        await inbox.remove(numbers)
        assert await store.waiting() == {}

    async def test_a_purge_takes_more_than_one_step_takes(self, store: SQLiteStore) -> None:
        inbox = store.inbox("a.b.c")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2_500):
                tasks.create_task(inbox.put(_letter().event))
        assert await inbox.purge() == 2_500
        assert await store.waiting() == {}

    async def test_what_is_put_during_a_purge_stays(self, store: SQLiteStore) -> None:
        class Busy(SQLiteInbox):
            async def _delete(self, numbers: Collection[int]) -> int:
                await self.put(_letter().event)
                return await super()._delete(numbers)

        inbox = Busy(store._writer, "a.b.c", Room(), time.time)
        await inbox.put(_letter().event)
        async with asyncio.timeout(30):
            assert await inbox.purge() == 1
        assert (await store.waiting())["a.b.c"].events == 1

    async def test_what_is_put_at_once_keeps_its_order_and_is_put_once(
        self, store: SQLiteStore
    ) -> None:
        inbox, event = store.inbox("a.b.c"), _letter().event
        await inbox.put(event, once="key 7", window=60.0)
        async with asyncio.TaskGroup() as tasks:
            puts = [
                tasks.create_task(
                    inbox.put(replace(event, id=str(at)), once=f"key {at % 150}", window=60.0)
                )
                for at in range(201)
            ]
        put = [each.result() for each in puts]
        fresh = [at for at, each in enumerate(put) if each.fresh]
        assert fresh == [at for at in range(150) if at != 7]
        assert [put[at].before for at in fresh[1:]] == [put[at].number for at in fresh[:-1]]
        assert [put[at].number for at in range(150, 201)] == [put[at].number for at in range(51)]
        assert [each.event.id for each in (await inbox.read())[1:]] == [str(at) for at in fresh]
        assert (await store.waiting())["a.b.c"].events == 150

    async def test_of_those_put_at_once_what_the_database_refuses_fails_alone(
        self, store: SQLiteStore
    ) -> None:
        await store._writer.read(lambda db: db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000))
        inbox = store.inbox("a.b.c")
        sizes = [200_000 if at in (3, 8) else 100 for at in range(10)]
        puts = [asyncio.create_task(inbox.put(_letter(b"x" * size).event)) for size in sizes]
        await asyncio.wait(puts)
        assert [isinstance(put.exception(), StoreError) for put in puts] == [
            size == 200_000 for size in sizes
        ]
        assert [len(entry.event.data) for entry in await inbox.read()] == [100] * 8
        assert (await store.waiting())["a.b.c"].events == 8

    async def test_of_those_put_at_once_as_many_are_taken_as_there_is_room(
        self, directory: Path
    ) -> None:
        async with SQLiteStore(directory, room=Room(events=5)) as store:
            inbox = store.inbox("a.b.c")
            puts = [asyncio.create_task(inbox.put(_letter().event)) for _ in range(8)]
            await asyncio.wait(puts)
            assert [put.exception() is None for put in puts] == [True] * 5 + [False] * 3
            assert (await store.waiting())["a.b.c"].events == 5

    async def test_inboxes_made_in_two_processes_at_once_share_nothing(
        self, store: SQLiteStore, directory: Path
    ) -> None:
        async with SQLiteStore(directory) as other, asyncio.TaskGroup() as tasks:
            puts = [
                tasks.create_task(each.inbox(f"a.{number}.c").put(_letter().event))
                for number in range(20)
                for each in (store, other)
            ]
        assert len({put.result().number for put in puts}) == 40
        assert {waiting.events for waiting in (await store.waiting()).values()} == {2}


class TestDeadLetters:
    async def test_older_than_counts_from_when_it_was_stored(
        self, store: SQLiteStore, clock: Clock
    ) -> None:
        old, young = _letter(), _letter()
        await store.dead_letters.add(old)
        clock.now += 60.0
        await store.dead_letters.add(young)
        assert await store.dead_letters.list(Selection(older_than=30.0)) == [old]
        assert await store.dead_letters.delete(Selection(older_than=30.0)) == (1, 0)
        assert await store.dead_letters.list(EVERYTHING) == [young]

    async def test_what_comes_during_a_purge_stays(self, store: SQLiteStore) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(1_000):
                tasks.create_task(store.dead_letters.add(_letter()))
        purge = asyncio.create_task(store.dead_letters.delete(EVERYTHING))
        added = 0
        while not purge.done():
            await store.dead_letters.add(_letter())
            added += 1
        gone = (await purge).number
        assert gone >= 1_000
        left = await store.dead_letters.list(EVERYTHING, limit=10_000)
        assert len(left) == 1_000 + added - gone
        assert len(left) >= added - 2

    async def test_a_number_is_never_used_again(self, store: SQLiteStore) -> None:
        """A purge in steps would take what came after it began."""

        def newest(db: sqlite3.Connection) -> int:
            return int(db.execute("SELECT max(number) FROM dead_letters").fetchone()[0])

        await store.dead_letters.add(_letter())
        first = await store._writer.read(newest)
        await store.dead_letters.delete(EVERYTHING)
        await store.dead_letters.add(_letter())
        assert await store._writer.read(newest) > first

    async def test_a_text_that_no_column_holds_selects_nothing(self, store: SQLiteStore) -> None:
        await store.dead_letters.add(_letter())
        bad = "\udcff"
        for selection in (Selection(ids=(bad,)), Selection(trigger=bad), Selection(function=bad)):
            assert await store.dead_letters.list(selection) == []


class TestJournal:
    async def test_what_is_being_written_is_found_once(self, store: SQLiteStore) -> None:
        store.journal.note(_delivery(1))
        flush = asyncio.create_task(store.journal._flush())
        await asyncio.sleep(0)
        assert await store.journal.find("0:1") == [_delivery(1)]
        await flush

    async def test_it_forgets_after_a_day(self, store: SQLiteStore, clock: Clock) -> None:
        store.journal.note(_delivery(1))
        await _written(store, 1)
        clock.now += 23 * 3600.0
        store.journal.note(_delivery(2))
        await _written(store, 2)
        clock.now += 3600.0 + 1.0
        await store.sweep()
        assert await store.journal.find("0:1") == []
        assert await store.journal.find("0:2") == [_delivery(2)]

    async def test_it_keeps_the_latest_hundred_thousand(
        self, store: SQLiteStore, clock: Clock
    ) -> None:
        def fill(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT INTO deliveries (noted, event_id, source, delivery)"
                " VALUES (?, 'old', '', '{}')",
                ((clock.now,) for _ in range(100_500)),
            )

        await store._writer.write(fill)
        store.journal.note(_delivery(1))
        await _written(store, 100_000)
        assert await store.journal.find("0:1") == [_delivery(1)]

    async def test_beyond_ten_thousand_queued_it_drops_and_says_how_many(
        self, directory: Path
    ) -> None:
        with capture_logs() as logs:
            async with SQLiteStore(directory) as store:
                for number in range(10_007):
                    store.journal.note(_delivery(number))
        assert [(line["event"], line["deliveries"]) for line in logs] == [("journal.lost", 7)]
        async with SQLiteStore(directory) as store:
            assert await _rows(store) == 10_000
            assert await store.journal.find("0:9999") == [_delivery(9_999)]

    async def test_what_the_disk_refuses_is_counted_and_the_rest_goes_on(
        self, directory: Path
    ) -> None:
        file = directory / "triggerhub.db"
        with capture_logs() as logs:
            async with SQLiteStore(directory) as store:
                file.rename(directory / "aside")
                store.journal.note(_delivery(1))
                async with asyncio.timeout(5):
                    while await store.journal.find("0:1"):
                        await asyncio.sleep(0.02)
                (directory / "aside").rename(file)
                store.journal.note(_delivery(2))
        assert [(line["event"], line["deliveries"]) for line in logs] == [("journal.lost", 1)]
        async with SQLiteStore(directory) as store:
            assert await store.journal.find("0:2") == [_delivery(2)]


async def _rows(store: SQLiteStore) -> int:
    def count(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT count(*) FROM deliveries").fetchone()[0])

    return await store._writer.read(count)


async def _written(store: SQLiteStore, rows: int) -> None:
    async with asyncio.timeout(10):
        while await _rows(store) != rows:
            await asyncio.sleep(0.02)
