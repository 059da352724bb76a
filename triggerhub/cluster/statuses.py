"""Statuses, written where they differ from what the API server has."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import structlog

from triggerhub.cluster.api import Api, ApiError
from triggerhub.cluster.cleanup import bereaved
from triggerhub.cluster.election import Election
from triggerhub.cluster.events import Events, Subject, Turn, turns
from triggerhub.cluster.reported import Reported, of_function, of_trigger
from triggerhub.cluster.source import GROUP, VERSION, Standing, resource_of
from triggerhub.control.changes import Changes
from triggerhub.control.listeners import to_be_cleaned
from triggerhub.control.resources import FUNCTION, ResourceKey, Trigger
from triggerhub.control.status import FunctionStatus, TriggerStatus
from triggerhub.delivery.dispatcher import Dispatcher

log = structlog.get_logger()

AT_ONCE = 8
PER_SECOND = 300.0
_SETTLE = 0.05
"""Seconds between a change and the look at it: others may come with it."""
_APART = 1.0
"""Seconds between two writes of one object."""
_DOUBT = 1.0
"""Seconds that a status waits while a condition of it is Unknown."""
_DOUBT_AGAIN = 3.0
"""The same where a status for this generation stands: a restart is no reason to flap."""
_SWEEP = 300.0
_LONGEST_WAIT = 30.0
_QUIET = 600.0
"""Seconds without dead letters after which the next one is a turning point."""


class Ref(NamedTuple):
    """One object."""

    kind: str
    key: ResourceKey


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
        api: Api,
        source: Objects,
        reconciler: Judge,
        dispatcher: Dispatcher,
        election: Election,
        events: Events,
        changes: Changes,
    ) -> None:
        self._api = api
        self._source = source
        self._reconciler = reconciler
        self._dispatcher = dispatcher
        self._election = election
        self._events = events
        self._changes = changes
        self._due: list[tuple[float, int, Ref]] = []
        self._numbers = itertools.count()
        self._at: dict[Ref, float] = {}
        """When each is due; what the heap says otherwise is out of date."""
        self._doubts: dict[Ref, float] = {}
        self._wrote: dict[Ref, tuple[float, str, Reported]] = {}
        """When each was written, over which version, and what."""
        self._busy: set[Ref] = set()
        self._more = asyncio.Event()
        self._slot = 0.0
        self._failures = 0
        self._resume = 0.0
        self._told: set[str] = set()
        self._dead: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._sweep())
            while True:
                ref = await self._next()
                await room.acquire()
                task = tasks.create_task(self._attend(ref))
                task.add_done_callback(lambda _: room.release())

    async def _follow(self) -> None:
        """Mark what changed."""
        kinds: tuple[str, ...] = ()
        while True:
            await self._changes.wait()
            triggers, functions = self._changes.take()
            kinds = tuple({standing.kind for standing in self._source.standings()} - {FUNCTION})
            for key in triggers:
                for kind in kinds:
                    if self._source.standing(kind, key) is not None:
                        self._mark(Ref(kind, key), _SETTLE)
            for key in functions:
                self._mark(Ref(FUNCTION, key), _SETTLE)
            await asyncio.sleep(_SETTLE)

    async def _sweep(self) -> None:
        """Mark everything, on taking office and then now and again."""
        loop = asyncio.get_running_loop()
        swept = -_SWEEP
        led = False
        while True:
            leading = self._election.leading
            if leading and (not led or loop.time() - swept >= _SWEEP):
                swept = loop.time()
                self._wrote.clear()
                for standing in self._source.standings():
                    self._mark(Ref(standing.kind, standing.key), _SETTLE)
            led = leading
            await asyncio.sleep(0.5)

    def _mark(self, ref: Ref, after: float) -> None:
        when = asyncio.get_running_loop().time() + after
        known = self._at.get(ref)
        if known is None or when < known:
            self._at[ref] = when
            heapq.heappush(self._due, (when, next(self._numbers), ref))
            self._more.set()

    async def _next(self) -> Ref:
        """The next one that is due."""
        loop = asyncio.get_running_loop()
        while True:
            self._more.clear()
            while self._due and self._at.get(self._due[0][2]) != self._due[0][0]:
                heapq.heappop(self._due)
            wait = None
            if self._due:
                when, _, ref = self._due[0]
                wait = max(when, self._resume) - loop.time()
                if wait <= 0:
                    heapq.heappop(self._due)
                    del self._at[ref]
                    return ref
            try:
                async with asyncio.timeout(wait):
                    await self._more.wait()
            except TimeoutError:
                continue

    async def _attend(self, ref: Ref) -> None:
        if not self._election.leading:
            return
        if ref in self._busy:
            self._mark(ref, _APART)
            return
        self._busy.add(ref)
        try:
            await self._look(ref)
            self._failures = 0
        except ApiError as error:
            self._failed(ref, error)
        finally:
            self._busy.discard(ref)

    async def _look(self, ref: Ref) -> None:
        standing = self._source.standing(*ref)
        if standing is None or standing.deleting is not None:
            self._forget(ref)
            return
        held = self._held(ref, standing)
        now = asyncio.get_running_loop().time()
        wanted = self._wanted(standing, held)
        if wanted is None or wanted.generation < standing.generation:
            return  # the snapshot that shows it comes, and it is noted then
        self._tell_dead_letters(standing, wanted)
        if held is not None and wanted.says(held):
            self._doubts.pop(ref, None)
            return
        if any(condition.status == "Unknown" for condition in wanted.conditions):
            same = held is not None and held.generation == wanted.generation
            until = self._doubts.setdefault(ref, now) + (_DOUBT_AGAIN if same else _DOUBT)
            if now < until:
                self._mark(ref, until - now)
                return
        self._doubts.pop(ref, None)
        if bereaved(standing, held, wanted):
            await self._delete(standing)
            return
        last = self._wrote.get(ref)
        if last is not None and now - last[0] < _APART:
            self._mark(ref, _APART - (now - last[0]))
            return
        await self._write(ref, standing, held, wanted)

    def _held(self, ref: Ref, standing: Standing) -> Reported | None:
        """What the API server has, as far as is known: what was just written comes back only
        with the watch."""
        last = self._wrote.get(ref)
        if last is not None and last[1] == standing.resource_version:
            return last[2]
        return standing.reported

    def _wanted(self, standing: Standing, held: Reported | None) -> Reported | None:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        if standing.kind == FUNCTION:
            function = self._reconciler.function_status(standing.key)
            return None if function is None else of_function(function, held, now)
        trigger = self._reconciler.status_of(standing.kind, standing.key)
        if trigger is None:
            return None
        value = standing.value
        cleaned = isinstance(value, Trigger) and to_be_cleaned(value.source)
        return of_trigger(trigger, held, now, cleaned=cleaned)

    async def _write(
        self, ref: Ref, standing: Standing, held: Reported | None, wanted: Reported
    ) -> None:
        loop = asyncio.get_running_loop()
        self._slot = max(self._slot + 1 / PER_SECOND, loop.time())
        await asyncio.sleep(self._slot - loop.time())
        if not self._election.leading:
            return
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": standing.kind,
            # The uid: of an object that was made anew meanwhile this is no status.
            "metadata": {
                "name": standing.name, "namespace": standing.namespace, "uid": standing.uid,
            },
            "status": wanted.as_status(),
        }  # fmt: skip
        await self._api.patch(
            resource_of(standing.kind), standing.namespace, standing.name, body,
            kind="apply", subresource="status",
        )  # fmt: skip
        self._wrote[ref] = (loop.time(), standing.resource_version, wanted)
        subject = _subject(standing)
        for turn in turns(held, wanted):
            self._events.tell(subject, turn)

    async def _delete(self, standing: Standing) -> None:
        if not self._election.leading:
            return
        await self._api.delete(
            resource_of(standing.kind), standing.namespace, standing.name,
            uid=standing.uid, resource_version=standing.resource_version,
        )  # fmt: skip
        log.info("trigger.deleted", trigger=f"{standing.namespace}/{standing.name}")
        why = "its last function is gone, and spec.onFunctionDelete is Delete"
        self._events.tell(_subject(standing), Turn("DeletedWithFunction", why))

    def _failed(self, ref: Ref, error: ApiError) -> None:
        if error.status in (404, 409, 410):
            self._mark(ref, _APART)  # gone, or another: the watch says which
            return
        # Whatever refuses one refuses all: ask seldom, and say it once.
        self._failures += 1
        wait = max(error.retry_after, min(_LONGEST_WAIT, 0.5 * 2.0 ** min(self._failures - 1, 10)))
        if error.status == 422:
            wait = _LONGEST_WAIT
        else:
            self._resume = asyncio.get_running_loop().time() + wait
        self._mark(ref, wait)
        said = f"{error.verb} {error.resource} {error.reason}"
        if said not in self._told:
            self._told.add(said)
            log.warning("status.refused", object=f"{ref.kind} {'/'.join(ref.key)}",
                        error=str(error))  # fmt: skip

    def _tell_dead_letters(self, standing: Standing, wanted: Reported) -> None:
        now = asyncio.get_running_loop().time()
        for function, _ in wanted.bindings:
            name = f"{standing.namespace}.{standing.name}.{function}"
            dead = self._dispatcher.link(name).tally.dead
            known, when = self._dead.get(name, (0, -_QUIET))
            if dead <= known:
                continue
            self._dead[name] = (dead, now)
            if now - when >= _QUIET:
                why = f"events for {function} become dead letters; see: triggerhub dlq list"
                self._events.tell(_subject(standing), Turn("DeadLettering", why, warning=True))

    def _forget(self, ref: Ref) -> None:
        self._doubts.pop(ref, None)
        self._wrote.pop(ref, None)


def _subject(standing: Standing) -> Subject:
    return Subject(standing.kind, standing.namespace, standing.name, standing.uid)
