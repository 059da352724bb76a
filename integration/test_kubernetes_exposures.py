"""HTTP triggers of a real API server that ask to be reached from outside. There is no controller:
what one says in a status, the test says."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.conftest import ROOT
from integration.function import answering
from integration.gateway_api import gateway_crds
from integration.hub import Hub, function, running, trigger
from integration.kubernetes import ApiServer
from integration.room import Room
from integration.servers import eventually

INGRESS = "/apis/networking.k8s.io/v1/namespaces/{}/ingresses"
SERVICE = "/api/v1/namespaces/{}/services"
GATEWAY_API = "/apis/gateway.networking.k8s.io"
ROUTE = f"{GATEWAY_API}/v1/namespaces/{{}}/httproutes"
GATEWAY = f"{GATEWAY_API}/v1/namespaces/{{}}/gateways"
GRANT = f"{GATEWAY_API}/v1beta1/namespaces/triggerhub/referencegrants"

Object = dict[str, Any]


class Edge:
    """What the API server has at the edge of one namespace."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.server = room.server

    def get(self, path: str, name: str) -> Object | None:
        try:
            found: Object = self.server.request("GET", self._path(path, name))
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise
        return found

    def spec(self, path: str, name: str) -> Any:
        return (self.get(path, name) or {}).get("spec")

    def patch(self, path: str, name: str, body: Any, part: str = "") -> None:
        """As somebody else."""
        self.server.request("PATCH", f"{self._path(path, name)}{part}?fieldManager=somebody", body)

    def says(self, path: str, name: str, **status: Any) -> None:
        """What a controller writes."""
        self.patch(path, name, {"status": status}, "/status")

    def delete(self, path: str, name: str) -> None:
        self.server.request("DELETE", self._path(path, name))

    def create(self, path: str, body: Object) -> None:
        self.server.request("POST", path.format(self.room.namespace), body)

    def exposed(self, name: str = "orders") -> str:
        return self.room.condition("HTTPTrigger", name, "Exposed")

    def told(self, name: str = "orders") -> str:
        """The message of the condition, and the address."""
        found = self.room.get("HTTPTrigger", name) or {}
        status = found.get("status") or {}
        said = [c["message"] for c in status.get("conditions", ()) if c["type"] == "Exposed"]
        return f"{said[0] if said else ''} at {status.get('address')}"

    def _path(self, path: str, name: str) -> str:
        return f"{path.format(self.room.namespace)}/{name}"


@pytest.fixture
def edge(room: Room) -> Edge:
    return Edge(room)


@contextmanager
def hub_at(room: Room, folder: Path, **env: str) -> Iterator[Hub]:
    """One that knows its Service."""
    with running(
        folder, "--namespace", room.namespace,
        kubeconfig=room.account, env={"TRIGGERHUB_SERVICE": "triggerhub"} | env,
    ) as hub:  # fmt: skip
        yield hub


def exposed(name: str, expose: Object | None, **source: Any) -> Object:
    return trigger(
        "HTTPTrigger", name, "f", source | ({} if expose is None else {"expose": expose})
    )


def rule(path: str, host: str, service: str, kind: str = "Prefix", port: int = 80) -> Object:
    backend = {"service": {"name": service, "port": {"number": port}}}
    return {"host": host, "http": {"paths": [
        {"path": path, "pathType": kind, "backend": backend}]}}  # fmt: skip


