"""Snapshot in; bindings, conditions, and a note of exactly what may have another status, out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from tests.fakes import MemoryStore, ScriptedFunction
from triggerhub.connector import Installation, Positions, Reference, SourceModel, Subscription
from triggerhub.control.changes import Changes
from triggerhub.control.decoding import decode
from triggerhub.control.faults import Fault
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import Kind
from triggerhub.control.reconciler import Reconciler
from triggerhub.control.resources import (
    FUNCTION,
    SECRET,
    Function,
    Invalid,
    Manifest,
    ResourceKey,
    Snapshot,
    Trigger,
    ValueKey,
    Where,
)
from triggerhub.control.services import Endpoints, Service, ServicePort
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.functions.absent import NoCode
from triggerhub.testing.fakes import MemoryPositions

pytestmark = pytest.mark.looptime

_CREATED = datetime(2026, 1, 31, tzinfo=UTC)


class Place(SourceModel):
    place: str = "a"
    password: Reference | None = None


class Places:
    """Listens until cancelled."""

    kind: ClassVar[str] = "PlaceTrigger"
    source = Place

    def __init__(self, installation: Installation) -> None: ...

    async def listen(self, subscription: Subscription[Place]) -> None:
        subscription.report.connected()
        await asyncio.Event().wait()


def broken() -> object:
    raise ModuleNotFoundError("no module named visitor_client", name="visitor_client")


KINDS = {
    "PlaceTrigger": Kind("PlaceTrigger", lambda: Places),
    "VisitorTrigger": Kind("VisitorTrigger", broken, "visitor", "visitor", "1", "x"),
}


class Store(MemoryStore):
    def positions(self, subscription: str) -> Positions:
        return MemoryPositions()


class Plane:
    """The control plane on a source in memory."""

    def __init__(self, listeners: Listeners, dispatcher: Dispatcher) -> None:
        self.changes = Changes()
        self.dispatcher = dispatcher
        self.listeners = listeners
        self._snapshots: asyncio.Queue[Snapshot] = asyncio.Queue()
        self.reconciler = Reconciler(
            self, KINDS, dispatcher, listeners, NoCode(), self.changes, environ=None
        )

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        while True:
            yield await self._snapshots.get()

    async def shows(
        self,
        triggers: Iterable[Trigger] = (),
        functions: Iterable[Function] = (),
        **more: Any,
    ) -> list[str]:
        """From now on that is there. What was noted for it: ``t:`` and ``f:``, and names."""
        self._snapshots.put_nowait(Snapshot(tuple(triggers), tuple(functions), **more))
        await asyncio.sleep(0.1)
        noted, of_functions = self.changes.take()
        names = [f"t:{key.name}" for key in noted] + [f"f:{key.name}" for key in of_functions]
        return sorted(names)

    @property
    def bound(self) -> dict[str, str]:
        """URLs by binding, as the dispatcher has them."""
        return {
            link.name: link.target.url
            for link in self.dispatcher.links()
            if link.target is not None
        }

    def reasons(self, name: str, kind: str = "PlaceTrigger") -> dict[str, str]:
        """Of a trigger's conditions."""
        status = self.reconciler.status_of(kind, ResourceKey("shop", name))
        assert status is not None
        return {condition.type: condition.reason for condition in status.conditions}


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as plane:
        yield plane


@asynccontextmanager
async def running() -> AsyncIterator[Plane]:
    store = Store()
    dispatcher = Dispatcher(ScriptedFunction(), store)
    async with Listeners(KINDS, Installation(), dispatcher, store) as listeners:
        plane = Plane(listeners, dispatcher)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(plane.reconciler.run())
            yield plane
            task.cancel()


