"""What lets requests from outside of the cluster reach triggers that ask for it: made, kept as it
should be, and removed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Protocol

from triggerhub.cluster.answers import Object
from triggerhub.cluster.edge import (
    GRANTS,
    INGRESSES,
    ROUTES,
    Front,
    Place,
    gateway_of,
    grant_name,
    objects_of,
)
from triggerhub.cluster.events import Leads
from triggerhub.cluster.found import Found, address_of, refusal_of
from triggerhub.cluster.keeping import Keeping, Writer
from triggerhub.cluster.referred import SERVICES
from triggerhub.cluster.reflector import Lister
from triggerhub.cluster.standing import Standing
from triggerhub.cluster.watched import Watched
from triggerhub.control.changes import Changes
from triggerhub.control.edge import exposed_of
from triggerhub.control.resources import FUNCTION, ResourceKey, Snapshot, Trigger
from triggerhub.control.status import Condition, Exposure, State

_LOOK = 0.5
"""Seconds between two looks at what may have changed."""
_SETTLE = 0.05
"""Seconds between a change and the look at it: others may come with it."""
_AT_ONCE = 8


class Server(Lister, Writer, Protocol):
    """What is asked of the API server."""


class Objects(Protocol):
    """What the API server has of triggers."""

    @property
    def snapshot(self) -> Snapshot | None: ...
    def standing(self, kind: str, key: ResourceKey) -> Standing | None: ...
    def standings(self) -> Iterator[Standing]: ...
    def problems(self) -> list[str]: ...


class Exposures:
    """The leader's: other replicas say nothing of the edge."""

    def __init__(
        self,
        api: Server,
        source: Objects,
        election: Leads,
        namespace: str | None,
        front: Front | None,
    ) -> None:
        """``namespace``: the one whose manifests are meant; None: all. ``front`` None: it is not
        known by which Service the hub is reached."""
        self._api = api
        self._source = source
        self._election = election
        self._namespace = namespace
        self._front = front
        self._term: _Term | None = None

    async def run(self, changes: Changes) -> None:
        """Until cancelled."""
        while True:
            if self._election.leading and self._front is not None:
                self._term = _Term(self._api, self._source, self._namespace, self._front, changes)
                await self._term.run(self._election)
                self._term = None
            await asyncio.sleep(_LOOK)

    def exposure(self, trigger: Trigger) -> Exposure | None:
        """How that trigger stands; None: it asks for nothing, or another replica knows."""
        if exposed_of(trigger.source) is None or not self._election.leading:
            return None
        if self._front is None:
            return _false(
                "NoService",
                "the hub does not know the Service that it is reached by: set TRIGGERHUB_SERVICE "
                "to its name, as deploy/ does",
            )
        return _PENDING if self._term is None else self._term.exposure(trigger)


