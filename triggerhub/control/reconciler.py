"""Snapshot in; bindings and conditions out."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import structlog

from triggerhub.control.binding import Binding, bind
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import Function, ResourceKey, Snapshot
from triggerhub.control.status import TriggerStatus, status_of
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.functions.code import Code
from triggerhub.functions.processes import Processes

log = structlog.get_logger()

_FINAL = frozenset({"Ready", "CodeError", "RequirementsFailed", "Crashed"})


class ResourceSource(Protocol):
    """Where manifests come from: yields the whole picture, anew after each change."""

    def snapshots(self) -> AsyncIterator[Snapshot]: ...


class Reconciler:
    """The whole control plane: read, bind, rebind, converge, report."""

    def __init__(
        self,
        source: ResourceSource,
        kinds: Mapping[str, Kind],
        dispatcher: Dispatcher,
        listeners: Listeners,
        processes: Processes,
    ) -> None:
        self._source = source
        self._kinds = kinds
        self._dispatcher = dispatcher
        self._listeners = listeners
        self._processes = processes
        self._due = asyncio.Event()
        self._told: set[str] = set()
        self._functions: dict[ResourceKey, Function] = {}
        self.snapshot: Snapshot | None = None
        """The picture that stands; None before the first."""
        self.bindings: list[Binding] = []

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
                self._processes.state(*key).reason in _FINAL
                for key, function in self._functions.items()
                if function.spec.code is not None
            )
        )

    def status(self) -> list[TriggerStatus]:
        """Of every trigger, as it stands now."""
        if self.snapshot is None:
            return []
        own: defaultdict[tuple[str, str], list[Binding]] = defaultdict(list)
        for binding in self.bindings:
            own[binding.listening.namespace, binding.listening.trigger].append(binding)
        return [
            status_of(
                trigger,
                own[trigger.namespace, trigger.name],
                self._functions,
                missing=self._kinds[trigger.kind].missing,
                unreachable=self._unreachable,
                source=self._listeners.state,
                problem=lambda name: self._dispatcher.link(name).problem,
            )
            for trigger in self.snapshot.triggers
        ]

    async def _follow(self) -> None:
        async for snapshot in self._source.snapshots():
            known = self.snapshot.faults if self.snapshot is not None else ()
            for fault in snapshot.faults:
                if fault not in known:
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
        self._functions = {function.key: function for function in snapshot.functions}
        self._processes.converge(
            {
                key: _code(function)
                for key, function in self._functions.items()
                if function.spec.code is not None
            }
        )
        self.bindings = bind(snapshot.triggers, self._functions, self._urls())
        self._dispatcher.rebind(binding.target for binding in self.bindings)
        self._listeners.converge(
            binding.listening for binding in self.bindings if not binding.paused
        )

    def _urls(self) -> dict[ResourceKey, str]:
        urls = {}
        for key, function in self._functions.items():
            url = (
                function.spec.url if function.spec.code is None else self._processes.state(*key).url
            )
            if url is not None:
                urls[key] = url
        return urls

    def _unreachable(self, key: ResourceKey) -> tuple[str, str]:
        state = self._processes.state(*key)
        return state.reason, state.message


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
