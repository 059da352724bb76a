"""Exactly the bound sources are listened to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import structlog
from pydantic import BaseModel

from triggerhub.backoff import backoff
from triggerhub.connector import (
    Cleanup,
    Connector,
    GivenBack,
    Installation,
    SpecError,
    Subscription,
    alone,
    at_once,
)
from triggerhub.control.binding import Listening
from triggerhub.control.connectors import Connectors
from triggerhub.control.inboxes import Inboxes
from triggerhub.control.kinds import offered
from triggerhub.control.plugins import Kind
from triggerhub.control.report import SourceState
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.link import unheard
from triggerhub.sentence import leaf
from triggerhub.store.records import Store

log = structlog.get_logger()

FIRST_WAIT = 0.2
LONGEST_WAIT = 30.0
HEALTHY = 60.0
"""Seconds of listening after which a failure begins the backoff anew."""


@dataclass(slots=True)
class _Slot:
    listening: Listening
    paused: bool
    """Only its seek is done."""
    state: SourceState
    task: asyncio.Task[None]


def to_be_sought(source: BaseModel) -> bool:
    """Its positions are to be moved, which is done while it is paused, too."""
    return offered(source, "seek") is not None


def inboxed(source: BaseModel) -> bool:
    """All its events go into the inbox: it goes on while it is paused."""
    return getattr(source, "inboxed", False) is True


def to_be_cleaned(source: BaseModel | None) -> bool:
    """What its source keeps for a binding is to go with the trigger."""
    return offered(source, "cleanup") is Cleanup.DELETE


async def _seek(connector: Connector[Any], subscription: Subscription[Any]) -> None:
    seek = getattr(connector, "seek", None)
    if seek is not None:
        await seek(subscription)


class Listeners:
    """An async context manager; leaving it stops every listener and what feeds on an inbox (they
    drain), and then the connectors."""

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        installation: Installation,
        dispatcher: Dispatcher,
        store: Store,
        *,
        grace: float = 25.0,
        own: Callable[[], Awaitable[None]] = alone,
        turn: Callable[[], Awaitable[float]] = at_once,
        changed: Callable[[str], None] = unheard,
    ) -> None:
        """``grace``: seconds that in-flight deliveries get when a listener stops. ``own`` waits
        until no other process of this hub uses its positions, ``turn`` until this one acts for
        its replicas (``Subscription``). ``changed`` is called with a binding's name when its
        source stands otherwise than before."""
        self._connectors = Connectors(kinds, installation)
        self._dispatcher = dispatcher
        self._store = store
        self._grace = grace
        self._own = own
        self._turn = turn
        self._changed = changed
        self._slots: dict[str, _Slot] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self.inboxes = Inboxes(self._feeding, dispatcher, store)
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Listeners:
        await self._connectors.__aenter__()
        await self.inboxes.__aenter__()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.converge(())
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            await self.inboxes.__aexit__(None, None, None)
            await self._connectors.__aexit__(None, None, None)

    def converge(self, wanted: Iterable[Listening], paused: Iterable[Listening] = ()) -> None:
        """From now on listen to exactly these. Returns at once; of one name, the new listener
        starts when the old one has drained, and no other listener waits for that. Of those that
        are ``paused``, only the seek is done, and what goes into an inbox waits there."""
        wanted = tuple(wanted)
        self.inboxes.converge(wanted)
        table = {listening.name: (listening, False) for listening in wanted}
        for half in paused:
            if to_be_sought(half.source) or inboxed(half.source):
                table[half.name] = (half, not inboxed(half.source))
        for name, slot in list(self._slots.items()):
            if table.get(name) != (slot.listening, slot.paused):
                self._stop(name, slot)
        for name, (listening, is_paused) in table.items():
            if name not in self._slots:
                self._start(listening, paused=is_paused)

    def resign(self) -> None:
        """This process acts for its replicas no longer: what acts for them drains, and waits for
        it anew."""
        for name, slot in list(self._slots.items()):
            if slot.state.acting:
                self._stop(name, slot)
                self._start(slot.listening, paused=slot.paused)

    def state(self, name: str) -> SourceState | None:
        """None: nothing is listened to under this name."""
        slot = self._slots.get(name)
        return None if slot is None else slot.state

    def idle(self, names: Iterable[str]) -> bool:
        """Nothing is listened to under any of these names, or still drains."""
        return not any(name in self._slots or name in self._stopping for name in names)

    async def clean_up(self, listening: Listening) -> None:
        """Remove what a source and the store keep for a binding that is listened to no longer.

        Raises what the connector raises; it may be called again.
        """
        connector, subscription = await self.reach(listening)
        clean_up = getattr(connector, "clean_up", None)
        if clean_up is not None:
            await clean_up(subscription)
        for key in await subscription.positions.load():
            await subscription.positions.delete(key)

    async def reach(self, listening: Listening) -> tuple[Connector[Any], Subscription[Any]]:
        """The connector of a binding's kind, opened where it is not, and what it is given of the
        binding. Raises ``NotTaken`` when the connectors are closed, or about to be."""
        connector = await self.connector(listening.kind)
        return connector, self.subscription(listening, SourceState(listening.name))

    def settled(self) -> bool:
        """Every listener has reported: it is attached, or it said why not."""
        return all(slot.paused or slot.state.attached is not None for slot in self._slots.values())

    def _start(self, listening: Listening, *, paused: bool) -> None:
        name = listening.name
        state = SourceState(name, changed=self._changed)
        task = self._tasks.create_task(
            self._tend(listening, state, self._stopping.get(name), paused=paused), name=name
        )
        self._slots[name] = _Slot(listening, paused, state, task)
        self._changed(name)

    def _stop(self, name: str, slot: _Slot) -> None:
        del self._slots[name]
        slot.task.cancel()
        self._stopping[name] = slot.task
        slot.task.add_done_callback(lambda task: self._stopped(name, task))

    def _stopped(self, name: str, task: asyncio.Task[None]) -> None:
        if self._stopping.get(name) is task:
            del self._stopping[name]
            self._changed(name)

    async def _tend(
        self,
        listening: Listening,
        state: SourceState,
        before: asyncio.Task[None] | None,
        *,
        paused: bool,
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        connector = await self.connector(listening.kind)
        subscription = self.subscription(listening, state)
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started = loop.time()
            try:
                if paused:
                    await _seek(connector, subscription)
                    state.connected()
                    return
                await connector.listen(subscription)
                state.disconnected("SourceEnded", "the source ended; it is opened again")
            except SpecError as error:
                state.disconnected("InvalidSource", str(error))
                state.refused = True
                await asyncio.Event().wait()
            except GivenBack:
                # The binding goes: converge cancels this listener next.
                state.disconnected("Unbound", "the function went away")
            except Exception as error:  # noqa: BLE001 - a connector's errors are its source's state
                self._failed(listening, state, error)
            failures = 1 if loop.time() - started > HEALTHY else failures + 1
            await asyncio.sleep(backoff(failures, FIRST_WAIT, LONGEST_WAIT))

    def _failed(self, listening: Listening, state: SourceState, error: Exception) -> None:
        first = leaf(error)
        message = str(first) or type(first).__name__
        if not isinstance(first, OSError | ValueError) and state.message != message:
            log.warning("listener.failed", binding=listening.name, error=message, exc_info=True)
        # A reason that the connector itself gave says more than that it failed.
        state.disconnected(state.reason if state.attached is False else "SourceFailed", message)

    def subscription(self, listening: Listening, state: SourceState) -> Subscription[Any]:
        """As the connector is given it; ``state`` is told how the source is."""

        async def turn() -> float:
            since = await self._turn()
            state.acting = True
            return since

        async def own() -> None:
            await self._own()
            state.acting = True

        return Subscription(
            name=listening.name,
            namespace=listening.namespace,
            trigger=listening.trigger,
            function=listening.function,
            source=listening.source,
            emit=self._dispatcher.link(listening.name),
            order=listening.order,
            in_flight=listening.in_flight,
            grace=self._grace,
            positions=self._store.positions(listening.name),
            inbox=self.inboxes.intake(listening.name),
            report=state,
            created=listening.created,
            values=listening.values,
            own=alone if self._own is alone else own,
            turn=turn,
        )

    def _feeding(self, listening: Listening) -> Subscription[Any]:
        return self.subscription(listening, SourceState(listening.name))

    async def connector(self, kind: str) -> Connector[Any]:
        """The one of that kind. Raises ``NotTaken`` when the hub is about to end."""
        return await self._connectors.of(kind)
