"""What goes with a trigger, and what goes with its last function."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Protocol

import structlog

from triggerhub.backoff import backoff
from triggerhub.cluster.answers import ApiError
from triggerhub.cluster.events import Events, Leads, Subject, Turn, Writer
from triggerhub.cluster.remains import listening_of, names_of, rival, values_of
from triggerhub.cluster.reported import Reported
from triggerhub.cluster.source import FINALIZER, Standing, resource_of
from triggerhub.connector import Reference, SpecError
from triggerhub.control.binding import Listening
from triggerhub.control.listeners import Listeners, to_be_cleaned
from triggerhub.control.resources import OnFunctionDelete, ResourceKey, Snapshot, Trigger

log = structlog.get_logger()

LIMIT = 60.0
"""Seconds after its deletion that a trigger waits for the clean-up."""
LEAST = 30.0
"""Seconds that the clean-up gets, however long ago the deletion was: no hub may have run. A source
may still believe for half of it in a replica that was killed."""
_ATTEMPT = 15.0
_ALMOST = 1e-3
"""Seconds. A timer may fire a hair early: what is nearly over is over."""
_LOOK = 1.0
_LONGEST_WAIT = 30.0
_CLEANED_AT_ONCE = 64
"""A namespace may hold thousands: each attempt holds connections."""
_WRITTEN_AT_ONCE = 8


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
        api: Writer,
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
        self._cleaned = asyncio.Semaphore(_CLEANED_AT_ONCE)
        self._written = asyncio.Semaphore(_WRITTEN_AT_ONCE)
        self._under_way: set[str] = set()
        self._kept: dict[str, Mapping[Reference, bytes]] = {}
        """What the references of a trigger stand for, by its uid: its Secret may go before it."""
        self._told: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        seen = -1
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(_LOOK)
                if not self._election.leading or self._reconciler.snapshot is None:
                    seen = -1
                elif seen != self._source.revision:
                    seen = self._source.revision if self._look(tasks) else -1

    def _look(self, tasks: asyncio.TaskGroup) -> bool:
        """Attend to each that needs it. False: look again soon, some are attended to already and
        may have changed since."""
        whole = True
        kept = {}
        for standing in self._source.standings():
            values, lacking = self._values(standing)
            if values and not lacking:
                kept[standing.uid] = values
            if not self._concerns(standing):
                continue
            if standing.uid in self._under_way:
                whole = False
                continue
            self._under_way.add(standing.uid)
            task = tasks.create_task(self._attend(standing))
            task.add_done_callback(
                lambda _, uid=standing.uid: self._under_way.discard(uid)  # type: ignore[misc]
            )
        self._kept = kept
        return whole

    @staticmethod
    def _concerns(standing: Standing) -> bool:
        there = FINALIZER in standing.finalizers
        if standing.deleting is not None:
            return there
        value = standing.value
        # One with faults keeps what it has: what it meant is not known.
        return isinstance(value, Trigger) and there != to_be_cleaned(value.source)

    async def _attend(self, standing: Standing) -> None:
        """Returns when that is done and seen to be done, or when it is another matter now."""
        if standing.deleting is not None:
            trouble = await self._clean(standing, standing.deleting)
            if trouble is None:
                return
            if trouble:
                self._give_up(standing, trouble)
        wait = 0.5
        while self._election.leading:
            after = 0.0
            try:
                await self._finalize(standing)
                break
            except ApiError as error:
                if error.status == 404:
                    break
                after = error.retry_after
                self._refused(standing, error)
            await asyncio.sleep(max(wait, after))
            wait = min(_LONGEST_WAIT, wait * 2)
            now = self._now(standing)
            if now is None or not self._concerns(now) or _goes(now) != _goes(standing):
                return
            standing = now
        while self._election.leading:
            now = self._now(standing)
            if now is None or now.resource_version != standing.resource_version:
                return
            await asyncio.sleep(_LOOK)

    def _refused(self, standing: Standing, error: ApiError) -> None:
        said = f"{error.verb} {error.resource} {error.reason}"
        if error.status != 409 and said not in self._told:
            self._told.add(said)
            trigger = f"{standing.namespace}/{standing.name}"
            log.warning("cleanup.refused", trigger=trigger, error=str(error))

    def _now(self, standing: Standing) -> Standing | None:
        """The same object, as the API server has it by now."""
        now = self._source.standing(standing.kind, standing.key)
        return now if now is not None and now.uid == standing.uid else None

    async def _finalize(self, standing: Standing) -> None:
        """Add the finalizer, or remove it where it is; those of others stay as they are."""
        others = [name for name in standing.finalizers if name != FINALIZER]
        there = FINALIZER in standing.finalizers
        body = {
            "metadata": {
                "uid": standing.uid,
                "resourceVersion": standing.resource_version,
                "finalizers": others if there else [*others, FINALIZER],
            }
        }
        async with self._written:
            await self._api.patch(
                resource_of(standing.kind), standing.namespace, standing.name, body, kind="merge"
            )

    def _give_up(self, standing: Standing, trouble: str) -> None:
        message = f"left behind what the source keeps for it: {trouble}"
        log.warning(
            "cleanup.failed", trigger=f"{standing.namespace}/{standing.name}", error=message
        )
        subject = Subject(standing.kind, standing.namespace, standing.name, standing.uid)
        self._events.tell(subject, Turn("CleanUpFailed", message, warning=True))

    async def _clean(self, standing: Standing, since: datetime) -> str | None:
        """Empty: all is clean. Else what is not, and why, when the time is over. None: this
        replica leads no longer."""
        loop = asyncio.get_running_loop()
        age = (datetime.now(UTC) - since).total_seconds()
        until = loop.time() + min(LIMIT, max(LEAST, LIMIT - age))
        trigger = standing.value
        if not isinstance(trigger, Trigger) or trigger.source is None:
            return "its connector is not installed, or its spec has faults"
        if not to_be_cleaned(trigger.source):
            return ""
        snapshot = self._snapshot()
        names = names_of(standing, trigger, snapshot)
        if not names:
            return ""
        other = rival(standing, snapshot)
        if other is not None:
            return f"{other} has its name by now, and with it what the hub keeps under that name"
        while True:
            values, lacking = self._values(standing)
            if not lacking and self._listeners.idle(names):
                break
            if not self._election.leading:
                return None
            if loop.time() > until:
                return lacking or "its listener has not ended"
            await asyncio.sleep(0.1)
        async with asyncio.TaskGroup() as tasks:
            under_way = {}
            for name in sorted(names):
                work = self._clean_one(listening_of(trigger, name, values), until)
                under_way[name] = tasks.create_task(work)
        left = {name: task.result() for name, task in under_way.items()}
        if None in left.values():
            return None
        return "; ".join(f"{name}: {error}" for name, error in left.items() if error)

    async def _clean_one(self, listening: Listening, until: float) -> str | None:
        """As ``_clean``, of one binding."""
        loop = asyncio.get_running_loop()
        failures = 0
        trouble = ""
        while self._election.leading:
            try:
                async with asyncio.timeout_at(until), self._cleaned, asyncio.timeout(_ATTEMPT):
                    await self._listeners.clean_up(listening)
                return ""
            except TimeoutError:
                trouble = trouble or "the source does not answer"
            except SpecError as error:
                return str(error)
            except Exception as error:  # noqa: BLE001 - a connector may raise anything; it is said, and tried again
                trouble = str(error) or type(error).__name__
            left = until - loop.time()
            if left <= _ALMOST:
                return trouble
            failures += 1
            await asyncio.sleep(min(left, backoff(failures, 0.5, 5.0)))
        return None

    def _snapshot(self) -> Snapshot:
        snapshot = self._reconciler.snapshot
        assert snapshot is not None
        return snapshot

    def _values(self, standing: Standing) -> tuple[Mapping[Reference, bytes], str]:
        """What its references stand for, or stood for last; then what is missing, in words."""
        found, lacking = values_of(standing, self._snapshot())
        kept = self._kept.get(standing.uid)
        return (kept, "") if lacking and kept else (found, lacking)


def _goes(standing: Standing) -> bool:
    return standing.deleting is not None
