"""What a source keeps for a trigger goes with it, or is given up in time; in virtual time."""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from pydantic import Field
from structlog.testing import capture_logs

from tests.cluster.memory import MemoryServer, trouble
from tests.fakes import MemoryStore, ScriptedFunction
from triggerhub.cluster.cleanup import LEAST, LIMIT, Cleanups
from triggerhub.cluster.events import Events
from triggerhub.cluster.source import FINALIZER, KubernetesSource
from triggerhub.connector import (
    Cleanup,
    Installation,
    Positions,
    Reference,
    SourceModel,
    SpecError,
    Subscription,
)
from triggerhub.control.changes import Changes
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import Kind
from triggerhub.control.reconciler import Reconciler
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.functions.absent import NoCode
from triggerhub.testing.fakes import MemoryPositions

pytestmark = pytest.mark.looptime

THEIRS = "example.com/theirs"
WHERE = "placetriggers"
NEARLY = LIMIT - 20
"""The age of a deletion is told by the real clock, which goes on while a test computes."""


class Place(SourceModel):
    place: str = "a"
    cleanup: Annotated[Cleanup, Field(strict=False)] = Cleanup.KEEP
    password: Reference | None = None


class World:
    """What lies behind the connectors."""

    def __init__(self) -> None:
        self.cleaned: list[str] = []
        """Names, in the order in which they were cleaned."""
        self.tried: list[float] = []
        """When a clean-up was tried (the loop's time)."""
        self.now = self.most = 0
        """How many are under way, and were at most."""
        self.passwords: list[bytes] = []
        self.behave: Callable[[Subscription[Place]], object] = lambda subscription: None
        """What a clean-up meets: raises, or returns what is to be awaited first."""
        self.slow_stop = 0.0
        self.listening: set[str] = set()


def places(world: World, kind: str) -> Kind:
    class Places:
        source = Place

        def __init__(self, installation: Installation) -> None:
            self.kind = kind

        async def listen(self, subscription: Subscription[Place]) -> None:
            world.listening.add(subscription.name)
            subscription.report.connected()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(world.slow_stop)
                world.listening.discard(subscription.name)

        async def clean_up(self, subscription: Subscription[Place]) -> None:
            world.tried.append(asyncio.get_running_loop().time())
            assert subscription.name not in world.listening
            met: Any = world.behave(subscription)
            world.now += 1
            world.most = max(world.most, world.now)
            try:
                if met is not None:
                    await met
            finally:
                world.now -= 1
            if subscription.source.password is not None:
                world.passwords.append(subscription.value(subscription.source.password))
            world.cleaned.append(subscription.name)

    Places.kind = kind
    return Kind(kind, lambda: Places)


