"""Snapshot in; bindings and conditions out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol, TypeVar

import structlog

from triggerhub.connector import LetterPlaces, Reference
from triggerhub.control.binding import Binding, Chosen, Listening, bind, choose
from triggerhub.control.changes import Changes
from triggerhub.control.edge import Edge, NoEdge
from triggerhub.control.listeners import Listeners
from triggerhub.control.outlets import Outlet
from triggerhub.control.plugins import Kind
from triggerhub.control.references import refers, resolve
from triggerhub.control.resources import (
    FUNCTION,
    Function,
    Invalid,
    ResourceKey,
    Snapshot,
    Trigger,
)
from triggerhub.control.services import Reach, reach
from triggerhub.control.status import (
    FunctionStatus,
    TriggerStatus,
    function_status_of,
    invalid_function,
    invalid_trigger,
    status_of,
)
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.functions.code import Code

log = structlog.get_logger()

K = TypeVar("K")

_FINAL = frozenset({"Ready", "CodeError", "RequirementsFailed", "Crashed", "NotInCluster"})


class ResourceSource(Protocol):
    """Where manifests come from: yields the whole picture, anew after each change."""

    def snapshots(self) -> AsyncIterator[Snapshot]: ...


class CodeState(Protocol):
    """How one code function stands."""

    @property
    def url(self) -> str | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...


class CodeFunctions(Protocol):
    """What runs code functions."""

    def converge(self, functions: Mapping[tuple[str, str], Code], /) -> None: ...
    def state(self, namespace: str, name: str) -> CodeState: ...


class Reconciler:
    """The whole control plane: read, bind, rebind, converge, report."""

    def __init__(
        self,
        source: ResourceSource,
        kinds: Mapping[str, Kind],
        dispatcher: Dispatcher,
        listeners: Listeners,
        code: CodeFunctions,
        changes: Changes,
        *,
        environ: Mapping[str, str] | None = None,
        edge: Edge | None = None,
    ) -> None:
        """``environ``: what references to environment variables read; None: manifests may have
        none. ``edge``: that of the cluster; None: there is no cluster. What may have another
        status than before is noted in ``changes``."""
        self._source = source
        self._kinds = kinds
        self._dispatcher = dispatcher
        self._listeners = listeners
        self._code = code
        self._changes = changes
        self._environ = environ
        self._edge = edge or NoEdge()
        self._due = asyncio.Event()
        self._told: set[str] = set()
        self._picture = _Picture()
        self.snapshot: Snapshot | None = None
        """The picture that stands; None before the first."""

    @property
    def bindings(self) -> Sequence[Binding]:
        """All bindings, those of older triggers first."""
        return tuple(self._picture.bindings.values())

    def wake(self) -> None:
        """Something that reconciling looks at has changed (a code function became ready)."""
        self._due.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            while True:
                await self._due.wait()
                self._due.clear()
                self._reconcile()

    def ready(self) -> bool:
        """Every binding is attached or its trouble reported; every code function started or
        failed with a reason."""
        return (
            self.snapshot is not None
            and not self._due.is_set()
            and self._listeners.settled()
            and all(
                self._code.state(*key).reason in _FINAL
                for key, function in self._picture.functions.items()
                if function.spec.code is not None
            )
        )

    def status(self) -> list[TriggerStatus]:
        """Of every trigger, as it stands now."""
        picture = self._picture
        return [
            *(self._status(trigger) for trigger in picture.triggers.values()),
            *(invalid_trigger(i) for i in picture.invalid.values() if i.kind != FUNCTION),
        ]

    def status_of(self, kind: str, key: ResourceKey) -> TriggerStatus | None:
        """Of one trigger; None: it is not there."""
        invalid = self._picture.invalid.get((kind, key))
        if invalid is not None:
            return invalid_trigger(invalid)
        trigger = self._picture.triggers.get(key)
        return self._status(trigger) if trigger is not None and trigger.kind == kind else None

    def function_status(self, key: ResourceKey) -> FunctionStatus | None:
        """Of one function; None: it is not there."""
        invalid = self._picture.invalid.get((FUNCTION, key))
        if invalid is not None:
            return invalid_function(invalid)
        function = self._picture.functions.get(key)
        reaches = self._picture.reaches
        return None if function is None else function_status_of(function, reaches[key])

    def functions(self) -> list[tuple[Function, Reach]]:
        """Every function of the last pass, and how it is reached."""
        picture = self._picture
        return [(function, picture.reaches[key]) for key, function in picture.functions.items()]

    def _status(self, trigger: Trigger) -> TriggerStatus:
        picture, key = self._picture, trigger.key
        return status_of(
            trigger,
            picture.own.get(key, ()),
            picture.chosen[key],
            missing=self._kinds[trigger.kind].missing,
            lacking=picture.lacking.get(key, ""),
            reaches=picture.reaches,
            source=self._listeners.state,
            problem=lambda name: self._dispatcher.link(name).problem,
            exposure=self._edge.exposure(trigger),
        )

    async def _follow(self) -> None:
        async for snapshot in self._source.snapshots():
            known = self.snapshot.complaints() if self.snapshot is not None else ()
            told = set(known)
            for fault in snapshot.complaints():
                if fault not in told:
                    log.warning("manifest.fault", fault=str(fault))
            for kind in {trigger.kind for trigger in snapshot.triggers} - self._told:
                if self._kinds[kind].missing:
                    self._told.add(kind)
                    log.warning("connector.missing", kind=kind, error=self._kinds[kind].missing)
            self.snapshot = snapshot
            self.wake()

    def _reconcile(self) -> None:
        snapshot = self.snapshot
        if snapshot is None:
            return
        self._code.converge(
            {
                function.key: _code(function)
                for function in snapshot.functions
                if function.spec.code is not None
            }
        )
        before, now = self._picture, self._look(snapshot)
        self._picture = now
        self._dispatcher.rebind(binding.target for binding in now.bindings.values())
        self._listeners.converge(
            (binding.listening for binding in now.bindings.values() if not binding.paused),
            (binding.listening for binding in now.bindings.values() if binding.paused),
        )
        now.compare(before, self._changes)

    def _outlet(self, listening: Listening, place: LetterPlaces | None) -> Outlet:
        return Outlet(listening, place, self._listeners)

    def _look(self, snapshot: Snapshot) -> _Picture:
        now = _Picture()
        now.triggers = {trigger.key: trigger for trigger in snapshot.triggers}
        now.functions = {function.key: function for function in snapshot.functions}
        now.invalid = {(invalid.kind, invalid.key): invalid for invalid in snapshot.invalid}
        now.reaches = {f.key: self._reach(f, snapshot) for f in snapshot.functions}
        now.chosen = choose(snapshot.triggers, snapshot.functions)
        values: dict[ResourceKey, Mapping[Reference, bytes] | None] = {}
        for trigger in snapshot.triggers:
            if not refers(trigger.source):
                continue
            found, lacking = resolve(trigger.source, trigger.namespace, snapshot, self._environ)
            if lacking:
                values[trigger.key], now.lacking[trigger.key] = None, lacking
            elif found:
                values[trigger.key] = found
        urls = {key: reach.url for key, reach in now.reaches.items() if reach.url is not None}
        now.bindings = bind(
            snapshot.triggers, now.chosen, urls, values, self._picture.bindings, self._outlet
        )
        for binding in now.bindings.values():
            now.own[binding.trigger.key].append(binding)
        return now

    def _reach(self, function: Function, snapshot: Snapshot) -> Reach:
        spec = function.spec
        if spec.url is not None:
            return Reach(spec.url)
        if spec.service is not None:
            there = snapshot.services.get(ResourceKey(function.namespace, spec.service.name))
            return reach(spec.service, function.namespace, there)
        state = self._code.state(*function.key)
        return Reach(state.url, state.reason, state.message)


class _Picture:
    """What one pass over a snapshot found."""

    def __init__(self) -> None:
        self.triggers: dict[ResourceKey, Trigger] = {}
        self.functions: dict[ResourceKey, Function] = {}
        self.invalid: dict[tuple[str, ResourceKey], Invalid] = {}
        self.reaches: dict[ResourceKey, Reach] = {}
        self.chosen: Chosen = {}
        self.lacking: dict[ResourceKey, str] = {}
        self.bindings: dict[str, Binding] = {}
        self.own: defaultdict[ResourceKey, list[Binding]] = defaultdict(list)

    def compare(self, before: _Picture, changes: Changes) -> None:
        """Note what is not as it was before."""
        for key in _differing(before.functions, self.functions):
            changes.function(key)
        moved = set(_differing(before.reaches, self.reaches))
        for key in moved:
            changes.function(key)
        for key in _differing(before.triggers, self.triggers):
            changes.trigger(key)
        for kind, key in _differing(before.invalid, self.invalid):
            (changes.function if kind == FUNCTION else changes.trigger)(key)
        for key in _differing(before.lacking, self.lacking):
            changes.trigger(key)
        for key in _differing(before.own, self.own):
            changes.trigger(key)
        for key, wanted in self.chosen.items():
            if wanted != before.chosen.get(key, ()) or (
                moved and any(function.key in moved for function in wanted)
            ):
                changes.trigger(key)


def _differing(before: Mapping[K, object], now: Mapping[K, object]) -> list[K]:
    """Keys whose values are not the same, and those on one side alone."""
    missing = object()
    changed = [
        key
        for key, value in now.items()
        if (old := before.get(key, missing)) is not value and old != value
    ]
    return changed + [key for key in before if key not in now]


def _code(function: Function) -> Code:
    spec = function.spec.code
    assert spec is not None
    assert function.code_files is not None
    return Code(
        handler=spec.handler,
        files=function.code_files,
        requirements=tuple(spec.requirements),
        timeout=spec.timeout,
        concurrency=spec.concurrency,
        env=spec.env,
    )
