"""Statuses are written where they differ, by the leader, and never in a storm; in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.cluster.written import KIND, Replica, Written, failure
from triggerhub.cluster.answers import ApiError
from triggerhub.cluster.pace import PER_SECOND
from triggerhub.cluster.statuses import Ref
from triggerhub.control.resources import FUNCTION, ResourceKey

pytestmark = pytest.mark.looptime

OLD = "2026-01-31T12:00:00Z"
SWEEP = 300.0


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def hub(written: Written) -> Replica:
    return Replica(written)


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(fact: Callable[[], bool], seconds: float = 120.0, *, every: float = 0.01) -> float:
    """Wait for it; returns how long that took."""
    began = now()
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(every)
    return now() - began


async def told(hub: Replica, ref: Ref) -> None:
    """Its status has been written, and seen."""
    await until(lambda: bool(hub.written.condition(ref)))
    await asyncio.sleep(1.5)


async def test_a_status_is_written_once(written: Written, hub: Replica) -> None:
    orders, handle = written.put("orders"), written.put("handle", FUNCTION)
    async with hub.running():
        hub.finds(orders)
        hub.finds(handle)
        await asyncio.sleep(1.2 * SWEEP)
        assert [len(written.of(ref)) for ref in (orders, handle)] == [1, 1]
        status = written.status(orders)
        assert [c["type"] for c in status["conditions"]] == [
            "Accepted", "Bound", "Connected", "Ready",
        ]  # fmt: skip
        assert {c["observedGeneration"] for c in status["conditions"]} == {1}
        assert status["observedGeneration"] == 1
        assert status["bindings"] == [{"function": "f", "url": "http://f/"}]
        assert written.status(handle)["url"] == "http://127.0.0.1:9/"
        assert abs(age(written.condition(orders))) < 60


def age(condition: dict[str, str]) -> float:
    since = datetime.fromisoformat(condition["lastTransitionTime"])
    return (datetime.now(UTC) - since).total_seconds()


async def test_a_change_is_written_soon(written: Written, hub: Replica) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        hub.finds(orders, connected="False", reason="BrokerAway")
        assert await until(lambda: written.condition(orders)["reason"] == "BrokerAway") < 0.2


async def test_many_changes_in_one_breath_are_one_write(written: Written, hub: Replica) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        for n in range(50):
            hub.finds(orders, connected="False", reason="BrokerAway", message=str(n))
        await asyncio.sleep(5)
        assert len(written.of(orders)) == 2
        assert written.condition(orders)["message"] == "49"


async def test_one_that_never_rests_is_written_once_a_second(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    async with hub.running():
        for n in range(500):
            hub.finds(orders, connected="False", reason="BrokerAway", message=str(n))
            await asyncio.sleep(0.02)
        await asyncio.sleep(2)
        times = written.of(orders)
        assert 8 <= len(times) <= 12
        assert all(b - a >= 1.0 for a, b in itertools.pairwise(times))
        assert written.condition(orders)["message"] == "499"


async def test_who_does_not_lead_writes_nothing_and_on_taking_office_what_differs(
    written: Written, hub: Replica
) -> None:
    other = Replica(written)
    refs = [written.put(f"t{n}") for n in range(20)]
    async with other.running():
        for ref in refs:
            other.finds(ref)
        await asyncio.sleep(10)
    before = len(written.patches)
    hub.office.leading = False
    async with hub.running():
        for n, ref in enumerate(refs):
            hub.finds(ref, message="here too" if n % 10 == 7 else "")
        await asyncio.sleep(SWEEP)
        assert len(written.patches) == before
        hub.office.leading = True
        await asyncio.sleep(SWEEP)
        assert [ref for _, ref, _ in written.patches[before:]] == [refs[7], refs[17]]


async def test_what_changed_while_nobody_led_for_a_moment_is_written(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        hub.office.leading = False
        hub.finds(orders, connected="False", reason="BrokerAway")
        await asyncio.sleep(0.2)
        hub.office.leading = True
        assert await until(lambda: written.condition(orders)["reason"] == "BrokerAway") < 2


async def test_one_who_loses_office_while_writes_wait_stops(written: Written, hub: Replica) -> None:
    refs = [written.put(f"t{n}") for n in range(1000)]
    async with hub.running():
        for ref in refs:
            hub.finds(ref)
        await until(lambda: len(written.patches) > 100)
        hub.office.leading = False
        before = len(written.patches)
        await asyncio.sleep(60)
        assert len(written.patches) == before


async def test_a_failover_to_one_that_finds_the_same_writes_nothing(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
    other = Replica(written)
    async with other.running():
        other.finds(orders, connected="Unknown", reason="Connecting")
        await asyncio.sleep(2.5)
        other.finds(orders)
        await asyncio.sleep(SWEEP)
    assert len(written.of(orders)) == 1


async def test_a_doubt_that_lasts_is_written(written: Written, hub: Replica) -> None:
    orders, fresh = written.put("orders"), written.put("fresh")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        hub.finds(orders, connected="Unknown", reason="Connecting")
        hub.finds(fresh, connected="Unknown", reason="Connecting")
        took = await until(lambda: written.condition(fresh) != {})
        assert 1.0 <= took < 1.3
        took += await until(lambda: written.condition(orders)["status"] == "Unknown")
        assert 3.0 <= took < 3.3
        assert len(written.of(orders)) == 2


async def test_a_doubt_of_long_ago_is_no_reason_to_flap(written: Written, hub: Replica) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        hub.finds(orders, connected="Unknown", reason="Connecting")
        await asyncio.sleep(1)
        hub.office.leading = False
        await asyncio.sleep(60)
        hub.office.leading = True
        await asyncio.sleep(2.5)
        hub.finds(orders)
        await asyncio.sleep(60)
        assert len(written.of(orders)) == 1


async def test_a_condition_keeps_its_time_while_its_status_is_the_same(
    written: Written, hub: Replica
) -> None:
    conditions = [
        {"type": name, "status": "True", "reason": "Old", "message": "", "lastTransitionTime": OLD}
        for name in ("Accepted", "Bound", "Connected", "Ready")
    ]
    orders = written.put("orders", status={"observedGeneration": 1, "conditions": conditions})
    async with hub.running():
        hub.finds(orders)
        await until(lambda: written.condition(orders)["reason"] == "Ready")
        assert written.condition(orders)["lastTransitionTime"] == OLD
        hub.finds(orders, connected="False", reason="BrokerAway")
        await until(lambda: written.condition(orders)["reason"] == "BrokerAway")
        assert abs(age(written.condition(orders))) < 60
        assert written.condition(orders, "Bound")["lastTransitionTime"] == OLD


async def test_conditions_of_others_are_left_alone(written: Written, hub: Replica) -> None:
    theirs = {
        "type": "Approved", "status": "True", "reason": "ByHand", "message": "",
        "lastTransitionTime": OLD,
    }  # fmt: skip
    orders = written.put("orders", status={"conditions": [theirs]})
    async with hub.running():
        hub.finds(orders)
        await asyncio.sleep(2.2 * SWEEP)
        assert len(written.of(orders)) == 1
        assert written.condition(orders, "Approved") == theirs
        assert written.condition(orders)["status"] == "True"


async def test_what_somebody_else_wrote_over_it_is_put_right(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        written.put("orders", status={"conditions": []})
        await asyncio.sleep(1.1 * SWEEP)
        assert written.condition(orders)["status"] == "True"
        assert len(written.of(orders)) == 2


async def test_what_was_just_written_is_known_before_the_watch_brings_it(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    written.lag = 30.0
    async with hub.running():
        hub.finds(orders)
        for _ in range(20):
            await asyncio.sleep(1)
            hub.changes.trigger(orders.key)
        assert len(written.of(orders)) == 1


async def test_a_second_write_does_not_wait_for_the_watch(written: Written, hub: Replica) -> None:
    orders = written.put("orders")
    written.lag = 30.0
    async with hub.running():
        hub.finds(orders)
        await asyncio.sleep(2)
        hub.finds(orders, connected="False", reason="BrokerAway")
        await asyncio.sleep(2)
        assert written.condition(orders)["reason"] == "BrokerAway"
        assert len(written.of(orders)) == 2


async def test_what_somebody_changed_meanwhile_is_judged_anew(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    written.slow = 0.5
    with capture_logs() as logs:
        async with hub.running():
            hub.finds(orders)
            await until(lambda: len(written.patches) == 1)
            written.put("orders", generation=2)
            await asyncio.sleep(0.6)
            assert written.condition(orders) == {}
            hub.finds(orders, generation=2)
            await told(hub, orders)
            assert written.status(orders)["observedGeneration"] == 2
    assert logs == []


async def test_a_status_of_an_older_generation_is_not_written(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders", generation=2)
    async with hub.running():
        hub.finds(orders, generation=1)
        await asyncio.sleep(10)
        assert written.patches == []
        hub.finds(orders, generation=2)
        await told(hub, orders)
        assert written.status(orders)["observedGeneration"] == 2


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (failure(403, "Forbidden"), 8, 14),
        (failure(422, "Invalid"), 8, 14),
        (failure(400, "BadRequest"), 8, 14),
        (failure(500, "InternalError"), 50, 70),
        (failure(0, "Unreachable"), 50, 70),
        (failure(429, "TooManyRequests"), 50, 70),
        (failure(429, "TooManyRequests", 100.0), 4, 8),
        (failure(429, "TooManyRequests", float("inf")), 4, 8),
        (failure(404, "NotFound"), 50, 70),
        (failure(409, "Conflict"), 50, 70),
    ],
    ids=lambda value: f"{value.status}+{value.retry_after}" if isinstance(value, ApiError) else "",
)
async def test_a_write_that_is_refused_is_tried_again_and_said_once(
    written: Written, hub: Replica, error: Any, least: int, most: int
) -> None:
    orders = written.put("orders")
    written.refuse = lambda ref: error
    with capture_logs() as logs:
        async with hub.running():
            hub.finds(orders)
            await asyncio.sleep(300)
            assert least <= len(written.of(orders)) <= most
            written.refuse = lambda ref: None
            assert await until(lambda: written.condition(orders) != {}) < 61
            said = [entry["object"] for entry in logs if entry["event"] == "status.refused"]
            assert said == [f"{KIND} shop/orders"]
            written.refuse = lambda ref: error
            hub.finds(orders, message="again")
            await asyncio.sleep(60)
            assert len(logs) == 2


@pytest.mark.parametrize("status", [403, 422, 500, 404, 409])
async def test_objects_that_are_refused_keep_no_other_waiting(
    written: Written, hub: Replica, status: int
) -> None:
    bad = [written.put(f"bad{n}") for n in range(60)]
    good = written.put("good")
    written.refuse = lambda ref: failure(status) if ref.key.name.startswith("bad") else None
    async with hub.running():
        for ref in bad:
            hub.finds(ref)
        await asyncio.sleep(100)
        for n in range(5):
            hub.finds(good, message=str(n))
            said = written.condition
            took = await until(lambda: said(good, "Connected").get("message") == str(n))  # noqa: B023
            assert took < 2
            await asyncio.sleep(7)


async def test_a_first_flood_of_refusals_keeps_no_other_waiting_for_long(
    written: Written, hub: Replica
) -> None:
    bad = [written.put(f"bad{n}", FUNCTION) for n in range(1000)]
    good = written.put("good")
    written.refuse = lambda ref: failure(403) if ref in bad else None
    async with hub.running():
        for ref in (*bad, good):
            hub.finds(ref)
        assert await until(lambda: written.condition(good) != {}) < 1000 / PER_SECOND + 2


async def test_a_sweep_leaves_what_is_refused_to_its_turn(written: Written, hub: Replica) -> None:
    orders = written.put("orders")
    written.refuse = lambda ref: failure(422, "Invalid")
    async with hub.running():
        hub.finds(orders)
        await asyncio.sleep(1.2 * SWEEP)
        times = written.of(orders)
        assert all(b - a > 25 for a, b in itertools.pairwise(times))


async def test_one_that_is_refused_for_good_is_tried_at_once_when_it_changes(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    written.refuse = lambda ref: failure(422, "Invalid")
    async with hub.running():
        hub.finds(orders)
        await asyncio.sleep(10)
        written.refuse = lambda ref: None
        hub.finds(orders, message="mended")
        assert await until(lambda: written.condition(orders) != {}) < 2


async def test_a_server_that_refuses_everything_is_asked_seldom_and_served_at_once_when_it_is_back(
    written: Written, hub: Replica
) -> None:
    refs = [written.put(f"t{n}") for n in range(600)]
    written.refuse = lambda ref: failure(0, "Unreachable")
    async with hub.running():
        for ref in refs:
            hub.finds(ref)
        await asyncio.sleep(60)
        before = len(written.patches)
        await asyncio.sleep(60)
        assert 200 < len(written.patches) - before < 300
        written.refuse = lambda ref: None
        await until(lambda: all(map(written.condition, refs)), 600 / PER_SECOND + 6, every=0.2)


async def test_a_server_that_asks_to_be_left_alone_is(written: Written, hub: Replica) -> None:
    refs = [written.put(f"t{n}") for n in range(50)]
    answers = iter([failure(429, "TooManyRequests", 20.0)])
    written.refuse = lambda ref: next(answers, None)
    async with hub.running():
        for ref in refs:
            hub.finds(ref)
        await until(lambda: len(written.patches) > 0)
        began = now()
        await asyncio.sleep(19)
        assert len([at for at, *_ in written.patches if at > began + 0.1]) == 0
        await asyncio.sleep(10)
        assert all(written.condition(ref) for ref in refs)


async def test_two_thousand_triggers_are_no_storm(written: Written, hub: Replica) -> None:
    refs = [written.put(f"t{n}") for n in range(2000)]
    async with hub.running():
        for ref in refs:
            hub.finds(ref)
        took = await until(lambda: all(map(written.condition, refs)), every=0.2)
        assert took < 2000 / PER_SECOND + 1
        times = sorted(at for at, *_ in written.patches)
        for start in range(int(took)):
            within = sum(start <= at < start + 1 for at in times)
            assert within <= PER_SECOND * 1.05, start
        await asyncio.sleep(1.2 * SWEEP)
        assert len(written.patches) == 2000
        for ref in refs:
            hub.finds(ref, connected="False", reason="BrokerAway")
        after = [written.condition(ref)["status"] for ref in refs]
        assert set(after) == {"True"}
        await asyncio.sleep(8)
        after = [written.condition(ref)["status"] for ref in refs]
        assert set(after) == {"False"}


async def test_a_deleted_object_is_forgotten(written: Written, hub: Replica) -> None:
    orders, handle = written.put("orders"), written.put("handle", FUNCTION)
    async with hub.running():
        hub.finds(orders)
        hub.finds(handle)
        await told(hub, orders)
        written.drop(orders)
        written.drop(handle)
        hub.facts.clear()
        hub.changes.trigger(orders.key)
        hub.changes.function(handle.key)
        await asyncio.sleep(1.2 * SWEEP)
        assert len(written.patches) == 2
        assert not hub._statuses._wrote
        assert not hub._statuses._pace._failures


async def test_one_that_is_being_deleted_is_left_alone(written: Written, hub: Replica) -> None:
    orders = written.put("orders", deletionTimestamp=OLD, finalizers=["x"])
    async with hub.running():
        hub.finds(orders)
        await asyncio.sleep(10)
        assert written.patches == []


async def test_one_that_was_made_anew_gets_no_status_of_its_namesake(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    written.slow = 0.5
    async with hub.running():
        hub.finds(orders)
        await until(lambda: len(written.patches) == 1)
        written.put("orders", uid="another")  # while the write is on its way
        await asyncio.sleep(0.6)
        assert written.condition(orders) == {}
        hub.finds(orders, message="of the new one")
        await told(hub, orders)
        assert written.condition(orders, "Connected")["message"] == "of the new one"


async def test_what_was_true_of_a_namesake_is_not_written(written: Written, hub: Replica) -> None:
    orders = written.put("orders")
    hub.finds(orders)
    written.put("orders", uid="another")  # and the snapshot still shows the one before
    async with hub.running():
        hub.changes.trigger(orders.key)
        await asyncio.sleep(10)
        assert written.patches == []
        hub.finds(orders)
        await told(hub, orders)


async def test_one_that_went_while_its_status_was_written_is_no_trouble(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    written.slow = 0.5
    with capture_logs() as logs:
        async with hub.running():
            hub.finds(orders)
            await until(lambda: len(written.patches) == 1)
            written.drop(orders)
            await asyncio.sleep(60)
            assert len(written.patches) == 1
    assert logs == []


async def test_names_that_no_kind_has_are_nobody(written: Written, hub: Replica) -> None:
    async with hub.running():
        hub.changes.trigger(ResourceKey("shop", "nobody"))
        hub.changes.function(ResourceKey("shop", "nobody"))
        await asyncio.sleep(10)
        assert written.patches == []


@pytest.mark.parametrize("reason", ["FunctionNotFound", "NoFunctionMatches"])
async def test_a_trigger_goes_with_its_last_function_where_that_is_wanted(
    written: Written, hub: Replica, reason: str
) -> None:
    orders = written.put("orders", spec={"onFunctionDelete": "Delete"})
    kept = written.put("kept")
    async with hub.running():
        for ref in (orders, kept):
            hub.finds(ref, function="", bound=reason)
        await asyncio.sleep(10)
        assert written.deleted == []  # it never had one
        for ref in (orders, kept):
            hub.finds(ref)
        await asyncio.sleep(10)
        standing = written.standing(*orders)
        assert standing is not None
        for ref in (orders, kept):
            hub.finds(ref, function="", bound=reason)
        await asyncio.sleep(10)
        assert written.deleted == [("orders", "uid-orders", standing.resource_version)]
        assert written.condition(kept, "Bound")["reason"] == reason
        assert ("orders", "DeletedWithFunction") in [event[:2] for event in written.told()]


async def test_a_trigger_does_not_go_for_any_other_reason(written: Written, hub: Replica) -> None:
    orders = written.put("orders", spec={"onFunctionDelete": "Delete"})
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        hub.finds(orders, function="", bound="FunctionNotReady")
        await asyncio.sleep(10)
        assert written.deleted == []
        assert written.condition(orders, "Bound")["reason"] == "FunctionNotReady"


async def test_a_trigger_that_changed_meanwhile_is_not_deleted_for_what_it_was(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders", spec={"onFunctionDelete": "Delete"})
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        status = written.status(orders)
        written.slow = 0.5
        hub.finds(orders, function="", bound="FunctionNotFound")
        await asyncio.sleep(0.3)
        # Somebody asks to keep it, in the very moment.
        written.put("orders", generation=2, status=status)
        hub.finds(orders, function="", bound="FunctionNotFound", generation=2)
        await asyncio.sleep(10)
        assert len(written.deleted) == 1
        assert written.condition(orders, "Bound")["reason"] == "FunctionNotFound"


async def test_turning_points_become_events(written: Written, hub: Replica) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        hub.finds(orders, connected="False", reason="BrokerAway", message="nobody answers")
        await asyncio.sleep(2)
        hub.finds(orders)
        await asyncio.sleep(2)
        assert [event[1:] for event in written.told()] == [
            ("Bound", "events go to f", "Normal"),
            ("Disconnected", "BrokerAway: nobody answers", "Warning"),
            ("Connected", "the listener is attached again", "Normal"),
        ]


async def test_a_turning_point_whose_status_was_not_written_is_not_told_yet(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    written.refuse = lambda ref: failure(500)
    async with hub.running():
        hub.finds(orders)
        await asyncio.sleep(20)
        assert written.told() == []
        written.refuse = lambda ref: None
        await asyncio.sleep(20)
        assert [event.reason for event in written.told()] == ["Bound"]


async def test_that_dead_letters_begin_is_told_once(written: Written, hub: Replica) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        for _ in range(20):
            hub.dispatcher.link("shop.orders.f").tally.dead += 1
            hub.changes.binding("shop.orders.f")
            await asyncio.sleep(100)
        reasons = [event.reason for event in written.told()]
        assert reasons == ["Bound", "DeadLettering"]
        await asyncio.sleep(601)
        hub.dispatcher.link("shop.orders.f").tally.dead += 1
        hub.changes.binding("shop.orders.f")
        await asyncio.sleep(10)
        assert [event.reason for event in written.told()].count("DeadLettering") == 2
        assert len(written.of(orders)) == 1


async def test_a_binding_that_counts_anew_has_its_dead_letters_told(
    written: Written, hub: Replica
) -> None:
    orders = written.put("orders")
    async with hub.running():
        hub.finds(orders)
        await told(hub, orders)
        for dead, passes in ((7, 700.0), (0, 10.0), (3, 10.0)):
            hub.dispatcher.link("shop.orders.f").tally.dead = dead
            hub.changes.binding("shop.orders.f")
            await asyncio.sleep(passes)
        assert [event.reason for event in written.told()].count("DeadLettering") == 2
