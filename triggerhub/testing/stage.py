"""Runs a connector's listeners for the conformance kit and watches every event they emit."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from triggerhub.connector import Connector, GivenBack, Order
from triggerhub.event import Event, Outcome
from triggerhub.sentence import leaf
from triggerhub.testing.fakes import (
    MemoryPositions,
    MemoryStore,
    RecordingReport,
    Script,
    ScriptedEmit,
    accept,
    subscription,
)
from triggerhub.testing.harness import Feature, Harness, Sample

S = TypeVar("S", bound=BaseModel)

_EXTENSION = re.compile("[a-z0-9]+")


class Stage(Generic[S]):
    """Where one promise is tried: a place in the source, one subscription's name and positions,
    and what was seen of its events."""

    def __init__(self, harness: Harness[S], name: str, place: S) -> None:
        self.harness = harness
        self.place = place
        self.name = name
        self.sent = 0
        self.store = MemoryStore()
        self.identities: dict[tuple[str, str], bytes] = {}
        self.first_identity: dict[bytes, tuple[str, str]] = {}

    def has(self, feature: Feature) -> bool:
        return feature in self.harness.features

    async def send(self, *keys: str | None) -> list[Sample]:
        """Produce one event for each key, with data of its own."""
        samples = [
            Sample(
                f"{self.name}-{self.sent + n}".encode(), key if self.has(Feature.KEYED) else None
            )
            for n, key in enumerate(keys)
        ]
        return await self.produce(samples)

    async def produce(self, samples: Sequence[Sample]) -> list[Sample]:
        self.sent += len(samples)
        expected = list(await self.harness.produce(self.place, samples))
        if not self.has(Feature.CARRIES_DATA):
            assert len({sample.data for sample in expected}) <= 1, (
                "the harness returns samples of different data, so it must name CARRIES_DATA"
            )
        return expected

    @asynccontextmanager
    async def process(self, connector: Connector[S] | None = None) -> AsyncIterator[Connector[S]]:
        """One process of the hub: a connector of its own, opened as the hub does."""
        made = self.harness.connector() if connector is None else connector
        if not isinstance(made, AbstractAsyncContextManager):
            yield made
            return
        broken: AssertionError | None = None
        try:
            async with made:
                try:
                    yield made
                except AssertionError as error:
                    # Its own task group would wrap what this check found.
                    broken = error
        finally:
            if broken is not None:
                raise broken

    @asynccontextmanager
    async def listening(
        self,
        connector: Connector[S],
        script: Script = accept,
        *,
        in_flight: int = 8,
        grace: float | None = None,
    ) -> AsyncIterator[Run[S]]:
        """A listener that is connected; at the end of the block it is stopped."""
        run = Run(self, connector, script, in_flight, grace)
        try:
            await run.connect()
            yield run
            await run.stop()
        finally:
            await run.kill()

    @asynccontextmanager
    async def restarted(self, script: Script = accept) -> AsyncIterator[Run[S]]:
        """A listener in a new process."""
        async with self.process() as connector, self.listening(connector, script) as run:
            yield run

    def seen(self, event: Event) -> str:
        """Remember an event. Returns what is wrong with it, or nothing."""
        identity = (event.source, event.id)
        known = self.identities.setdefault(identity, event.data)
        if self.has(Feature.CARRIES_DATA):
            if known != event.data:
                return (
                    f"two different events bear the identity {identity}: "
                    f"{brief(known)} and {brief(event.data)}"
                )
            first = self.first_identity.setdefault(event.data, identity)
            if first != identity:
                return f"{brief(event.data)} came as {first}, and again as {identity}"
        elif known != event.data:
            return f"{identity} came again with other data"
        return _misformed(event) or (
            f"{identity} has the key {event.key!r}, and the harness does not name KEYED"
            if event.key is not None and not self.has(Feature.KEYED)
            else ""
        )


class Run(Generic[S]):
    """One call of ``listen``, with a scripted emit."""

    def __init__(
        self,
        stage: Stage[S],
        connector: Connector[S],
        script: Script,
        in_flight: int,
        grace: float | None,
    ) -> None:
        self.stage = stage
        self.harness = stage.harness
        self.grace = self.harness.quiet if grace is None else grace
        self.faults: list[str] = []
        self._stopped = False
        self.script = script
        self.in_flight = in_flight
        self._keys: Counter[str | None] = Counter()
        self.emit = ScriptedEmit(self._deliver, on_begin=self._begin)
        self.report = RecordingReport(self.emit.changed)
        self.task = asyncio.ensure_future(
            connector.listen(
                subscription(
                    stage.place,
                    emit=self.emit,
                    name=f"conformance.{stage.name}.function",
                    order=Order.KEY,
                    in_flight=in_flight,
                    grace=self.grace,
                    positions=MemoryPositions(stage.store),
                    report=self.report,
                )
            )
        )
        self.task.add_done_callback(lambda task: self.emit.changed())

    async def connect(self) -> None:
        """Wait until the source is attached."""
        if await self._wait(lambda: self.report.is_connected):
            return
        self._assert_alive()
        await self.stage.send(None)
        await self._wait(lambda: bool(self.emit.calls))
        await asyncio.sleep(self.harness.quiet)
        raise AssertionError(
            "report.connected() was not called before the first event"
            if self.report.is_connected
            else f"report.connected() was not called within {self.harness.patience:g} s "
            f"(the connector said: {', '.join(self.report.said) or 'nothing'})"
        )

    async def until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Wait, with the harness's patience, for a condition on the deliveries."""
        held = await self._wait(condition)
        self.check()
        if not held:
            self._assert_alive()
            raise AssertionError(f"{otherwise} within {self.harness.patience:g} s")

    async def begun(self, samples: Sequence[Sample], otherwise: str = "") -> None:
        """Wait until these events were emitted."""
        await self.until(
            lambda: not self.missing(samples),
            otherwise or f"of {len(samples)} events that were sent, not all arrived",
        )

    def missing(self, samples: Sequence[Sample]) -> list[bytes]:
        """The data of those that were not emitted in this run."""
        if not self.stage.has(Feature.CARRIES_DATA):
            came = len({call.identity for call in self.emit.calls})
            return [sample.data for sample in samples[came:]]
        have = {call.event.data for call in self.emit.calls}
        return [sample.data for sample in samples if sample.data not in have]

    async def watch(self) -> None:
        """Let happen what must not happen."""
        await asyncio.sleep(self.harness.quiet)
        self.check()

    def check(self) -> None:
        """Raise for the first event that was not as it must be."""
        assert not self.faults, self.faults[0]

    async def stop(self, within: float | None = None) -> None:
        """Cancel the listener, as the hub does. ``within``: seconds beyond the harness's margin
        (default: the grace time)."""
        if self._stopped or (self.task.done() and self._gave_back()):
            self.check()
            return
        self._stopped = True
        self._assert_alive()
        limit = (self.grace if within is None else within) + self.harness.margin
        self.task.cancel()
        await asyncio.wait([self.task], timeout=limit)
        self.check()
        assert self.task.done(), f"listen did not end within {limit:g} s of being cancelled"
        assert self.task.cancelled(), f"listen was cancelled, and {self._ending()}"
        assert not self.emit.active, (
            f"listen ended and left {self.emit.active} deliveries under way behind"
        )

    async def kill(self) -> None:
        """End the listener however bad it is, so that the check can say what was wrong."""
        for _ in range(10):
            if self.task.done():
                return
            self.task.cancel()
            await asyncio.wait([self.task], timeout=self.grace + 0.2)

    async def _wait(self, condition: Callable[[], bool]) -> bool:
        await self.emit.until(
            lambda: condition() or bool(self.faults) or self.task.done(), self.harness.patience
        )
        return condition()

    def _begin(self, event: Event) -> None:
        if "Connected" not in self.report.said:
            self.faults.append("report.connected() was not called before the first event")
        if self.emit.active > self.in_flight:
            self.faults.append(
                f"in_flight is {self.in_flight}, and {self.emit.active} deliveries were under way "
                "at once"
            )
        if event.type != self.harness.event_type:
            self.faults.append(
                f"an event has the type {event.type!r}, expected {self.harness.event_type!r}"
            )
        fault = self.stage.seen(event)
        if fault:
            self.faults.append(fault)
        if event.key is not None and self._keys[event.key]:
            self.faults.append(f"two events of the key {event.key!r} were under way at once")

    async def _deliver(self, event: Event) -> Outcome:
        self._keys[event.key] += 1
        try:
            return await self.script(event)
        finally:
            self._keys[event.key] -= 1

    def _assert_alive(self) -> None:
        self.check()
        assert not self.task.done(), f"nobody stopped listen, and {self._ending()}"

    def _gave_back(self) -> bool:
        """Ending by itself is right after an event was given back."""
        error = None if self.task.cancelled() else self.task.exception()
        return error is not None and isinstance(leaf(error), GivenBack)

    def _ending(self) -> str:
        if self.task.cancelled():
            return "it ended as if it had been"
        error = self.task.exception()
        return "it returned" if error is None else f"it raised {error!r}"


def brief(data: bytes) -> str:
    """Data for an error message."""
    return f"{data!r}" if len(data) <= 40 else f"{data[:40]!r}… ({len(data)} bytes)"


def _misformed(event: Event) -> str:
    """What CloudEvents 1.0, section 3, does not allow, or nothing."""
    if not (event.id and event.source and event.type):
        return f"an event lacks id, source or type: {event.id!r}, {event.source!r}, {event.type!r}"
    if event.time is not None and event.time.tzinfo is None:
        return f"{event.id}: its time {event.time} has no time zone"
    for name in event.extensions:
        if not _EXTENSION.fullmatch(name):
            return f"{event.id}: extension {name!r} must be of a-z and 0-9"
    return ""


AnyStage = Stage[Any]
AnyRun = Run[Any]
