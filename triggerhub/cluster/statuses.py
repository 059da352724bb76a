"""Statuses, written where they differ from what the API server has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol

import structlog

from triggerhub.cluster.agenda import Agenda
from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.cleanup import bereaved
from triggerhub.cluster.events import Events, Leads, Subject, Turn, turns
from triggerhub.cluster.pace import Pace
from triggerhub.cluster.reported import Reported, of_function, of_trigger
from triggerhub.cluster.source import Standing, resource_of
from triggerhub.control.changes import Changes
from triggerhub.control.listeners import to_be_cleaned
from triggerhub.control.resources import API_VERSION, FUNCTION, ResourceKey, Trigger
from triggerhub.control.status import FunctionStatus, TriggerStatus
from triggerhub.delivery.dispatcher import Dispatcher

log = structlog.get_logger()

AT_ONCE = 8
_AGAIN_AT_ONCE = 4
_SETTLE = 0.05
"""Seconds between a change and the look at it: others may come with it."""
_APART = 1.0
"""Seconds between two writes of one object."""
_DOUBT = 1.0
"""Seconds that a status waits while a condition of it is Unknown."""
_DOUBT_AGAIN = 3.0
"""The same where a status for this generation stands: a restart is no reason to flap."""
_SWEEP = 300.0
_QUIET = 600.0
"""Seconds without dead letters after which the next one is a turning point."""


class Ref(NamedTuple):
    """One object."""

    kind: str
    key: ResourceKey

    def __str__(self) -> str:
        return f"{self.kind} {self.key.namespace}/{self.key.name}"


class Work(NamedTuple):
    """What is to be written of an object."""

    standing: Standing
    held: Reported | None
    wanted: Reported


class Wrote(NamedTuple):
    """What was written last of an object."""

    at: float
    """The loop's time."""
    over: str
    """The version that the watch had brought by then."""
    version: str
    """The one that it became."""
    reported: Reported


class Writer(Protocol):
    """What is asked of the API server. Raises ``ApiError``."""

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: Literal["apply"],
        subresource: str,
    ) -> Object: ...
    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        resource_version: str,
    ) -> None: ...


class Judge(Protocol):
    """What is true of an object."""

    def status_of(self, kind: str, key: ResourceKey) -> TriggerStatus | None: ...
    def function_status(self, key: ResourceKey) -> FunctionStatus | None: ...


class Objects(Protocol):
    """What the API server has."""

    def standing(self, kind: str, key: ResourceKey) -> Standing | None: ...
    def standings(self) -> Iterator[Standing]: ...


