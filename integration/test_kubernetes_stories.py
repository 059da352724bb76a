"""A whole hub on a real API server: manifests come and go, and so does the server."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from integration.function import Call, answering, reply
from integration.hub import Hub, function, running
from integration.kubernetes import ApiServer
from integration.room import Room, http, hub_of, post, rights
from integration.servers import Kafka
from integration.streams import Stream, accepted_at_least, arrived, in_order, kafka_trigger

RETRY = {"initial": "10ms", "max": "100ms"}


def test_the_whole_life_of_a_trigger_and_its_function(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker)
    with answering() as target, hub_of(room, tmp_path) as hub:
        room.apply(kafka_trigger(stream, "orders", "handle", retry=RETRY))
        hub.wait(
            lambda: room.condition("KafkaTrigger", "orders") == "False FunctionNotFound",
            "the missing function",
        )
        stream.send(40)
        room.apply(function("handle", target.url))
        hub.wait(lambda: room.condition("KafkaTrigger", "orders") == "True Ready", "Ready")
        hub.wait(partial(arrived, target, stream), "all records")
        found = room.get("KafkaTrigger", "orders")
        assert found is not None
        assert found["status"]["bindings"] == [{"function": "handle", "url": target.url}]
        assert [c["type"] for c in found["status"]["conditions"]] == [
            "Accepted", "Bound", "Connected", "Ready",
        ]  # fmt: skip

        room.patch("KafkaTrigger", "orders", {"spec": {"paused": True}})
        hub.wait(lambda: room.condition("KafkaTrigger", "orders") == "False Paused", "the pause")
        stream.send(20)
        room.patch("KafkaTrigger", "orders", {"spec": {"paused": False}})
        hub.wait(partial(arrived, target, stream), "what came during the pause")

        room.delete("Function", "handle")
        hub.wait(
            lambda: room.condition("KafkaTrigger", "orders", "Bound") == "False FunctionNotFound",
            "the end of the binding",
        )
        stream.send(20)
        before = len(target.calls)
        room.apply(function("handle", target.url))
        hub.wait(partial(arrived, target, stream), "what came without a function")
        assert before == 60
        assert in_order(target.accepted)
        assert len(target.accepted) == len(stream.sent)

        room.delete("KafkaTrigger", "orders")
        hub.wait(lambda: not hub.get("/v1/triggers")["triggers"], "the trigger's end")
        assert {"Bound", "Unbound"} <= set(room.events("orders"))


def test_a_function_deleted_in_a_storm_of_retries_ends_them_and_loses_nothing(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker)
    healthy = False

    def script(call: Call) -> Any:
        return reply(200 if healthy else 500)

    with answering(script) as target, hub_of(room, tmp_path) as hub:
        storm = {"initial": "10ms", "max": "50ms", "attempts": 1_000_000}
        room.apply(
            function("handle", target.url),
            kafka_trigger(stream, "orders", "handle", retry=storm),
        )
        stream.send(60)
        hub.wait(lambda: len(target.calls) > 300, "the storm")
        room.delete("Function", "handle")
        hub.wait(
            lambda: room.condition("KafkaTrigger", "orders", "Bound") == "False FunctionNotFound",
            "the end of the binding",
        )
        hub.wait(lambda: not target.under_way, "the last attempt")
        calls = len(target.calls)
        assert stream.committed("orders") == dict.fromkeys(range(stream.partitions), 0)
        healthy = True
        assert hub.letters() == []
        room.apply(function("handle", target.url))
        hub.wait(partial(arrived, target, stream), "all records")
        assert in_order(target.accepted)
        assert all(call.accepted for call in target.calls[calls:])


def test_delivery_goes_on_while_the_api_server_is_away(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker)
    with answering() as target, hub_of(room, tmp_path) as hub, stream.flowing(50):
        room.apply(
            function("handle", target.url),
            kafka_trigger(stream, "orders", "handle"),
            kafka_trigger(stream, "gone", "handle"),
        )
        hub.wait(lambda: room.condition("KafkaTrigger", "orders") == "True Ready", "Ready")
        hub.wait(partial(accepted_at_least, target, 20), "traffic")
        room.server.kill_apiserver()
        try:
            away = time.monotonic()
            while time.monotonic() - away < 30:
                before = len(target.accepted)
                hub.wait(lambda n=before: len(target.accepted) > n + 20, "delivery")  # type: ignore[misc]
                assert hub.condition("orders") == "True Ready"
                assert hub.ready()
                assert hub.request("GET", "/healthz")[0] == 200
        finally:
            room.server.compact()
            room.server.start_apiserver()
        # What changed while nobody could look is seen, and so is what vanished.
        room.delete("KafkaTrigger", "gone")
        room.patch("KafkaTrigger", "orders", {"spec": {"paused": True}})
        hub.wait(lambda: room.condition("KafkaTrigger", "orders") == "False Paused", "the pause")
        names = {found["name"] for found in hub.get("/v1/triggers")["triggers"]}
        assert names == {"orders"}


def test_a_seek_is_told_in_the_status_and_a_hub_that_begins_anew_does_not_forget_it(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker, partitions=1)
    stream.send(10)

    def seek() -> dict[str, str]:
        found = room.get("KafkaTrigger", "orders")
        [binding] = (found or {}).get("status", {}).get("bindings") or [{}]
        told: dict[str, str] = binding.get("seek") or {}
        return told

    with answering() as target, hub_of(room, tmp_path) as hub:
        room.apply(function("handle", target.url), kafka_trigger(stream, "orders", "handle"))
        hub.wait(partial(arrived, target, stream), "all records")
        wish = {"id": "2026-11-23-a", "to": "Earliest"}
        room.patch("KafkaTrigger", "orders", {"spec": {"paused": True, "source": {"seek": wish}}})
        hub.wait(lambda: seek().get("positions") == "0:0", "the seek of a paused trigger")
        assert seek()["id"] == "2026-11-23-a"
        room.patch("KafkaTrigger", "orders", {"spec": {"paused": False}})
        hub.wait(lambda: len(target.accepted) == 20, "all records again")
        done = seek()
        assert hub.stop() == 0
        hub.start(ready=False)
        hub.wait(hub.ready, "readiness")
        stream.send(1)
        hub.wait(partial(arrived, target, stream), "the next record")
        assert seek() == done
        assert len(target.accepted) == 21


def test_fifty_changes_in_a_row_end_with_the_last(room: Room, tmp_path: Path) -> None:
    with answering() as target, hub_of(room, tmp_path) as hub:
        room.apply(function("handle", target.url), http("web", "handle", "/v0"))
        hub.wait(lambda: post(hub, "/v0") == 200, "the first route")
        one = itertools.count(1)
        with ThreadPoolExecutor(4) as pool:
            bodies = [{"spec": {"source": {"path": f"/v{next(one)}"}}} for _ in range(49)]
            list(pool.map(lambda body: room.patch("HTTPTrigger", "web", body), bodies))
        room.patch("HTTPTrigger", "web", {"spec": {"source": {"path": "/last"}}})
        hub.wait(lambda: post(hub, "/last") == 200, "the last route")
        hub.wait(lambda: room.condition("HTTPTrigger", "web") == "True Ready", "Ready")
        assert {post(hub, f"/v{n}") for n in range(50)} == {404}


def test_a_name_used_anew_is_another_object(room: Room, tmp_path: Path) -> None:
    with answering() as target, hub_of(room, tmp_path) as hub:
        room.apply(function("handle", target.url), http("web", "handle", "/a"))
        hub.wait(lambda: room.condition("HTTPTrigger", "web") == "True Ready", "Ready")
        for path in ("/b", "/c", "/d"):
            before = room.get("HTTPTrigger", "web")
            text = json.dumps(http("web", "handle", path))
            room.server.kubectl("replace", "--force", "-n", room.namespace, "-f", "-", stdin=text)
            after = room.get("HTTPTrigger", "web")
            assert before is not None
            assert after is not None
            assert before["metadata"]["uid"] != after["metadata"]["uid"]
            hub.wait(lambda: room.condition("HTTPTrigger", "web") == "True Ready", "Ready")
            assert post(hub, path) == 200


def test_a_trigger_goes_with_its_last_function_where_it_is_asked_to(
    room: Room, tmp_path: Path
) -> None:
    def asked(name: str, to: dict[str, Any]) -> dict[str, Any]:
        body = http(name, "x", f"/{name}")
        body["spec"] |= {"function": to, "onFunctionDelete": "Delete"}
        return body

    with answering() as target, hub_of(room, tmp_path) as hub:
        team = {"labels": {"team": "a"}}
        room.apply(
            function("one", target.url, **team),
            function("two", target.url, **team),
            asked("named", {"name": "one"}),
            asked("early", {"name": "later"}),
            asked("both", {"selector": {"matchLabels": {"team": "a"}}}),
            http("kept", "one", "/kept"),
        )
        hub.wait(lambda: room.condition("HTTPTrigger", "named") == "True Ready", "Ready")
        hub.wait(lambda: room.condition("HTTPTrigger", "both", "Bound") == "True Bound", "Bound")
        room.delete("Function", "one")
        hub.wait(lambda: room.get("HTTPTrigger", "named") is None, "the trigger's end")
        hub.wait(
            lambda: room.condition("HTTPTrigger", "kept") == "False FunctionNotFound", "the loss"
        )
        both = room.get("HTTPTrigger", "both")
        assert both is not None
        # One that never had a function waits for its first.
        assert room.condition("HTTPTrigger", "early") == "False FunctionNotFound"
        room.delete("Function", "two")
        hub.wait(lambda: room.get("HTTPTrigger", "both") is None, "the end of both")
        assert room.get("HTTPTrigger", "kept") is not None
        assert room.get("HTTPTrigger", "early") is not None


def test_a_namespace_goes_with_all_that_is_in_it(room: Room, tmp_path: Path, kafka: Kafka) -> None:
    stream = Stream(kafka.broker)
    with answering() as target, hub_of(room, tmp_path) as hub:
        cleaned = kafka_trigger(stream, "orders", "handle")
        cleaned["spec"]["source"]["cleanup"] = "Delete"
        room.apply(function("handle", target.url), cleaned, http("web", "handle", "/a"))
        hub.wait(lambda: room.condition("KafkaTrigger", "orders") == "True Ready", "Ready")
        room.server.kubectl("delete", "namespace", room.namespace, "--timeout=90s")
        hub.wait(lambda: not hub.get("/v1/triggers")["triggers"], "the triggers' end")
        hub.wait(lambda: post(hub, "/a") == 404, "the route's end")


def is_ready(hub: Hub, trigger: str) -> bool:
    """As this replica sees it."""
    return hub.condition(trigger) == "True Ready"


def test_two_replicas_and_a_leader_that_is_killed(room: Room, tmp_path: Path, kafka: Kafka) -> None:
    stream = Stream(kafka.broker)
    statuses: list[str] = []
    with (
        answering() as target,
        hub_of(room, tmp_path / "a") as first,
        hub_of(room, tmp_path / "b") as second,
    ):
        room.apply(
            function("handle", target.url), kafka_trigger(stream, "orders", "handle", retry=RETRY)
        )
        first.wait(lambda: room.condition("KafkaTrigger", "orders") == "True Ready", "Ready")
        # Each is a member of the group before one of them dies: the next leader tells its own view.
        for hub in (first, second):
            hub.wait(partial(is_ready, hub, "orders"), "Ready")
        leader, other = (first, second) if "leader.elected" in first.said() else (second, first)
        assert "leader.elected" not in other.said()
        with stream.flowing(50):
            other.wait(partial(accepted_at_least, target, 50), "traffic")
            leader.kill9()
            other.wait(lambda: "leader.elected" in other.said(), "another leader", 20)
            seen = len(stream.sent)
            until = time.monotonic() + 5
            while time.monotonic() < until:
                statuses.append(room.condition("KafkaTrigger", "orders"))
        # The dead member's partitions come over when its session has ended.
        other.wait(partial(arrived, target, stream), "all records", 60)
        assert len(stream.sent) > seen
        room.patch("KafkaTrigger", "orders", {"spec": {"paused": True}})
        other.wait(lambda: room.condition("KafkaTrigger", "orders") == "False Paused", "the pause")
    assert set(statuses) == {"True Ready"}


def test_a_clean_stop_hands_over_at_once(room: Room, tmp_path: Path) -> None:
    with hub_of(room, tmp_path / "a") as first:
        first.wait(lambda: "leader.elected" in first.said(), "a leader")
        with hub_of(room, tmp_path / "b") as second:
            assert first.stop() == 0
            second.wait(lambda: "leader.elected" in second.said(), "the next leader", 5)


def test_an_object_that_the_schema_let_through_harms_only_itself(
    room: Room, tmp_path: Path, apiserver: ApiServer
) -> None:
    crd = json.loads(apiserver.kubectl("get", "crd", "httptriggers.triggerhub.dev", "-o", "json"))
    loose = json.loads(json.dumps(crd))
    (version,) = loose["spec"]["versions"]
    version["schema"] = {
        "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    }
    del loose["metadata"]["resourceVersion"]
    try:
        apiserver.kubectl("replace", "-f", "-", stdin=json.dumps(loose))
        with answering() as target, hub_of(room, tmp_path) as hub:
            room.apply(function("handle", target.url), http("good", "handle", "/good"))
            shapes: list[Any] = [
                {"function": {"name": 7}, "source": {"path": "x"}, "extra": {"deep": [1]}},
                {"function": [], "source": "path"},
                "text",
            ]
            for n, spec in enumerate(shapes):
                body = http(f"bad{n}", "handle", "/bad") | {"spec": spec}
                deadline = time.monotonic() + 10
                while True:  # the loosened schema takes a moment to hold
                    try:
                        room.apply(body)
                        break
                    except (AssertionError, subprocess.SubprocessError):
                        assert time.monotonic() < deadline
            for n in range(len(shapes)):
                hub.wait(
                    lambda n=n: room.condition("HTTPTrigger", f"bad{n}") == "False InvalidSpec",  # type: ignore[misc]
                    "what is said of the bad one",
                )
            found = room.get("HTTPTrigger", "bad0")
            assert found is not None
            messages = [c["message"] for c in found["status"]["conditions"]]
            assert any("spec.extra" in m and "spec.function.name" in m for m in messages)
            hub.wait(lambda: post(hub, "/good") == 200, "the good one")
            room.apply(http("bad0", "handle", "/mended"))
            hub.wait(lambda: post(hub, "/mended") == 200, "the mended one")
    finally:
        fresh = json.loads(
            apiserver.kubectl("get", "crd", "httptriggers.triggerhub.dev", "-o", "json")
        )
        fresh["spec"] = crd["spec"]
        apiserver.kubectl("replace", "-f", "-", stdin=json.dumps(fresh))


def test_a_right_that_is_missing_is_named(room: Room, tmp_path: Path, apiserver: ApiServer) -> None:
    rules = [
        {"apiGroups": ["triggerhub.dev"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
         "verbs": ["get", "create", "update", "patch"]},
    ]  # fmt: skip
    kubeconfig = apiserver.service_account(room.namespace, "hub")
    room.apply(*rights(room.namespace, rules))
    with (
        answering() as target,
        running(tmp_path, "--namespace", room.namespace, kubeconfig=kubeconfig) as hub,
    ):
        room.apply(function("handle", target.url), http("web", "handle", "/a"))
        hub.wait(lambda: post(hub, "/a") == 200, "delivery without the right to write statuses")
        hub.wait(lambda: "patch" in hub.said() and "status" in hub.said(), "what is missing")
        assert room.condition("HTTPTrigger", "web") == ""
        assert hub.ready()
        rules.append({"apiGroups": ["triggerhub.dev"], "resources": ["*/status"],
                      "verbs": ["patch"]})  # fmt: skip
        room.apply(*rights(room.namespace, rules))
        hub.wait(lambda: room.condition("HTTPTrigger", "web") == "True Ready", "the status", 60)


def test_a_kind_that_may_not_be_listed_is_named_and_the_others_go_on(
    room: Room, tmp_path: Path, apiserver: ApiServer
) -> None:
    rules = [
        {"apiGroups": ["triggerhub.dev"], "resources": ["functions", "httptriggers"],
         "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["triggerhub.dev"], "resources": ["*/status"], "verbs": ["patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
         "verbs": ["get", "create", "update", "patch"]},
    ]  # fmt: skip
    kubeconfig = apiserver.service_account(room.namespace, "hub")
    room.apply(*rights(room.namespace, rules))
    with (
        answering() as target,
        running(tmp_path, "--namespace", room.namespace, kubeconfig=kubeconfig, start=False) as hub,
    ):
        hub.start(ready=False)
        room.apply(function("handle", target.url), http("web", "handle", "/a"))
        hub.wait(lambda: post(hub, "/a") == 200, "the kinds that it may see")
        status, body = hub.request("GET", "/readyz")
        assert status == 503
        assert "list kafkatriggers.triggerhub.dev" in body.decode()
        assert "list crontriggers.triggerhub.dev" in body.decode()


def test_without_any_cluster_it_says_what_it_looked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "triggerhub", "run", "--data", str(tmp_path / "data")],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "-f" in done.stderr
    assert "kubeconfig" in done.stderr
