"""Exactly the bound sources are listened to, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from tests.fakes import MemoryStore, ScriptedFunction
from triggerhub.connector import (
    Installation,
    NotTaken,
    Order,
    Positions,
    Sought,
    SourceModel,
    SpecError,
    Subscription,
)
from triggerhub.control.binding import Listening
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import Kind
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.testing.fakes import MemoryPositions

pytestmark = pytest.mark.looptime
CREATED = datetime(2026, 1, 1, tzinfo=UTC)


class Wish(SourceModel):
    id: str


class Source(SourceModel):
    place: str = "a"
    seek: Wish | None = None


class Scripted:
    """Listens until cancelled, and writes down what happened to it."""

    kind = "TestTrigger"
    source = Source
    diary: ClassVar[list[str]] = []
    behave: ClassVar[dict[str, Callable[[], Exception]]] = {}
    slow_stop: ClassVar[float] = 0.0

    def __init__(self, installation: Installation) -> None:
        pass

    async def listen(self, subscription: Subscription[Source]) -> None:
        place = f"{subscription.name}@{subscription.source.place}"
        self.diary.append(f"+{place}")
        if subscription.source.place in self.behave:
            raise self.behave[subscription.source.place]()
        subscription.report.connected()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(self.slow_stop)
            self.diary.append(f"-{place}")

    async def seek(self, subscription: Subscription[Source]) -> None:
        wish = subscription.source.seek
        assert wish is not None
        self.diary.append(f"~{subscription.name}@{wish.id}")
        if wish.id in self.behave:
            raise self.behave[wish.id]()
        subscription.report.sought(Sought(id=wish.id, time=CREATED, positions="7"))


class Open(Scripted):
    """As one that shares a client among its subscriptions."""

    async def __aenter__(self) -> Open:
        self.diary.append("open")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.diary.append("closed")


class Store(MemoryStore):
    def positions(self, subscription: str) -> Positions:
        return MemoryPositions()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Scripted.diary.clear()
    Scripted.behave.clear()
    Scripted.slow_stop = 0.0


@asynccontextmanager
async def listening(connector: type[Scripted] = Scripted) -> AsyncIterator[Listeners]:
    kind: Any = Kind("TestTrigger", lambda: connector)
    store = Store()
    dispatcher = Dispatcher(ScriptedFunction(), store)
    async with Listeners({"TestTrigger": kind}, Installation(), dispatcher, store) as listeners:
        yield listeners


def wanted(name: str, place: str = "a", seek: str = "") -> Listening:
    return Listening(
        name=f"ns.{name}.f", kind="TestTrigger", namespace="ns", trigger=name, function="f",
        source=Source(place=place, seek=Wish(id=seek) if seek else None), order=Order.KEY,
        in_flight=4, created=CREATED,
    )  # fmt: skip


async def test_only_what_changed_is_restarted() -> None:
    async with listening() as listeners:
        listeners.converge([wanted("one"), wanted("two")])
        await asyncio.sleep(0.1)
        assert listeners.settled()
        listeners.converge([wanted("one"), wanted("two", "b"), wanted("three")])
        await asyncio.sleep(0.1)
        listeners.converge([wanted("two", "b")])
        await asyncio.sleep(0.1)
        assert listeners.state("ns.one.f") is None
    diary = Scripted.diary
    assert diary.count("+ns.one.f@a") == diary.count("-ns.one.f@a") == 1
    assert diary.index("-ns.two.f@a") < diary.index("+ns.two.f@b")
    assert sorted(line[1:] for line in diary if line[0] == "+") == sorted(
        line[1:] for line in diary if line[0] == "-"
    )


async def test_a_connector_is_reached_without_a_listener_until_the_hub_ends() -> None:
    async with listening(Open) as listeners:
        connector, subscription = await listeners.reach(wanted("one", "b"))
        assert (subscription.name, subscription.source.place) == ("ns.one.f", "b")
        assert (await listeners.reach(wanted("two")))[0] is connector
        assert Scripted.diary == ["open"]
    assert Scripted.diary == ["open", "closed"]
    with pytest.raises(NotTaken, match="the hub is stopping"):
        await listeners.reach(wanted("one"))


async def test_the_new_starts_when_the_old_has_stopped_and_no_other_waits_for_that() -> None:
    Scripted.slow_stop = 20.0
    async with listening() as listeners:
        listeners.converge([wanted("one")])
        await asyncio.sleep(0.1)
        listeners.converge([wanted("one", "b"), wanted("other")])
        await asyncio.sleep(1)
        assert "+ns.other.f@a" in Scripted.diary
        assert "+ns.one.f@b" not in Scripted.diary
        await asyncio.sleep(20)
        assert Scripted.diary.index("-ns.one.f@a") < Scripted.diary.index("+ns.one.f@b")


async def test_one_that_comes_back_while_it_stops_waits_for_its_own_end() -> None:
    Scripted.slow_stop = 5.0
    async with listening() as listeners:
        listeners.converge([wanted("one")])
        await asyncio.sleep(0.1)
        listeners.converge([])
        listeners.converge([wanted("one")])
        await asyncio.sleep(10)
    assert Scripted.diary[:3] == ["+ns.one.f@a", "-ns.one.f@a", "+ns.one.f@a"]


async def test_a_failing_source_is_opened_again_with_backoff_and_says_why() -> None:
    Scripted.behave["a"] = lambda: OSError("no broker answers")
    async with listening() as listeners:
        listeners.converge([wanted("one")])
        await asyncio.sleep(600)
        state = listeners.state("ns.one.f")
        assert state is not None
        assert (state.attached, state.message) == (False, "no broker answers")
        opened = len(Scripted.diary)
        assert 20 <= opened <= 60
        Scripted.behave.clear()
        await asyncio.sleep(31)
        assert state.attached is True


async def test_an_impossible_source_is_not_opened_again_until_its_manifest_changes() -> None:
    Scripted.behave["a"] = lambda: SpecError("topic names have no blanks")
    async with listening() as listeners:
        listeners.converge([wanted("one")])
        await asyncio.sleep(3600)
        state = listeners.state("ns.one.f")
        assert state is not None
        assert state.refused
        assert state.message == "topic names have no blanks"
        assert len(Scripted.diary) == 1
        listeners.converge([wanted("one", "b")])
        await asyncio.sleep(0.1)
        assert Scripted.diary[-1] == "+ns.one.f@b"


async def test_leaving_stops_every_listener() -> None:
    async with listening() as listeners:
        listeners.converge([wanted(str(n)) for n in range(50)])
        await asyncio.sleep(0.1)
    assert sum(line[0] == "-" for line in Scripted.diary) == 50


async def test_of_a_paused_one_only_the_seek_is_done_and_once() -> None:
    async with listening() as listeners:
        listeners.converge([], [wanted("one", seek="x"), wanted("two")])
        await asyncio.sleep(3600)
        assert Scripted.diary == ["~ns.one.f@x"]
        assert listeners.settled()
        assert listeners.state("ns.two.f") is None
        state = listeners.state("ns.one.f")
        assert state is not None
        assert state.seek == Sought(id="x", time=CREATED, positions="7")
        listeners.converge([], [wanted("one", seek="y")])
        await asyncio.sleep(1)
        listeners.converge([wanted("one", seek="y")])
        await asyncio.sleep(1)
        assert Scripted.diary[1:] == ["~ns.one.f@y", "+ns.one.f@a"]


async def test_one_that_is_paused_drains_before_its_seek() -> None:
    Scripted.slow_stop = 5.0
    async with listening() as listeners:
        listeners.converge([wanted("one", seek="x")])
        await asyncio.sleep(1)
        listeners.converge([], [wanted("one", seek="x")])
        await asyncio.sleep(10)
    assert Scripted.diary == ["+ns.one.f@a", "-ns.one.f@a", "~ns.one.f@x"]


async def test_a_seek_that_fails_is_tried_again_with_backoff_and_says_why() -> None:
    Scripted.behave["x"] = lambda: OSError("the group has members")
    async with listening() as listeners:
        listeners.converge([], [wanted("one", seek="x")])
        await asyncio.sleep(600)
        state = listeners.state("ns.one.f")
        assert state is not None
        assert (state.attached, state.message) == (False, "the group has members")
        assert listeners.settled()
        assert 20 <= len(Scripted.diary) <= 60
        Scripted.behave.clear()
        await asyncio.sleep(31)
        assert state.attached is True
        tries = len(Scripted.diary)
        await asyncio.sleep(600)
        assert len(Scripted.diary) == tries
