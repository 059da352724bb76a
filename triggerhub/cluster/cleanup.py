"""What goes with a trigger, and what goes with its last function."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Protocol

import structlog

from triggerhub.cluster.api import Api, ApiError
from triggerhub.cluster.events import Events, Leads, Subject, Turn
from triggerhub.cluster.reported import Reported
from triggerhub.cluster.source import FINALIZER, Standing, resource_of
from triggerhub.connector import Order
from triggerhub.control.binding import Listening
from triggerhub.control.listeners import Listeners, to_be_cleaned
from triggerhub.control.references import resolve
from triggerhub.control.resources import OnFunctionDelete, ResourceKey, Snapshot, Trigger

log = structlog.get_logger()

LIMIT = 60.0
"""Seconds after its deletion that a trigger waits for the clean-up."""
LEAST = 10.0
"""Seconds that the clean-up gets, however long ago the deletion was: no hub may have run."""
_ATTEMPT = 15.0
_LOOK = 1.0


def bereaved(standing: Standing, held: Reported | None, wanted: Reported) -> bool:
    """A trigger that is to go with its last function, and has lost it. One that never had a
    function waits for its first."""
    value = standing.value
    if held is None or not held.bindings or not isinstance(value, Trigger):
        return False
    if value.spec.on_function_delete is not OnFunctionDelete.DELETE:
        return False
    bound = wanted.condition("Bound")
    return bound is not None and bound.reason in ("FunctionNotFound", "NoFunctionMatches")


class Objects(Protocol):
    """What the API server has."""

    revision: int

    def standing(self, kind: str, key: ResourceKey) -> Standing | None: ...
    def standings(self) -> Iterator[Standing]: ...


class Pictures(Protocol):
    """The picture that stands."""

    snapshot: Snapshot | None


class Cleanups:
    """The leader's: keeps the finalizer on triggers whose source's remains are to go with them,
    and lets them go when that is done, or has failed for too long."""

    def __init__(
        self,
        api: Api,
        source: Objects,
        reconciler: Pictures,
        listeners: Listeners,
        election: Leads,
        events: Events,
    ) -> None:
        self._api = api
        self._source = source
        self._reconciler = reconciler
        self._listeners = listeners
        self._election = election
        self._events = events
        self._under_way: set[str] = set()
        self._told: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        seen = -1
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(_LOOK)
                if not self._election.leading or self._reconciler.snapshot is None:
                    seen = -1
                    continue
                if seen == self._source.revision:
                    continue
                seen = self._source.revision
                for standing in self._source.standings():
                    if self._concerns(standing) and standing.uid not in self._under_way:
                        self._under_way.add(standing.uid)
                        task = tasks.create_task(self._attend(standing))
                        task.add_done_callback(
                            lambda _, uid=standing.uid: self._under_way.discard(uid)  # type: ignore[misc]
                        )

    @staticmethod
    def _concerns(standing: Standing) -> bool:
        there = FINALIZER in standing.finalizers
        if standing.deleting is not None:
            return there
        value = standing.value
        # One with faults keeps what it has: what it meant is not known.
        return isinstance(value, Trigger) and there != to_be_cleaned(value.source)

    async def _attend(self, standing: Standing) -> None:
        wait = 0.5
        while self._election.leading:
            try:
                if standing.deleting is not None:
                    await self._clean(standing)
                    await self._finalize(standing, keep=False)
                else:
                    value = standing.value
                    assert isinstance(value, Trigger)
                    await self._finalize(standing, keep=to_be_cleaned(value.source))
                return
            except ApiError as error:
                if error.status == 404:
                    return
                if error.status != 409 and str(error) not in self._told:
                    self._told.add(str(error))
                    log.warning("cleanup.refused", error=str(error))
            await asyncio.sleep(wait)
            wait = min(30.0, wait * 2)
            again = self._source.standing(standing.kind, standing.key)
            if again is None or again.uid != standing.uid or not self._concerns(again):
                return
            standing = again

    async def _finalize(self, standing: Standing, *, keep: bool) -> None:
        """Add or remove the finalizer; those of others stay as they are."""
        others = [name for name in standing.finalizers if name != FINALIZER]
        body = {
            "metadata": {
                "uid": standing.uid,
                "resourceVersion": standing.resource_version,
                "finalizers": [*others, FINALIZER] if keep else others,
            }
        }
        await self._api.patch(
            resource_of(standing.kind), standing.namespace, standing.name, body, kind="merge"
        )

    async def _clean(self, standing: Standing) -> None:
        """Returns when all is clean, or when it is given up."""
        assert standing.deleting is not None
        loop = asyncio.get_running_loop()
        age = (datetime.now(UTC) - standing.deleting).total_seconds()
        until = loop.time() + min(LIMIT, max(LEAST, LIMIT - age))
        trouble = ""
        value = standing.value
        if not isinstance(value, Trigger) or value.source is None:
            trouble = "its connector is not installed, or its spec has faults"
        elif to_be_cleaned(value.source):
            while not self._listeners.idle(standing.namespace, standing.name):
                if loop.time() > until:
                    break
                await asyncio.sleep(0.1)
            left = {}
            for listening in self._remains(standing, value):
                error = await self._clean_one(listening, until)
                if error:
                    left[listening.name] = error
            trouble = "; ".join(f"{name}: {error}" for name, error in left.items())
        if trouble:
            message = f"left behind what the source keeps for it: {trouble}"
            log.warning("cleanup.failed", trigger=f"{standing.namespace}/{standing.name}",
                        error=message)  # fmt: skip
            subject = Subject(standing.kind, standing.namespace, standing.name, standing.uid)
            self._events.tell(subject, Turn("CleanUpFailed", message, warning=True))

    def _remains(self, standing: Standing, trigger: Trigger) -> list[Listening]:
        """A listening half for each name under which something may be kept."""
        held = standing.reported
        prefix = f"{standing.namespace}.{standing.name}."
        names = set(held.cleanup) if held is not None else set()
        if held is not None:
            names |= {prefix + function for function, _ in held.bindings}
        reference = trigger.spec.function.name
        if reference is not None:
            names.add(prefix + reference)
        snapshot = self._reconciler.snapshot
        assert snapshot is not None
        assert trigger.source is not None
        values, _ = resolve(trigger.source, standing.namespace, snapshot, None)
        return [
            Listening(
                name=name,
                kind=standing.kind,
                namespace=standing.namespace,
                trigger=standing.name,
                function=name.removeprefix(prefix),
                source=trigger.source,
                order=Order.NONE,
                in_flight=1,
                created=trigger.created,
                values=values,
            )
            for name in sorted(names)
            if name.startswith(prefix)
        ]

    async def _clean_one(self, listening: Listening, until: float) -> str:
        """Empty: it is clean. Else why not, when the time is over."""
        loop = asyncio.get_running_loop()
        wait = 0.5
        while True:
            try:
                async with asyncio.timeout(min(_ATTEMPT, max(0.1, until - loop.time()))):
                    await self._listeners.clean_up(listening)
                return ""
            except TimeoutError:
                trouble = "the source does not answer"
            except Exception as error:  # noqa: BLE001 - a connector may raise anything; it is said, and tried again
                trouble = str(error) or type(error).__name__
            if loop.time() + wait > until:
                return trouble
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(5.0, wait * 2)
