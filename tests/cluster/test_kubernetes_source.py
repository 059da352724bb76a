"""A cluster's manifests become snapshots, in virtual time."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from tests.cluster.memory import MemoryServer, trouble
from triggerhub.cluster.source import FINALIZER, KubernetesSource
from triggerhub.connector import Installation, Reference, SourceModel, Subscription
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import ResourceKey, Snapshot, ValueKey

pytestmark = pytest.mark.looptime


class Place(SourceModel):
    place: str
    password: Reference | None = None


class Placed:
    kind: ClassVar[str] = "PlaceTrigger"
    source = Place

    def __init__(self, installation: Installation) -> None: ...
    async def listen(self, subscription: Subscription[Place]) -> None: ...


class Other(Placed):
    kind = "OtherTrigger"


def broken() -> object:
    raise ModuleNotFoundError("no module named visitor_client", name="visitor_client")


KINDS = {
    "OtherTrigger": Kind("OtherTrigger", lambda: Other),
    "PlaceTrigger": Kind("PlaceTrigger", lambda: Placed),
    "VisitorTrigger": Kind("VisitorTrigger", broken, "visitor", "visitor", "1", "x"),
}
PLURALS = {"functions", "othertriggers", "placetriggers", "visitortriggers"}


class Follower:
    """Takes every snapshot."""

    def __init__(self, server: MemoryServer, namespace: str | None) -> None:
        self.source = KubernetesSource(server, KINDS, namespace)
        self.snapshots: list[Snapshot] = []

    async def run(self) -> None:
        async for snapshot in self.source.snapshots():
            self.snapshots.append(snapshot)

    @property
    def last(self) -> Snapshot:
        return self.snapshots[-1]

    @property
    def triggers(self) -> dict[str, str]:
        """Places by name."""
        return {t.name: getattr(t.source, "place", "") for t in self.last.triggers}

    async def until(self, fact: Callable[[], bool], seconds: float = 120.0) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(seconds):
            while not (self.snapshots and fact()):
                await asyncio.sleep(0.01)
        return loop.time() - began

    async def quiet(self) -> int:
        """How many snapshots there are when all is done."""
        await asyncio.sleep(5)
        return len(self.snapshots)


@pytest.fixture
async def server() -> MemoryServer:
    server = MemoryServer(served=set(PLURALS))
    put_function(server, "handle")
    put_trigger(server, "orders")
    return server


@asynccontextmanager
async def following(server: MemoryServer, namespace: str | None = None) -> AsyncIterator[Follower]:
    follower = Follower(server, namespace)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follower.run())
        yield follower
        task.cancel()


def put_function(server: MemoryServer, name: str, **spec: Any) -> None:
    server.put("functions", name, spec=spec or {"url": "http://127.0.0.1:9/"})


def put_trigger(
    server: MemoryServer, name: str, place: str = "a", kind: str = "place", **body: Any
) -> None:
    source = {"place": place, **body.pop("source", {})}
    spec = {"function": {"name": "handle"}, "source": source}
    server.put(f"{kind}triggers", name, **{"spec": spec, **body})


def secret(server: MemoryServer, name: str, **data: str) -> None:
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    server.put("secrets", name, data=encoded)


def referring(name: str) -> dict[str, Any]:
    return {"password": {"secretRef": {"name": name, "key": "password"}}}


async def test_the_first_snapshot_has_everything(server: MemoryServer) -> None:
    for n in range(7):
        put_trigger(server, f"more{n}", kind="other")
    async with following(server) as follower:
        assert len(follower.source.problems()) == len(PLURALS)
        await follower.until(lambda: True)
        assert len(follower.snapshots[0].triggers) == 8
        assert [f.name for f in follower.snapshots[0].functions] == ["handle"]
        assert follower.source.problems() == []
        assert await follower.quiet() == 1


async def test_a_kind_whose_connector_cannot_be_loaded_is_watched_all_the_same(
    server: MemoryServer,
) -> None:
    put_trigger(server, "guest", kind="visitor")
    async with following(server) as follower:
        await follower.until(lambda: "guest" in follower.triggers)


@pytest.mark.parametrize("lacking", sorted(PLURALS))
async def test_nothing_is_said_before_every_kind_was_listed(
    server: MemoryServer, lacking: str
) -> None:
    server.troubles["list", lacking] = trouble(500)
    async with following(server) as follower:
        await asyncio.sleep(600)
        assert follower.snapshots == []
        (problem,) = follower.source.problems()
        assert problem.startswith(f"cannot list {lacking}.triggerhub.dev")
        server.troubles.clear()
        await follower.until(lambda: "orders" in follower.triggers, 31)
        assert follower.source.problems() == []


async def test_kinds_that_are_absent_or_refused_count_as_empty_and_are_named(
    server: MemoryServer,
) -> None:
    server.served.discard("visitortriggers")
    server.troubles["list", "othertriggers"] = trouble(403, "Forbidden")
    async with following(server) as follower:
        await follower.until(lambda: follower.triggers == {"orders": "a"})
        problems = sorted(follower.source.problems())
        assert [problem.split(" in ")[0] for problem in problems] == [
            "cannot list othertriggers.triggerhub.dev",
            "the API server does not serve visitortriggers.triggerhub.dev: install its CRD",
        ]


async def test_functions_that_may_not_be_listed_are_not_taken_for_none(
    server: MemoryServer,
) -> None:
    server.troubles["list", "functions"] = trouble(403, "Forbidden")
    async with following(server) as follower:
        await asyncio.sleep(600)
        assert follower.snapshots == []


async def test_of_one_namespace_only_its_own(server: MemoryServer) -> None:
    server.put("placetriggers", "elsewhere", "office", spec={})
    async with following(server, "shop") as follower:
        await follower.until(lambda: follower.triggers == {"orders": "a"})
        server.put("placetriggers", "elsewhere", "office", spec={"new": 1})
        assert await follower.quiet() == 1
        assert follower.last.invalid == ()


async def test_changes_in_a_row_come_together(server: MemoryServer) -> None:
    async with following(server) as follower:
        await follower.quiet()
        for n in range(50):
            put_trigger(server, "orders", f"p{n}", metadata={"generation": n + 2})
            await asyncio.sleep(0.001)
        took = await follower.until(lambda: follower.triggers["orders"] == "p49")
        assert took < 0.2
        assert await follower.quiet() <= 3


async def test_what_did_not_change_stays_the_same_value(server: MemoryServer) -> None:
    put_trigger(server, "other")
    async with following(server) as follower:
        await follower.until(lambda: True)
        before = {t.name: t for t in follower.last.triggers}
        put_trigger(server, "other", "b", metadata={"generation": 2})
        await follower.until(lambda: follower.triggers["other"] == "b")
        server.compact()
        server.disconnect()
        await follower.quiet()
        after = {t.name: t for t in follower.last.triggers}
        assert after["orders"] is before["orders"]


async def test_a_status_is_kept_and_makes_no_snapshot(server: MemoryServer) -> None:
    async with following(server) as follower:
        await follower.quiet()
        revision = follower.source.revision
        condition = {"type": "Ready", "status": "True", "reason": "Ready", "message": ""}
        put_trigger(server, "orders", status={"observedGeneration": 1, "conditions": [condition]})
        assert await follower.quiet() == 1
        standing = follower.source.standing("PlaceTrigger", ResourceKey("shop", "orders"))
        assert standing is not None
        assert standing.reported is not None
        assert standing.reported.generation == 1
        assert follower.source.revision > revision
        assert follower.source.standing("OtherTrigger", standing.key) is None
        assert {s.name for s in follower.source.standings()} == {"handle", "orders"}


async def test_labels_count_although_no_generation_does(server: MemoryServer) -> None:
    async with following(server) as follower:
        await follower.until(lambda: True)
        server.put("functions", "handle", spec={"url": "http://127.0.0.1:9/"},
                   metadata={"labels": {"team": "a"}})  # fmt: skip
        await follower.until(lambda: follower.last.functions[0].labels == {"team": "a"})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"spec": None},
        {"spec": "text"},
        {"spec": [1, 2]},
        {"spec": {}},
        {"spec": {"source": "x", "function": 7}},
        {"spec": {"source": {"place": {"deep": [[[]]]}}, "function": {"name": None}}},
        {"spec": {"source": {"place": "a"}, "function": {"name": "handle"}}, "more": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [None, [], "text", {"conditions": "x"}, {"bindings": [1]}])
async def test_a_bad_object_harms_only_itself(
    server: MemoryServer, body: dict[str, Any], status: Any
) -> None:
    server.put("placetriggers", "bad", status=status, **body)
    async with following(server) as follower:
        await follower.until(lambda: follower.triggers == {"orders": "a"})
        (found,) = follower.last.invalid
        assert (found.kind, found.key) == ("PlaceTrigger", ("shop", "bad"))
        assert found.faults
        assert all(str(fault).startswith("PlaceTrigger shop/bad: ") for fault in found.faults)
        put_trigger(server, "bad", "mended", metadata={"generation": 2})
        await follower.until(lambda: follower.triggers.get("bad") == "mended")
        assert follower.last.invalid == ()


async def test_what_is_being_deleted_is_gone_from_the_picture_and_still_known(
    server: MemoryServer,
) -> None:
    async with following(server) as follower:
        await follower.until(lambda: True)
        deleted = {"deletionTimestamp": "2026-01-31T13:00:00Z", "finalizers": [FINALIZER]}
        put_trigger(server, "orders", metadata={"generation": 2, **deleted})
        await follower.until(lambda: follower.triggers == {})
        standing = follower.source.standing("PlaceTrigger", ResourceKey("shop", "orders"))
        assert standing is not None
        assert standing.value is not None
        assert standing.deleting is not None
        assert standing.deleting.isoformat() == "2026-01-31T13:00:00+00:00"
        server.delete("placetriggers", "orders")
        await follower.until(lambda: not [*follower.source.standings()][1:])


async def test_of_two_kinds_with_one_name_the_older_has_it(server: MemoryServer) -> None:
    late = {"creationTimestamp": "2026-01-31T12:00:01Z"}
    put_trigger(server, "orders", "late", kind="other", metadata={"uid": "9", **late})
    async with following(server) as follower:
        await follower.until(lambda: follower.triggers == {"orders": "a"})
        (taken,) = follower.last.invalid
        assert str(taken.faults[0]) == (
            "OtherTrigger shop/orders: metadata.name: found the name of PlaceTrigger shop/orders, "
            "expected a name of its own: triggers of all kinds share one set of names"
        )
        server.delete("placetriggers", "orders")
        await follower.until(lambda: follower.triggers == {"orders": "late"})
        assert follower.last.invalid == ()


async def test_a_name_that_is_used_anew_in_one_breath_is_another_object(
    server: MemoryServer,
) -> None:
    async with following(server) as follower:
        await follower.quiet()
        before = follower.last.triggers[0]
        server.delete("placetriggers", "orders")
        put_trigger(server, "orders", metadata={"uid": "another"})
        await follower.until(lambda: len(follower.snapshots) == 2)
        assert follower.triggers == {"orders": "a"}
        assert follower.last.triggers[0] != before


async def test_nothing_is_forgotten_while_the_server_is_away(server: MemoryServer) -> None:
    async with following(server) as follower:
        await follower.quiet()
        for plural in PLURALS:
            server.troubles["watch", plural] = trouble(0, "Unreachable")
            server.troubles["list", plural] = trouble(0, "Unreachable")
        server.disconnect()
        server.delete("placetriggers", "orders")
        server.compact()
        await asyncio.sleep(3600)
        assert follower.triggers == {"orders": "a"}
        assert follower.source.alive()
        assert follower.source.problems() == []
        server.troubles.clear()
        await follower.until(lambda: follower.triggers == {}, 31)


async def test_a_watch_that_hangs_is_not_alive(server: MemoryServer) -> None:
    async with following(server) as follower:
        await follower.quiet()
        server.mute.add("functions")
        server.compact()
        server.version += 1
        server.compact()
        server.disconnect()
        await asyncio.sleep(200)
        assert follower.source.alive()
        await asyncio.sleep(60)
        assert not follower.source.alive()


def put_service(server: MemoryServer, name: str, *ports: int, ready: int = 1) -> None:
    server.put("services", name, spec={"clusterIP": "10.0.0.1", "ports": [
        {"name": f"p{n}", "port": port} for n, port in enumerate(ports)
    ]})  # fmt: skip
    endpoints = [{"addresses": [f"10.1.0.{n}"], "conditions": {}} for n in range(ready)]
    endpoints.append({"addresses": ["10.1.1.1"], "conditions": {"ready": False}})
    server.put(
        "endpointslices", f"{name}-x", endpoints=endpoints, ports=[{"name": "p0", "port": 8080}],
        metadata={"labels": {"kubernetes.io/service-name": name}},
    )  # fmt: skip


async def test_services_are_watched_once_a_function_uses_one(server: MemoryServer) -> None:
    put_service(server, "web", 80, ready=2)
    async with following(server) as follower:
        await follower.quiet()
        assert {a[2] for a in server.asked} == PLURALS
        put_function(server, "served", service={"name": "web"})
        await follower.until(lambda: len(follower.last.functions) == 2)
        found = follower.last.services[ResourceKey("shop", "web")]
        assert [port.port for port in found.ports] == [80]
        assert found.endpoints.ready == 2
        assert found.endpoints.ports == (("p0", 8080),)
        # The snapshot with the function was the one with its Service.
        assert len(follower.snapshots) == 2
        put_service(server, "web", 80, ready=0)
        await follower.until(
            lambda: follower.last.services[ResourceKey("shop", "web")].endpoints.ready == 0
        )
        server.delete("services", "web")
        await follower.until(lambda: follower.last.services == {})


async def test_services_that_no_function_uses_make_no_snapshot(server: MemoryServer) -> None:
    put_function(server, "handle", service={"name": "web"})
    put_service(server, "web", 80)
    async with following(server) as follower:
        known = await follower.quiet()
        for n in range(20):
            put_service(server, "busy", 80, ready=n)
            await asyncio.sleep(1)
        server.delete("endpointslices", "busy-x")
        server.delete("services", "busy")
        assert await follower.quiet() == known
        assert set(follower.last.services) == {ResourceKey("shop", "web")}


async def test_a_secret_comes_with_the_trigger_that_refers_to_it(server: MemoryServer) -> None:
    secret(server, "login", password="one")
    secret(server, "unrelated", password="two")
    key = ValueKey("Secret", "shop", "login")
    async with following(server) as follower:
        await follower.quiet()
        put_trigger(server, "orders", source=referring("login"), metadata={"generation": 2})
        await follower.until(lambda: len(follower.snapshots) == 2)
        assert follower.last.values == {key: {"password": b"one"}}
        await follower.until(lambda: server.watching == 5)
        secret(server, "login", password="three")
        secret(server, "unrelated", password="four")
        await follower.until(lambda: follower.last.values == {key: {"password": b"three"}})
        server.delete("secrets", "login")
        await follower.until(lambda: follower.last.values == {})
        secret(server, "login", password="five")
        await follower.until(lambda: follower.last.values == {key: {"password": b"five"}})
        put_trigger(server, "orders", metadata={"generation": 3})
        await follower.until(lambda: follower.last.values == {})
        await follower.until(lambda: server.watching == 4)


async def test_a_config_map_is_text_and_bytes(server: MemoryServer) -> None:
    server.put("configmaps", "login", data={"password": "plain"}, binaryData={"key": "AAE="})
    source = {"password": {"configMapRef": {"name": "login", "key": "password"}}}
    put_trigger(server, "orders", source=source)
    async with following(server) as follower:
        await follower.until(lambda: True)
        assert follower.last.values == {
            ValueKey("ConfigMap", "shop", "login"): {"password": b"plain", "key": b"\0\1"}
        }


async def test_a_secret_that_is_slow_to_come_holds_the_others_up_for_a_moment_only(
    server: MemoryServer,
) -> None:
    async with following(server) as follower:
        await follower.quiet()
        server.mute.add("secrets")
        put_trigger(server, "orders", source=referring("login"), metadata={"generation": 2})
        put_trigger(server, "next")
        assert 4 < await follower.until(lambda: "next" in follower.triggers) < 6


@pytest.mark.parametrize("status", [0, 403, 500])
async def test_a_secret_that_cannot_be_had_holds_nothing_up(
    server: MemoryServer, status: int
) -> None:
    secret(server, "login", password="one")
    server.troubles["list", "secrets"] = trouble(status)
    async with following(server) as follower:
        await follower.quiet()
        put_trigger(server, "orders", source=referring("login"), metadata={"generation": 2})
        put_trigger(server, "next")
        assert await follower.until(lambda: "next" in follower.triggers) < 1
        assert follower.last.values == {}
        server.troubles.clear()
        await follower.until(lambda: len(follower.last.values) == 1, 31)


async def test_very_many_secrets_do_not_hold_a_connection_each(server: MemoryServer) -> None:
    for n in range(150):
        secret(server, f"s{n}", password="one")
        put_trigger(server, f"t{n}", source=referring(f"s{n}"))
    async with following(server) as follower:
        await follower.until(lambda: len(follower.last.values) == 150)
        await asyncio.sleep(60)
        assert server.watching == 4 + 100
        for n in range(150):
            secret(server, f"s{n}", password="two")
        await follower.until(
            lambda: all(d["password"] == b"two" for d in follower.last.values.values()), 31
        )


def test_a_hub_of_a_folder_does_not_load_the_kubernetes_client() -> None:
    code = (
        "import sys, triggerhub.app, triggerhub.cli; "
        "print([m for m in sys.modules if m.startswith(('kubernetes', 'aiohttp'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
