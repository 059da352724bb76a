"""An API server in memory, as far as the leader's writing goes; and what it writes about."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel

from tests.fakes import MemoryStore, ScriptedFunction
from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.events import Events
from triggerhub.cluster.standing import Standing, read_standing
from triggerhub.cluster.statuses import Ref, Statuses
from triggerhub.control.changes import Changes
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import FUNCTION, ResourceKey
from triggerhub.control.status import (
    BoundFunction,
    Condition,
    FunctionStatus,
    State,
    TriggerStatus,
)
from triggerhub.delivery.dispatcher import Dispatcher

KIND = "PlaceTrigger"


class Place(BaseModel):
    place: str = "a"


class Places:
    kind = KIND
    source = Place


KINDS = {KIND: Kind(KIND, lambda: Places)}


def failure(status: int, reason: str = "", retry_after: float = 0.0) -> ApiError:
    return ApiError(
        "patch", "placetriggers/status", "shop", status, reason or str(status), "told", retry_after
    )


class Told(NamedTuple):
    """One Event, as somebody reads it."""

    name: str
    reason: str
    message: str
    type: str


class Written:
    """Applies statuses as server-side apply with ``listType: map`` does: what it is not told of
    stays. Its watch lags a little behind."""

    def __init__(self) -> None:
        self.patches: list[tuple[float, Ref, Object]] = []
        """When, of what, and the status; those that were refused too."""
        self.deleted: list[tuple[str, str, str]] = []
        """Name and preconditions: uid, version."""
        self.events: list[Object] = []
        self.refuse: Callable[[Ref], ApiError | None] = lambda ref: None
        """What becomes of a write."""
        self.slow = 0.002
        """Seconds that a write takes."""
        self.lag = 0.05
        """Seconds that the watch is behind."""
        self._version = 100
        self._bodies: dict[Ref, Object] = {}
        self._seen: dict[Ref, Standing] = {}

    def put(
        self, name: str, kind: str = KIND, status: Object | None = None, **metadata: Any
    ) -> Ref:
        """Make or replace an object; it is seen at once."""
        ref = Ref(kind, ResourceKey("shop", name))
        spec: Object = {"function": {"name": "f"}, "source": {}}
        spec |= metadata.pop("spec", {})
        self._version += 1
        self._bodies[ref] = {
            "metadata": {
                "namespace": "shop", "name": name, "uid": f"uid-{name}", "generation": 1,
                "creationTimestamp": "2026-01-31T12:00:00Z", **metadata,
                "resourceVersion": str(self._version),
            },
            "spec": spec if kind == KIND else {"url": "http://127.0.0.1:9/"},
            **({"status": status} if status is not None else {}),
        }  # fmt: skip
        self._see(ref)
        return ref

    def drop(self, ref: Ref) -> None:
        """Somebody deletes it; that is seen at once."""
        del self._bodies[ref]
        self._see(ref)

    def status(self, ref: Ref) -> Object:
        """As the server has it."""
        found: Object = self._bodies[ref].get("status") or {}
        return found

    def condition(self, ref: Ref, name: str = "Ready") -> Object:
        found: dict[str, Object] = {c["type"]: c for c in self.status(ref).get("conditions", ())}
        return found.get(name, {})

    def of(self, ref: Ref, since: float = 0.0) -> list[float]:
        """When somebody tried to write that status."""
        return [at for at, of, _ in self.patches if of == ref and at >= since]

    def told(self) -> list[Told]:
        return [
            Told(e["involvedObject"]["name"], e["reason"], e["message"], e["type"])
            for e in self.events
        ]

    def standing(self, kind: str, key: ResourceKey) -> Standing | None:
        return self._seen.get(Ref(kind, key))

    def standings(self) -> Iterator[Standing]:
        return iter(tuple(self._seen.values()))

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: str,
        subresource: str = "",
    ) -> Object:
        if resource.plural == "events":
            assert (kind, namespace) == ("merge", "shop")
            found: Object = next(
                event for event in self.events if event["metadata"]["name"] == name
            )
            found.update(body)
            return found
        assert (kind, subresource, namespace) == ("apply", "status", "shop")
        assert resource.plural == f"{body['kind'].lower()}s"
        ref = Ref(body["kind"], ResourceKey("shop", name))
        self.patches.append((asyncio.get_running_loop().time(), ref, body["status"]))
        await asyncio.sleep(self.slow)
        # As on any status subresource: a uid would be ignored.
        self._check(ref, version=body["metadata"]["resourceVersion"])
        self._apply(ref, body["status"])
        return copy.deepcopy(self._bodies[ref])

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        resource_version: str,
    ) -> None:
        ref = Ref(KIND, ResourceKey("shop", name))
        await asyncio.sleep(self.slow)
        self.deleted.append((name, uid, resource_version))
        self._check(ref, uid, resource_version)
        del self._bodies[ref]
        asyncio.get_running_loop().call_later(self.lag, self._see, ref)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        assert (resource.plural, namespace) == ("events", "shop")
        await asyncio.sleep(self.slow)
        self.events.append(body)
        return body

    def _check(self, ref: Ref, uid: str = "", version: str = "") -> None:
        error = self.refuse(ref)
        if error is not None:
            raise error
        if ref not in self._bodies:
            raise failure(404, "NotFound")
        metadata = self._bodies[ref]["metadata"]
        if uid not in ("", metadata["uid"]) or version not in ("", metadata["resourceVersion"]):
            raise failure(409, "Conflict")

    def _apply(self, ref: Ref, status: Object) -> None:
        there = self.status(ref)
        mine = {condition["type"] for condition in status["conditions"]}
        others = [c for c in there.get("conditions", ()) if c["type"] not in mine]
        new = {**status, "conditions": [*others, *status["conditions"]]}
        if new != there:
            self._version += 1
            self._bodies[ref]["metadata"]["resourceVersion"] = str(self._version)
            self._bodies[ref]["status"] = copy.deepcopy(new)
            asyncio.get_running_loop().call_later(self.lag, self._see, ref)

    def _see(self, ref: Ref) -> None:
        body = self._bodies.get(ref)
        if body is None:
            self._seen.pop(ref, None)
        else:
            self._seen[ref] = read_standing(
                ref.kind, copy.deepcopy(body), self._seen.get(ref), KINDS
            )


_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)


class Office:
    """Whether this replica leads."""

    def __init__(self) -> None:
        self.leading = True


class Replica:
    """What one hub finds to be true, and its writer."""

    def __init__(self, written: Written) -> None:
        self.written = written
        self.office = Office()
        self.changes = Changes()
        self.facts: dict[Ref, TriggerStatus | FunctionStatus] = {}
        self.dispatcher = Dispatcher(ScriptedFunction(), MemoryStore())
        self._events = Events(written, self.office)
        self._statuses = Statuses(
            written, written, self, self.dispatcher, self.office, self._events, self.changes, KINDS
        )

    def finds(self, ref: Ref, **facts: Any) -> None:
        """From now on that is so of the object that stands (``trigger_status``), and noted."""
        standing = self.written.standing(*ref)
        facts.setdefault("created", _BEFORE if standing is None else standing.created)
        if ref.kind == FUNCTION:
            self.facts[ref] = function_status(ref, **facts)
            self.changes.function(ref.key)
        else:
            self.facts[ref] = trigger_status(ref, **facts)
            self.changes.trigger(ref.key)

    def status_of(self, kind: str, key: ResourceKey) -> TriggerStatus | None:
        found = self.facts.get(Ref(kind, key))
        assert not isinstance(found, FunctionStatus)
        return found

    def function_status(self, key: ResourceKey) -> FunctionStatus | None:
        found = self.facts.get(Ref(FUNCTION, key))
        assert not isinstance(found, TriggerStatus)
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            works = [tasks.create_task(self._statuses.run()), tasks.create_task(self._events.run())]
            yield
            for work in works:
                work.cancel()


def trigger_status(
    ref: Ref,
    connected: str = "True",
    reason: str = "Connected",
    message: str = "",
    *,
    generation: int = 1,
    function: str = "f",
    bound: str = "Bound",
    created: datetime,
) -> TriggerStatus:
    """``function`` empty: it is not bound, for the reason ``bound``."""
    connection = Condition("Connected", State(connected), reason, message)
    binding = Condition("Bound", State.TRUE if function else State.FALSE, bound, function)
    ready = connection if connected != "True" else binding if not function else None
    return TriggerStatus(
        kind=ref.kind,
        namespace=ref.key.namespace,
        name=ref.key.name,
        created=created,
        observed_generation=generation,
        conditions=(
            Condition("Accepted", State.TRUE, "Accepted"),
            binding,
            connection,
            Condition("Ready", State.TRUE, "Ready")
            if ready is None
            else Condition("Ready", ready.status, ready.reason, ready.message),
        ),
        functions=(BoundFunction(function, "http://f/"),) if function else (),
    )


def function_status(
    ref: Ref, reason: str = "Ready", message: str = "", *, created: datetime
) -> FunctionStatus:
    ready = State.TRUE if reason == "Ready" else State.FALSE
    return FunctionStatus(
        namespace=ref.key.namespace,
        name=ref.key.name,
        created=created,
        observed_generation=1,
        conditions=(
            Condition("Accepted", State.TRUE, "Accepted"),
            Condition("Ready", ready, reason, message),
        ),
        url="http://127.0.0.1:9/",
    )
