"""What stands in for the hub when a connector is tested: emit, positions, report, subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel

from triggerhub.connector import (
    Fate,
    GivenBack,
    Intake,
    Order,
    Position,
    PositionConflict,
    Positions,
    Reference,
    Report,
    Sought,
    Subscription,
    Taken,
)
from triggerhub.event import Event, Outcome, Reply, Settled

S = TypeVar("S", bound=BaseModel)

Script = Callable[[Event], Awaitable[Outcome]]
"""What becomes of one event: returns its outcome, raises ``GivenBack``, or waits."""


def accepted(event: Event) -> Outcome:
    """The outcome of an accepted event; a synchronous request is answered 200 without a body."""
    return Outcome(Settled.ACCEPTED, None if event.request is None else Reply(200))


async def accept(event: Event) -> Outcome:
    """A script: accepted at once."""
    return accepted(event)


async def give_back(event: Event) -> Outcome:
    """A script: the binding is gone."""
    raise GivenBack(f"no function is bound for {event.id}")


def after(seconds: float) -> Script:
    """A script: accepted after so many seconds."""

    async def script(event: Event) -> Outcome:
        await asyncio.sleep(seconds)
        return accepted(event)

    return script


async def whole(event: Event) -> Event:
    """The event with all of its data, also where that was still to come."""
    request = event.request
    if request is None or request.rest is None:
        return event
    pieces = [event.data]
    while piece := await request.rest.read():
        pieces.append(piece)
    return replace(event, data=b"".join(pieces), request=replace(request, rest=None, length=None))


class Gate:
    """A script: an attempt under way that hangs until the gate opens; then accepted."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def __call__(self, event: Event) -> Outcome:
        await self._open.wait()
        return accepted(event)

    def open(self) -> None:
        """All that hang, and all that come later, are accepted."""
        self._open.set()


@dataclass(slots=True, eq=False)
class Call:
    """One delivery: how the connector called ``emit`` and how that ended."""

    event: Event
    ended: bool = False
    outcome: Outcome | None = None
    """None: under way, given back or cancelled."""

    @property
    def identity(self) -> tuple[str, str]:
        """CloudEvents' ``source`` and ``id``."""
        return self.event.source, self.event.id


class ScriptedEmit:
    """A subscription's ``emit`` that records every delivery. ``script`` says what becomes of
    each, and may be replaced at any time."""

    def __init__(
        self, script: Script = accept, *, on_begin: Callable[[Event], None] | None = None
    ) -> None:
        """``on_begin`` is called with each event before its script."""
        self.script = script
        self.calls: list[Call] = []
        """In the order in which they began."""
        self.settled: list[Call] = []
        """Those with an outcome, in the order in which they got it."""
        self.active = 0
        """How many are under way now."""
        self.most = 0
        """How many were under way at once, at most."""
        self._on_begin = on_begin
        self._released = asyncio.Event()
        self._changed: set[asyncio.Future[None]] = set()

    async def __call__(self, event: Event) -> Outcome:
        call = Call(await whole(event))
        self.calls.append(call)
        self.active += 1
        self.most = max(self.most, self.active)
        if self._on_begin is not None:
            self._on_begin(call.event)
        self.changed()
        try:
            call.outcome = await self.script(call.event)
            self.settled.append(call)
            return call.outcome
        finally:
            self.active -= 1
            call.ended = True
            self.changed()

    def release(self) -> None:
        """See ``Emit.release``."""
        self._released.set()

    def resume(self) -> None:
        """See ``Emit.resume``."""
        self._released.clear()

    async def between_attempts(self, event: Event) -> Outcome:
        """A script: the event waits for its next attempt until ``release`` gives it back."""
        await self._released.wait()
        raise GivenBack(f"{event.id} waited for another attempt")

    async def until(self, condition: Callable[[], bool], within: float) -> bool:
        """Wait until ``condition`` holds; it is asked again whenever a delivery begins or ends.
        False: it did not within so many seconds."""
        end = asyncio.get_running_loop().time() + within
        while not condition():
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.add(change)
            try:
                await asyncio.wait([change], timeout=left)
            finally:
                self._changed.discard(change)
        return True

    def changed(self) -> None:
        """Have the conditions of ``until`` asked again."""
        for change in self._changed:
            if not change.done():
                change.set_result(None)


