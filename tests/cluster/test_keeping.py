"""One object is kept as the hub says, whatever others do to it; in virtual time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Literal

import pytest

from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.edge import INGRESSES, Place
from triggerhub.cluster.found import Found, read_found
from triggerhub.cluster.keeping import LATER, UNSEEN, Keeping

pytestmark = pytest.mark.looptime

PLACE = Place(INGRESSES, "shop", "orders")
OWNER = ("HTTPTrigger", "orders")
OURS = {
    "apiVersion": "triggerhub.dev/v1alpha1",
    "kind": "HTTPTrigger",
    "name": "orders",
    "uid": "t",
}
BODY: Object = {"metadata": {"ownerReferences": [OURS]}, "spec": {"class": "nginx"}}
LONG = 10 * 3600.0
"""More than a thousand waits, in seconds."""


class Server:
    """Holds one object. ``refuse`` is asked before each write."""

    def __init__(self) -> None:
        self.stored: Object | None = None
        self.writes: list[tuple[float, bool]] = []
        """The loop's time, and whether it was forced."""
        self.refuse: Callable[[], ApiError | None] = lambda: None
        self.version = 0

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        if self.stored is None:
            raise error(404, "NotFound")
        return self.stored

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Any,
        *, kind: Literal["apply"], force: bool,
    ) -> Object:  # fmt: skip
        self.writes.append((asyncio.get_running_loop().time(), force))
        refusal = self.refuse()
        if refusal is not None:
            raise refusal
        self.put(body["spec"], body["metadata"]["ownerReferences"])
        assert self.stored is not None
        return self.stored

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str
    ) -> None:
        self.writes.append((asyncio.get_running_loop().time(), False))

    def put(self, spec: Object, owners: list[Object]) -> None:
        self.version += 1
        metadata = {"uid": "u", "resourceVersion": str(self.version), "ownerReferences": owners}
        self.stored = {"metadata": metadata, "spec": spec}

    @property
    def seen(self) -> Found | None:
        return None if self.stored is None else read_found(self.stored)


def error(status: int, reason: str) -> ApiError:
    return ApiError("patch", "ingresses", "shop", status, reason, "told")


async def keep(keeping: Keeping, found: Callable[[], Found | None], seconds: float) -> None:
    """As the leader does: whenever it is due, for so long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        due = keeping.due(PLACE, BODY, found())
        if due <= loop.time():
            await keeping.keep(PLACE, BODY, found(), OWNER)
        else:
            await asyncio.sleep(max(0.01, min(due, until, loop.time() + 60) - loop.time()))


async def test_what_is_written_is_not_written_again_however_late_the_watch() -> None:
    server = Server()
    keeping = Keeping(server)
    await keep(keeping, lambda: None, UNSEEN - 1)
    assert len(server.writes) == 1
    await keep(keeping, lambda: server.seen, LONG)
    assert len(server.writes) == 1
    assert keeping.written(PLACE, BODY)
    # Seen, and then gone.
    server.stored = None
    await keep(keeping, lambda: server.seen, 5)
    assert len(server.writes) == 2


async def test_who_changes_it_again_and_again_is_answered_less_and_less_often() -> None:
    server = Server()
    keeping = Keeping(server)

    def meddled() -> Found | None:
        if server.stored is not None and server.stored["spec"] == BODY["spec"]:
            server.put({"class": "other"}, [OURS])
        return server.seen

    await keep(keeping, meddled, 3600)
    assert 3600 / LATER <= len(server.writes) <= 3600 / LATER + 10
    assert all(forced for _, forced in server.writes[1:])
    # Calm for a while, and the next changes are put right soon again.
    await keep(keeping, lambda: server.seen, 600)
    for _ in range(2):
        before = len(server.writes)
        server.put({"class": "other"}, [OURS])
        await keep(keeping, lambda: server.seen, 3)
        assert len(server.writes) == before + 1


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (error(422, "Invalid"), "ExposeRefused"),
        (error(403, "Forbidden"), "ExposeRefused"),
        (error(409, "Conflict"), "NameTaken"),
        (error(503, "ServiceUnavailable"), None),
        (error(0, "Unreachable"), None),
        (error(429, "TooManyRequests"), None),
    ],
    ids=str,
)
async def test_what_is_refused_for_long_is_tried_with_pauses_and_then_well(
    refusal: ApiError, reason: str | None
) -> None:
    server = Server()
    keeping = Keeping(server)
    server.refuse = lambda: refusal
    await keep(keeping, lambda: server.seen, LONG)
    assert LONG / LATER - 1 <= len(server.writes) <= LONG / LATER + 10
    trouble = keeping.trouble(PLACE)
    assert (trouble.reason if trouble else None) == reason
    assert not keeping.written(PLACE, BODY)
    server.refuse = lambda: None
    await keep(keeping, lambda: server.seen, LATER + 1)
    assert keeping.trouble(PLACE) is None
    assert keeping.written(PLACE, BODY)
    # Another body waits for nothing.
    assert keeping.due(PLACE, BODY | {"spec": {}}, server.seen) == -math.inf


async def test_what_another_owns_is_never_written() -> None:
    server = Server()
    keeping = Keeping(server)
    for owners in ([], [OURS | {"name": "other"}], [OURS | {"apiVersion": "apps/v1"}]):
        server.put({}, owners)
        # Whether the watch shows it, or only a look by its name.
        await keep(keeping, lambda: server.seen, 60)
        await keep(keeping, lambda: None, 60)
        assert server.writes == []
        trouble = keeping.trouble(PLACE)
        assert trouble is not None
        assert trouble.reason == "NameTaken"


async def test_what_is_removed_is_asked_for_once_and_again_only_later() -> None:
    server = Server()
    server.put({}, [OURS])
    keeping = Keeping(server)
    found = server.seen
    assert found is not None
    for _ in range(5):
        await keeping.remove(PLACE, found)
    assert len(server.writes) == 1
    await asyncio.sleep(LATER + 1)
    keeping.forget(())
    await keeping.remove(PLACE, found)
    assert len(server.writes) == 2
