"""A status as a compact value, and as server-side apply takes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.cluster.reported import Held, Reported, of_function, of_trigger
from triggerhub.connector import Sought
from triggerhub.control.crds import crd
from triggerhub.control.status import (
    BoundFunction,
    Condition,
    FunctionStatus,
    State,
    TriggerStatus,
)

SEEK = Sought(id="a", time=datetime(2026, 11, 23, 10, tzinfo=UTC), positions="0:7")
THEN, NOW = "2026-01-31T12:00:00Z", "2026-02-28T12:00:00Z"

texts = st.text(max_size=12)
helds = st.builds(Held, texts, st.sampled_from(["True", "False", "Unknown"]), texts, texts, texts)
reports = st.builds(
    Reported,
    generation=st.integers(0, 2**40),
    conditions=st.lists(helds, max_size=5, unique_by=lambda held: held.type).map(tuple),
    bindings=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    cleanup=st.lists(texts, max_size=3).map(tuple),
    url=texts,
)


def trigger(*conditions: Condition, **changes: Any) -> TriggerStatus:
    facts: dict[str, Any] = {
        "kind": "PlaceTrigger", "namespace": "shop", "name": "orders", "observed_generation": 3,
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "conditions": conditions, "functions": (),
    }  # fmt: skip
    return TriggerStatus(**(facts | changes))


def ready(status: State = State.TRUE, reason: str = "Ready", message: str = "") -> Condition:
    return Condition("Ready", status, reason, message)


@given(reports)
def test_what_was_reported_is_read_as_it_was(report: Reported) -> None:
    assert Reported.read(report.as_status()) == report
    assert Reported.read(json.loads(json.dumps(report.as_status()))) == report
    assert report.says(report)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["observedGeneration", "conditions", "bindings", "cleanup", "url", "type",
                 "status", "reason", "message", "lastTransitionTime", "function", "seek", "id",
                 "time", "positions"]
            ),
            inner, max_size=5,
        )
    ),
)  # fmt: skip


@given(json_values)
def test_whatever_somebody_wrote_there_can_be_read(status: object) -> None:
    found = Reported.read(status)
    if found is not None:
        assert Reported.read(found.as_status()) == found


@pytest.mark.parametrize("status", [None, {}, [], "text", 7])
def test_nothing_is_no_report(status: object) -> None:
    assert Reported.read(status) is None


def test_a_condition_keeps_its_time_while_its_status_is_the_same() -> None:
    before = of_trigger(trigger(ready()), None, THEN, cleaned=False)
    assert before.conditions == (Held("Ready", "True", "Ready", "", THEN),)
    same = of_trigger(trigger(ready(reason="Other", message="x")), before, NOW, cleaned=False)
    assert same.conditions == (Held("Ready", "True", "Other", "x", THEN),)
    other = of_trigger(trigger(ready(State.FALSE)), same, NOW, cleaned=False)
    assert other.conditions[0].since == NOW


def test_a_condition_without_a_time_gets_one() -> None:
    before = Reported(generation=1, conditions=(Held("Ready", "True", "Ready", "", ""),))
    assert of_trigger(trigger(ready()), before, NOW, cleaned=False).conditions[0].since == NOW


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, True),
        ({"since": NOW}, True),
        ({"status": "False"}, False),
        ({"reason": "Other"}, False),
        ({"message": "other"}, False),
    ],
)
def test_a_report_says_the_same_but_for_times(change: dict[str, str], says: bool) -> None:
    plain = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "since": THEN}
    theirs = Held("Approved", "False", "ByHand", "", THEN)
    accepted = Held("Accepted", "True", "Accepted", "", THEN)
    held = Reported(generation=1, conditions=(theirs, Held(**(plain | change)), accepted))
    wanted = Reported(generation=1, conditions=(accepted, Held(**plain)))
    assert wanted.says(held) is says


@pytest.mark.parametrize(
    "other",
    [
        Reported(generation=2),
        Reported(generation=1, bindings=(("f", "http://f/"),)),
        Reported(generation=1, cleanup=("shop.orders.f",)),
        Reported(generation=1, url="http://f/"),
        Reported(generation=1, seeks=(("f", SEEK),)),
    ],
)
def test_a_report_of_something_else_says_something_else(other: Reported) -> None:
    assert not other.says(Reported(generation=1))
    assert not Reported(generation=1).says(other)


def test_a_condition_that_is_missing_is_not_said() -> None:
    wanted = of_trigger(trigger(ready()), None, THEN, cleaned=False)
    assert not wanted.says(Reported(generation=3))


def test_bindings_come_in_one_order() -> None:
    functions = (BoundFunction("b", "http://b/"), BoundFunction("a", "http://a/"))
    report = of_trigger(trigger(functions=functions), None, NOW, cleaned=False)
    assert report.bindings == (("a", "http://a/"), ("b", "http://b/"))
    assert report.cleanup == ()


def test_a_seek_is_told_and_stays_told_while_a_replica_does_not_know_of_it() -> None:
    url = "http://f/"
    done = of_trigger(trigger(functions=(BoundFunction("f", url, SEEK),)), None, NOW, cleaned=False)
    shape = {"id": "a", "time": "2026-11-23T10:00:00Z", "positions": "0:7"}
    assert done.as_status()["bindings"] == [{"function": "f", "url": url, "seek": shape}]
    assert Reported.read(done.as_status()) == done
    unknowing = (BoundFunction("f", url), BoundFunction("g", url))
    assert of_trigger(trigger(functions=unknowing), done, NOW, cleaned=False).seeks == done.seeks
    later = replace(SEEK, id="b")
    after = of_trigger(
        trigger(functions=(BoundFunction("f", url, later),)), done, NOW, cleaned=False
    )
    assert after.seeks == (("f", later),)
    assert of_trigger(trigger(functions=()), done, NOW, cleaned=False).seeks == ()


def test_names_to_be_cleaned_are_kept_when_their_binding_is_gone() -> None:
    bound = of_trigger(
        trigger(functions=(BoundFunction("f", "http://f/"),)), None, NOW, cleaned=True
    )
    assert bound.cleanup == ("shop.orders.f",)
    moved = of_trigger(
        trigger(functions=(BoundFunction("g", "http://g/"),)), bound, NOW, cleaned=True
    )
    assert moved.cleanup == ("shop.orders.f", "shop.orders.g")
    assert of_trigger(trigger(), moved, NOW, cleaned=True).cleanup == moved.cleanup
    assert of_trigger(trigger(), moved, NOW, cleaned=False).cleanup == ()


def test_a_function_tells_where_it_is_reached() -> None:
    status = FunctionStatus(
        namespace="shop",
        name="f",
        created=datetime.now(UTC),
        observed_generation=2,
        conditions=(ready(),),
        url="http://f/",
    )
    assert of_function(status, None, NOW).as_status()["url"] == "http://f/"


def schema_of_a_condition() -> dict[str, Any]:
    version = crd("Function", {})["spec"]["versions"][0]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    found: dict[str, Any] = status["properties"]["conditions"]["items"]["properties"]
    return found


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("BrokerAway", "BrokerAway"),
        ("A", "A"),
        ("Away:NoRoute,Really_1", "Away:NoRoute,Really_1"),
        ("broker is away", "brokerisaway"),
        ("404", "Unspecified"),
        ("404NotFound", "NotFound"),
        ("Away:", "Away"),
        ("Ä", "Unspecified"),
        ("Away\n", "Away"),
        ("", "Unspecified"),
    ],
)
def test_a_reason_of_a_connector_is_made_fit(reason: str, said: str) -> None:
    report = of_trigger(trigger(ready(reason=reason)), None, NOW, cleaned=False)
    assert report.conditions[0].reason == said


@given(st.text(max_size=30) | st.from_regex("[A-Za-z0-9_,: -]{0,40}") | st.just("R" * 2000))
def test_no_reason_and_no_message_has_a_status_refused(text: str) -> None:
    report = of_trigger(trigger(ready(reason=text, message=text * 2000)), None, NOW, cleaned=False)
    schema = schema_of_a_condition()
    (condition,) = report.conditions
    assert re.search(schema["reason"]["pattern"].removesuffix("$") + r"\Z", condition.reason)
    assert 1 <= len(condition.reason) <= schema["reason"]["maxLength"]
    assert len(condition.message) <= schema["message"]["maxLength"]