class _Term:
    """While this replica leads."""

    def __init__(
        self, api: Server, source: Objects, namespace: str | None, front: Front, changes: Changes
    ) -> None:
        self._source = source
        self._namespace = namespace
        self._front = front
        self._changes = changes
        self._dirty = asyncio.Event()
        self._keeping = Keeping(api)
        self._watched = Watched(api, namespace, front, self._dirty.set)
        self._wanted: dict[Place, tuple[Object, tuple[str, str] | None]] = {}
        """What is to be there, and whose it is (kind and name)."""
        self._of: dict[ResourceKey, tuple[Trigger, tuple[Place, ...]]] = {}
        """The triggers that ask for it, and what each needs."""
        self._told: dict[ResourceKey, Exposure] = {}

    async def run(self, election: Leads) -> None:
        """Until this replica does not lead any more."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            await self._watched.begin(tasks)
            seen: Snapshot | None = None
            due = math.inf
            while election.leading:
                snapshot = self._source.snapshot
                if snapshot is not None and (
                    snapshot is not seen or self._dirty.is_set() or due <= loop.time()
                ):
                    self._dirty.clear()
                    seen = snapshot
                    self._look(snapshot)
                    if any(place.resource == ROUTES for place in self._wanted):
                        self._watched.routes_too(tasks)
                    due = await self._tend(election)
                    self._tell()
                await self._pause()
            self._watched.end()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_LOOK):
                await self._dirty.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_SETTLE)

    def exposure(self, trigger: Trigger) -> Exposure:
        """How that trigger, which asks for it, stands."""
        known, places = self._of.get(trigger.key, (None, ()))
        if known is not trigger:
            return _PENDING
        for place in places:
            trouble = self._watched.trouble(place.resource) or self._keeping.trouble(place)
            if trouble is not None:
                return _false(trouble.reason, trouble.message)
            if not self._keeping.written(place, self._wanted[place][0]):
                return _PENDING
        found = self._watched.get(places[0])
        exposed = exposed_of(trigger.source)
        if found is None or exposed is None:
            return _PENDING
        gateway = gateway_of(trigger, exposed)
        if gateway is None:
            return _by_ingress(places[0], address_of(places[0], found))
        front = self._watched.get(gateway)
        return _by_route(gateway, refusal_of(found), address_of(gateway, front) if front else "")

    def _look(self, snapshot: Snapshot) -> None:
        """What is to be there."""
        self._wanted, self._of = {}, {}
        for trigger in snapshot.triggers:
            exposed = exposed_of(trigger.source)
            if exposed is None:
                continue
            standing = self._source.standing(trigger.kind, trigger.key)
            if standing is None or standing.created != trigger.created:
                continue  # it is gone, or another: the snapshot that says so comes
            places = []
            for place, body in objects_of(trigger, standing.uid, exposed, self._front):
                owner = None if place.resource == GRANTS else (trigger.kind, trigger.name)
                self._wanted[place] = body, owner
                places.append(place)
            self._of[trigger.key] = trigger, tuple(places)
        self._keeping.forget(self._wanted)

    async def _tend(self, election: Leads) -> float:
        """Write and remove what is to be. When something is due again (the loop's time)."""
        room = asyncio.Semaphore(_AT_ONCE)

        async def keep(place: Place, body: Object, owner: tuple[str, str] | None) -> None:
            async with room:
                if election.leading:
                    await self._keeping.keep(place, body, self._watched.get(place), owner)

        now = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for place, (body, owner) in self._wanted.items():
                if self._due(place, body) <= now:
                    tasks.create_task(keep(place, body, owner))
        # Afterwards: what takes its place is there.
        for place, found in [*self._left(), *self._grants_left()]:
            if election.leading:
                await self._keeping.remove(place, found)
        return min((self._due(place, body) for place, (body, _) in self._wanted.items()),
                   default=math.inf)  # fmt: skip

    def _due(self, place: Place, body: Object) -> float:
        if not self._watched.synced(place.resource):
            return math.inf  # it says when that changes
        return self._keeping.due(place, body, self._watched.get(place))

    def _left(self) -> Iterator[tuple[Place, Found]]:
        """What a trigger owns that does not ask for it any more. What has no owner any more is the
        garbage collector's; of a trigger with faults it is not known what it asks for."""
        for place, found in self._watched.all(INGRESSES, SERVICES, ROUTES):
            if place in self._wanted or found.owner is None:
                continue
            kind, name = found.owner
            standing = self._source.standing(kind, ResourceKey(place.namespace, name))
            if standing is None or standing.uid != found.owner_uid or standing.deleting is not None:
                continue
            trigger = standing.value
            if not isinstance(trigger, Trigger) or trigger.source is None:
                continue
            exposed = exposed_of(trigger.source)
            asked = objects_of(trigger, standing.uid, exposed, self._front) if exposed else ()
            if all(place != wanted for wanted, _ in asked):
                yield place, found

    def _grants_left(self) -> Iterator[tuple[Place, Found]]:
        """ReferenceGrants of this hub for namespaces whose triggers need none any more."""
        if self._source.problems():
            return  # there may be triggers that nobody has seen
        doubtful = {
            standing.namespace
            for standing in self._source.standings()
            if standing.kind != FUNCTION and standing.value is None
        }
        for place, found in self._watched.all(GRANTS):
            namespace = found.exposes
            if (
                place not in self._wanted
                and place.name == grant_name(namespace, self._front)
                and self._namespace in (None, namespace)
                and namespace not in doubtful
            ):
                yield place, found

    def _tell(self) -> None:
        told = {key: self.exposure(trigger) for key, (trigger, _) in self._of.items()}
        for key, exposure in told.items():
            if exposure != self._told.get(key):
                self._changes.trigger(key)
        self._told = told


def _by_ingress(ingress: Place, address: str) -> Exposure:
    if address:
        return Exposure(Condition("Exposed", State.TRUE, "Exposed", f"by {ingress}"), address)
    message = f"{ingress} has no address yet: is there a controller for its class?"
    return _false("AddressPending", message)


def _by_route(gateway: Place, refusal: str | None, address: str) -> Exposure:
    if refusal is None:
        message = f"no controller has looked at it yet: is there one for {gateway}?"
        return _false("AddressPending", message)
    if refusal:
        return _false("RouteNotAccepted", f"{gateway} does not take it: {refusal}")
    unknown = "" if address else ", whose address is not known"
    message = f"by {gateway}{unknown}"
    return Exposure(Condition("Exposed", State.TRUE, "Exposed", message), address)


def _false(reason: str, message: str) -> Exposure:
    return Exposure(Condition("Exposed", State.FALSE, reason, message))


_PENDING = Exposure(Condition("Exposed", State.UNKNOWN, "Exposing", "it is being made"))