class RecordingReport:
    """Keeps what a connector said of its source."""

    def __init__(self, on_change: Callable[[], None] | None = None) -> None:
        self.is_connected = False
        self.said: list[str] = []
        """``Connected`` or the reason of each ``disconnected``, in order."""
        self.message = ""
        """Of the last of both."""
        self.lags: list[float] = []
        self.seeks: list[Sought] = []
        self.turned: list[str] = []
        """Reasons why callers were refused."""
        self.parts: dict[str, float] = {}
        self._on_change = on_change

    def connected(self, reason: str = "Connected", message: str = "") -> None:
        """See ``Report.connected``."""
        self.is_connected = True
        self.message = message
        self._say("Connected")

    def disconnected(self, reason: str, message: str = "") -> None:
        """See ``Report.disconnected``."""
        self.is_connected = False
        self.message = message
        self._say(reason)

    def lag(self, events: float, parts: Mapping[str, float] | None = None) -> None:
        """See ``Report.lag``."""
        self.lags.append(events)
        self.parts = dict(parts or {})

    def turned_away(self, reason: str) -> None:
        """See ``Report.turned_away``."""
        self.turned.append(reason)

    def sought(self, seek: Sought) -> None:
        """See ``Report.sought``."""
        self.seeks.append(seek)
        if self._on_change is not None:
            self._on_change()

    def _say(self, word: str) -> None:
        self.said.append(word)
        if self._on_change is not None:
            self._on_change()


class MemoryStore:
    """What several processes share: one subscription's positions and claims, in memory."""

    def __init__(self) -> None:
        self.positions: dict[str, Position] = {}
        self.claims: dict[str, tuple[object, float]] = {}
        """Who holds a key, and until when in loop time."""
        self.failure: OSError | None = None
        """Set: every method raises it."""
        self.revision = 0
        self.inbox: dict[int, Event] = {}
        """What was put, by number."""


class MemoryPositions:
    """``Positions`` of one process; give each process its own, on one ``MemoryStore``."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = MemoryStore() if store is None else store

    async def load(self, prefix: str = "") -> dict[str, Position]:
        """See ``Positions.load``."""
        found = self._reached().positions
        return {key: value for key, value in found.items() if key.startswith(prefix)}

    async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
        """See ``Positions.save``."""
        store = self._reached()
        stored = store.positions.get(key)
        revision = 0 if stored is None else stored.revision
        if expect is not None and expect != revision:
            raise PositionConflict(f"{key} is at revision {revision}, expected {expect}")
        store.revision += 1
        store.positions[key] = Position(value, store.revision)
        return store.revision

    async def delete(self, key: str) -> None:
        """See ``Positions.delete``."""
        self._reached().positions.pop(key, None)

    async def claim(self, key: str, ttl: float) -> bool:
        """See ``Positions.claim``."""
        claims = self._reached().claims
        now = asyncio.get_running_loop().time()
        holder, until = claims.get(key, (self, 0.0))
        if holder is not self and until > now:
            return False
        claims[key] = (self, now + ttl)
        return True

    async def release(self, key: str) -> None:
        """See ``Positions.release``."""
        claims = self._reached().claims
        if key in claims and claims[key][0] is self:
            del claims[key]

    def _reached(self) -> MemoryStore:
        if self.store.failure is not None:
            raise self.store.failure
        return self.store


class MemoryIntake:
    """``Intake`` that delivers nothing: what is put lies in the store's ``inbox``. Windows do not
    end."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = MemoryStore() if store is None else store

    async def put(self, event: Event, *, window: float = 0.0) -> Taken:
        """See ``Intake.put``."""
        await asyncio.sleep(0)
        store = self.store
        if store.failure is not None:
            raise store.failure
        if window:
            for number, known in store.inbox.items():
                if (known.source, known.id) == (event.source, event.id):
                    return Taken(number, fresh=False)
        number = len(store.inbox) + 1
        store.inbox[number] = event
        return Taken(number)

    async def fate(
        self, event_id: str, source: str, taken: int, within: float = 0.0
    ) -> Fate | None:
        """See ``Intake.fate``."""
        await asyncio.sleep(within)
        return Fate(waits=True) if taken in self.store.inbox else None


def subscription(
    source: S,
    *,
    emit: ScriptedEmit | None = None,
    name: str = "test.trigger.function",
    order: Order = Order.KEY,
    in_flight: int = 64,
    grace: float = 1.0,
    positions: Positions | None = None,
    inbox: Intake | None = None,
    report: Report | None = None,
    values: Mapping[Reference, bytes] | None = None,
) -> Subscription[S]:
    """A subscription to ``source`` on fakes; ``grace`` in seconds, ``values`` what references
    stand for."""
    namespace, trigger, function = name.split(".")
    return Subscription(
        name=name,
        namespace=namespace,
        trigger=trigger,
        function=function,
        source=source,
        emit=ScriptedEmit() if emit is None else emit,
        order=order,
        in_flight=in_flight,
        grace=grace,
        positions=MemoryPositions() if positions is None else positions,
        inbox=MemoryIntake() if inbox is None else inbox,
        report=RecordingReport() if report is None else report,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        values=values or {},
    )
