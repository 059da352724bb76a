"""A subscription made by hand: the hub's half of the seam, scripted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from triggerhub.connector import (
    Connector,
    GivenBack,
    Intake,
    Order,
    Positions,
    Reference,
    Sought,
    Subscription,
)
from triggerhub.event import Event, Outcome, Settled
from triggerhub.testing.fakes import MemoryIntake, MemoryPositions

ACCEPTED = Outcome(Settled.ACCEPTED)

Handle = Callable[[Event], Awaitable[None]]


async def eventually(holds: Callable[[], bool], what: str, within: float = 60.0) -> None:
    """Wait until it holds; fail with ``what`` after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(0.02)


class FakeEmit:
    """Notes every event; ``handle`` may wait, or raise ``GivenBack``. Accepts what it returns."""

    def __init__(self, handle: Handle | None = None) -> None:
        self.handle = handle
        self.outcome = ACCEPTED
        self.begun: list[Event] = []
        self.accepted: list[Event] = []
        self._released: asyncio.Future[None] | None = None

    async def __call__(self, event: Event) -> Outcome:
        self.begun.append(event)
        if self.handle is not None:
            await self.handle(event)
        self.accepted.append(event)
        return self.outcome

    def release(self) -> None:
        if self._released is not None and not self._released.done():
            self._released.set_result(None)

    def resume(self) -> None:
        self._released = None

    async def retry_for_ever(self) -> None:
        """What a delivery does whose function is away: give back when the listener stops."""
        if self._released is None:
            self._released = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._released)
        raise GivenBack

    def data(self) -> list[bytes]:
        return [event.data for event in self.accepted]


class FakeReport:
    """``states`` holds ``Connected`` or the reason of each report, in order."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.messages: list[str] = []
        self.lags: list[float] = []
        self.seeks: list[Sought] = []
        self.parts: dict[str, float] = {}

    def connected(self, reason: str = "Connected", message: str = "") -> None:
        self.states.append("Connected")
        self.messages.append(message)

    def disconnected(self, reason: str, message: str = "") -> None:
        self.states.append(reason)
        self.messages.append(message)

    def lag(self, events: float, parts: Mapping[str, float] | None = None) -> None:
        self.lags.append(events)
        self.parts = dict(parts or {})

    def turned_away(self, reason: str) -> None: ...

    def sought(self, seek: Sought) -> None:
        self.seeks.append(seek)

    @property
    def state(self) -> str:
        return self.states[-1] if self.states else ""


class FakeProgress:
    """What a replay said of itself."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, str, str]] = []
        self.marks: list[tuple[int, str]] = []

    def window(self, size: int, until: str, note: str = "") -> None:
        self.windows.append((size, until, note))

    def reached(self, size: int, since: str) -> None:
        self.marks.append((size, since))


class Listening:
    """One ``listen`` under way."""

    def __init__(self, emit: FakeEmit, report: FakeReport, task: asyncio.Task[None]) -> None:
        self.emit = emit
        self.report = report
        self.task = task

    async def connected(self, within: float = 60.0) -> None:
        await self.state("Connected", within)

    async def state(self, state: str, within: float = 60.0, *, ends: bool = False) -> None:
        """``ends``: the listener may have raised."""

        def reached() -> bool:
            if self.task.done() and not ends:
                self.task.result()
            return self.report.state == state

        await eventually(reached, f"{state}; was {self.report.states}", within)

    async def accepted(self, number: int, within: float = 60.0) -> None:
        def reached() -> bool:
            if self.task.done():
                self.task.result()
            return len(self.emit.accepted) >= number

        await eventually(reached, f"{number} events accepted", within)

    async def stop(self) -> float:
        """Cancel, and return how many seconds the end took."""
        began = time.monotonic()
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.result()
        return time.monotonic() - began


@asynccontextmanager
async def listening(
    connector: Connector[Any],
    source: BaseModel,
    *,
    name: str = "shop.orders.handle",
    handle: Handle | None = None,
    emit: FakeEmit | None = None,
    order: Order = Order.KEY,
    in_flight: int = 64,
    grace: float = 5.0,
    values: Mapping[Reference, bytes] | None = None,
    inbox: Intake | None = None,
    positions: Positions | None = None,
) -> AsyncIterator[Listening]:
    """Listen until the block is left."""
    namespace, trigger, function = name.split(".")
    report = FakeReport()
    emit = FakeEmit(handle) if emit is None else emit
    subscription = Subscription(
        name=name,
        namespace=namespace,
        trigger=trigger,
        function=function,
        source=source,
        emit=emit,
        order=order,
        in_flight=in_flight,
        grace=grace,
        positions=MemoryPositions() if positions is None else positions,
        inbox=MemoryIntake() if inbox is None else inbox,
        report=report,
        created=datetime.now(UTC),
        values=values or {},
    )
    running = Listening(emit, report, asyncio.create_task(connector.listen(subscription)))
    try:
        yield running
    finally:
        running.task.cancel()
        await asyncio.wait([running.task])
