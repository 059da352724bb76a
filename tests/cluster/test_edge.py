"""What is made at the edge of a cluster, and what is read there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from triggerhub.cluster.edge import INGRESSES, Front, Place, objects_of, service_name
from triggerhub.cluster.exposures import Exposures
from triggerhub.cluster.found import Found, address_of, read_found, refusal_of
from triggerhub.cluster.reported import Reported, of_trigger
from triggerhub.control.edge import NoEdge
from triggerhub.control.resources import Trigger, Where
from triggerhub.control.specs import TriggerSpec
from triggerhub.control.status import Condition, State, TriggerStatus
from triggerhub_http import HTTPSource

FRONT = Front("triggerhub", "hub", 80, "cluster.local")
CREATED = datetime(2026, 1, 31, tzinfo=UTC)


def http(name: str = "orders", **source: Any) -> Trigger:
    return Trigger(
        kind="HTTPTrigger", namespace="shop", name=name, created=CREATED, generation=1, labels={},
        spec=TriggerSpec.model_validate({"function": {"name": "f"}}),
        source=HTTPSource.model_validate(source), where=Where(),
    )  # fmt: skip


def made(trigger: Trigger, front: Front = FRONT) -> dict[str, Any]:
    assert isinstance(trigger.source, HTTPSource)
    exposed = trigger.source.exposed
    assert exposed is not None
    return {str(place): body["spec"] for place, body in objects_of(trigger, "u", exposed, front)}


def test_without_host_and_class_an_ingress_takes_any_host_of_the_default_class() -> None:
    found = made(http(expose={"tls": {}}))
    assert found["Ingress shop/orders"] == {
        "rules": [{"http": {"paths": [{
            "path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "triggerhub-orders", "port": {"number": 80}}}}]}}],
        "tls": [{"secretName": "orders-tls"}],
    }  # fmt: skip
    assert found["Service shop/triggerhub-orders"] == {
        "type": "ExternalName", "externalName": "triggerhub.hub.svc.cluster.local",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }  # fmt: skip


def test_a_trigger_beside_the_hub_needs_no_second_object() -> None:
    beside = Front("blue", "shop")
    ((name, spec),) = made(http(expose={}), beside).items()
    assert name == "Ingress shop/orders"
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": "blue", "port": {"number": 80}}}
    ((name, spec),) = made(http(expose={"gateway": {"name": "g"}}), beside).items()
    assert name == "HTTPRoute shop/orders"
    assert spec["rules"][0]["backendRefs"] == [{"name": "blue", "port": 80}]


@pytest.mark.parametrize("name", ["a", "7-up", "a" * 52, "a" * 53, "a" * 63, "a-" * 30 + "b"])
def test_a_service_has_a_name_that_a_service_may_have(name: str) -> None:
    found = service_name(name)
    assert len(found) <= 63
    assert found[0].isalpha()
    assert found[-1].isalnum()
    assert service_name(name) != service_name(name[:-1] + "z")


@pytest.mark.parametrize(
    ("text", "name", "port"), [("triggerhub", "triggerhub", 80), ("blue-1:8080", "blue-1", 8080)]
)
def test_the_hub_s_service_is_a_name_perhaps_with_a_port(text: str, name: str, port: int) -> None:
    front = Front.read(text, "hub")
    assert (front.name, front.port, front.namespace) == (name, port, "hub")


@pytest.mark.parametrize("text", ["A", "a:", "a:0", "a:65536", "a:b", "a/b", "-a", "1a", "a" * 64])
def test_what_is_no_service_ends_the_start_with_a_sentence(text: str) -> None:
    with pytest.raises(OSError, match=r"TRIGGERHUB_SERVICE: found .*, expected the name"):
        Front.read(text, "hub")


def found(status: dict[str, Any], **metadata: Any) -> Found:
    return read_found({"metadata": {"uid": "u", "resourceVersion": "1"} | metadata,
                       "spec": {"a": 1}, "status": status})  # fmt: skip


def test_what_an_object_is_does_not_change_with_its_status() -> None:
    before = found({})
    assert before.digest == found({"x": 1}, resourceVersion="2", managedFields=[{}]).digest
    for part in ("labels", "annotations"):
        assert before.digest != found({}, **{part: {"a": "b"}}).digest


def test_only_a_trigger_owns_it() -> None:
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "orders", "uid": "1"}
    ours = {"apiVersion": "triggerhub.dev/v1", "kind": "HTTPTrigger", "name": "orders", "uid": "2"}
    assert found({}, ownerReferences=[other]).owner is None
    both = found({}, ownerReferences=[other, ours])
    assert (both.owner, both.owner_uid) == (("HTTPTrigger", "orders"), "2")


def test_an_address_is_what_a_controller_reports() -> None:
    place = Place(INGRESSES, "shop", "orders")
    assert address_of(place, found({})) == ""
    assert address_of(place, found({"loadBalancer": {}})) == ""
    entries = [{"ip": "::1"}, {"hostname": "lb", "ip": "1.1.1.1"}, {"ports": []}]
    assert address_of(place, found({"loadBalancer": {"ingress": entries}})) == "::1, lb"


def parent(*conditions: tuple[str, str]) -> dict[str, Any]:
    return {"conditions": [
        {"type": kind, "status": status, "reason": "Because"} for kind, status in conditions
    ]}  # fmt: skip


@pytest.mark.parametrize(
    ("parents", "refusal"),
    [
        ([], None),
        ([parent()], None),
        ([parent(("Accepted", "Unknown"))], None),
        ([parent(("Accepted", "True"))], ""),
        ([parent(("Accepted", "True"), ("ResolvedRefs", "True"))], ""),
        ([parent(("Accepted", "False"))], "Because: it says no more"),
        ([parent(("Accepted", "True"), ("ResolvedRefs", "False"))], "Because: it says no more"),
        ([parent(("Accepted", "True"), ("Other", "False"))], ""),
    ],
)
def test_a_route_is_taken_when_its_gateway_says_so(
    parents: list[dict[str, Any]], refusal: str | None
) -> None:
    assert refusal_of(found({"parents": parents})) == refusal


def test_without_a_cluster_it_is_said_that_it_has_no_effect() -> None:
    told = NoEdge().exposure(http(expose={}))
    assert told is not None
    assert (told.condition.status, told.condition.reason) == (State.FALSE, "NoCluster")
    assert NoEdge().exposure(http()) is None


class Replica:
    """One that leads, or not; there is nothing that it may ask."""

    def __init__(self, *, leading: bool) -> None:
        self.leading = leading

    def told(self, trigger: Trigger, front: Front | None) -> str:
        nothing: Any = None
        told = Exposures(nothing, nothing, self, None, front).exposure(trigger)
        return "" if told is None else told.condition.reason


def test_only_the_leader_speaks_of_the_edge_and_needs_the_hub_s_service() -> None:
    assert Replica(leading=True).told(http(expose={}), None) == "NoService"
    assert Replica(leading=True).told(http(expose={}), FRONT) == "Exposing"
    assert Replica(leading=True).told(http(), None) == ""
    assert Replica(leading=False).told(http(expose={}), FRONT) == ""


def status(state: State, address: str) -> TriggerStatus:
    condition = Condition("Exposed", state, "Exposed")
    return TriggerStatus(
        kind="HTTPTrigger", namespace="shop", name="orders", created=CREATED,
        observed_generation=1, conditions=(condition,), functions=(), address=address,
    )  # fmt: skip


def test_an_address_stays_while_it_is_not_known() -> None:
    first = of_trigger(status(State.TRUE, "1.1.1.1"), None, "now", cleaned=False)
    assert first.as_status()["address"] == "1.1.1.1"
    assert Reported.read(first.as_status()) == first
    unknown = of_trigger(status(State.UNKNOWN, ""), first, "now", cleaned=False)
    assert unknown.address == "1.1.1.1"
    lost = of_trigger(status(State.FALSE, ""), unknown, "now", cleaned=False)
    assert "address" not in lost.as_status()