class Store(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.kept: defaultdict[str, MemoryPositions] = defaultdict(MemoryPositions)

    def positions(self, subscription: str) -> Positions:
        return self.kept[subscription]


class Office:
    """Whether this replica leads."""

    leading = True


class Room:
    """A hub's control plane on an API server in memory."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.world = World()
        self.office = Office()
        self.store = Store()
        kinds = {kind: places(self.world, kind) for kind in ("OtherTrigger", "PlaceTrigger")}
        dispatcher = Dispatcher(ScriptedFunction(), self.store)
        self.listeners = Listeners(kinds, Installation(), dispatcher, self.store)
        source = KubernetesSource(server, kinds, None)
        reconciler = Reconciler(source, kinds, dispatcher, self.listeners, NoCode(), Changes())
        events = Events(server, self.office)
        cleanups = Cleanups(server, source, reconciler, self.listeners, self.office, events)
        self.works = (reconciler.run, events.run, cleanups.run)

    def put(self, name: str = "orders", kind: str = "place", **body: Any) -> None:
        """A trigger that asks for the clean-up, if not told otherwise."""
        function = body.pop("function", {"name": "handle"})
        source = {"cleanup": "Delete"} | body.pop("source", {})
        spec = {"function": function, "source": source}
        self.server.put(f"{kind}triggers", name, **{"spec": spec} | body)

    def held(self, name: str = "orders") -> list[str] | None:
        return self.server.finalizers(WHERE, name)

    @property
    def warnings(self) -> list[str]:
        """What Events say was left behind, and of what."""
        return [
            f"{event['involvedObject']['name']}: {event['message']}"
            for event in self.server.created
            if (event["type"], event["reason"]) == ("Warning", "CleanUpFailed")
        ]

    async def until(self, fact: Callable[[], bool], seconds: float = 300.0) -> float:
        """How long it took, in seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(seconds):
            while not fact():
                await asyncio.sleep(0.05)
        return loop.time() - began

    async def finalized(self, name: str = "orders") -> None:
        await self.until(lambda: FINALIZER in (self.held(name) or ()), 5)

    async def gone(self, name: str = "orders", seconds: float = 300.0) -> float:
        return await self.until(lambda: self.held(name) is None, seconds)


@pytest.fixture
async def server() -> MemoryServer:
    server = MemoryServer(served={"functions", WHERE, "othertriggers"})
    for name in ("handle", "second"):
        labels = {"labels": {"team": "a"}}
        server.put("functions", name, spec={"url": "http://127.0.0.1:9/"}, metadata=labels)
    return server


@asynccontextmanager
async def room_of(server: MemoryServer) -> AsyncIterator[Room]:
    room = Room(server)
    async with room.listeners, asyncio.TaskGroup() as tasks:
        works = [tasks.create_task(work()) for work in room.works]
        yield room
        for work in works:
            work.cancel()


def failing(error: Exception) -> Callable[[Subscription[Place]], object]:
    def behave(subscription: Subscription[Place]) -> object:
        raise error

    return behave


def hanging(subscription: Subscription[Place]) -> object:
    return asyncio.Event().wait()


async def test_the_finalizer_comes_and_goes_with_the_field(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.put(source={"cleanup": "Keep"}, metadata={"finalizers": [THEIRS]})
        await asyncio.sleep(5)
        assert room.held() == [THEIRS]
        room.put(metadata={"generation": 2, "finalizers": [THEIRS]})
        await room.finalized()
        assert room.held() == [THEIRS, FINALIZER]
        room.put(
            source={"cleanup": "Keep"},
            metadata={"generation": 3, "finalizers": [FINALIZER, THEIRS]},
        )
        await room.until(lambda: room.held() == [THEIRS], 5)
        await asyncio.sleep(60)
        assert room.server.count("patch", WHERE) == 2
        assert room.world.tried == []


async def test_what_the_source_keeps_goes_with_the_trigger(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.put()
        await room.finalized()
        await room.store.kept["shop.orders.handle"].save("cursor", "7")
        assert room.world.listening == {"shop.orders.handle"}
        room.server.doom(WHERE, "orders")
        assert await room.gone() < 3
        assert room.world.cleaned == ["shop.orders.handle"]
        assert await room.store.kept["shop.orders.handle"].load() == {}
        assert room.warnings == []


async def test_nothing_is_cleaned_where_it_is_not_asked_for(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.put(source={"cleanup": "Keep"}, metadata={"finalizers": [FINALIZER]})
        room.server.doom(WHERE, "orders")
        assert await room.gone() < 3
        assert room.world.tried == []


async def test_finalizers_of_others_stay_when_it_is_clean(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.put(metadata={"finalizers": [THEIRS]})
        await room.finalized()
        room.server.doom(WHERE, "orders")
        await room.until(lambda: room.held() == [THEIRS], 5)
        await asyncio.sleep(120)
        assert room.held() == [THEIRS]
        assert room.world.cleaned == ["shop.orders.handle"]


async def test_a_listener_drains_before_its_source_is_cleaned(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.world.slow_stop = 20.0
        room.put()
        await room.finalized()
        room.server.doom(WHERE, "orders")
        assert 20 <= await room.gone() < 23
        assert room.world.cleaned == ["shop.orders.handle"]


async def test_a_listener_that_does_not_end_is_waited_for_no_longer_than_the_limit(
    server: MemoryServer,
) -> None:
    async with room_of(server) as room:
        room.world.slow_stop = 500.0
        room.put()
        await room.finalized()
        room.server.doom(WHERE, "orders")
        assert NEARLY < await room.gone() < LIMIT + 3
        assert room.world.tried == []
        await room.until(lambda: "its listener has not ended" in str(room.warnings), 5)


@pytest.mark.parametrize(
    ("behave", "said"),
    [(failing(OSError("no broker answers")), "no broker answers"),
     (hanging, "the source does not answer")],
)  # fmt: skip
async def test_a_stuck_source_is_given_up_in_time_and_an_event_says_what_was_left(
    server: MemoryServer, behave: Callable[[Subscription[Place]], object], said: str
) -> None:
    async with room_of(server) as room:
        room.world.behave = behave
        room.put()
        await room.finalized()
        room.server.doom(WHERE, "orders")
        with capture_logs() as logs:
            assert NEARLY < await room.gone() < LIMIT + 3
            await asyncio.sleep(1)
        told = f"left behind what the source keeps for it: shop.orders.handle: {said}"
        assert room.warnings == [f"orders: {told}"]
        assert [log["error"] for log in logs if log["event"] == "cleanup.failed"] == [told]
        assert 4 <= len(room.world.tried) <= 30


async def test_a_source_that_comes_back_in_time_is_cleaned(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.world.behave = failing(OSError("no broker answers"))
        room.put()
        await room.finalized()
        room.server.doom(WHERE, "orders")
        await asyncio.sleep(40)
        room.world.behave = lambda subscription: None
        assert await room.gone() < 7
        assert room.world.cleaned == ["shop.orders.handle"]
        assert room.warnings == []


async def test_what_no_repetition_cures_is_given_up_at_once(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.world.behave = failing(SpecError("no such place"))
        room.put()
        await room.finalized()
        room.server.doom(WHERE, "orders")
        assert await room.gone() < 3
        assert len(room.world.tried) == 1
        await room.until(lambda: "no such place" in str(room.warnings), 5)


async def test_one_binding_that_is_stuck_does_not_take_the_time_of_another(
    server: MemoryServer,
) -> None:
    async with room_of(server) as room:

        def behave(subscription: Subscription[Place]) -> object:
            return hanging(subscription) if subscription.function == "handle" else None

        room.world.behave = behave
        room.put(function={"selector": {"matchLabels": {"team": "a"}}})
        await room.finalized()
        room.server.doom(WHERE, "orders")
        await room.gone()
        assert room.world.cleaned == ["shop.orders.second"]
        await room.until(lambda: bool(room.warnings), 5)
        assert "shop.orders.second" not in str(room.warnings)


async def test_many_that_are_stuck_at_once_all_end_in_time(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.world.behave = hanging
        names = [f"t{n}" for n in range(300)]
        for name in names:
            room.put(name)
        for name in names:
            await room.finalized(name)
        for name in names:
            room.server.doom(WHERE, name)
        assert await room.until(lambda: not any(map(room.held, names)), LIMIT + 5) >= NEARLY
        assert room.world.most <= 100  # each attempt holds connections


@pytest.mark.parametrize("ago", [LIMIT + 1, 86400.0])
async def test_a_hub_that_was_away_still_tries_for_a_while(
    server: MemoryServer, ago: float
) -> None:
    first = Room(server)
    first.put(metadata={"finalizers": [FINALIZER]})
    server.doom(WHERE, "orders", ago=ago)
    async with room_of(server) as room:
        room.world.behave = failing(OSError("no broker answers"))
        assert LEAST <= await room.gone() < LEAST + 4
        await room.until(lambda: bool(room.warnings), 5)


async def test_a_hub_that_was_away_cleans_what_it_finds(server: MemoryServer) -> None:
    Room(server).put(metadata={"finalizers": [FINALIZER]})
    server.doom(WHERE, "orders", ago=86400.0)
    async with room_of(server) as room:
        assert await room.gone() < 3
        assert room.world.cleaned == ["shop.orders.handle"]


async def test_only_the_leader_touches_anything(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.office.leading = False
        room.put("fresh")
        room.put(metadata={"finalizers": [FINALIZER]})
        room.server.doom(WHERE, "orders")
        await asyncio.sleep(600)
        assert room.held("fresh") == []
        assert room.held() == [FINALIZER]
        assert room.world.tried == []
        room.office.leading = True
        assert await room.gone() < 3
        await room.finalized("fresh")


async def test_who_leads_no_longer_leaves_the_rest_to_its_successor(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.world.behave = failing(OSError("no broker answers"))
        room.put()
        await room.finalized()
        room.server.doom(WHERE, "orders")
        await room.until(lambda: len(room.world.tried) > 2)
        room.office.leading = False
        await asyncio.sleep(600)
        assert room.held() == [FINALIZER]
        assert room.warnings == []
        tried = len(room.world.tried)
        assert tried < 6
        room.office.leading = True
        assert await room.gone() > 10  # it is tried again before it is given up
        assert len(room.world.tried) > tried + 2


async def test_an_api_server_that_refuses_is_asked_ever_more_seldom_and_said_once(
    server: MemoryServer,
) -> None:
    async with room_of(server) as room:
        room.server.troubles["patch", WHERE] = trouble(403, "Forbidden")
        with capture_logs() as logs:
            for name in ("one", "two"):
                room.put(name)
            await asyncio.sleep(600)
            assert 20 <= room.server.count("patch", WHERE, 300.0) <= 24
            assert [log["event"] for log in logs] == ["cleanup.refused"]
            assert "placetriggers.triggerhub.dev" in logs[0]["error"]
        room.server.troubles.clear()
        await room.until(lambda: room.held("one") == room.held("two") == [FINALIZER], 31)


async def test_what_was_cleaned_is_not_cleaned_again_when_letting_go_is_refused(
    server: MemoryServer,
) -> None:
    async with room_of(server) as room:
        room.world.behave = failing(OSError("no broker answers"))
        room.put()
        await room.finalized()
        room.server.troubles["patch", WHERE] = trouble(500)
        room.server.doom(WHERE, "orders")
        await asyncio.sleep(LIMIT + 300)
        tried = len(room.world.tried)
        room.server.troubles.clear()
        await room.gone(seconds=31)
        assert len(room.world.tried) == tried
        assert len(room.warnings) == 1


async def test_the_server_s_own_wait_is_kept(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.server.troubles["patch", WHERE] = trouble(429, "TooManyRequests", retry_after=100.0)
        room.put()
        await asyncio.sleep(190)
        assert room.server.count("patch", WHERE) == 2


async def test_what_somebody_else_wrote_meanwhile_stays(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.put()
        while not server.count("patch", WHERE):  # on its way
            await asyncio.sleep(0.001)
        room.put(metadata={"finalizers": [THEIRS]})
        await room.finalized()
        assert room.held() == [THEIRS, FINALIZER]


async def test_one_that_is_deleted_while_its_finalizer_cannot_be_changed_is_cleaned(
    server: MemoryServer,
) -> None:
    async with room_of(server) as room:
        room.put(source={"cleanup": "Keep"}, metadata={"finalizers": [FINALIZER]})
        server.troubles["patch", WHERE] = trouble(500)
        await room.until(lambda: server.count("patch", WHERE) > 2)
        room.put(metadata={"generation": 2, "finalizers": [FINALIZER]})
        server.doom(WHERE, "orders")
        server.troubles.clear()
        await room.gone()
        assert room.world.cleaned == ["shop.orders.handle"]


async def test_a_picture_that_lags_does_not_have_it_cleaned_twice(server: MemoryServer) -> None:
    async with room_of(server) as room:
        done = asyncio.Event()
        room.world.behave = lambda subscription: done.wait()
        room.put()
        await room.finalized()
        server.doom(WHERE, "orders")
        await room.until(lambda: bool(room.world.tried))
        server.troubles["list", WHERE] = server.troubles["watch", WHERE] = trouble(500)
        server.disconnect()
        done.set()
        await room.gone()
        await asyncio.sleep(30)
        server.put("functions", "other", spec={"url": "http://127.0.0.1:9/"})
        await asyncio.sleep(30)
        assert room.world.cleaned == ["shop.orders.handle"]


@pytest.mark.parametrize("slow_stop", [0.0, 30.0])
async def test_who_led_touches_nothing_more(server: MemoryServer, slow_stop: float) -> None:
    async with room_of(server) as room:
        room.world.slow_stop = slow_stop
        room.put()
        await room.finalized()
        server.troubles["patch", WHERE] = trouble(500)
        server.doom(WHERE, "orders")
        await asyncio.sleep(5)
        room.office.leading = False
        asked = server.count("patch", WHERE)
        server.troubles.clear()
        await asyncio.sleep(600)
        assert server.count("patch", WHERE) == asked
        assert bool(room.world.cleaned) == (slow_stop == 0.0)


async def test_one_that_is_deleted_as_soon_as_its_finalizer_is_there_is_cleaned(
    server: MemoryServer,
) -> None:
    async with room_of(server) as room:
        room.put()
        while not room.held():
            await asyncio.sleep(0.001)
        server.doom(WHERE, "orders")
        assert await room.gone() < 10
        assert room.world.cleaned == ["shop.orders.handle"]


async def test_one_that_is_gone_already_is_left_alone(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.put()
        await room.until(lambda: room.world.listening != set())
        room.server.disconnect()
        room.server.troubles["list", WHERE] = room.server.troubles["watch", WHERE] = trouble(500)
        room.server.delete(WHERE, "orders")
        with capture_logs() as logs:
            await asyncio.sleep(300)
            room.server.troubles.clear()
            await room.until(lambda: room.world.listening == set(), 120)
        assert [log for log in logs if log["event"].startswith("cleanup")] == []
        assert room.server.count("patch", WHERE) <= 1
        assert room.world.tried == []


async def test_a_spec_with_faults_lets_go_and_says_what_it_could_not_know(
    server: MemoryServer,
) -> None:
    async with room_of(server) as room:
        room.server.put(WHERE, "orders", spec={}, metadata={"finalizers": [FINALIZER]})
        await asyncio.sleep(30)
        assert room.held() == [FINALIZER]  # what it meant is not known
        room.server.doom(WHERE, "orders")
        assert await room.gone() < 3
        await room.until(lambda: bool(room.warnings), 5)
        assert "its spec has faults" in room.warnings[0]


async def test_one_that_was_never_bound_is_cleaned_all_the_same(server: MemoryServer) -> None:
    """Its status may not say yet what it was bound to."""
    async with room_of(server) as room:
        room.put(function={"name": "none"})
        await room.finalized()
        room.server.doom(WHERE, "orders")
        assert await room.gone() < 3
        assert room.world.cleaned == ["shop.orders.none"]


async def test_every_name_that_its_status_remembers_is_cleaned_and_no_other_s(
    server: MemoryServer,
) -> None:
    async with room_of(server) as room:
        room.put(status={
            "observedGeneration": 1,
            "bindings": [{"function": "bound", "url": "http://x"}],
            "cleanup": ["shop.orders.gone", "shop.orders.handle", "shop.customers.handle", ""],
        })  # fmt: skip
        await room.finalized()
        room.server.doom(WHERE, "orders")
        await room.gone()
        assert sorted(room.world.cleaned) == [
            "shop.orders.bound", "shop.orders.gone", "shop.orders.handle",
        ]  # fmt: skip


async def test_a_selector_s_functions_are_known_without_a_status(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.put(function={"selector": {"matchLabels": {"team": "a"}}})
        await room.finalized()
        room.server.doom(WHERE, "orders")
        await room.gone()
        assert sorted(room.world.cleaned) == ["shop.orders.handle", "shop.orders.second"]


def secret(server: MemoryServer, password: str) -> None:
    data = {"password": base64.b64encode(password.encode()).decode()}
    server.put("secrets", "account", data=data)


SECURED = {"password": {"secretRef": {"name": "account", "key": "password"}}}


async def test_a_secret_that_goes_before_its_trigger_still_serves(server: MemoryServer) -> None:
    async with room_of(server) as room:
        secret(room.server, "wind")
        room.put(source=SECURED)
        await room.finalized()
        room.server.delete("secrets", "account")
        await asyncio.sleep(5)
        assert room.world.listening == set()
        room.server.doom(WHERE, "orders")
        assert await room.gone() < 3
        assert room.world.passwords == [b"wind"]


async def test_a_secret_that_was_never_seen_is_named_when_it_is_given_up(
    server: MemoryServer,
) -> None:
    Room(server).put(source=SECURED, metadata={"finalizers": [FINALIZER]})
    server.doom(WHERE, "orders")
    async with room_of(server) as room:
        assert NEARLY < await room.gone() < LIMIT + 8
        await room.until(lambda: bool(room.warnings), 5)
        assert "Secret shop/account does not exist" in room.warnings[0]
        assert room.world.tried == []


async def test_the_name_of_a_trigger_of_another_kind_is_left_alone(server: MemoryServer) -> None:
    async with room_of(server) as room:
        room.put(kind="other", source={"cleanup": "Keep"})
        await room.until(lambda: room.world.listening != set())
        await room.store.kept["shop.orders.handle"].save("cursor", "7")
        later = {"creationTimestamp": "2026-02-01T12:00:00Z"}
        room.put(metadata=later)  # it was never bound: the name is taken
        await room.finalized()
        room.server.doom(WHERE, "orders")
        assert await room.gone() < 3
        assert room.warnings == []
        status = {"observedGeneration": 1, "cleanup": ["shop.orders.handle"]}
        room.put(metadata=later | {"uid": "2"}, status=status)  # it was, before the other came
        await room.finalized()
        room.server.doom(WHERE, "orders")
        assert await room.gone() < 3
        await room.until(lambda: bool(room.warnings), 5)
        assert "OtherTrigger" in room.warnings[0]
        assert room.world.tried == []
        assert room.world.listening == {"shop.orders.handle"}
        assert await room.store.kept["shop.orders.handle"].load() != {}
