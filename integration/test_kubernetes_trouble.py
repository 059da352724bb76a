"""A hub keeps its word while something of its cluster does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration.conftest import CRDS
from integration.function import Function, answering
from integration.hub import Hub, function, running, trigger
from integration.kubernetes import ApiServer
from integration.room import Room, http, hub_of, post
from integration.servers import Kafka
from integration.streams import Stream, accepted_at_least, arrived, kafka_trigger

MANY = 2_000


@pytest.fixture
def target() -> Iterator[Function]:
    """A function that accepts everything."""
    with answering() as function:
        yield function


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def serves(name: str, where: dict[str, Any]) -> dict[str, Any]:
    """A function behind a Service."""
    return function(name, "") | {"spec": {"service": where}}


def every_minute(name: str) -> dict[str, Any]:
    return trigger("CronTrigger", name, "handle", {"schedule": "0 0 1 1 *"})


def written(server: ApiServer) -> int:
    """Statuses of cron triggers that were written so far, by whomever."""
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in server.kubectl("get", "--raw", "/metrics").splitlines()
        if line.startswith("apiserver_request_total{")
        and 'resource="crontriggers"' in line
        and 'subresource="status"' in line
    )


def reasons(room: Room) -> dict[str, int]:
    """How many cron triggers have which reason; empty: no status of this generation yet."""
    path = f"/apis/triggerhub.dev/v1alpha1/namespaces/{room.namespace}/crontriggers"
    found: dict[str, int] = {}
    for item in room.server.request("GET", path)["items"]:
        status = item.get("status") or {}
        reason = ""
        if status.get("observedGeneration") == item["metadata"]["generation"]:
            reason = status["conditions"][-1]["reason"]
        found[reason] = found.get(reason, 0) + 1
    return found


def test_a_broker_that_goes_away_is_said_and_so_is_its_return(
    room: Room, tmp_path: Path, kafka: Kafka, target: Function
) -> None:
    stream = Stream(kafka.broker)

    def connected() -> str:
        return room.condition("KafkaTrigger", "orders", "Connected")

    with hub_of(room, tmp_path) as hub:
        room.apply(function("handle", target.url), kafka_trigger(stream, "orders", "handle"))
        hub.wait(lambda: connected() == "True Connected", "the connection")
        stream.send(20)
        hub.wait(partial(arrived, target, stream), "all records")
        kafka.kill9()
        try:
            hub.wait(lambda: connected().startswith("False"), "what is said of the broker", 10)
            assert room.condition("KafkaTrigger", "orders").startswith("False")
            assert room.condition("KafkaTrigger", "orders", "Bound") == "True Bound"
        finally:
            kafka.start()
        hub.wait(lambda: connected() == "True Connected", "the connection's return", 60)
        hub.wait(lambda: room.condition("KafkaTrigger", "orders") == "True Ready", "Ready")
        stream.send(20)
        hub.wait(partial(arrived, target, stream), "what came afterwards")
        hub.wait(lambda: {"Disconnected", "Connected"} <= set(room.events("orders")), "both Events")


def test_a_function_is_found_behind_its_service(
    room: Room, tmp_path: Path, target: Function
) -> None:
    port = urlsplit(target.url).port

    def reason() -> str:
        return room.condition("HTTPTrigger", "web")

    with hub_of(room, tmp_path) as hub:
        room.apply(serves("handle", {"name": "shop", "port": "web", "path": "/in"}))
        room.apply(http("web", "handle", "/a"))
        hub.wait(lambda: reason() == "False FunctionNotReady", "what is said without a Service")
        assert room.condition("Function", "handle") == "False ServiceNotFound"
        selector = {"app": "shop"}
        room.apply(service("shop", selector=selector, ports=[{"name": "admin", "port": 1}]))
        hub.wait(
            lambda: room.condition("Function", "handle") == "False PortNotFound", "the wrong port"
        )
        room.apply(service("shop", selector=selector, ports=[{"name": "web", "port": 80}]))
        hub.wait(lambda: reason() == "False NoEndpoints", "what is said without an endpoint")
        hub.wait(
            lambda: room.condition("Function", "handle") == "False NoEndpoints", "the same of it"
        )
        found = room.get("Function", "handle")
        assert found is not None
        assert found["status"]["url"] == f"http://shop.{room.namespace}.svc/in"
        # A Service's kind cannot change under its name: it is made anew.
        room.server.kubectl("delete", "service", "shop", "-n", room.namespace)
        hub.wait(lambda: reason() == "False FunctionNotReady", "the Service's end")
        there = {"type": "ExternalName", "externalName": "localhost"}
        room.apply(service("shop", **there, ports=[{"name": "web", "port": port}]))
        hub.wait(lambda: reason() == "True Ready", "Ready")
        assert post(hub, "/a") == 200
        (call,) = target.calls
        assert (call.target, call.headers["host"]) == ("/in", f"localhost:{port}")


def test_each_of_many_statuses_is_written_once(
    room: Room, tmp_path: Path, target: Function
) -> None:
    names = [f"t{n}" for n in range(MANY)]
    path = f"/apis/triggerhub.dev/v1alpha1/namespaces/{room.namespace}"
    room.apply(function("handle", target.url))
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: room.server.request("POST", f"{path}/crontriggers", every_minute(n)),
                names,
            )
        )
    before = written(room.server)
    with hub_of(room, tmp_path) as hub:
        hub.wait(lambda: reasons(room) == {"Ready": MANY}, "every status", 200)
        first = written(room.server) - before
        room.delete("Function", "handle")
        hub.wait(lambda: reasons(room) == {"FunctionNotFound": MANY}, "every loss", 200)
        second = written(room.server) - before - first
        room.apply(function("handle", target.url))
        hub.wait(lambda: reasons(room) == {"Ready": MANY}, "every return", 200)
        assert hub.stop() == 0
        before = written(room.server)
        hub.start()
        hub.wait(lambda: "leader.elected" in hub.said().rpartition("hub.started")[2], "a leader")
        room.apply(function("other", target.url))
        hub.wait(lambda: room.condition("Function", "other") == "True Ready", "one more status")
        third = written(room.server) - before
    # A few may be caught between two states.
    assert MANY <= first <= MANY * 1.1
    assert MANY <= second <= MANY * 1.1
    assert third == 0


def test_a_kind_that_is_removed_takes_its_triggers_along_and_comes_back(
    room: Room, tmp_path: Path, target: Function
) -> None:
    crd = str(CRDS / "httptriggers.yaml")
    server = room.server
    with hub_of(room, tmp_path) as hub:
        room.apply(function("handle", target.url), http("web", "handle", "/a"))
        room.apply(every_minute("tick"))
        hub.wait(lambda: post(hub, "/a") == 200, "the route")
        server.kubectl("delete", "-f", crd, "--timeout=60s")
        try:
            hub.wait(lambda: post(hub, "/a") == 404, "the route's end", 60)
            assert hub.condition("tick") == "True Ready"
            # Out of service for that is nobody's wish: what else is bound goes on.
            assert hub.ready()
            hub.wait(lambda: "install its CRD" in hub.said(), "what is to be done")
        finally:
            server.kubectl("apply", "-f", crd)
            server.kubectl("wait", "--for=condition=Established", "-f", crd, "--timeout=30s")
        server.kubectl("get", "httptriggers", "-A")
        room.apply(http("web", "handle", "/b"))
        hub.wait(lambda: post(hub, "/b") == 200, "the kind's return", 60)


def test_an_api_server_that_answers_nothing_stops_no_event(
    room: Room, tmp_path: Path, kafka: Kafka, target: Function
) -> None:
    stream = Stream(kafka.broker)
    with hub_of(room, tmp_path) as hub, stream.flowing(50):
        room.apply(function("handle", target.url), kafka_trigger(stream, "orders", "handle"))
        hub.wait(lambda: room.condition("KafkaTrigger", "orders") == "True Ready", "Ready")
        room.server.pause()
        try:
            paused = time.monotonic()
            while time.monotonic() - paused < 15:
                hub.wait(partial(accepted_at_least, target, len(target.accepted) + 20), "delivery")
                assert hub.ready()
                assert hub.request("GET", "/healthz")[0] == 200
        finally:
            room.server.resume()
        room.patch("KafkaTrigger", "orders", {"spec": {"paused": True}})
        hub.wait(lambda: room.condition("KafkaTrigger", "orders") == "False Paused", "a status", 60)


def test_a_hub_that_finds_no_api_server_waits_for_it(
    room: Room, tmp_path: Path, target: Function
) -> None:
    room.apply(function("handle", target.url), http("web", "handle", "/a"))
    with running(
        tmp_path, "--namespace", room.namespace, kubeconfig=room.account, start=False
    ) as hub:
        with room.server.away():
            hub.start(ready=False)
            hub.wait(lambda: "hub.started" in hub.said(), "the start")
            hub.wait(lambda: refusal(hub).startswith("503"), "what it waits for")
            hub.wait(lambda: "cannot be reached" in refusal(hub), "the reason")
            assert hub.request("GET", "/healthz")[0] == 200
        hub.wait(hub.ready, "readiness", 60)
        hub.wait(lambda: post(hub, "/a") == 200, "delivery")


def refusal(hub: Hub) -> str:
    """What /readyz says."""
    status, body = hub.request("GET", "/readyz")
    return f"{status} {body.decode()}"


def test_a_hub_of_the_whole_cluster_serves_every_namespace(
    room: Room, tmp_path: Path, target: Function
) -> None:
    other = f"{room.namespace}-b"
    server = room.server
    server.kubectl("create", "namespace", other)
    try:
        with running(tmp_path, kubeconfig=room.account) as hub:
            room.apply(function("handle", target.url), http("web", "handle", "/a"))
            second = Room(server, other, room.account)
            second.apply(http("web", "handle", "/b"))
            hub.wait(lambda: post(hub, "/a") == 200, "the first namespace")
            hub.wait(
                lambda: second.condition("HTTPTrigger", "web") == "False FunctionNotFound",
                "a function of its own namespace",
            )
            second.apply(function("handle", target.url))
            hub.wait(lambda: post(hub, "/b") == 200, "the second namespace")
    finally:
        server.kubectl("delete", "namespace", other, "--wait=false")


def test_what_a_hub_did_not_see_go_is_unbound(room: Room, tmp_path: Path, target: Function) -> None:
    server = room.server
    with hub_of(room, tmp_path) as hub:
        room.apply(
            function("handle", target.url),
            http("kept", "handle", "/kept"),
            http("gone", "handle", "/gone"),
        )
        hub.wait(lambda: post(hub, "/kept") == post(hub, "/gone") == 200, "both routes")
        with server.away():
            server.forget(f"triggerhub.dev/httptriggers/{room.namespace}/gone")
            server.compact()
        hub.wait(lambda: post(hub, "/gone") == 404, "the end of what is gone", 60)
        assert post(hub, "/kept") == 200
