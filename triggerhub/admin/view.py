"""One read-only picture of a running hub: what the API, metrics and the terminal all show."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from triggerhub.admin.planes import CodeFunctions, Manifests, Sources, Watch
from triggerhub.admin.states import (
    BindingView,
    FunctionView,
    Key,
    counters,
    held,
    key_of,
    settled,
    stopping,
    unbound,
)
from triggerhub.connector import Connector, Unreadable
from triggerhub.control.binding import Binding
from triggerhub.control.faults import Fault
from triggerhub.control.foretelling import find_trigger
from triggerhub.control.outlets import Outlet
from triggerhub.control.report import SourceState
from triggerhub.control.resources import Trigger
from triggerhub.control.status import State, TriggerStatus, paused_message, seek_shape
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.link import Link
from triggerhub.delivery.tally import Tally
from triggerhub.store.records import DeadLetter, Store, StoreError, Waiting

_SAMPLES = 6
_EVERY = 1.0
_LEISURE = 200.0
"""Where there are many bindings: a sample waits so many times as long as the last one took."""
_SPARING = 50.0
"""What the store keeps is counted again after so many times as long as counting took."""

_QUICK = 0.05
"""Seconds that a count may take where somebody waits for it."""

_STARTING = frozenset({"Starting", "Installing"})


class View:
    """Reads the hub; changes nothing. ``watch`` samples what a rate needs."""

    def __init__(
        self,
        reconciler: Manifests,
        dispatcher: Dispatcher,
        listeners: Sources,
        store: Store,
        processes: CodeFunctions,
        watch: Watch | None = None,
    ) -> None:
        """``watch``: of the API server that manifests come from; None for a folder."""
        self.dispatcher = dispatcher
        self.store = store
        self.processes = processes
        self.started = time.time()
        self.address = ""
        """Where the admin API answers, ``host:port``; set once it does."""
        self.letters: Mapping[Key, int] = {}
        """Dead letters by (namespace, trigger, function), as last counted."""
        self.waiting: Mapping[str, Waiting] = {}
        """What inboxes hold, by binding, as last counted."""
        self._reconciler = reconciler
        self._listeners = listeners
        self._watch = watch
        self._was_ready = False
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=_SAMPLES)
        self._failures: dict[str, tuple[int, float]] = {}
        self._recount = asyncio.Event()
        self._counting = 0.0

    async def watch(self) -> None:
        """Until cancelled: count what was settled each second, and what the store keeps."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._recount_for_ever())
            while True:
                began = time.monotonic()
                self._sample()
                took = time.monotonic() - began
                await asyncio.sleep(max(_EVERY, _LEISURE * took))

    def recount(self) -> None:
        """Dead letters came or went: count them soon."""
        self._recount.set()

    def bindings(self) -> list[BindingView]:
        """Every binding, triggers that have none, and what still drains; older triggers first."""
        now = time.monotonic()
        sampled, before = self._samples[0] if self._samples else (now, {})
        span = max(now - sampled, 0.001)
        joined = {binding.name: binding for binding in self._reconciler.bindings}
        links = {link.name: link for link in self.dispatcher.links()}
        views = []
        for status in self._reconciler.status():
            if not status.bindings:
                views.append(unbound(status))
            for name in status.bindings:
                if (binding := joined.get(name)) is not None:
                    link = links.get(name)
                    base = before.get(name, 0)
                    views.append(self._bound(binding, status, link, base, span))
        views += [
            stopping(link)
            for name, link in links.items()
            if name not in joined and link.tally.in_flight
        ]
        shown = {view.name for view in views}
        views += [
            held(name, inbox.events) for name, inbox in self.waiting.items() if name not in shown
        ]
        return views

    def binding(self, name: str) -> Binding | None:
        """The one of that name."""
        return next((b for b in self._reconciler.bindings if b.name == name), None)

    def tended(self, name: str) -> str:
        """Why what waits for a binding has somebody who delivers it, or may soon; or ""."""
        if self._reconciler.snapshot is None:
            return "the manifests are not read yet"
        if self.binding(name) is not None:
            return "it is bound: what waits is delivered, or waits while its trigger is paused"
        if any(link.name == name and link.tally.in_flight for link in self.dispatcher.links()):
            return "its deliveries under way end"
        return ""

    def triggers(self) -> list[TriggerStatus]:
        """Every trigger's conditions."""
        return self._reconciler.status()

    def trigger(self, name: str) -> Trigger:
        """The one that ``trigger`` or ``namespace/trigger`` means. Raises ``NotForetold``."""
        snapshot = self._reconciler.snapshot
        return find_trigger(name, () if snapshot is None else snapshot.triggers)

    async def connector(self, kind: str) -> Connector[Any]:
        """The one of that kind, opened where it is not yet."""
        return await self._listeners.connector(kind)

    def faults(self) -> tuple[Fault, ...]:
        """What is wrong in the manifests."""
        snapshot = self._reconciler.snapshot
        return () if snapshot is None else snapshot.complaints()

    def functions(self) -> list[FunctionView]:
        """Every function, by namespace and name."""
        views = []
        for function, reach in self._reconciler.functions():
            spec = function.spec
            views.append(
                FunctionView(
                    namespace=function.namespace,
                    name=function.name,
                    kind="code" if spec.code else "service" if spec.service else "url",
                    url=reach.url or "",
                    reason=reach.reason,
                    message=reach.message,
                )
            )
        return sorted(views, key=lambda view: (view.namespace, view.name))

    def alive(self) -> bool:
        """The manifests are still watched. That this answers at all says that the loop runs."""
        return self._watch is None or self._watch.alive()

    def not_ready(self) -> list[str]:
        """What the hub still waits for, one line each; empty when it is ready.

        Once it was, trouble with the API server or the store alone no longer takes it out of
        service: what is bound and needs neither goes on. So it does from the start where the
        store is only away; one that refuses the hub would refuse all that a rollout brings.
        """
        problems: list[str] = []
        if not self._was_ready:
            problems += [] if self._watch is None else self._watch.problems()
            trouble = self.store.trouble
            if trouble is not None and trouble.refused:
                problems.append(trouble.text)
        if self._reconciler.ready():
            self._was_ready = self._was_ready or not problems
            return problems
        if self._reconciler.snapshot is None:
            return problems or ["the manifests have not been read yet"]
        waiting = problems + [
            f"function {view.namespace}/{view.name}: {view.reason}: {view.message}".rstrip(": ")
            for view in self.functions()
            if view.kind == "code" and view.reason in _STARTING
        ]
        for binding in self._reconciler.bindings:
            source = self._listeners.state(binding.name)
            if source is not None and source.attached is None and not binding.paused:
                waiting.append(f"binding {binding.name}: {source.message}")
        return waiting or ["the last change of the manifests is being worked in"]

    def tallies(self) -> Iterator[tuple[Key, Tally]]:
        """The counters of every link."""
        for link in self.dispatcher.links():
            yield key_of(link.name), link.tally

    def sources(self) -> Iterator[tuple[Key, SourceState]]:
        """How every listener stands."""
        for binding in self._reconciler.bindings:
            source = self._listeners.state(binding.name)
            if source is not None:
                yield key_of(binding.name), source

    def states(self) -> Counter[str]:
        """How many bindings (and triggers without one) are in which state."""
        return Counter(view.state for view in self.bindings())

    def _bound(
        self, binding: Binding, status: TriggerStatus, link: Link | None, base: int, span: float
    ) -> BindingView:
        half = binding.listening
        source = self._listeners.state(binding.name)
        state, reason, message = self._standing(binding, status, source, link)
        tally = link.tally if link is not None else Tally()
        failed = self._failures.get(binding.name)
        return BindingView(
            name=binding.name,
            kind=half.kind,
            namespace=half.namespace,
            trigger=half.trigger,
            function=half.function,
            url=binding.target.url,
            state=state,
            reason=reason,
            message=message,
            **counters(tally),
            rate=round(max(0, settled(tally) - base) / span, 1),
            lag=None if source is None else source.waiting,
            lag_by_partition={} if source is None else dict(source.parts),
            last_error="" if link is None else link.last_error,
            last_error_age=None if failed is None else round(time.time() - failed[1], 1),
            dead_letters=self.letters.get((half.namespace, half.trigger, half.function), 0),
            inbox=self.waiting[binding.name].events if binding.name in self.waiting else 0,
            seek=None if source is None or source.seek is None else seek_shape(source.seek),
        )

    def _standing(
        self,
        binding: Binding,
        status: TriggerStatus,
        source: SourceState | None,
        link: Link | None,
    ) -> tuple[str, str, str]:
        """State, reason and message of one binding. A trigger's own conditions speak for all its
        functions; here each answers for itself."""
        if binding.paused:
            return "Paused", "Paused", paused_message(source)
        if source is not None and source.attached is False:
            return "NotReady", source.reason, source.message
        problem = None if link is None else link.problem
        if problem is not None:
            return "NotReady", problem.reason, problem.message
        if source is None or source.attached is None:
            return "Connecting", "Connecting", "the listener is starting"
        if status.ready.status is State.FALSE and len(status.bindings) == 1:
            return "NotReady", status.ready.reason, status.ready.message
        reason, message = source.told
        return "Ready", reason if message else "Ready", message

    def _sample(self) -> None:
        sampled: dict[str, int] = {}
        now = time.time()
        failures = self._failures
        kept: dict[str, tuple[int, float]] = {}
        for link in self.dispatcher.links():
            if count := settled(link.tally):
                sampled[link.name] = count
            if link.last_error:
                attempts = link.tally.attempts
                failed = sum(attempts.values()) - attempts.get("2xx", 0)
                known = failures.get(link.name)
                kept[link.name] = known if known and known[0] == failed else (failed, now)
        self._failures = kept
        self._samples.append((time.monotonic(), sampled))

    async def whole(self, letter: DeadLetter) -> DeadLetter:
        """A dead letter with all its bytes, from where they lie. Raises ``Unreadable``."""
        lies = letter.elsewhere
        if lies is None:
            return letter
        # Any binding of the trigger: what it has of its source is the same.
        wanted = (lies.kind, letter.namespace, letter.trigger)
        for half in (binding.listening for binding in self._reconciler.bindings):
            if (half.kind, half.namespace, half.trigger) == wanted:
                return await Outlet(half, None, self._listeners).read_back(letter)
        raise Unreadable(
            f"{lies.kind} {letter.namespace}/{letter.trigger} is not bound, so it is not known "
            "how its system is reached"
        )

    async def count(self, *, only_if_quick: bool = False) -> None:
        """Count dead letters, and what waits in inboxes, now; ``only_if_quick``: unless that took
        long last time."""
        if only_if_quick and self._counting > _QUICK:
            return
        began = time.monotonic()
        # The last count stands while the store fails; who needs the store hears of it.
        with suppress(StoreError):
            self.letters = await self.store.dead_letters.counts()
            self.waiting = await self.store.waiting()
        self._counting = time.monotonic() - began

    async def _recount_for_ever(self) -> None:
        while True:
            self._recount.clear()
            await self.count()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(2 * _EVERY, _SPARING * self._counting)):
                    await self._recount.wait()
