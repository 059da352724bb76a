"""Which trigger feeds which function, and what their conditions say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from triggerhub.connector import LetterPlaces, Reference, SourceModel
from triggerhub.control.binding import Binding, Listening, bind, choose
from triggerhub.control.decoding import decode
from triggerhub.control.outlets import Outlet
from triggerhub.control.plugins import Kind
from triggerhub.control.report import SourceState
from triggerhub.control.resources import Function, Manifest, ResourceKey, Trigger, Where
from triggerhub.control.services import Reach
from triggerhub.control.status import TriggerStatus, status_of
from triggerhub.delivery.target import Problem


class Replies(SourceModel):
    topic: str


class Source(SourceModel):
    place: str = "a"
    reply: bool | Replies | None = None


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


def joined(
    one: Trigger,
    known: dict[ResourceKey, Function],
    *,
    reached: bool = True,
    before: dict[str, Binding] | None = None,
    values: dict[Reference, bytes] | None = None,
) -> dict[str, Binding]:
    urls = {key: f"http://{key.name}.test/" for key in known if reached}
    own = {} if values is None else {one.key: values}
    return bind([one], choose([one], known.values()), urls, own, before or {}, no_outlet)


def no_outlet(listening: Listening, _place: LetterPlaces | None) -> Outlet:
    raise AssertionError(f"nothing of {listening.name} goes to its source's own system")


def judged(
    one: Trigger,
    known: dict[ResourceKey, Function],
    *,
    missing: str = "",
    lacking: str = "",
    reach: Reach | None = None,
    state: SourceState | None = None,
    problem: Problem | None = None,
) -> TriggerStatus:
    bindings = joined(one, known, reached=reach is None or reach.url is not None)
    return status_of(
        one, [] if lacking else list(bindings.values()), choose([one], known.values())[one.key],
        missing=missing, lacking=lacking,
        reaches={key: reach or Reach("http://f.test/") for key in known},
        source=lambda name: state, problem=lambda name: problem,
    )  # fmt: skip


def test_a_name_binds_one_function_and_its_delivery_goes_along() -> None:
    (binding,) = joined(
        trigger({"name": "f"}, delivery={"timeout": "5s"}), functions("f", "g")
    ).values()
    assert binding.name == binding.target.name == "default.t.f"
    assert (binding.target.url, binding.target.timeout) == ("http://f.test/", 5.0)


def test_a_selector_binds_each_function_that_matches() -> None:
    known = functions("f", "g") | functions("h", team="b")
    found = joined(trigger({"selector": {"matchLabels": {"team": "a"}}}), known)
    assert list(found) == ["default.t.f", "default.t.g"]


def test_no_binding_without_a_function_that_can_be_reached() -> None:
    assert joined(trigger({"name": "f"}), {}) == {}
    assert joined(trigger({"name": "f"}), functions("f"), reached=False) == {}


def test_a_change_of_delivery_leaves_the_listening_half_as_it_is() -> None:
    known = functions("f")
    (before,) = joined(trigger({"name": "f"}), known).values()
    (after,) = joined(trigger({"name": "f"}, delivery={"timeout": "5s"}), known).values()
    assert before.listening == after.listening
    assert before.target != after.target


def test_answers_are_written_where_there_is_a_place_for_them() -> None:
    for by_itself in (True, False, None):
        one = trigger({"name": "f"}, source={"reply": by_itself})
        assert joined(one, functions("f"))["default.t.f"].target.replies is None
    elsewhere = trigger({"name": "f"}, source={"reply": {"topic": "answers"}})
    with pytest.raises(AssertionError, match="own system"):
        joined(elsewhere, functions("f"))


def test_a_binding_that_would_be_made_again_as_it_is_stays_the_same_object() -> None:
    one, known = trigger({"name": "f"}), functions("f", "g")
    before = joined(one, known)
    assert joined(one, known, before=before)["default.t.f"] is before["default.t.f"]
    other = replace(one, spec=one.spec)
    assert joined(other, known, before=before)["default.t.f"] is not before["default.t.f"]


def test_another_secret_is_another_listening_half() -> None:
    one, known = trigger({"name": "f"}), functions("f")
    secret = Reference.model_validate({"secretRef": {"name": "s", "key": "k"}})
    before = joined(one, known, values={secret: b"old"})
    (after,) = joined(one, known, before=before, values={secret: b"new"}).values()
    assert before["default.t.f"].listening != after.listening
    assert "new" not in repr(after)


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
    status = judged(trigger({"name": "f"}), functions("f"), state=state, problem=problem)
    assert status.ready.reason == reason
    assert status.observed_generation == 3
    assert [c.type for c in status.conditions] == ["Accepted", "Bound", "Connected", "Ready"]


def test_what_the_user_is_to_know_although_it_goes_on_is_told() -> None:
    state = SourceState()
    state.connected("RecordsGone", "2 records")
    status = judged(trigger({"name": "f"}), functions("f"), state=state)
    connected, ready = status.conditions[2:]
    assert (connected.status.value, connected.reason) == ("True", "RecordsGone")
    assert connected.message == ready.message == "2 records"
    assert (ready.status.value, ready.reason) == ("True", "Ready")
    state.connected()
    assert judged(trigger({"name": "f"}), functions("f"), state=state).ready.message == ""


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
    status = judged(trigger(function), known, reach=Reach(None, "CodeError", "main.py line 3"))
    assert status.conditions[1].reason == status.ready.reason == reason
    assert status.bindings == ()


def test_a_function_without_endpoints_stays_bound_and_is_not_ready() -> None:
    status = judged(
        trigger({"name": "f"}), functions("f"), state=SourceState(attached=True),
        reach=Reach("http://f.test/", "NoEndpoints", "nobody is there"),
    )  # fmt: skip
    assert [(c.type, c.status.value) for c in status.conditions[1:]] == [
        ("Bound", "True"), ("Connected", "True"), ("Ready", "False"),
    ]  # fmt: skip
    assert status.ready.reason == "NoEndpoints"
    assert status.bindings == ("default.t.f",)


def test_a_reference_to_nothing_is_said() -> None:
    status = judged(trigger({"name": "f"}), functions("f"), lacking="Secret default/s is missing")
    assert status.conditions[1].reason == status.ready.reason == "ReferenceNotFound"


def test_a_connector_that_is_not_installed_says_what_to_install() -> None:
    one = replace(trigger({"name": "f"}), source=None)
    status = judged(one, functions("f"), missing="pip install 'triggerhub[x]'")
    assert status.ready.reason == "ConnectorNotInstalled"
    assert "pip install" in status.ready.message
