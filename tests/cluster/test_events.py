"""Kubernetes Events tell the turning points, once; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.events import BURST, SAME, Events, Subject, Turn, turns
from triggerhub.cluster.reported import Held, Reported

pytestmark = pytest.mark.looptime

ORDERS = Subject("PlaceTrigger", "shop", "orders", "uid-orders")
AWAY = Turn("Disconnected", "BrokerAway: nobody answers", warning=True)


def report(**conditions: str) -> Reported:
    """Each as ``Status``, ``Status/Reason`` or ``Status/Reason/message``."""
    held = []
    for name, text in conditions.items():
        status, reason, message = (*text.split("/"), "", "")[:3]
        held.append(Held(name, status, reason or name, message, ""))
    return Reported(generation=1, conditions=tuple(held))


WELL = {"Accepted": "True", "Bound": "True/Bound/f", "Connected": "True", "Ready": "True/Ready"}
UNBOUND = {
    "Bound": "False/FunctionNotFound/no f", "Connected": "False/NotListening",
    "Ready": "False/FunctionNotFound/no f",
}  # fmt: skip
GONE = {"Connected": "False/BrokerAway/no route", "Ready": "False/BrokerAway/no route"}
PAUSED = {"Connected": "False/Paused", "Ready": "False/Paused"}
UNKNOWN = {"Connected": "Unknown/Connecting", "Ready": "Unknown/Connecting"}
LOST = {"Connected": "True/RecordsGone/2 records"}
REFUSED = dict.fromkeys(WELL, "False/InvalidSpec/spec.x: unknown")


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (None, {}, ["Bound: events go to f"]),
        ({}, {}, []),
        (None, UNBOUND, []),
        (UNBOUND, {}, ["Bound: events go to f"]),
        ({}, UNBOUND, ["!Unbound: no f"]),
        (UNBOUND, UNBOUND, []),
        (None, REFUSED, ["!InvalidSpec: spec.x: unknown"]),
        ({}, REFUSED, ["!InvalidSpec: spec.x: unknown"]),
        (REFUSED, REFUSED, []),
        (REFUSED, {}, ["Bound: events go to f"]),
        (None, GONE, ["Bound: events go to f"]),
        ({}, GONE, ["!Disconnected: BrokerAway: no route"]),
        (GONE, GONE, []),
        (GONE, {}, ["Connected: the listener is attached again"]),
        ({}, LOST, ["!Connected: RecordsGone: 2 records"]),
        (GONE, LOST, ["!Connected: RecordsGone: 2 records"]),
        (LOST, LOST, []),
        (LOST, {}, []),
        ({}, PAUSED, []),
        (PAUSED, {}, []),
        (PAUSED, GONE, []),
        ({}, UNKNOWN, []),
        (UNKNOWN, {}, []),
        (UNKNOWN, GONE, ["!Disconnected: BrokerAway: no route"]),
        ({}, {"Ready": "False/FunctionAway/no reply"}, ["!FunctionAway: no reply"]),
        ({"Ready": "False/FunctionAway/x"}, {"Ready": "False/FunctionAway/y"}, []),
        ({"Ready": "False/FunctionAway"}, {}, ["FunctionBack: the function answers again"]),
        ({"Ready": "False/FunctionAway"}, UNBOUND, ["!Unbound: no f"]),
        ({}, {"Ready": "False/FunctionGone/410"}, ["!FunctionGone: 410"]),
        ({}, {"Ready": "False/Blocked/x"}, ["!Blocked: x"]),
        ({}, {"Ready": "False/DeadLetterUnavailable/x"}, ["!DeadLetterUnavailable: x"]),
        ({}, {"Ready": "False/NoEndpoints/x"}, ["!NoEndpoints: x"]),
        ({"Ready": "False/Blocked/x"}, {}, []),
        (None, {"Ready": "False/NoEndpoints/x"}, ["Bound: events go to f"]),
    ],
)
def test_what_happened_between_two_reports(
    before: dict[str, str] | None, now: dict[str, str], told: list[str]
) -> None:
    old = None if before is None else report(**(WELL | before))
    found = turns(old, report(**(WELL | now)))
    assert [f"{'!' * turn.warning}{turn.reason}: {turn.message}" for turn in found] == told


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (None, "True/Ready", []),
        ("True/Ready", "False/NoEndpoints/none", ["NoEndpoints"]),
        ("False/NoEndpoints/none", "True/Ready", []),
        ("True/Ready", "False/ServiceNotFound/none", []),
    ],
)
def test_what_happened_to_a_function(before: str | None, now: str, told: list[str]) -> None:
    old = None if before is None else report(Accepted="True", Ready=before)
    found = turns(old, report(Accepted="True", Ready=now))
    assert [turn.reason for turn in found] == told


class Written:
    """What the API server has, and how it answers."""

    def __init__(self) -> None:
        self.events: dict[str, Object] = {}
        self.requests = 0
        self.refuse: Callable[[str], ApiError | None] = lambda verb: None
        self.slow = 0.01

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        await self._asked("create")
        assert (resource.plural, namespace) == ("events", "shop")
        self.events[body["metadata"]["name"]] = dict(body)
        return body

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Any, *, kind: str
    ) -> Object:
        await self._asked("patch")
        assert (resource.plural, namespace, kind) == ("events", "shop", "merge")
        if name not in self.events:
            raise failure(404, "NotFound")
        self.events[name].update(body)
        return self.events[name]

    async def _asked(self, verb: str) -> None:
        self.requests += 1
        await asyncio.sleep(self.slow)
        error = self.refuse(verb)
        if error is not None:
            raise error

    def told(self) -> list[tuple[str, str, int]]:
        """Object, reason, count."""
        return [
            (event["involvedObject"]["name"], event["reason"], event["count"])
            for event in self.events.values()
        ]


def failure(status: int, reason: str = "") -> ApiError:
    return ApiError("create", "events", "shop", status, reason or str(status), "told")


class Office:
    leading = True


@asynccontextmanager
async def telling(written: Written, office: Office | None = None) -> AsyncIterator[Events]:
    events = Events(written, office or Office())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(events.run())
        yield events
        await asyncio.sleep(5)
        task.cancel()


async def test_an_event_says_what_it_is_about() -> None:
    written = Written()
    async with telling(written) as events:
        events.tell(ORDERS, AWAY)
        events.tell(ORDERS, Turn("Bound", "events go to f"))
    away, bound = written.events.values()
    assert away["involvedObject"] == {
        "apiVersion": "triggerhub.dev/v1alpha1", "kind": "PlaceTrigger", "namespace": "shop",
        "name": "orders", "uid": "uid-orders",
    }  # fmt: skip
    assert (away["reason"], away["type"], bound["type"]) == ("Disconnected", "Warning", "Normal")
    assert away["metadata"]["name"].startswith("orders.")
    assert away["metadata"]["namespace"] == "shop"
    assert away["firstTimestamp"] == away["lastTimestamp"]


async def test_the_same_event_is_counted() -> None:
    written = Written()
    async with telling(written) as events:
        for _ in range(30):
            events.tell(ORDERS, AWAY)
            await asyncio.sleep(10)
        assert written.told() == [("orders", "Disconnected", 30)]
        await asyncio.sleep(SAME)
        events.tell(ORDERS, AWAY)
    assert written.told() == [("orders", "Disconnected", 30), ("orders", "Disconnected", 1)]


async def test_what_differs_is_not_the_same() -> None:
    written = Written()
    async with telling(written) as events:
        events.tell(ORDERS, AWAY)
        events.tell(ORDERS, Turn("Disconnected", "BrokerAway: another message", warning=True))
        events.tell(Subject("PlaceTrigger", "shop", "orders", "uid-anew"), AWAY)
    assert [count for *_, count in written.told()] == [1, 1, 1]


async def test_a_burst_is_cut_and_another_object_is_still_heard() -> None:
    written = Written()
    async with telling(written) as events:
        for n in range(200):
            events.tell(ORDERS, Turn("Disconnected", f"message {n}", warning=True))
        events.tell(Subject("PlaceTrigger", "shop", "other", "uid-other"), AWAY)
        await asyncio.sleep(60)
        names = [name for name, *_ in written.told()]
        assert (names.count("orders"), names.count("other")) == (BURST, 1)
        await asyncio.sleep(SAME)
        events.tell(ORDERS, Turn("Disconnected", "later", warning=True))
    assert len(written.events) == BURST + 2


async def test_who_does_not_lead_tells_nothing() -> None:
    written, office = Written(), Office()
    office.leading = False
    async with telling(written, office) as events:
        events.tell(ORDERS, AWAY)
    assert written.requests == 0


async def test_more_than_can_wait_is_dropped_and_nobody_is_held_up() -> None:
    written = Written()
    written.slow = 1.0
    async with telling(written) as events:
        for n in range(5000):
            events.tell(Subject("PlaceTrigger", "shop", f"t{n}", f"uid-{n}"), AWAY)
        assert asyncio.get_running_loop().time() < 0.1
        await asyncio.sleep(3000)
    assert 1000 <= len(written.events) <= 1001


@pytest.mark.parametrize("status", [0, 400, 401, 403, 404, 409, 422, 429, 500, 503])
async def test_a_refused_event_is_dropped_and_the_next_one_told(status: int) -> None:
    written = Written()
    written.refuse = lambda verb: failure(status)
    with capture_logs() as logs:
        async with telling(written) as events:
            for n in range(5):
                events.tell(ORDERS, Turn("Disconnected", str(n), warning=True))
            await asyncio.sleep(60)
            assert written.events == {}
            written.refuse = lambda verb: None
            events.tell(ORDERS, AWAY)
    assert written.told() == [("orders", "Disconnected", 1)]
    # A namespace that goes away takes none: that is no trouble.
    assert len(logs) == (0 if status in (404, 409) else 1)


async def test_an_event_that_somebody_deleted_is_written_anew() -> None:
    written = Written()
    async with telling(written) as events:
        events.tell(ORDERS, AWAY)
        await asyncio.sleep(1)
        written.events.clear()
        events.tell(ORDERS, AWAY)
        await asyncio.sleep(1)
        events.tell(ORDERS, AWAY)
    assert written.told() == [("orders", "Disconnected", 2)]


async def test_a_long_message_is_cut() -> None:
    written = Written()
    async with telling(written) as events:
        events.tell(ORDERS, Turn("Disconnected", "ä" * 5000, warning=True))
    (event,) = written.events.values()
    assert event["message"] == "ä" * 1024


async def test_what_was_told_is_not_remembered_for_ever() -> None:
    written = Written()
    written.slow = 0.001
    async with telling(written) as events:
        for n in range(5000):
            events.tell(Subject("PlaceTrigger", "shop", f"t{n}", f"uid-{n}"), AWAY)
            if n % 500 == 499:
                await asyncio.sleep(2)
        assert len(written.events) == 5000
        assert max(len(events._told), len(events._bursts)) < 5000