def test_an_ingress_is_made_kept_changed_whole_and_removed(
    room: Room, edge: Edge, tmp_path: Path
) -> None:
    first: Object = {
        "ingressClass": "nginx", "tls": {},
        "annotations": {"cert-manager.io/cluster-issuer": "acme", "example.com/old": "1"},
    }  # fmt: skip
    own = rule("/orders", "api.example.com", "triggerhub-orders")
    with answering() as target, hub_at(room, tmp_path) as hub:
        room.apply(
            function("f", target.url),
            exposed("orders", first, host="API.example.com", path="/orders"),
            exposed("hidden", None, path="/hidden"),
        )
        hub.wait(lambda: edge.exposed() == "False AddressPending", "the Ingress")
        found = edge.get(INGRESS, "orders")
        assert found is not None
        assert found["spec"] == {
            "ingressClassName": "nginx", "rules": [own],
            "tls": [{"hosts": ["api.example.com"], "secretName": "orders-tls"}],
        }  # fmt: skip
        assert found["metadata"]["annotations"] == first["annotations"]
        uid = (room.get("HTTPTrigger", "orders") or {})["metadata"]["uid"]
        owners = found["metadata"]["ownerReferences"]
        assert [(o["kind"], o["name"], o["uid"]) for o in owners] == [
            ("HTTPTrigger", "orders", uid)
        ]
        assert edge.get(INGRESS, "hidden") is None
        assert edge.exposed("hidden") == ""
        # Inside of the cluster it is served all the same.
        assert room.condition("HTTPTrigger", "orders") == "True Ready"
        service = edge.spec(SERVICE, "triggerhub-orders")
        assert service["type"] == "ExternalName"
        assert service["externalName"].startswith("triggerhub.triggerhub.svc.")
        assert [port["port"] for port in service["ports"]] == [80]

        edge.says(INGRESS, "orders", loadBalancer={"ingress": [
            {"ip": "203.0.113.7"}, {"hostname": "lb.example.com"}]})  # fmt: skip
        hub.wait(lambda: edge.exposed() == "True Exposed", "the address")
        where = "203.0.113.7, lb.example.com"
        assert edge.told() == f"by Ingress {room.namespace}/orders at {where}"
        assert where in room.server.kubectl("get", "httptriggers", "-n", room.namespace)

        # What others change is put right, what they add stays.
        edge.patch(INGRESS, "orders", {
            "metadata": {"annotations": {"example.com/theirs": "2", "example.com/old": "3"}},
            "spec": {"ingressClassName": "other", "rules": [], "defaultBackend": {
                "service": {"name": "x", "port": {"number": 1}}}},
        })  # fmt: skip
        hub.wait(lambda: edge.spec(INGRESS, "orders").get("rules") == [own], "the rules")
        found = edge.get(INGRESS, "orders")
        assert found is not None
        assert found["spec"]["ingressClassName"] == "nginx"
        assert found["metadata"]["annotations"] == first["annotations"] | {
            "example.com/theirs": "2"
        }
        for path, name in ((INGRESS, "orders"), (SERVICE, "triggerhub-orders")):
            edge.delete(path, name)
            hub.wait(lambda p=path, n=name: edge.get(p, n) is not None, f"{name} anew")  # type: ignore[misc]

        # Another class and host, other annotations, no TLS: nothing of the old is left.
        second = {"host": "shop.example.com", "annotations": {"example.com/new": "4"}}
        room.apply(exposed("orders", second, path="/o", pathType="Exact"))
        changed = {"rules": [rule("/o", "shop.example.com", "triggerhub-orders", "Exact")]}
        hub.wait(lambda: edge.spec(INGRESS, "orders") == changed, "the change")
        found = edge.get(INGRESS, "orders")
        assert found is not None
        assert found["metadata"]["annotations"] == second["annotations"]

        room.apply(exposed("orders", None, path="/o"))
        hub.wait(lambda: edge.get(INGRESS, "orders") is None, "the Ingress's end")
        hub.wait(lambda: edge.get(SERVICE, "triggerhub-orders") is None, "the Service's end")
        hub.wait(lambda: edge.exposed() == "" and edge.told() == " at None", "the status")
        assert room.condition("HTTPTrigger", "orders") == "True Ready"