def made(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> Any:
    created = metadata.pop("created", _CREATED)
    generation = metadata.pop("generation", 1)
    body = {
        "apiVersion": "triggerhub.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "shop", **metadata}, "spec": spec,
    }  # fmt: skip
    manifest = Manifest.read(body, where=Where(), created=created, generation=generation)
    found = decode(manifest, KINDS)
    assert not isinstance(found, tuple), found
    return found


def trigger(name: str = "orders", kind: str = "PlaceTrigger", **spec: Any) -> Trigger:
    metadata = {key: spec.pop(key) for key in ("generation", "created") if key in spec}
    found: Trigger = made(
        kind, name, {"function": {"name": "handle"}, "source": {}, **spec}, **metadata
    )
    return found


def function(name: str = "handle", url: str = "http://one.test/", **metadata: Any) -> Function:
    found: Function = made(FUNCTION, name, {"url": url}, **metadata)
    return found


def served(name: str = "handle") -> Function:
    found: Function = made(FUNCTION, name, {"service": {"name": name}})
    return found


def service(ready: int = 1) -> dict[ResourceKey, Service]:
    found = Service(ports=(ServicePort(80),), endpoints=Endpoints(ready))
    return {ResourceKey("shop", "handle"): found}


def invalid(kind: str, name: str = "orders", found: str = "x") -> Invalid:
    fault = Fault(object=f"{kind} shop/{name}", field="spec.source", found=found, expected="y")
    return Invalid(
        kind=kind, namespace="shop", name=name, created=_CREATED, generation=2, faults=(fault,)
    )


async def test_a_snapshot_becomes_bindings_and_listeners(plane: Plane) -> None:
    assert plane.reconciler.snapshot is None
    assert not plane.reconciler.ready()
    assert await plane.shows([trigger()], [function()]) == ["f:handle", "t:orders"]
    assert plane.bound == {"shop.orders.handle": "http://one.test/"}
    assert [binding.name for binding in plane.reconciler.bindings] == ["shop.orders.handle"]
    assert plane.reasons("orders") == {
        "Accepted": "Accepted", "Bound": "Bound", "Connected": "Connected", "Ready": "Ready",
    }  # fmt: skip
    assert plane.reconciler.ready()
    status = plane.reconciler.function_status(ResourceKey("shop", "handle"))
    assert status is not None
    assert (status.url, status.conditions[-1].reason) == ("http://one.test/", "Ready")


async def test_nothing_else_is_noted_when_one_of_thousands_changes(plane: Plane) -> None:
    triggers = [trigger(f"t{n}", function={"name": f"f{n % 100}"}) for n in range(3000)]
    functions = [function(f"f{n}") for n in range(100)]
    assert len(await plane.shows(triggers, functions)) == 3100
    assert await plane.shows(triggers, functions) == []
    triggers[7] = trigger("t7", function={"name": "f7"}, source={"place": "b"}, generation=2)
    assert await plane.shows(triggers, functions) == ["t:t7"]
    functions[8] = function("f8", "http://two.test/", generation=2)
    expected = sorted([f"t:t{n}" for n in range(8, 3000, 100)] + ["f:f8"])
    assert await plane.shows(triggers, functions) == expected
    del triggers[9]
    assert await plane.shows(triggers, functions) == ["t:t9"]
    assert len(plane.bound) == 2999


async def test_a_function_that_is_gone_unbinds_its_triggers_and_comes_back(plane: Plane) -> None:
    orders, handle = trigger(), function()
    other, second = trigger("other", function={"name": "second"}), function("second")
    await plane.shows([orders, other], [handle, second])
    assert await plane.shows([orders, other], [second]) == ["f:handle", "t:orders"]
    assert list(plane.bound) == ["shop.other.second"]
    assert plane.listeners.state("shop.orders.handle") is None
    assert plane.reasons("orders") == {
        "Accepted": "Accepted", "Bound": "FunctionNotFound", "Connected": "NotListening",
        "Ready": "FunctionNotFound",
    }  # fmt: skip
    assert plane.reconciler.function_status(handle.key) is None
    assert await plane.shows([orders, other], [function(), second]) == ["f:handle", "t:orders"]
    assert plane.reasons("orders")["Ready"] == "Ready"


async def test_a_function_made_anew_in_one_breath_is_another(plane: Plane) -> None:
    orders = trigger()
    await plane.shows([orders], [function()])
    before = plane.listeners.state("shop.orders.handle")
    anew = function(created=datetime(2026, 2, 1, tzinfo=UTC))
    assert "f:handle" in await plane.shows([orders], [anew])
    # It answers at the same place: nobody stops listening for that.
    assert plane.listeners.state("shop.orders.handle") is before


async def test_a_trigger_made_anew_in_one_breath_is_another(plane: Plane) -> None:
    await plane.shows([trigger()], [function()])
    before = plane.listeners.state("shop.orders.handle")
    anew = trigger(created=datetime(2026, 2, 1, tzinfo=UTC))
    assert await plane.shows([anew], [function()]) == ["t:orders"]
    assert plane.listeners.state("shop.orders.handle") is not before


async def test_a_function_that_moved_is_followed_without_a_new_listener(plane: Plane) -> None:
    orders = trigger()
    await plane.shows([orders], [function()])
    before = plane.listeners.state("shop.orders.handle")
    noted = await plane.shows([orders], [function(url="http://two.test/", generation=2)])
    assert noted == ["f:handle", "t:orders"]
    assert plane.bound == {"shop.orders.handle": "http://two.test/"}
    assert plane.listeners.state("shop.orders.handle") is before


async def test_a_service_that_comes_and_goes_is_noted_for_its_triggers(plane: Plane) -> None:
    orders, other = trigger(), trigger("other", function={"name": "second"})
    functions = [served(), function("second")]
    await plane.shows([orders, other], functions)
    assert plane.reasons("orders")["Bound"] == "FunctionNotReady"
    both = ["f:handle", "t:orders"]
    assert await plane.shows([orders, other], functions, services=service()) == both
    assert plane.bound["shop.orders.handle"] == "http://handle.shop.svc/"
    assert await plane.shows([orders, other], functions, services=service(2)) == []
    assert await plane.shows([orders, other], functions, services=service(0)) == both
    assert plane.reasons("orders")["Ready"] == "NoEndpoints"
    assert plane.bound["shop.orders.handle"] == "http://handle.shop.svc/"  # events wait
    assert await plane.shows([orders, other], functions) == both
    assert "shop.orders.handle" not in plane.bound


async def test_functions_are_those_of_the_pass_also_when_a_snapshot_waits_for_its_own(
    plane: Plane,
) -> None:
    await plane.shows([], [function()])
    plane.reconciler.snapshot = Snapshot((), (function(), served("later")))
    assert [found.name for found, _ in plane.reconciler.functions()] == ["handle"]


async def test_a_selector_that_finds_another_function_is_noted(plane: Plane) -> None:
    orders = trigger(function={"selector": {"matchLabels": {"team": "a"}}})
    one, two = served("one"), served("two")
    mine, its = ({"team": team} for team in ("a", "b"))
    await plane.shows([orders], [replace(one, labels=mine), replace(two, labels=its)])
    noted = await plane.shows([orders], [replace(one, labels=its), replace(two, labels=mine)])
    assert "t:orders" in noted


async def test_a_selector_loses_just_the_function_that_is_gone(plane: Plane) -> None:
    orders = trigger(function={"selector": {"matchLabels": {"team": "a"}}})
    one, two = function("one", labels={"team": "a"}), function("two", labels={"team": "a"})
    await plane.shows([orders], [one, two])
    assert list(plane.bound) == ["shop.orders.one", "shop.orders.two"]
    kept = plane.listeners.state("shop.orders.one")
    assert await plane.shows([orders], [one]) == ["f:two", "t:orders"]
    assert list(plane.bound) == ["shop.orders.one"]
    assert plane.listeners.state("shop.orders.one") is kept
    assert await plane.shows([orders], []) == ["f:one", "t:orders"]
    assert plane.reasons("orders")["Bound"] == "NoFunctionMatches"


async def test_what_is_invalid_is_reported_and_others_work(plane: Plane) -> None:
    other, handle = trigger("other"), function()
    await plane.shows([trigger(), other], [handle])
    wrong = (invalid("PlaceTrigger"), invalid(FUNCTION, "bad"))
    noted = await plane.shows([other], [handle], invalid=wrong)
    assert noted == ["f:bad", "t:orders"]
    assert set(plane.reasons("orders").values()) == {"InvalidSpec"}
    assert plane.reasons("other")["Ready"] == "Ready"
    bad = plane.reconciler.function_status(ResourceKey("shop", "bad"))
    assert bad is not None
    assert bad.conditions[0].message == str(wrong[1].faults[0])
    assert await plane.shows([other], [handle], invalid=wrong) == []
    again = (invalid("PlaceTrigger", found="z"), wrong[1])
    assert await plane.shows([other], [handle], invalid=again) == ["t:orders"]
    assert await plane.shows([trigger(), other], [handle]) == ["f:bad", "t:orders"]
    assert plane.reasons("orders")["Ready"] == "Ready"
    assert {status.name for status in plane.reconciler.status()} == {"orders", "other"}


async def test_a_fault_is_logged_once_while_it_stands(plane: Plane) -> None:
    with capture_logs() as logs:
        for found in ("x", "x", "z", "z"):
            await plane.shows(invalid=(invalid("PlaceTrigger", found=found),))
    assert [entry["event"] for entry in logs] == ["manifest.fault"] * 2


async def test_the_kind_is_part_of_what_is_asked_for(plane: Plane) -> None:
    await plane.shows([trigger()], [function()], invalid=(invalid("VisitorTrigger"),))
    assert plane.reasons("orders")["Ready"] == "Ready"
    assert plane.reasons("orders", "VisitorTrigger")["Ready"] == "InvalidSpec"
    key = ResourceKey("shop", "orders")
    assert plane.reconciler.status_of("OtherTrigger", key) is None
    assert plane.reconciler.status_of("PlaceTrigger", ResourceKey("shop", "x")) is None


async def test_a_connector_that_is_not_installed_is_a_condition_and_one_line(
    plane: Plane,
) -> None:
    with capture_logs() as logs:
        for generation in (1, 2):
            visitors = [trigger(f"v{n}", "VisitorTrigger", generation=generation) for n in range(3)]
            await plane.shows(visitors, [function()])
    assert [entry["event"] for entry in logs] == ["connector.missing"]
    assert plane.reasons("v0", "VisitorTrigger")["Accepted"] == "ConnectorNotInstalled"
    assert plane.bound == {}


async def test_a_paused_trigger_is_bound_and_not_listened_to(plane: Plane) -> None:
    await plane.shows([trigger()], [function()])
    assert await plane.shows([trigger(paused=True, generation=2)], [function()]) == ["t:orders"]
    assert plane.reasons("orders")["Connected"] == "Paused"
    assert plane.listeners.state("shop.orders.handle") is None
    assert list(plane.bound) == ["shop.orders.handle"]


async def test_a_secret_that_comes_changes_and_goes_is_noted_for_who_names_it(
    plane: Plane,
) -> None:
    source = {"password": {"secretRef": {"name": "s", "key": "password"}}}
    orders, other = trigger(source=source), trigger("other")
    key = ValueKey(SECRET, "shop", "s")
    await plane.shows([orders, other], [function()])
    assert plane.reasons("orders")["Bound"] == "ReferenceNotFound"
    values = {key: {"password": b"one"}}
    assert await plane.shows([orders, other], [function()], values=values) == ["t:orders"]
    assert plane.reasons("orders")["Ready"] == "Ready"
    before = plane.listeners.state("shop.orders.handle")
    values = {key: {"password": b"two"}}
    assert await plane.shows([orders, other], [function()], values=values) == ["t:orders"]
    assert plane.listeners.state("shop.orders.handle") is not before
    values = {key: {"password": b"two", "more": b"x"}}
    assert await plane.shows([orders, other], [function()], values=values) == []
    assert await plane.shows([orders, other], [function()]) == ["t:orders"]
    assert plane.reasons("orders")["Bound"] == "ReferenceNotFound"


async def test_a_code_function_in_a_cluster_says_what_to_do(plane: Plane) -> None:
    code = {"runtime": "python", "handler": "main.handle", "inline": {"main.py": "x = 1"}}
    handle = made(FUNCTION, "handle", {"code": code})
    await plane.shows([trigger()], [handle])
    assert plane.reasons("orders")["Bound"] == "FunctionNotReady"
    status = plane.reconciler.function_status(handle.key)
    assert status is not None
    assert status.conditions[-1].reason == "NotInCluster"
    assert plane.reconciler.ready()


async def test_what_only_moved_to_another_line_is_no_change(plane: Plane) -> None:
    orders = trigger()
    await plane.shows([orders], [function()])
    moved = replace(orders, where=Where(file="elsewhere.yaml"))
    assert await plane.shows([moved], [function()]) == []
