"""Which trigger feeds which function, and what their conditions say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from triggerhub.connector import SourceModel
from triggerhub.control.binding import bind
from triggerhub.control.decoding import decode
from triggerhub.control.listeners import SourceState
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import Function, Manifest, ResourceKey, Trigger, Where
from triggerhub.control.status import status_of
from triggerhub.delivery.target import Problem


class Source(SourceModel):
    place: str = "a"


class Connector:
    kind = "TestTrigger"
    source = Source


KINDS: dict[str, Any] = {"TestTrigger": Kind("TestTrigger", lambda: Connector)}


def made(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> Any:
    body = {
        "apiVersion": "triggerhub.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name} | metadata, "spec": spec,
    }  # fmt: skip
    manifest = Manifest.read(
        body, where=Where(), created=datetime(2026, 1, 1, tzinfo=UTC), generation=3
    )
    assert isinstance(manifest, Manifest), manifest
    found = decode(manifest, KINDS)
    assert isinstance(found, Function | Trigger), found
    return found


def trigger(function: dict[str, Any], **spec: Any) -> Trigger:
    made_one: Trigger = made("TestTrigger", "t", {"function": function, "source": {}} | spec)
    return made_one


def functions(*names: str, team: str = "a") -> dict[ResourceKey, Function]:
    url = {"url": "http://f.test/"}
    found = [made("Function", name, url, labels={"team": team}) for name in names]
    return {function.key: function for function in found}


def urls(known: dict[ResourceKey, Function]) -> dict[ResourceKey, str]:
    return {key: f"http://{key.name}.test/" for key in known}


def test_a_name_binds_one_function_and_its_delivery_goes_along() -> None:
    known = functions("f", "g")
    (binding,) = bind([trigger({"name": "f"}, delivery={"timeout": "5s"})], known, urls(known))
    assert binding.name == binding.target.name == "default.t.f"
    assert (binding.target.url, binding.target.timeout) == ("http://f.test/", 5.0)


def test_a_selector_binds_each_function_that_matches() -> None:
    known = functions("f", "g") | functions("h", team="b")
    found = bind([trigger({"selector": {"matchLabels": {"team": "a"}}})], known, urls(known))
    assert [b.name for b in found] == ["default.t.f", "default.t.g"]


def test_no_binding_without_a_function_that_can_be_reached() -> None:
    assert bind([trigger({"name": "f"})], {}, {}) == []
    assert bind([trigger({"name": "f"})], functions("f"), {}) == []


def test_a_change_of_delivery_leaves_the_listening_half_as_it_is() -> None:
    known = functions("f")
    (before,) = bind([trigger({"name": "f"})], known, urls(known))
    (after,) = bind([trigger({"name": "f"}, delivery={"timeout": "5s"})], known, urls(known))
    assert before.listening == after.listening
    assert before.target != after.target


@pytest.mark.parametrize(
    ("state", "problem", "reason"),
    [
        (None, None, "NotListening"),
        (SourceState(), None, "Connecting"),
        (SourceState(attached=True), None, "Ready"),
        (SourceState(attached=False, reason="BrokerUnreachable"), None, "BrokerUnreachable"),
        (SourceState(attached=True), Problem("FunctionAway", "refused"), "FunctionAway"),
        (SourceState(attached=False, reason="InvalidSource", refused=True), None, "InvalidSource"),
    ],
)
def test_ready_tells_the_first_thing_that_is_wrong(
    state: SourceState | None, problem: Problem | None, reason: str
) -> None:
    known = functions("f")
    one = trigger({"name": "f"})
    status = status_of(
        one, bind([one], known, urls(known)), known, missing="",
        unreachable=lambda key: ("", ""), source=lambda name: state,
        problem=lambda name: problem,
    )  # fmt: skip
    assert status.ready.reason == reason
    assert status.observed_generation == 3
    assert [c.type for c in status.conditions] == ["Accepted", "Bound", "Connected", "Ready"]


@pytest.mark.parametrize(
    ("function", "known", "reason"),
    [
        ({"name": "f"}, {}, "FunctionNotFound"),
        ({"selector": {"matchLabels": {"team": "z"}}}, functions("f"), "NoFunctionMatches"),
        ({"name": "f"}, functions("f"), "FunctionNotReady"),
    ],
)
def test_bound_says_which_function_is_missing(
    function: dict[str, Any], known: dict[ResourceKey, Function], reason: str
) -> None:
    status = status_of(
        trigger(function), [], known, missing="",
        unreachable=lambda key: ("CodeError", "main.py line 3"), source=lambda name: None,
        problem=lambda name: None,
    )  # fmt: skip
    assert status.conditions[1].reason == status.ready.reason == reason


def test_a_connector_that_is_not_installed_says_what_to_install() -> None:
    one = replace(trigger({"name": "f"}), source=None)
    status = status_of(
        one, [], functions("f"), missing="pip install 'triggerhub[x]'",
        unreachable=lambda key: ("", ""), source=lambda name: None, problem=lambda name: None,
    )  # fmt: skip
    assert status.ready.reason == "ConnectorNotInstalled"
    assert "pip install" in status.ready.message
