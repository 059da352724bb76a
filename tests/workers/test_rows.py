"""What the workers list, as the list of one hub."""

from __future__ import annotations

from typing import Any

import pytest

from triggerhub.admin.states import BindingView
from triggerhub.admin.wire import binding_json
from triggerhub.workers.rows import (
    merged_bindings,
    merged_deliveries,
    merged_faults,
    merged_functions,
    merged_triggers,
)


def row(state: str = "Ready", trigger: str = "orders", **more: Any) -> dict[str, Any]:
    function = "" if state == "Unbound" else "handle"
    view = BindingView(
        name=f"shop.{trigger}.{function}" if function else "",
        kind="KafkaTrigger",
        namespace="shop",
        trigger=trigger,
        function=function,
        url="http://f.test/",
        state=state,
        reason=more.pop("reason", state),
        message=more.pop("message", ""),
        **more,
    )
    return binding_json(view)


def test_what_is_counted_or_waits_is_added_up() -> None:
    one = row(received=5, accepted=3, in_flight=2, rate=1.25, lag=10.0, dead_letters=4)
    other = row(received=2, accepted=1, given_back=1, rate=0.5, lag=7.0, dead_letters=4)
    [merged] = merged_bindings([(1, [one]), (2, [other])])
    assert {**one, "received": 7, "accepted": 4, "givenBack": 1, "rate": 1.8, "lag": 17.0} == merged


@pytest.mark.parametrize(
    ("lags", "expected"), [((None, None), None), ((None, 3.0), 3.0), ((0.0, None), 0.0)]
)
def test_a_lag_that_one_cannot_tell_is_the_others(
    lags: tuple[float | None, float | None], expected: float | None
) -> None:
    told = [(number, [row(lag=lag)]) for number, lag in enumerate(lags, 1)]
    assert merged_bindings(told)[0]["lag"] == expected


def test_each_worker_tells_the_lag_of_its_own_partitions() -> None:
    one = row(lag=3.0, lag_by_partition={"orders/0": 3.0, "orders/2": 0.0})
    other = row(lag=4.0, lag_by_partition={"orders/1": 4.0})
    [merged] = merged_bindings([(1, [one]), (2, [other])])
    assert merged["lagByPartition"] == {"orders/0": 3.0, "orders/1": 4.0, "orders/2": 0.0}


def test_what_one_cannot_tell_yet_another_may() -> None:
    done = {"id": "a", "time": "2026-01-31T08:00:00Z", "positions": "0:7"}
    [merged] = merged_bindings([(1, [row()]), (2, [row(seek=done)])])
    assert merged["seek"] == done


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("Ready", "Ready"), ("Ready", "")),
        (("Ready", "NotReady"), ("NotReady", "worker 2: no broker")),
        (("NotReady", "Connecting"), ("NotReady", "worker 1: no broker")),
        (("NotReady", "NotReady"), ("NotReady", "no broker")),
        (("Connecting", "Ready"), ("Connecting", "worker 1: no broker")),
        (("Ready", "Stopping"), ("Stopping", "worker 2: no broker")),
        (("Paused", "Ready"), ("Paused", "worker 1: no broker")),
    ],
)
def test_the_worst_state_is_told_and_whose_it_is(
    states: tuple[str, str], expected: tuple[str, str]
) -> None:
    told = [
        (number, [row(state, message="" if state == "Ready" else "no broker")])
        for number, state in enumerate(states, 1)
    ]
    [merged] = merged_bindings(told)
    assert (merged["state"], merged["message"]) == expected


def test_one_that_is_well_and_has_something_to_tell_is_heard() -> None:
    told = [(1, [row()]), (2, [row(reason="OffsetOutOfRange", message="5 records were lost")])]
    [merged] = merged_bindings(told)
    assert (merged["state"], merged["reason"]) == ("Ready", "OffsetOutOfRange")
    assert merged["message"] == "worker 2: 5 records were lost"


def test_a_trigger_that_is_bound_in_one_worker_only_is_one_row_and_says_where_it_is_not() -> None:
    lost = row("Unbound", reason="FunctionNotReady", message="its code crashed", received=0)
    for told in ([(1, [row()]), (2, [lost])], [(1, [lost]), (2, [row()])]):
        [merged] = merged_bindings(told)
        where = next(number for number, rows in told if rows == [lost])
        assert merged["name"] == "shop.orders.handle"
        assert (merged["state"], merged["reason"]) == ("Unbound", "FunctionNotReady")
        assert merged["message"] == f"worker {where}: its code crashed"


def test_a_trigger_that_is_bound_nowhere_is_one_row() -> None:
    lost = row("Unbound", reason="FunctionNotFound", message="there is no f")
    assert merged_bindings([(1, [lost]), (2, [lost])]) == [lost]


def test_what_only_one_of_them_knows_yet_is_listed() -> None:
    told = [(1, [row()]), (2, [row(), row(trigger="bills")])]
    assert [merged["trigger"] for merged in merged_bindings(told)] == ["orders", "bills"]


def test_the_error_that_was_last_is_shown() -> None:
    told = [
        (1, [row(last_error="status 500", last_error_age=9.0)]),
        (2, [row(last_error="timeout", last_error_age=2.0)]),
        (3, [row()]),
    ]
    [merged] = merged_bindings(told)
    assert (merged["lastError"], merged["lastErrorAge"]) == ("timeout", 2.0)


def trigger(status: str, reason: str, bindings: list[str], generation: int = 1) -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": f"it is {reason}"}
    return {
        "kind": "KafkaTrigger", "namespace": "shop", "name": "orders",
        "observedGeneration": generation, "conditions": [condition], "bindings": bindings,
    }  # fmt: skip


def test_a_trigger_is_as_bad_as_in_its_worst_worker() -> None:
    told = [
        (1, [trigger("True", "Ready", ["a"], 2)]),
        (2, [trigger("Unknown", "Connecting", ["a", "b"])]),
        (3, [trigger("False", "BrokerUnreachable", [])]),
    ]
    [merged] = merged_triggers(told)
    assert (merged["observedGeneration"], merged["bindings"]) == (1, ["a", "b"])
    assert merged["conditions"] == [
        {
            "type": "Ready",
            "status": "False",
            "reason": "BrokerUnreachable",
            "message": "worker 3: it is BrokerUnreachable",
        }
    ]


def test_a_function_is_as_bad_as_in_its_worst_worker() -> None:
    ready = {"namespace": "shop", "name": "f", "kind": "code", "url": "http://127.0.0.1:1/",
             "reason": "Ready", "message": ""}  # fmt: skip
    crashed = {**ready, "reason": "Crashed", "message": "exit code 1"}
    [merged] = merged_functions([(1, [ready]), (2, [crashed])])
    assert (merged["reason"], merged["message"]) == ("Crashed", "worker 2: exit code 1")
    assert merged_functions([(1, [ready]), (2, [ready])]) == [ready]


def test_each_fault_is_listed_once() -> None:
    fault = {"file": "a.yaml", "line": 3}
    assert merged_faults([(1, [fault]), (2, [fault, {"file": "b.yaml", "line": 1}])]) == [
        fault, {"file": "b.yaml", "line": 1},
    ]  # fmt: skip


def test_a_delivery_that_several_know_of_is_told_once_newest_first() -> None:
    def delivery(received: str, ended: str | None) -> dict[str, Any]:
        return {"binding": "b", "source": "/s", "id": "1", "received": received, "ended": ended}

    first, again = delivery("T1", "T2"), delivery("T3", "T4")
    told = [(1, [delivery("T3", None), first]), (2, [again, first])]
    assert merged_deliveries(told) == [again, first]
