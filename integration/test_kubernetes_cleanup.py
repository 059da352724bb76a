"""What Kafka, or NATS, keeps for a trigger of a real API server goes with it, where that is asked
for, and never holds it for ever."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from integration import kafka_tools as tools
from integration import nats_tools
from integration.function import Call, answering, reply
from integration.hub import Hub, function, running, trigger
from integration.kubernetes import ApiServer
from integration.nats_servers import Nats
from integration.room import Room, hub_of
from integration.servers import Kafka, free_port
from integration.streams import Stream, arrived
from triggerhub.cluster.cleanup import LIMIT
from triggerhub.cluster.source import FINALIZER

NOWHERE = f"127.0.0.1:{free_port()}"


def cleaned(stream: Stream, name: str, **source: Any) -> dict[str, Any]:
    """A trigger with a group of its own, that is to go with it."""
    spec = {"topic": stream.topic, "brokers": [stream.broker], "startFrom": "Earliest",
            "cleanup": "Delete"}  # fmt: skip
    return trigger("KafkaTrigger", name, "handle", spec | source)


def groups(broker: str) -> set[str]:
    async def found() -> set[str]:
        async with tools.admin(broker) as client:
            return {group[0] for group in await client.list_consumer_groups()}

    return asyncio.run(found())


def group(room: Room, name: str) -> str:
    return f"triggerhub.{room.namespace}.{name}.handle"


def is_ready(room: Room, name: str) -> bool:
    return room.condition("KafkaTrigger", name) == "True Ready"


def is_held(room: Room, name: str) -> bool:
    found = room.get("KafkaTrigger", name)
    return found is not None and FINALIZER in found["metadata"].get("finalizers", ())


def is_gone(room: Room, name: str) -> bool:
    return room.get("KafkaTrigger", name) is None


def in_use(hub: Hub, room: Room, *names: str) -> None:
    """Wait until each is listened to, and is to be cleaned."""
    for name in names:
        hub.wait(partial(is_ready, room, name), f"Ready of {name}")
        hub.wait(partial(is_held, room, name), f"the finalizer of {name}")


def warnings(room: Room, name: str) -> list[str]:
    """Messages of the Events that say what was left behind."""
    found = room.server.request("GET", f"/api/v1/namespaces/{room.namespace}/events")["items"]
    return [
        event["message"]
        for event in found
        if event["involvedObject"]["name"] == name and event["reason"] == "CleanUpFailed"
        and event["type"] == "Warning"
    ]  # fmt: skip


def test_a_group_goes_with_its_trigger_where_that_is_asked_for(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker)
    with answering() as target, hub_of(room, tmp_path) as hub:
        room.apply(
            function("handle", target.url),
            cleaned(stream, "own"),
            cleaned(stream, "named", group=f"{stream.topic}-named"),
            cleaned(stream, "kept", cleanup="Keep"),
            cleaned(stream, "orphan"),
        )
        in_use(hub, room, "own", "named", "orphan")
        hub.wait(partial(is_ready, room, "kept"), "Ready of the one that is kept")
        assert not is_held(room, "kept")
        kept = room.get("KafkaTrigger", "orphan")
        assert kept is not None
        assert kept["status"]["cleanup"] == [f"{room.namespace}.orphan.handle"]
        all_groups = {group(room, name) for name in ("own", "kept", "orphan")}
        assert groups(kafka.broker) >= all_groups | {f"{stream.topic}-named"}
        for name in ("own", "named", "kept"):
            room.delete("KafkaTrigger", name, "--timeout=30s")
        left = groups(kafka.broker)
        assert not left & {group(room, "own"), f"{stream.topic}-named"}
        assert group(room, "kept") in left

        room.delete("Function", "handle")
        hub.wait(
            lambda: room.condition("KafkaTrigger", "orphan", "Bound") == "False FunctionNotFound",
            "the end of the binding",
        )
        assert group(room, "orphan") in groups(kafka.broker)
        room.delete("KafkaTrigger", "orphan", "--timeout=30s")
        assert group(room, "orphan") not in groups(kafka.broker)
        assert warnings(room, "orphan") == []


def test_a_group_is_deleted_when_the_last_replica_has_drained(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker)

    def slowly(call: Call) -> Any:
        return reply(200, after=6.0)

    with (
        answering(slowly) as target,
        hub_of(room, tmp_path / "a") as first,
        hub_of(room, tmp_path / "b") as second,
    ):
        room.apply(function("handle", target.url), cleaned(stream, "orders"))
        in_use(first, room, "orders")
        second.wait(lambda: second.condition("orders") == "True Ready", "the second member")
        stream.send(8)
        first.wait(lambda: target.under_way == 8, "an attempt for each key")
        room.delete("KafkaTrigger", "orders", "--timeout=60s")
        assert arrived(target, stream)
        assert group(room, "orders") not in groups(kafka.broker)
        assert warnings(room, "orders") == []


def test_a_replica_that_died_holds_up_the_clean_up_until_its_session_has_ended(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker)
    with (
        answering() as target,
        hub_of(room, tmp_path / "a") as first,
        hub_of(room, tmp_path / "b") as second,
    ):
        room.apply(function("handle", target.url), cleaned(stream, "orders"))
        in_use(first, room, "orders")
        second.wait(lambda: second.condition("orders") == "True Ready", "the second member")
        second.kill9()
        room.delete("KafkaTrigger", "orders", f"--timeout={LIMIT:.0f}s")
        assert group(room, "orders") not in groups(kafka.broker)
        assert warnings(room, "orders") == []


def test_brokers_that_are_away_hold_neither_a_trigger_nor_a_namespace_for_long(
    room: Room, tmp_path: Path, kafka: Kafka, apiserver: ApiServer
) -> None:
    stream = Stream(kafka.broker)
    other = Room(apiserver, f"{room.namespace}-too", room.account)
    apiserver.kubectl("create", "namespace", other.namespace)
    with answering() as target, running(tmp_path, kubeconfig=room.account) as hub:
        for one in (room, other):
            one.apply(function("handle", target.url), cleaned(stream, "orders"))
            in_use(hub, one, "orders")
            one.patch("KafkaTrigger", "orders", {"spec": {"source": {"brokers": [NOWHERE]}}})
            hub.wait(
                lambda one=one: one.condition("KafkaTrigger", "orders").startswith("False"),  # type: ignore[misc]
                "the brokers' absence",
            )
        apiserver.kubectl("delete", "namespace", other.namespace, "--wait=false")
        room.delete("KafkaTrigger", "orders", f"--timeout={LIMIT + 20:.0f}s")
        gone = f"--timeout={LIMIT:.0f}s"
        apiserver.kubectl("wait", "--for=delete", f"namespace/{other.namespace}", gone)
        hub.wait(lambda: bool(warnings(room, "orders")), "the Event")
        (warning,) = warnings(room, "orders")
        assert f"{room.namespace}.orders.handle: no Kafka broker answers at {NOWHERE}" in warning
        assert hub.said().count("cleanup.failed") == 2  # a namespace that ends takes no Events
    assert {group(room, "orders"), group(other, "orders")} <= groups(kafka.broker)


def test_a_hub_that_was_killed_before_the_clean_up_does_it_when_it_is_back(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker)

    def slowly(call: Call) -> Any:
        return reply(200, after=20.0)

    with answering(slowly) as target, hub_of(room, tmp_path) as hub:
        room.apply(function("handle", target.url), cleaned(stream, "orders"))
        in_use(hub, room, "orders")
        stream.send(1)
        hub.wait(lambda: target.under_way == 1, "an attempt under way")
        room.delete("KafkaTrigger", "orders", "--wait=false")
        hub.wait(lambda: not hub.get("/v1/triggers")["triggers"], "the drain")
        hub.kill9()
        assert is_held(room, "orders")  # without a hub it waits
        hub.start()
        # Its dead member is in the group until its session has ended.
        hub.wait(partial(is_gone, room, "orders"), "the trigger's end", LIMIT + 10)
        assert group(room, "orders") not in groups(kafka.broker)
        assert warnings(room, "orders") == []


def test_without_a_hub_the_finalizer_can_be_taken_away_by_hand(
    room: Room, tmp_path: Path, kafka: Kafka
) -> None:
    stream = Stream(kafka.broker)
    with answering() as target, hub_of(room, tmp_path) as hub:
        room.apply(function("handle", target.url), cleaned(stream, "orders"))
        in_use(hub, room, "orders")
        assert hub.stop() == 0
    room.delete("KafkaTrigger", "orders", "--wait=false")
    assert is_held(room, "orders")
    room.patch("KafkaTrigger", "orders", {"metadata": {"finalizers": None}})
    assert is_gone(room, "orders")
    assert group(room, "orders") in groups(kafka.broker)


def test_a_durable_consumer_goes_with_its_trigger_where_that_is_asked_for(
    room: Room, tmp_path: Path, nats: Nats
) -> None:
    stream = room.namespace
    asyncio.run(nats_tools.create_stream(nats.server, stream, f"{stream}.>"))
    source = {"stream": stream, "servers": [nats.server]}
    seek = {"seek": {"id": "a", "to": "All"}}

    def consumers() -> set[str]:
        async def found() -> set[str]:
            async with nats_tools.jetstream(nats.server) as context:
                return {info.name for info in await context.consumers_info(stream)}

        return asyncio.run(found())

    def stands(name: str) -> bool:
        return room.condition("NATSTrigger", name) == "True Ready"

    def held() -> bool:
        found = room.get("NATSTrigger", "own") or {}
        status = found.get("status", {}).get("bindings", [{}])[0]
        return FINALIZER in found["metadata"].get("finalizers", ()) and "seek" in status

    with answering() as target, hub_of(room, tmp_path) as hub:
        own = trigger("NATSTrigger", "own", "handle", source | seek | {"cleanup": "Delete"})
        kept = trigger("NATSTrigger", "kept", "handle", source)
        room.apply(function("handle", target.url), own, kept)
        for name in ("own", "kept"):
            hub.wait(partial(stands, name), f"Ready of {name}")
        hub.wait(held, "its finalizer, and the seek in its status")
        prefix = f"triggerhub_{room.namespace}"
        assert consumers() == {f"{prefix}_own_handle", f"{prefix}_kept_handle"}
        for name in ("own", "kept"):
            room.delete("NATSTrigger", name, "--timeout=30s")
        assert consumers() == {f"{prefix}_kept_handle"}