class Statuses:
    """The leader's writer. What was missed is found in a sweep every few minutes."""

    def __init__(
        self,
        api: Writer,
        source: Objects,
        reconciler: Judge,
        dispatcher: Dispatcher,
        election: Leads,
        events: Events,
        changes: Changes,
        kinds: Iterable[str],
    ) -> None:
        """``kinds``: of triggers, all that are installed."""
        self._api = api
        self._source = source
        self._reconciler = reconciler
        self._dispatcher = dispatcher
        self._election = election
        self._events = events
        self._changes = changes
        self._kinds = tuple(kinds)
        self._agenda = Agenda[Ref]()
        self._again = Agenda[Ref]()
        """What was refused: it keeps nothing else waiting."""
        self._pace = Pace[Ref]()
        self._doubts: dict[Ref, float] = {}
        """Since when each is waited for."""
        self._wrote: dict[Ref, Wrote] = {}
        self._busy: set[Ref] = set()
        self._swept = -math.inf
        self._dead: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._sweep())
            tasks.create_task(self._work_off(self._agenda, AT_ONCE))
            tasks.create_task(self._work_off(self._again, _AGAIN_AT_ONCE))

    async def _work_off(self, agenda: Agenda[Ref], at_once: int) -> None:
        room = asyncio.Semaphore(at_once)
        async with asyncio.TaskGroup() as tasks:
            while True:
                ref = await agenda.next()
                await room.acquire()
                task = tasks.create_task(self._attend(ref, again=agenda is self._again))
                task.add_done_callback(lambda _: room.release())

    async def _follow(self) -> None:
        """Mark what changed."""
        while True:
            await self._changes.wait()
            triggers, functions = self._changes.take()
            for key in triggers:
                for kind in self._kinds:
                    if self._source.standing(kind, key) is not None:
                        self._agenda.add(Ref(kind, key), _SETTLE)
            for key in functions:
                self._agenda.add(Ref(FUNCTION, key), _SETTLE)
            await asyncio.sleep(_SETTLE)

    async def _sweep(self) -> None:
        """Mark everything, on taking office and then now and again."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._election.leading:
                self._swept = -math.inf
            elif loop.time() - self._swept >= _SWEEP:
                if self._swept == -math.inf:
                    self._doubts.clear()
                self._swept = loop.time()
                self._tidy()
                for standing in self._source.standings():
                    ref = Ref(standing.kind, standing.key)
                    if ref not in self._again:
                        self._agenda.add(ref, _SETTLE)
            await asyncio.sleep(0.5)

    async def _attend(self, ref: Ref, *, again: bool) -> None:
        if ref in self._busy:
            self._agenda.add(ref, _APART)
            return
        self._busy.add(ref)
        try:
            if self._leads() and self._work(ref) is not None:
                await self._pace.turn(again=again)
                # As it is by now.
                if self._leads() and (work := self._work(ref)) is not None:
                    await self._write(ref, work)
        except ApiError as error:
            self._again.add(ref, self._pace.refused(ref, error))
        finally:
            self._busy.discard(ref)

    def _leads(self) -> bool:
        if not self._election.leading:
            # What is left undone is found when this replica leads again, however soon.
            self._swept = -math.inf
        return self._election.leading

    def _work(self, ref: Ref) -> Work | None:
        standing = self._source.standing(*ref)
        if standing is None or standing.deleting is not None:
            self._forget(ref)
            return None
        held = self._held(ref, standing)
        wanted = self._wanted(standing, held)
        if wanted is None or wanted.generation < standing.generation:
            return None  # the snapshot that shows it comes, and it is noted then
        self._tell_dead_letters(standing, wanted)
        if held is not None and wanted.says(held):
            self._doubts.pop(ref, None)
            self._pace.well(ref)
            return None
        left = self._left(ref, held, wanted)
        if left > 0:
            self._agenda.add(ref, left)
            return None
        return Work(standing, held, wanted)

    def _left(self, ref: Ref, held: Reported | None, wanted: Reported) -> float:
        """Seconds until it may be written."""
        now = asyncio.get_running_loop().time()
        left = 0.0
        if any(condition.status == "Unknown" for condition in wanted.conditions):
            same = held is not None and held.generation == wanted.generation
            since = self._doubts.setdefault(ref, now)
            left = since + (_DOUBT_AGAIN if same else _DOUBT) - now
        else:
            self._doubts.pop(ref, None)
        last = self._wrote.get(ref)
        return left if last is None else max(left, last.at + _APART - now)

    def _held(self, ref: Ref, standing: Standing) -> Reported | None:
        """What the API server has, as far as is known: what was just written comes back only
        with the watch."""
        last = self._wrote.get(ref)
        if last is not None and last.over == standing.resource_version:
            return last.reported
        return standing.reported

    def _version(self, ref: Ref, standing: Standing) -> str:
        """The latest that is known."""
        last = self._wrote.get(ref)
        if last is not None and last.over == standing.resource_version:
            return last.version
        return standing.resource_version

    def _wanted(self, standing: Standing, held: Reported | None) -> Reported | None:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        if standing.kind == FUNCTION:
            function = self._reconciler.function_status(standing.key)
            if function is None or function.created != standing.created:
                return None
            return of_function(function, held, now)
        trigger = self._reconciler.status_of(standing.kind, standing.key)
        # Not of one that bore the name before: the snapshot that shows this one comes.
        if trigger is None or trigger.created != standing.created:
            return None
        value = standing.value
        # With faults it is not known what was meant: what is kept is remembered.
        cleaned = (
            to_be_cleaned(value.source)
            if isinstance(value, Trigger)
            else held is not None and bool(held.cleanup)
        )
        return of_trigger(trigger, held, now, cleaned=cleaned)

    async def _write(self, ref: Ref, work: Work) -> None:
        if bereaved(*work):
            await self._delete(work.standing)
            return
        standing, held, wanted = work
        body = {
            "apiVersion": API_VERSION,
            "kind": standing.kind,
            # The version: of what changed or was made anew meanwhile this is no status. A uid
            # would not do: the API server ignores it here.
            "metadata": {
                "name": standing.name, "namespace": standing.namespace,
                "resourceVersion": self._version(ref, standing),
            },
            "status": wanted.as_status(),
        }  # fmt: skip
        found = await self._api.patch(
            resource_of(standing.kind), standing.namespace, standing.name, body,
            kind="apply", subresource="status",
        )  # fmt: skip
        now = asyncio.get_running_loop().time()
        self._doubts.pop(ref, None)
        version = str((found.get("metadata") or {}).get("resourceVersion") or "")
        self._wrote[ref] = Wrote(now, standing.resource_version, version, wanted)
        self._pace.accepted(ref)
        subject = _subject(standing)
        for turn in turns(held, wanted):
            self._events.tell(subject, turn)

    async def _delete(self, standing: Standing) -> None:
        await self._api.delete(
            resource_of(standing.kind), standing.namespace, standing.name,
            uid=standing.uid, resource_version=standing.resource_version,
        )  # fmt: skip
        log.info("trigger.deleted", trigger=f"{standing.namespace}/{standing.name}")
        why = "its last function is gone, and spec.onFunctionDelete is Delete"
        self._events.tell(_subject(standing), Turn("DeletedWithFunction", why))

    def _tell_dead_letters(self, standing: Standing, wanted: Reported) -> None:
        now = asyncio.get_running_loop().time()
        for function, _ in wanted.bindings:
            name = f"{standing.namespace}.{standing.name}.{function}"
            dead = self._dispatcher.link(name).tally.dead
            known, when = self._dead.get(name, (0, -_QUIET))
            if dead == known:
                continue
            # Less than before: it was bound anew, and counts from the beginning.
            self._dead[name] = (dead, now if dead else when)
            if dead and now - when >= _QUIET:
                why = f"events for {function} become dead letters; see: triggerhub dlq list"
                self._events.tell(_subject(standing), Turn("DeadLettering", why, warning=True))

    def _tidy(self) -> None:
        """Drop what is known better by now."""
        for ref, last in tuple(self._wrote.items()):
            standing = self._source.standing(*ref)
            if standing is None:
                self._forget(ref)
            elif standing.resource_version != last.over:
                del self._wrote[ref]

    def _forget(self, ref: Ref) -> None:
        self._doubts.pop(ref, None)
        self._wrote.pop(ref, None)
        self._pace.well(ref)


def _subject(standing: Standing) -> Subject:
    return Subject(standing.kind, standing.namespace, standing.name, standing.uid)
