"""A resource is kept in step whatever its server does, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.cluster.memory import MemoryServer, Trouble, trouble
from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.reflector import Reflector, Sync

pytestmark = pytest.mark.looptime

WIDGETS = Resource("triggerhub.dev", "v1alpha1", "widgets")
FORBIDDEN = 'widgets is forbidden: User "hub" cannot list resource'


def size(body: Object, _before: int | None) -> int:
    return int(body["size"])


class Watched(Reflector[int]):
    """Widgets by their size, and how often a change was told."""

    def __init__(self, server: MemoryServer, **options: Any) -> None:
        self.told: list[tuple[int | None, int | None]] = []
        super().__init__(
            server, WIDGETS, options.pop("namespace", None), size,
            lambda before, after: self.told.append((before, after)), **options,
        )  # fmt: skip

    @property
    def sizes(self) -> dict[str, int]:
        return {key.name: value for key, value in self.items.items()}


@pytest.fixture
async def server() -> MemoryServer:
    server = MemoryServer(served={"widgets"})
    for n in range(5):
        server.put("widgets", f"w{n}", size=n)
    return server


@asynccontextmanager
async def watching(server: MemoryServer, **options: Any) -> AsyncIterator[Watched]:
    watched = Watched(server, **options)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watched.run())
        yield watched
        task.cancel()


async def until(fact: Callable[[], bool], seconds: float = 120.0) -> float:
    """Wait for it; returns how long that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(0.01)
    return loop.time() - began


async def synced(watched: Watched) -> None:
    await until(lambda: watched.state is Sync.SYNCED)


