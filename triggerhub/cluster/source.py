"""Manifests of a cluster, as snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from operator import attrgetter

from triggerhub.cluster.answers import Object
from triggerhub.cluster.referred import Referred
from triggerhub.cluster.reflector import Lister, Reflector, Sync
from triggerhub.cluster.standing import (
    FINALIZER,
    Standing,
    invalid,
    read_standing,
    resource_of,
    taken,
)
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import (
    FUNCTION,
    Function,
    ResourceKey,
    Snapshot,
    Trigger,
    ValueKey,
)

__all__ = ["FINALIZER", "KubernetesSource", "Standing", "resource_of"]

_SOON = 0.05
"""Seconds between a change and the snapshot that shows it: others may come with it."""
_SHARE = 5.0
"""So many times as long as a snapshot took, nothing more is made."""
_LONGEST = 1.0
"""Seconds that this lasts at most."""
_PATIENCE = 5.0
"""Seconds that a snapshot waits for a Secret, ConfigMap or Service that is new to it."""
_rank = attrgetter("rank")
_SILENT = 240.0
"""Seconds without any sign of a reflector after which it counts as dead."""


class KubernetesSource:
    """Watches functions, the triggers of every installed kind, and what they refer to."""

    def __init__(self, api: Lister, kinds: Mapping[str, Kind], namespace: str | None) -> None:
        """``namespace`` None: all."""
        self._kinds = kinds
        self._dirty = asyncio.Event()
        self._objects = {
            kind: Reflector(api, resource_of(kind), namespace, self._reader(kind), self._changed)
            for kind in (FUNCTION, *kinds)
        }
        self._referred = Referred(api, namespace, self._dirty.set)
        self._last: Snapshot | None = None
        self._running = False
        self.revision = 0
        """Grows with every change of an object, its status included."""

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        """The first when all that is installed has been listed; then one after each change that
        makes a difference."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._objects.values():
                tasks.create_task(reflector.run(), name=f"watch {reflector.resource}")
            self._running = True
            while True:
                await self._dirty.wait()
                await asyncio.sleep(_SOON)
                self._dirty.clear()
                if not self._complete():
                    continue
                await self._attend(tasks)
                began = loop.time()
                snapshot = self._snapshot()
                differs = snapshot != self._last
                took = loop.time() - began
                if differs:
                    self._last = snapshot
                    yield snapshot
                await asyncio.sleep(min(_LONGEST, _SHARE * took))

    def standing(self, kind: str, key: ResourceKey) -> Standing | None:
        """One object as the API server has it; None: it is not there."""
        reflector = self._objects.get(kind)
        return None if reflector is None else reflector.items.get(key)

    def standings(self) -> Iterator[Standing]:
        """All objects."""
        for reflector in self._objects.values():
            yield from tuple(reflector.items.values())

    @property
    def snapshot(self) -> Snapshot | None:
        """The last that was made."""
        return self._last

    def problems(self) -> list[str]:
        """What keeps the picture from being whole, a sentence each."""
        lacking = [r for r in self._objects.values() if r.state is not Sync.SYNCED]
        return [r.problem or f"{r.resource} have not been listed yet" for r in lacking]

    def alive(self) -> bool:
        """Each reflector has heard or asked something lately."""
        if not self._running:
            return True
        now = asyncio.get_running_loop().time()
        everyone = (*self._objects.values(), *self._referred.reflectors())
        return all(now - reflector.heard < _SILENT for reflector in everyone)

    def _complete(self) -> bool:
        """Functions must be known: without them every trigger would lose its own."""
        functions = self._objects[FUNCTION].state
        return functions in (Sync.SYNCED, Sync.ABSENT) and all(
            reflector.state is not Sync.PENDING for reflector in self._objects.values()
        )

    def _reader(self, kind: str) -> Callable[[Object, Standing | None], Standing]:
        return lambda body, before: read_standing(kind, body, before, self._kinds)

    def _changed(self, before: Standing | None, after: Standing | None) -> None:
        self.revision += 1
        # Most changes are statuses, our own: no snapshot shows them.
        if before is None or after is None or not after.looks_like(before):
            self._dirty.set()

    async def _attend(self, tasks: asyncio.TaskGroup) -> None:
        """Watch what the triggers and functions refer to, and wait a while for what is new."""
        values: set[ValueKey] = set()
        services: set[ResourceKey] = set()
        for standing in self.standings():
            value = standing.value
            if standing.values and not standing.gone:
                values.update(standing.values)
            elif isinstance(value, Function) and value.spec.service is not None:
                services.add(ResourceKey(value.namespace, value.spec.service.name))
        self._referred.attend(values, services, tasks)
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        while self._referred.unlisted() and loop.time() < until:
            self._dirty.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._dirty.wait()
            except TimeoutError:
                return

    def _snapshot(self) -> Snapshot:
        functions: list[Function] = []
        triggers: list[Trigger] = []
        faulty = []
        for standing in self.standings():
            if standing.deleting is not None:
                continue
            value = standing.value
            if isinstance(value, Function):
                functions.append(value)
            elif isinstance(value, Trigger):
                triggers.append(value)
            else:
                faulty.append(invalid(standing, standing.faults))
        functions.sort(key=lambda f: (f.created, f.key))
        triggers.sort(key=_rank)
        named: dict[ResourceKey, Trigger] = {}
        for trigger in triggers:
            holder = named.setdefault(trigger.key, trigger)
            if holder is not trigger:
                faulty.append(taken(trigger, holder))
        return Snapshot(
            triggers=tuple(named.values()),
            functions=tuple(functions),
            invalid=tuple(sorted(faulty, key=lambda i: (i.kind, i.key))),
            services=self._referred.services(),
            values=self._referred.values(),
            unread=self._referred.unread(),
        )
