"""What not every kind has: places for dead letters in its own system, what the hub asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.triggerhub_cellar import CellarConnector, Shelves
from tests.plugins.triggerhub_echo import EchoConnector
from triggerhub.connector import Cleanup, SourceModel
from triggerhub.control.crds import crd
from triggerhub.control.decoding import decode
from triggerhub.control.kinds import offered, trigger_spec
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import Manifest, Trigger, Where
from triggerhub.control.specs import TriggerSpec

KINDS = {
    "CellarTrigger": Kind("CellarTrigger", lambda: CellarConnector),
    "EchoTrigger": Kind("EchoTrigger", lambda: EchoConnector),
}


def decoded(kind: str, dead_letter: Any) -> Any:
    source = {"shelf": "a"} if kind == "CellarTrigger" else {"password": {"env": "X"}}
    body = {
        "apiVersion": "triggerhub.dev/v1alpha1", "kind": kind, "metadata": {"name": "t"},
        "spec": {
            "function": {"name": "f"}, "source": source, "delivery": {"deadLetter": dead_letter}
        },
    }  # fmt: skip
    manifest = Manifest.read(body, where=Where("a.yaml", Path()), created=datetime.now(UTC))
    return decode(manifest, KINDS)


def told(kind: str, dead_letter: Any) -> list[str]:
    found = decoded(kind, dead_letter)
    assert isinstance(found, tuple), found
    return [
        f"{fault.field}: {fault.found or fault.expected}"
        + (f", expected {fault.expected}" if fault.found and fault.expected else "")
        + (f" ({fault.hint})" if fault.hint else "")
        for fault in found
    ]


def test_a_kind_without_places_has_the_hubs_own_spec() -> None:
    assert trigger_spec(None) is TriggerSpec
    assert trigger_spec(Shelves) is trigger_spec(Shelves)


@pytest.mark.parametrize(
    ("given", "url", "shelf", "top"),
    [
        ({}, None, None, None),
        (None, None, None, None),
        ({"url": "http://d.test/"}, "http://d.test/", None, None),
        ({"shelf": "b"}, None, "b", None),
        ({"topShelf": "c", "url": None}, None, None, "c"),
    ],
)
def test_dead_letters_go_to_the_store_to_a_url_or_to_a_place_of_the_kind(
    given: Any, url: str | None, shelf: str | None, top: str | None
) -> None:
    trigger = decoded("CellarTrigger", given)
    assert isinstance(trigger, Trigger), trigger
    spec = trigger.spec.delivery.dead_letter
    assert spec.url == url
    if shelf is None and top is None:
        assert spec.place is None
    else:
        assert spec.place == Shelves.model_validate({"shelf": shelf, "topShelf": top})


def test_the_other_fields_of_delivery_keep_their_defaults() -> None:
    one, other = decoded("CellarTrigger", {"shelf": "b"}), decoded("EchoTrigger", {})
    mine, plain = (t.spec.delivery.model_dump(exclude={"dead_letter"}) for t in (one, other))
    assert mine == plain


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (
            "CellarTrigger", {"shelf": "b", "url": "http://d.test/"},
            ("spec.delivery.deadLetter: found both url and shelf, "
            "expected at most one of url, shelf, topShelf"),
        ),
        (
            "CellarTrigger", {"shelf": "b", "topShelf": "c"},
            ("spec.delivery.deadLetter: found both shelf and topShelf, "
            "expected at most one of url, shelf, topShelf"),
        ),
        (
            "CellarTrigger", {"shelf": "B"},
            'spec.delivery.deadLetter.shelf: "B" (a text), expected a shelf: 1 to 9 of a-z',
        ),
        (
            "CellarTrigger", {"shelve": "b"},
            "spec.delivery.deadLetter.shelve: unknown field (did you mean shelf?)",
        ),
        (
            "CellarTrigger", {"top_shelf": "b"},
            "spec.delivery.deadLetter.top_shelf: unknown field (did you mean topShelf?)",
        ),
        (
            "EchoTrigger", {"shelf": "b"},
            "spec.delivery.deadLetter.shelf: unknown field (known here: url)",
        ),
        (
            "CellarTrigger", {"shelf": "a"},
            "spec.delivery.deadLetter: found the shelf that is listened to",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_with_its_place(
    kind: str, given: dict[str, Any], expected: str
) -> None:
    assert told(kind, given) == [expected]


def test_a_definition_shows_each_kind_only_its_own_places() -> None:
    assert list(places("CellarTrigger")) == ["url", "shelf", "topShelf"]
    assert list(places("EchoTrigger")) == ["url"]
    rules = spec("CellarTrigger")["x-kubernetes-validations"]
    assert [rule["message"] for rule in rules] == ["expected another shelf"]
    assert "x-kubernetes-validations" not in spec("EchoTrigger")


def spec(kind: str) -> dict[str, Any]:
    (version,) = crd(kind, KINDS)["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def places(kind: str) -> dict[str, Any]:
    delivery: dict[str, Any] = spec(kind)["properties"]["delivery"]
    found: dict[str, Any] = delivery["properties"]["deadLetter"]["properties"]
    return found


def test_what_only_some_kinds_have_is_asked_of_any() -> None:
    class Plain(SourceModel):
        topic: str = "a"

    class Cleaned(Plain):
        cleanup: Cleanup = Cleanup.DELETE

        @property
        def exposed(self) -> str:
            return f"as {self.topic}"

    for name in ("cleanup", "exposed"):
        assert offered(Plain(), name) is None
        assert offered(None, name) is None
    assert offered(Cleaned(), "cleanup") is Cleanup.DELETE
    assert offered(Cleaned(topic="b"), "exposed") == "as b"