async def test_it_lists_in_pages_and_then_follows(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        assert watched.sizes == {"w0": 0, "w1": 1, "w2": 2, "w3": 3, "w4": 4}
        assert watched.told == [(None, None)]
        await until(lambda: server.watching == 1)
        server.put("widgets", "w5", size=5)
        server.put("widgets", "w0", size=10)
        server.delete("widgets", "w1")
        await until(lambda: len(watched.told) == 4)
        assert watched.told[1:] == [(None, 5), (0, 10), (1, None)]
        assert watched.sizes == {"w0": 10, "w2": 2, "w3": 3, "w4": 4, "w5": 5}


async def test_what_changes_between_list_and_watch_is_seen(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await until(lambda: server.count("list", "widgets") == 1)
        server.put("widgets", "late", size=7)
        server.delete("widgets", "w4")
        await synced(watched)
        await until(lambda: "late" in watched.sizes)
        assert "w4" not in watched.sizes


async def test_a_change_that_makes_no_difference_is_not_told(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        server.put("widgets", "w0", size=0, labels="others")
        server.put("widgets", "w1", size=11)
        await until(lambda: len(watched.told) == 2)
        assert watched.told[1] == (1, 11)


async def test_of_one_namespace_only_its_own(server: MemoryServer) -> None:
    server.put("widgets", "w0", "office", size=50)
    async with watching(server, namespace="office") as watched:
        await synced(watched)
        await until(lambda: server.watching == 1)
        server.put("widgets", "w9", size=9)
        server.put("widgets", "w1", "office", size=51)
        await until(lambda: len(watched.sizes) == 2)
        assert watched.sizes == {"w0": 50, "w1": 51}


async def test_an_idle_watch_costs_a_request_now_and_again(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        await asyncio.sleep(3600)
        assert server.count("list", "widgets") == 1
        assert 3600 / 75 <= server.count("watch", "widgets") <= 3600 / 60 + 1
        assert len(watched.told) == 1


async def test_a_broken_watch_goes_on_where_it_was(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        await until(lambda: server.watching == 1)
        server.put("widgets", "w0", size=10)
        await until(lambda: watched.sizes["w0"] == 10)
        server.disconnect()
        server.put("widgets", "w1", size=11)
        server.delete("widgets", "w2")
        await until(lambda: watched.sizes.get("w1") == 11 and "w2" not in watched.sizes)
        assert server.count("list", "widgets") == 1


async def test_a_bookmark_keeps_an_idle_watch_young(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        await until(lambda: server.watching == 1)
        server.version += 50  # of other resources
        await asyncio.sleep(200)
        server.compact()
        server.disconnect()
        await asyncio.sleep(10)
        assert server.count("list", "widgets") == 1
        assert watched.problem == ""


async def test_a_version_that_is_gone_means_a_new_list_which_replaces_all(
    server: MemoryServer,
) -> None:
    async with watching(server) as watched:
        await synced(watched)
        await until(lambda: server.watching == 1)
        server.troubles["watch", "widgets"] = trouble(0, "Unreachable")
        server.disconnect()
        server.delete("widgets", "w0")
        server.put("widgets", "w1", size=11)
        server.compact()
        await asyncio.sleep(10)
        assert "w0" in watched.sizes
        del server.troubles["watch", "widgets"]
        await until(lambda: server.count("list", "widgets") == 2)
        await until(lambda: watched.sizes == {"w1": 11, "w2": 2, "w3": 3, "w4": 4})
        assert watched.told[-1] == (None, None)


async def test_a_list_that_expires_half_way_holds_nothing_of_its_pages(
    server: MemoryServer,
) -> None:
    pages = iter([None, ApiError("list", "x", None, 410, "Expired", "too old")])
    async with watching(server) as watched:
        server.troubles["page", "widgets"] = lambda: next(pages, None)
        await until(lambda: server.count("list", "widgets") == 2)
        assert watched.sizes == {}
        await synced(watched)
        assert len(watched.sizes) == 5


@pytest.mark.parametrize("status", [0, 403, 404, 429, 500, 503])
async def test_once_known_nothing_is_forgotten_for_a_failure(
    server: MemoryServer, status: int
) -> None:
    async with watching(server) as watched:
        await synced(watched)
        held = dict(watched.items)
        server.troubles["watch", "widgets"] = server.troubles["list", "widgets"] = trouble(status)
        server.disconnect()
        await asyncio.sleep(1800)
        assert (watched.items, watched.state) == (held, Sync.SYNCED)
        assert watched.problem.startswith("cannot ")
        server.troubles.clear()
        server.delete("widgets", "w0")
        await until(lambda: "w0" not in watched.sizes, 40)
        await until(lambda: watched.problem == "")


@pytest.mark.parametrize(
    ("status", "longest"),
    # Asking costs a server nothing that is not there; who waits for it is served sooner.
    [(0, 3), (500, 15)],
)
async def test_a_failing_server_is_asked_more_and_more_seldom(
    server: MemoryServer, status: int, longest: int
) -> None:
    async with watching(server) as watched:
        await synced(watched)
        server.troubles["watch", "widgets"] = trouble(status)
        server.disconnect()
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(2)
        assert server.count("watch", "widgets", began) >= 2
        await asyncio.sleep(3600)
        # With full jitter half of the longest wait, on average.
        assert 3300 / longest < server.count("watch", "widgets", began + 300) < 3 * 3300 / longest
        assert watched.heard > began + 3600 - 60


async def test_a_server_that_ends_each_watch_at_once_is_not_stormed(server: MemoryServer) -> None:
    async with watching(server, timeout=0.1) as watched:
        await synced(watched)
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(600)
        assert server.count("watch", "widgets", began) < 100


async def test_it_waits_as_long_as_the_server_asks_within_reason(server: MemoryServer) -> None:
    async with watching(server) as watched:
        server.troubles["list", "widgets"] = trouble(429, "TooManyRequests", 20.0)
        await until(lambda: server.count("list", "widgets") == 2)
        first, second = (a[0] for a in server.asked if a[1] == "list")
        assert second - first >= 20
        server.troubles["list", "widgets"] = trouble(503, "ServiceUnavailable", 86_400.0)
        await until(lambda: server.count("list", "widgets") == 3)
        server.troubles.clear()
        assert await until(lambda: watched.state is Sync.SYNCED) < 61


async def test_a_server_that_comes_back_step_by_step_is_asked_soon(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        server.troubles["watch", "widgets"] = trouble(500)
        server.disconnect()
        await asyncio.sleep(600)
        server.troubles["watch", "widgets"] = trouble(429)
        await until(lambda: "429" in watched.problem)
        server.troubles.clear()
        assert await until(lambda: watched.problem == "") < 1


async def test_a_watch_that_never_works_is_listed_anew(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        # As after etcd was restored from a copy: the version lies in the future.
        server.troubles["watch", "widgets"] = trouble(504, "Timeout")
        server.disconnect()
        server.put("widgets", "w0", size=10)
        await until(lambda: watched.sizes["w0"] == 10, 300)


async def test_a_kind_without_crd_is_absent_until_it_is_installed(server: MemoryServer) -> None:
    server.served.clear()
    async with watching(server) as watched:
        await until(lambda: watched.state is Sync.ABSENT)
        assert watched.problem == (
            "the API server does not serve widgets.triggerhub.dev: install its CRD"
        )
        await asyncio.sleep(3600)
        server.served.add("widgets")
        assert await until(lambda: watched.state is Sync.SYNCED) < 6
        assert len(watched.items) == 5


async def test_a_removed_crd_takes_its_objects_along_and_brings_new_ones(
    server: MemoryServer,
) -> None:
    async with watching(server) as watched:
        await synced(watched)
        server.served.clear()
        server.disconnect()
        await until(lambda: watched.state is Sync.ABSENT)
        assert watched.items == {}
        assert watched.told[-1] == (None, None)
        server.served.add("widgets")
        server.delete("widgets", "w0")
        await synced(watched)
        assert sorted(watched.sizes) == ["w1", "w2", "w3", "w4"]


async def test_one_answer_that_a_kind_is_not_served_empties_nothing(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        server.served.clear()
        server.disconnect()
        await until(lambda: server.count("discover", "triggerhub.dev") == 1)
        server.served.add("widgets")
        await asyncio.sleep(60)
        assert len(watched.items) == 5
        assert watched.told == [(None, None), (None, None)]


async def test_a_server_that_only_just_starts_empties_nothing(server: MemoryServer) -> None:
    async with watching(server) as watched:
        await synced(watched)
        server.served.clear()
        server.discovery = trouble(503, "ServiceUnavailable")
        server.disconnect()
        await asyncio.sleep(600)
        assert len(watched.items) == 5
        assert watched.state is Sync.SYNCED


async def test_what_may_not_be_listed_is_refused_until_it_may(server: MemoryServer) -> None:
    server.troubles["list", "widgets"] = forbidden("list")
    async with watching(server) as watched:
        await until(lambda: watched.state is Sync.REFUSED)
        assert "needs the verb list on widgets.triggerhub.dev" in watched.problem
        server.troubles.clear()
        assert await until(lambda: watched.state is Sync.SYNCED) < 31


async def test_what_may_be_listed_and_not_watched_is_seen_late_and_said_once(
    server: MemoryServer,
) -> None:
    server.troubles["watch", "widgets"] = forbidden("watch")
    with capture_logs() as logs:
        async with watching(server) as watched:
            await synced(watched)
            await asyncio.sleep(600)
            server.put("widgets", "w0", size=10)
            assert await until(lambda: watched.sizes["w0"] == 10) < 31
            assert "needs the verb watch on widgets.triggerhub.dev" in watched.problem
    assert [entry["event"] for entry in logs] == ["watch.failed"]


async def test_trouble_is_said_once_and_so_is_its_end(server: MemoryServer) -> None:
    with capture_logs() as logs:
        async with watching(server) as watched:
            server.troubles["list", "widgets"] = trouble(0, "Unreachable")
            await asyncio.sleep(600)
            server.troubles.clear()
            await until(lambda: watched.state is Sync.SYNCED, 31)
            await asyncio.sleep(600)
    assert [entry["event"] for entry in logs] == ["watch.failed", "watch.recovered"]


async def test_one_that_is_only_looked_at_is_listed_now_and_again(server: MemoryServer) -> None:
    async with watching(server, every=30.0) as watched:
        await synced(watched)
        server.put("widgets", "w0", size=10)
        assert await until(lambda: watched.sizes["w0"] == 10) < 31
        assert server.count("watch", "widgets") == 0
        assert watched.problem == ""


def forbidden(verb: str) -> Trouble:
    message = FORBIDDEN.replace("list", verb)
    return lambda: ApiError(verb, "x", None, 403, "Forbidden", message)