def test_what_has_its_name_is_not_taken_over(room: Room, edge: Edge, tmp_path: Path) -> None:
    theirs = {"defaultBackend": {"service": {"name": "x", "port": {"number": 1}}}}
    edge.create(INGRESS, {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": theirs,
        # Not even one that looks like ours.
        "metadata": {"name": "orders", "labels": {"triggerhub.dev/exposes": "orders"}},
    })  # fmt: skip
    edge.create(SERVICE, {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "triggerhub-other"},
        "spec": {"ports": [{"port": 80}]},
    })  # fmt: skip
    with answering() as target, hub_at(room, tmp_path) as hub:
        room.apply(function("f", target.url), exposed("orders", {"ingressClass": "nginx"}),
                   exposed("other", {"host": "o.example.com"}))  # fmt: skip
        for name, what in (("orders", "Ingress"), ("other", "Service")):
            hub.wait(lambda n=name: edge.exposed(n) == "False NameTaken", f"word of {what}")  # type: ignore[misc]
            assert f"{what} {room.namespace}/" in edge.told(name)
        assert edge.spec(INGRESS, "orders") == theirs
        assert edge.spec(SERVICE, "triggerhub-other")["type"] == "ClusterIP"
        edge.delete(INGRESS, "orders")
        hub.wait(lambda: edge.exposed() == "False AddressPending", "the name to be free")

        # What the API server refuses is told in its words.
        room.apply(exposed("orders", {}, path="/a//b"))
        hub.wait(lambda: edge.exposed() == "False ExposeRefused", "the refusal")
        assert "must not contain '//'" in edge.told()
        room.apply(exposed("orders", {}, path="/a/b"))
        hub.wait(lambda: edge.exposed() == "False AddressPending", "what is well again")


def test_what_is_exposed_goes_with_its_trigger_and_with_what_changed_while_no_hub_ran(
    room: Room, edge: Edge, tmp_path: Path
) -> None:
    names = ("deleted", "hidden", "moved")
    with answering() as target:
        with hub_at(room, tmp_path / "a") as hub:
            room.apply(function("f", target.url))
            room.apply(*(exposed(name, {"host": f"{name}.example.com"}) for name in names))
            for name in names:
                hub.wait(lambda n=name: edge.exposed(n) == "False AddressPending", name)  # type: ignore[misc]
            assert hub.stop() == 0
        room.delete("HTTPTrigger", "deleted")
        room.apply(exposed("hidden", None), exposed("moved", {"host": "new.example.com"}))
        # The garbage collector knows the owner: no hub is needed.
        gone(edge, INGRESS, "deleted")
        gone(edge, SERVICE, "triggerhub-deleted")
        assert edge.get(INGRESS, "hidden") is not None
        with hub_at(room, tmp_path / "b") as hub:
            hub.wait(lambda: edge.get(INGRESS, "hidden") is None, "the end of what is hidden")
            hub.wait(
                lambda: edge.spec(INGRESS, "moved")["rules"][0]["host"] == "new.example.com",
                "the change",
            )
            # Faults say nothing of what is meant: what is there stays.
            room.patch("HTTPTrigger", "moved", {"spec": {"source": {"expose": {
                "host": None, "annotations": {"triggerhub.dev": "x"}}}}})  # fmt: skip
            assert edge.get(INGRESS, "moved") is not None


def gone(edge: Edge, path: str, name: str) -> None:
    eventually(lambda: edge.get(path, name) is None, f"end of {name}")


@contextmanager
def gateway_api(server: ApiServer) -> Iterator[Callable[[], None]]:
    """Installs it when called; it is gone after the block."""
    folder = str(gateway_crds())

    def install() -> None:
        server.kubectl("apply", "--server-side", "-f", folder)
        server.kubectl("wait", "--for=condition=Established", "-f", folder, "--timeout=30s")

    try:
        yield install
    finally:
        server.kubectl("delete", "--ignore-not-found", "-f", folder, "--timeout=60s")


