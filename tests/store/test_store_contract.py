"""What every store promises, whatever keeps its data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from triggerhub.connector import InboxFull, PositionConflict
from triggerhub.event import Event, Origin, Request, Settled
from triggerhub.store.records import (
    Attempt,
    DeadLetter,
    Delivery,
    Entry,
    Room,
    Selection,
    Store,
    Waiting,
)
from triggerhub.store.sqlite import SQLiteStore
from triggerhub.store.ulid import new_ulid

OpenStore = Callable[..., AbstractAsyncContextManager[Store]]
"""Each call is one more process that opens the same store; ``room`` says how much each inbox may
hold."""


def _letter(**fields: object) -> DeadLetter:
    letter = DeadLetter(
        id=new_ulid(),
        namespace="shop",
        trigger="orders",
        function="handle",
        event=Event(id="0:7", source="/kafka/orders", type="order.created", data=b"{}"),
        origin=Origin(),
        reason="Rejected",
        detail="the function answered 400",
        last_status=400,
        last_response=b"no",
        attempts=1,
        first_time=1_700_000_000.25,
        last_time=1_700_000_001.5,
    )
    return replace(letter, **fields)  # type: ignore[arg-type]


def _delivery(event_id: str = "0:7", **fields: object) -> Delivery:
    delivery = Delivery(
        binding="shop.orders.handle",
        source="/kafka/orders",
        id=event_id,
        type="order.created",
        received=1_700_000_000.125,
        ended=1_700_000_002.0,
        settled=Settled.DEAD,
        detail="rejected",
        attempts=(
            Attempt(number=1, time=1_700_000_000.5, seconds=0.25, error="timed out"),
            Attempt(number=2, time=1_700_000_001.5, seconds=0.125, status=400),
        ),
        dead_letter="01J",
    )
    return replace(delivery, **fields)  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite"])
def open_store(tmp_path: Path) -> OpenStore:
    return lambda **options: SQLiteStore(tmp_path / "data", **options)


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened


@pytest.fixture
async def other(store: Store, open_store: OpenStore) -> AsyncIterator[Store]:
    """Another process that shares the store."""
    async with open_store() as opened:
        yield opened


class TestDeadLetters:
    async def test_a_dead_letter_comes_back_as_it_was(self, store: Store) -> None:
        letter = _letter(
            event=Event(
                id="0:7 \ud800 ä\x00",
                source="/kafka/orders",
                type="order.created",
                data=bytes(range(256)),
                datacontenttype="application/octet-stream",
                subject="größe",
                time=datetime(2026, 2, 3, 4, 5, 6, 789_123, timezone(timedelta(hours=5.5))),
                key="k",
                extensions={"traceparent": "00-1", "tenant": "ß"},
                fault="bad magic",
            ),
            origin=Origin(
                coordinates={"topic": "orders", "offset": "7"},
                key=b"\xff\x00key",
                headers=(("a", b"\xfe\x00"), ("a", None), ("empty", b"")),
            ),
            reason="Undecodable",
            detail="no \udcff",
            last_status=None,
            last_response=b"\x80" * 1024,
        )
        await store.dead_letters.add(letter)
        found = await store.dead_letters.get(letter.id)
        assert found == letter
        assert found is not None
        assert found.event.time is not None
        assert found.event.time.utcoffset() == timedelta(hours=5.5)

    async def test_absent_and_empty_stay_apart(self, store: Store) -> None:
        absent = _letter(origin=Origin(key=None))
        empty = _letter(
            event=Event(id="", source="", type="", subject="", key="", datacontenttype=""),
            origin=Origin(key=b""),
        )
        for letter in (absent, empty):
            await store.dead_letters.add(letter)
            assert await store.dead_letters.get(letter.id) == letter

    async def test_ten_megabytes_are_kept_whole(self, store: Store) -> None:
        letter = _letter(event=Event(id="1", source="s", type="t", data=bytes(range(250)) * 40_000))
        await store.dead_letters.add(letter)
        assert await store.dead_letters.get(letter.id) == letter

    async def test_adding_twice_is_no_error_and_keeps_one(self, store: Store) -> None:
        letter = _letter()
        await store.dead_letters.add(letter)
        await store.dead_letters.add(letter)
        assert await store.dead_letters.list(Selection()) == [letter]
        assert await store.dead_letters.counts() == {("shop", "orders", "handle"): 1}

    async def test_what_is_not_there_is_none(self, store: Store) -> None:
        assert await store.dead_letters.get("01J") is None
        assert await store.dead_letters.get("\udcff") is None

    async def test_a_listing_is_oldest_first_and_goes_on_after_an_id(self, store: Store) -> None:
        letters = [_letter() for _ in range(5)]
        for letter in reversed(letters):
            await store.dead_letters.add(letter)
        everything = Selection()
        assert await store.dead_letters.list(everything) == letters
        first = await store.dead_letters.list(everything, limit=2)
        assert first == letters[:2]
        rest = await store.dead_letters.list(everything, after=first[-1].id)
        assert rest == letters[2:]
        assert await store.dead_letters.list(everything, after=letters[-1].id) == []

    @pytest.mark.parametrize(
        ("selection", "expected"),
        [
            (Selection(), "ABCD"),
            (Selection(ids=("A", "C", "nobody")), "AC"),
            (Selection(ids=("A", "C"), reason="Expired"), "C"),
            (Selection(trigger="orders"), "ABC"),
            (Selection(trigger="shop/orders"), "AB"),
            (Selection(trigger="shop/other"), ""),
            (Selection(function="other"), "BD"),
            (Selection(trigger="orders", function="other"), "B"),
            (Selection(reason="Expired"), "C"),
            (Selection(older_than=3600.0), ""),
            (Selection(older_than=0.0), "ABCD"),
        ],
    )
    async def test_a_selection_is_all_that_is_set(
        self, store: Store, selection: Selection, expected: str
    ) -> None:
        for letter in (
            _letter(id="A"),
            _letter(id="B", function="other"),
            _letter(id="C", namespace="bank", reason="Expired"),
            _letter(id="D", namespace="bank", trigger="cron", function="other"),
        ):
            await store.dead_letters.add(letter)
        listed = await store.dead_letters.list(selection)
        assert "".join(letter.id for letter in listed) == expected
        assert await store.dead_letters.delete(selection) == (len(expected), 0)
        left = await store.dead_letters.list(Selection())
        assert {letter.id for letter in left} == set("ABCD") - set(expected)

    async def test_a_purge_takes_any_number(self, store: Store) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(1_000):
                tasks.create_task(store.dead_letters.add(_letter()))
        assert await store.dead_letters.counts() == {("shop", "orders", "handle"): 1_000}
        assert await store.dead_letters.delete(Selection()) == (1_000, 0)
        assert await store.dead_letters.counts() == {}

    async def test_counts_are_by_binding(self, store: Store) -> None:
        for function in ("a", "b", "b"):
            await store.dead_letters.add(_letter(function=function))
        assert await store.dead_letters.counts() == {
            ("shop", "orders", "a"): 1,
            ("shop", "orders", "b"): 2,
        }

    async def test_a_cancelled_add_harms_no_other(self, store: Store) -> None:
        letters = [_letter() for _ in range(60)]
        adds = [asyncio.create_task(store.dead_letters.add(letter)) for letter in letters]
        await asyncio.sleep(0)
        for add in adds[::3]:
            add.cancel()
        await asyncio.wait(adds)
        assert all(add.cancelled() for add in adds[::3])
        kept = {letter.id for letter in await store.dead_letters.list(Selection())}
        assert kept >= {letter.id for index, letter in enumerate(letters) if index % 3}
        await store.dead_letters.add(_letter())

    async def test_another_process_sees_it_and_a_restart_keeps_it(
        self, open_store: OpenStore
    ) -> None:
        letter = _letter(event=Event(id="1", source="s", type="t", time=datetime.now(UTC)))
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(open_store())
            second = await stack.enter_async_context(open_store())
            await first.dead_letters.add(letter)
            assert await second.dead_letters.list(Selection()) == [letter]
        async with open_store() as again:
            assert await again.dead_letters.list(Selection()) == [letter]


class TestPositions:
    async def test_what_is_saved_is_loaded_also_after_a_restart(
        self, open_store: OpenStore
    ) -> None:
        async with open_store() as store:
            positions = store.positions("shop.orders.handle")
            assert await positions.load() == {}
            await positions.save("shard-1", "a")
            revision = await positions.save("shard-1", "ö")
        async with open_store() as store:
            found = await store.positions("shop.orders.handle").load()
        assert {key: (kept.value, kept.revision) for key, kept in found.items()} == {
            "shard-1": ("ö", revision)
        }

    async def test_a_prefix_is_letter_for_letter(self, store: Store) -> None:
        positions = store.positions("a.b.c")
        for key in ("shard", "shard-1", "shard-2", "shard%", "share", "Shard-1", ""):
            await positions.save(key, "x")
        assert set(await positions.load("shard-")) == {"shard-1", "shard-2"}
        assert set(await positions.load("shard%")) == {"shard%"}
        assert len(await positions.load("")) == 7

    async def test_each_subscription_has_its_own(self, store: Store) -> None:
        await store.positions("a.b.c").save("k", "1")
        await store.positions("a.b.d").save("k", "2", expect=0)
        await store.positions("a.b.d").delete("k")
        assert set(await store.positions("a.b.c").load()) == {"k"}

    async def test_a_save_that_expects_the_present_revision_succeeds(self, store: Store) -> None:
        positions = store.positions("a.b.c")
        revision = await positions.save("k", "1", expect=0)
        assert revision > 0
        later = await positions.save("k", "2", expect=revision)
        assert later > revision
        assert (await positions.load())["k"].value == "2"

    async def test_a_save_that_expects_another_revision_conflicts(self, store: Store) -> None:
        positions = store.positions("a.b.c")
        with pytest.raises(PositionConflict):
            await positions.save("k", "1", expect=3)
        revision = await positions.save("k", "1")
        for expect in (0, revision + 1):
            with pytest.raises(PositionConflict):
                await positions.save("k", "2", expect=expect)
        assert (await positions.load())["k"].value == "1"

    async def test_a_position_made_again_is_not_the_one_before(self, store: Store) -> None:
        positions = store.positions("a.b.c")
        before = await positions.save("k", "1")
        await positions.delete("k")
        assert await positions.load() == {}
        await positions.save("k", "2", expect=0)
        with pytest.raises(PositionConflict):
            await positions.save("k", "3", expect=before)

    async def test_deleting_what_is_not_there_is_no_error(self, store: Store) -> None:
        await store.positions("a.b.c").delete("k")

    async def test_of_many_at_once_one_wins_each_revision(self, store: Store, other: Store) -> None:
        async def count(positions_of: Store) -> None:
            positions = positions_of.positions("a.b.c")
            for _ in range(10):
                while True:
                    kept = (await positions.load()).get("n")
                    value, expect = (int(kept.value), kept.revision) if kept else (0, 0)
                    try:
                        await positions.save("n", str(value + 1), expect=expect)
                    except PositionConflict:
                        continue
                    break

        async with asyncio.TaskGroup() as tasks:
            for each in (store, other, store, other):
                tasks.create_task(count(each))
        assert (await store.positions("a.b.c").load())["n"].value == "40"

    async def test_a_conflict_fails_alone(self, store: Store) -> None:
        positions = store.positions("a.b.c")
        await positions.save("k", "1")
        letters = [_letter() for _ in range(20)]
        adds = [asyncio.create_task(store.dead_letters.add(letter)) for letter in letters]
        conflicts = [asyncio.create_task(positions.save("k", "2", expect=0)) for _ in range(5)]
        adds += [asyncio.create_task(store.dead_letters.add(_letter())) for _ in range(20)]
        await asyncio.wait([*adds, *conflicts])
        assert all(isinstance(lost.exception(), PositionConflict) for lost in conflicts)
        assert [add.exception() for add in adds] == [None] * 40
        assert len(await store.dead_letters.list(Selection())) == 40


class TestClaims:
    async def test_one_process_holds_a_claim_and_may_renew_it(
        self, store: Store, other: Store
    ) -> None:
        mine, theirs = store.positions("a.b.c"), other.positions("a.b.c")
        assert await mine.claim("slot", 30.0)
        for _ in range(3):
            assert not await theirs.claim("slot", 30.0)
        assert await mine.claim("slot", 30.0)
        assert not await theirs.claim("slot", 30.0)
        assert await theirs.claim("another", 30.0)
        assert await other.positions("a.b.d").claim("slot", 30.0)

    async def test_a_released_claim_is_free(self, store: Store, other: Store) -> None:
        mine, theirs = store.positions("a.b.c"), other.positions("a.b.c")
        await mine.claim("slot", 30.0)
        await theirs.release("slot")
        assert not await theirs.claim("slot", 30.0)
        await mine.release("slot")
        await mine.release("slot")
        assert await theirs.claim("slot", 30.0)

    async def test_a_claim_that_is_not_renewed_ends(self, store: Store, other: Store) -> None:
        mine, theirs = store.positions("a.b.c"), other.positions("a.b.c")
        assert await mine.claim("slot", 0.3)
        assert not await theirs.claim("slot", 30.0)
        async with asyncio.timeout(10):
            while not await theirs.claim("slot", 30.0):
                await asyncio.sleep(0.02)
        await mine.release("slot")
        assert not await mine.claim("slot", 30.0)

    async def test_of_many_at_once_one_gets_the_claim(self, store: Store, other: Store) -> None:
        async with asyncio.TaskGroup() as tasks:
            claims = [
                [tasks.create_task(each.positions("a.b.c").claim(f"{n}", 30.0)) for n in range(20)]
                for each in (store, other)
            ]
        for one, two in zip(*claims, strict=True):
            assert one.result() != two.result()

    async def test_a_claim_must_last(self, store: Store) -> None:
        with pytest.raises(ValueError, match="more than 0"):
            await store.positions("a.b.c").claim("slot", 0.0)


class TestJournal:
    async def test_what_is_noted_is_found_at_once_newest_first(self, store: Store) -> None:
        older = _delivery(settled=None, ended=None, attempts=(), dead_letter="")
        newer = _delivery(binding="shop.orders.other")
        elsewhere = _delivery(source="/kafka/bills")
        for noted in (older, newer, elsewhere, _delivery("0:8")):
            store.journal.note(noted)
        assert await store.journal.find("0:7") == [elsewhere, newer, older]
        assert await store.journal.find("0:7", "/kafka/orders") == [newer, older]
        assert await store.journal.find("0:9") == []

    async def test_what_is_noted_reaches_another_process_within_a_second_or_so(
        self, store: Store, other: Store
    ) -> None:
        store.journal.note(_delivery())
        async with asyncio.timeout(5):
            while not await other.journal.find("0:7"):
                await asyncio.sleep(0.02)
        store.journal.note(_delivery(detail="again"))
        assert [found.detail for found in await store.journal.find("0:7")] == ["again", "rejected"]

    async def test_a_restart_keeps_what_was_noted_last(self, open_store: OpenStore) -> None:
        noted = _delivery("\udcff ü", detail="\ud800")
        async with open_store() as store:
            store.journal.note(noted)
        async with open_store() as store:
            assert await store.journal.find("\udcff ü") == [noted]


def _event(event_id: str, data: bytes = b"{}") -> Event:
    return Event(id=event_id, source="/http/shop/orders", type="t", data=data)


def _ids(entries: Sequence[Entry]) -> list[str]:
    return [entry.event.id for entry in entries]


class TestInbox:
    async def test_an_event_comes_back_as_it_was_put_from_any_process_after_a_restart(
        self, open_store: OpenStore
    ) -> None:
        origin = Origin(
            coordinates={"subject": "a.b"},
            key=b"\xff\x00",
            headers=(("a", b"\xfe\x00"), ("a", None), ("empty", b"")),
            value=b"whole",
        )
        event = Event(
            id="1 \ud800 ä\x00",
            source="/http/shop/orders",
            type="t",
            data=bytes(range(256)) * 100,
            datacontenttype="",
            subject="größe",
            time=datetime(2026, 2, 3, 4, 5, 6, 789_123, timezone(timedelta(hours=5.5))),
            key="",
            extensions={"tenant": "ß"},
            fault="bad",
            origin=lambda: origin,
        )
        asked = Request(
            method="PUT", path="/7", query="a=1", headers=((b"x-a", b"\xff"),), deferred=True
        )
        plain = replace(event, id="2", data=b"", time=None, origin=None, request=asked)
        async with open_store() as store:
            for each in (event, plain):
                await store.inbox("a.b.c").put(each)
        async with open_store() as store:
            found = [entry.event for entry in await store.inbox("a.b.c").read()]
        assert [replace(each, origin=None) for each in found] == [
            replace(event, origin=None),
            plain,
        ]
        assert [each.origin and each.origin() for each in found] == [origin, None]

    async def test_each_inbox_is_read_in_the_order_in_which_it_was_put_page_by_page(
        self, store: Store, other: Store
    ) -> None:
        for number in range(6):
            each = (store, other)[number % 2]
            await each.inbox("a.b.c").put(_event(f"{number}", b"x" * 100))
            await each.inbox("a.b.d").put(_event(f"other {number}"))
        inbox = store.inbox("a.b.c")
        entries = await inbox.read()
        assert _ids(entries) == ["0", "1", "2", "3", "4", "5"]
        numbers = [entry.number for entry in entries]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > 0
        assert _ids(await inbox.read(limit=2)) == ["0", "1"]
        assert _ids(await inbox.read(numbers[1], limit=3)) == ["2", "3", "4"]
        assert _ids(await inbox.read(size=250)) == ["0", "1"]
        assert _ids(await inbox.read(size=1)) == ["0"]
        assert await inbox.read(numbers[-1]) == []

    async def test_what_is_removed_is_gone_and_its_number_is_never_given_again(
        self, store: Store, other: Store
    ) -> None:
        inbox = store.inbox("a.b.c")
        puts = [await inbox.put(_event(f"{number}")) for number in range(3)]
        numbers = [put.number for put in puts]
        await inbox.remove(numbers[1:])
        await inbox.remove([*numbers[1:], numbers[-1] + 1000])
        await inbox.remove([])
        assert _ids(await other.inbox("a.b.c").read()) == ["0"]
        later = await other.inbox("a.b.c").put(_event("3"))
        assert later.number > max(numbers)
        assert _ids(await inbox.read()) == ["0", "3"]
        await inbox.remove([numbers[0], later.number])
        assert (await inbox.put(_event("4"))).number > later.number

    async def test_a_purge_takes_all_of_one_inbox_and_what_was_put_once_stays_known(
        self, store: Store, other: Store
    ) -> None:
        inbox = store.inbox("a.b.c")
        assert await inbox.purge() == 0
        first = await inbox.put(_event("0", b"x" * 2_000_000), once="key", window=60.0)
        await other.inbox("a.b.c").put(_event("1"))
        for binding in ("a.b.d", "a.b.c.d"):
            await store.inbox(binding).put(_event("theirs", b"x" * 2_000_000))
        assert await inbox.purge() == 2
        assert await inbox.read() == await other.inbox("a.b.c").read() == []
        assert sorted(await store.waiting()) == ["a.b.c.d", "a.b.d"]
        assert (await inbox.put(_event("2"), once="key", window=60.0)) == (
            first.number,
            False,
            None,
        )
        assert (await inbox.put(_event("3"))).number > first.number
        assert _ids(await inbox.read()) == ["3"]
        for binding in ("a.b.d", "a.b.c.d"):
            (entry,) = await store.inbox(binding).read()
            assert entry.event == _event("theirs", b"x" * 2_000_000)

    async def test_one_inbox_removes_nothing_of_another(self, store: Store) -> None:
        mine = (await store.inbox("a.b.c").put(_event("mine"))).number
        theirs = (await store.inbox("a.b.d").put(_event("theirs"))).number
        await store.inbox("a.b.c").remove([mine, theirs])
        assert _ids(await store.inbox("a.b.d").read()) == ["theirs"]

    async def test_whether_an_event_is_there_was_there_or_never_was(self, store: Store) -> None:
        inbox = store.inbox("a.b.c")
        assert await inbox.has(1) is None
        here = (await inbox.put(_event("0"))).number
        gone = (await inbox.put(_event("1"))).number
        await inbox.remove([gone])
        assert await inbox.has(here) is True
        assert await inbox.has(gone) is False
        assert await inbox.has(gone + 1000) is None

    async def test_what_was_put_once_is_not_put_again_within_its_window(
        self, store: Store, other: Store
    ) -> None:
        first = await store.inbox("a.b.c").put(_event("0"), once="key \ud800", window=60.0)
        await store.inbox("a.b.c").remove([first.number])
        again = await other.inbox("a.b.c").put(_event("1"), once="key \ud800", window=60.0)
        assert (first.fresh, again.fresh) == (True, False)
        assert again.number == first.number
        assert await store.inbox("a.b.c").read() == []
        for binding, once in (("a.b.c", "another"), ("a.b.d", "key \ud800"), ("a.b.c", "")):
            assert (await store.inbox(binding).put(_event("2"), once=once, window=60.0)).fresh

    async def test_of_many_at_once_one_is_put(self, store: Store, other: Store) -> None:
        async with asyncio.TaskGroup() as tasks:
            puts = [
                tasks.create_task(
                    each.inbox("a.b.c").put(_event(f"{number}"), once="key", window=60.0)
                )
                for number in range(10)
                for each in (store, other)
            ]
        assert sum(put.result().fresh for put in puts) == 1
        assert len({put.result().number for put in puts}) == 1
        assert len(await store.inbox("a.b.c").read()) == 1

    async def test_a_store_that_tells_what_was_put_before_tells_the_truth(
        self, store: Store, other: Store
    ) -> None:
        before: int | None = 0
        for number in range(6):
            inbox = (store, other)[number % 2].inbox("a.b.c")
            put = await inbox.put(_event(f"{number}"))
            assert put.before in (before, None)
            before = put.number
            if number % 3 == 0:
                await inbox.remove([put.number])

    async def test_a_full_inbox_takes_nothing_until_something_was_removed(
        self, open_store: OpenStore
    ) -> None:
        async with open_store(room=Room(events=2)) as store:
            inbox = store.inbox("a.b.c")
            first = await inbox.put(_event("0"))
            await inbox.put(_event("1"))
            with pytest.raises(InboxFull, match=r"a\.b\.c is full.* 2 events"):
                await inbox.put(_event("2"), once="key", window=60.0)
            await store.inbox("a.b.d").put(_event("0"))
            await inbox.remove([first.number])
            assert (await inbox.put(_event("2"), once="key", window=60.0)).fresh
            assert _ids(await inbox.read()) == ["1", "2"]

    async def test_an_inbox_is_full_by_bytes_but_takes_one_event_of_any_size(
        self, open_store: OpenStore
    ) -> None:
        async with open_store(room=Room(size=10_000)) as store:
            inbox = store.inbox("a.b.c")
            large = await inbox.put(_event("0", b"x" * 20_000))
            with pytest.raises(InboxFull, match="10000 bytes"):
                await inbox.put(_event("1"))
            await inbox.remove([large.number])
            for number in range(2):
                await inbox.put(_event(f"{number}", b"x" * 4_000))
            with pytest.raises(InboxFull):
                await inbox.put(_event("2", b"x" * 4_000))

    async def test_what_waits_is_told_by_binding(self, store: Store, other: Store) -> None:
        assert await store.waiting() == {}
        numbers = [
            (await store.inbox(binding).put(_event("0", b"x" * 1000))).number
            for binding in ("a.b.c", "a.b.c", "a.b.d")
        ]
        found = await other.waiting()
        assert {binding: each.events for binding, each in found.items()} == {"a.b.c": 2, "a.b.d": 1}
        assert 2_000 <= found["a.b.c"].size < 4_000
        await store.inbox("a.b.c").remove(numbers[:1])
        assert (await other.waiting())["a.b.c"].events == 1
        await store.inbox("a.b.c").remove(numbers[:2])
        assert (await other.waiting()).get("a.b.c", Waiting(0, 0)) == Waiting(0, 0)