def test_a_route_is_made_once_the_gateway_api_is_there_and_goes_with_its_grant(
    room: Room, edge: Edge, tmp_path: Path
) -> None:
    grant = f"triggerhub-{room.namespace}"
    by_gateway = {"gateway": {"name": "public", "sectionName": "https"}}
    with (
        gateway_api(room.server) as install,
        answering() as target,
        hub_at(room, tmp_path, TRIGGERHUB_SERVICE="triggerhub:8081") as hub,
    ):
        room.apply(function("f", target.url),
                   exposed("orders", by_gateway, host="*.example.com", path="/orders"))  # fmt: skip
        hub.wait(lambda: edge.exposed() == "False GatewayAPIMissing", "word of what is missing")
        assert room.condition("HTTPTrigger", "orders") == "True Ready"
        install()
        hub.wait(lambda: edge.exposed() == "False AddressPending", "the route", within=60.0)
        spec = edge.spec(ROUTE, "orders")
        assert spec["hostnames"] == ["*.example.com"]
        (parent,) = spec["parentRefs"]
        assert {key: parent[key] for key in ("name", "namespace", "sectionName")} == {
            "name": "public", "namespace": room.namespace, "sectionName": "https",
        }  # fmt: skip
        (only,) = spec["rules"]
        assert only["matches"] == [{"path": {"type": "PathPrefix", "value": "/orders"}}]
        (backend,) = only["backendRefs"]
        assert (backend["name"], backend["namespace"], backend["port"]) == (
            "triggerhub", "triggerhub", 8081,
        )  # fmt: skip
        assert edge.get(INGRESS, "orders") is None
        assert edge.spec(GRANT, grant) == {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute",
                      "namespace": room.namespace}],
            "to": [{"group": "", "kind": "Service", "name": "triggerhub"}],
        }  # fmt: skip

        accept(edge, parent, "False", "NoMatchingParent")
        hub.wait(lambda: edge.exposed() == "False RouteNotAccepted", "the Gateway's refusal")
        assert "NoMatchingParent: as told" in edge.told()
        edge.create(GATEWAY, {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "public"},
            "spec": {"gatewayClassName": "any", "listeners": [
                {"name": "https", "port": 80, "protocol": "HTTP"}]},
        })  # fmt: skip
        edge.says(GATEWAY, "public", addresses=[{"type": "IPAddress", "value": "203.0.113.9"}])
        accept(edge, parent, "True", "Accepted")
        hub.wait(lambda: edge.told().endswith(" at 203.0.113.9"), "the Gateway's address")
        assert edge.exposed() == "True Exposed"

        edge.patch(ROUTE, "orders", {"spec": {"hostnames": ["evil.example.com"]}})
        edge.delete(GRANT, grant)
        hub.wait(lambda: edge.spec(ROUTE, "orders")["hostnames"] == ["*.example.com"], "the host")
        hub.wait(lambda: edge.get(GRANT, grant) is not None, "the grant")

        # An Ingress instead.
        room.apply(exposed("orders", {"ingressClass": "kong"}, host="*.example.com"))
        hub.wait(lambda: edge.get(INGRESS, "orders") is not None, "the Ingress")
        hub.wait(lambda: edge.get(ROUTE, "orders") is None, "the route's end")
        hub.wait(lambda: edge.get(GRANT, grant) is None, "the grant's end")
        # And back, and away with the trigger.
        room.apply(exposed("orders", by_gateway))
        hub.wait(lambda: edge.get(ROUTE, "orders") is not None, "the route anew")
        hub.wait(lambda: edge.get(INGRESS, "orders") is None, "the Ingress's end")
        room.delete("HTTPTrigger", "orders")
        gone(edge, ROUTE, "orders")
        gone(edge, GRANT, grant)


def accept(edge: Edge, parent: Object, status: str, reason: str) -> None:
    """What the Gateway's controller says of the route."""
    condition = {
        "type": "Accepted", "status": status, "reason": reason, "message": "as told",
        "lastTransitionTime": "2026-01-31T12:00:00Z", "observedGeneration": 1,
    }  # fmt: skip
    names = {key: parent[key] for key in ("name", "namespace", "sectionName")}
    edge.says(ROUTE, "orders", parents=[
        {"parentRef": names, "controllerName": "example.com/any", "conditions": [condition]}
    ])  # fmt: skip


def test_a_hub_without_the_rights_says_so_and_serves(
    room: Room, edge: Edge, tmp_path: Path
) -> None:
    room.server.kubectl("delete", "clusterrole", "triggerhub-exposures")
    try:
        with answering() as target, hub_at(room, tmp_path) as hub:
            room.apply(function("f", target.url), exposed("orders", {}))
            hub.wait(lambda: edge.exposed() == "False ExposeRefused", "word of the right")
            assert "needs the verb list on ingresses.networking.k8s.io" in edge.told()
            assert room.condition("HTTPTrigger", "orders") == "True Ready"
    finally:
        give_back(room.server)


def give_back(server: ApiServer) -> None:
    rendered = yaml.safe_load_all(server.kubectl("kustomize", str(ROOT / "deploy" / "base")))
    (role,) = (m for m in rendered if m["metadata"]["name"] == "triggerhub-exposures")
    server.kubectl("apply", "-f", "-", stdin=json.dumps(role))
