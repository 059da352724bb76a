"""The conformance kit: a good connector passes, and bad ones fail by the right sentence."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import ClassVar

import pytest

from triggerhub.connector import (
    Connector,
    Emit,
    GivenBack,
    Letter,
    LetterPlaces,
    Order,
    Sought,
    Subscription,
)
from triggerhub.event import Event, Origin, Outcome
from triggerhub.testing import Conformance, Feature, Harness, Result, Sample, check_connector
from triggerhub.testing.memory import MemoryConnector, MemoryLog, MemorySource
from triggerhub.window import OffsetTracker, Window

pytestmark = pytest.mark.looptime

ALL = frozenset({Feature.CARRIES_DATA, Feature.KEYED, Feature.KEEPS, Feature.REPLAYS})

Factory = Callable[[dict[str, MemoryLog]], Connector[MemorySource]]


class MemoryHarness(Harness[MemorySource]):
    event_type = "dev.triggerhub.memory.record"

    def __init__(self, factory: Factory, features: frozenset[Feature] = ALL) -> None:
        self.features = features
        self.logs: dict[str, MemoryLog] = {}
        self._factory = factory
        self._numbers = itertools.count()

    def connector(self) -> Connector[MemorySource]:
        return self._factory(self.logs)

    async def place(self) -> MemorySource:
        name = f"log-{next(self._numbers)}"
        self.logs[name] = MemoryLog(name)
        return MemorySource(log=name)

    async def produce(self, place: MemorySource, samples: Sequence[Sample]) -> Sequence[Sample]:
        for sample in samples:
            self.logs[place.log].append(sample.data, sample.key)
        return samples

    def unreachable(self) -> tuple[Connector[MemorySource], MemorySource] | None:
        return self._factory(self.logs), MemorySource(log="no such log")


class Altered(MemoryConnector):
    """Listens through another subscription or emit than the good one's."""

    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        await super().listen(replace(subscription, emit=Through(subscription.emit, self.deliver)))

    async def deliver(self, emit: Emit, event: Event) -> Outcome:
        return await emit(event)


class Through:
    """An emit that passes on what a bad connector does to it."""

    def __init__(self, emit: Emit, deliver: Callable[[Emit, Event], object]) -> None:
        self._emit = emit
        self._deliver = deliver
        self.release, self.resume = emit.release, emit.resume

    async def __call__(self, event: Event) -> Outcome:
        outcome = await self._deliver(self._emit, event)  # type: ignore[misc]
        assert isinstance(outcome, Outcome)
        return outcome


class Reader(MemoryConnector):
    """The good connector's loop, open to being spoilt."""

    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        log = self._logs.get(subscription.source.log)
        if log is None:
            raise ConnectionError("no such log")
        async with Window(self.window_of(subscription)) as window:
            subscription.report.connected()
            await self.read(subscription, log, window)

    def window_of(self, subscription: Subscription[MemorySource]) -> Subscription[MemorySource]:
        return subscription

    async def read(
        self, subscription: Subscription[MemorySource], log: MemoryLog, window: Window
    ) -> None:
        tracker = OffsetTracker()
        offset = log.committed.setdefault(subscription.name, len(log.records))
        while True:
            key, data = await log.read(offset)
            tracker.begin(offset)
            await window.put(
                self.event(log, offset, key, data),
                partial(self.settle, subscription, log, tracker, offset),
                log.name,
            )
            self.taken(subscription, log, offset)
            offset += 1

    def event(self, log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
        return Event(
            id=str(offset),
            source=f"/memory/{log.name}",
            type="dev.triggerhub.memory.record",
            data=data,
            key=key,
        )

    def taken(self, subscription: Subscription[MemorySource], log: MemoryLog, at: int) -> None: ...

    def settle(
        self,
        subscription: Subscription[MemorySource],
        log: MemoryLog,
        tracker: OffsetTracker,
        offset: int,
        outcome: Outcome,
    ) -> None:
        tracker.settle(offset)
        position = tracker.committable()
        assert position is not None
        log.committed[subscription.name] = position


class AcksBeforeItSettles(Reader):
    def taken(self, subscription: Subscription[MemorySource], log: MemoryLog, at: int) -> None:
        log.committed[subscription.name] = at + 1

    def settle(
        self,
        subscription: Subscription[MemorySource],
        log: MemoryLog,
        tracker: OffsetTracker,
        offset: int,
        outcome: Outcome,
    ) -> None: ...


class CommitsPastTheUnsettled(Reader):
    def settle(
        self,
        subscription: Subscription[MemorySource],
        log: MemoryLog,
        tracker: OffsetTracker,
        offset: int,
        outcome: Outcome,
    ) -> None:
        log.committed[subscription.name] = max(log.committed[subscription.name], offset + 1)


class ForgetsItsPosition(Reader):
    def settle(
        self,
        subscription: Subscription[MemorySource],
        log: MemoryLog,
        tracker: OffsetTracker,
        offset: int,
        outcome: Outcome,
    ) -> None: ...


class BeginsAtTheEnd(Reader):
    async def read(
        self, subscription: Subscription[MemorySource], log: MemoryLog, window: Window
    ) -> None:
        log.committed[subscription.name] = len(log.records)
        await super().read(subscription, log, window)


class FreshIdEachTime(Reader):
    numbers = itertools.count()

    def event(self, log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
        return replace(super().event(log, offset, key, data), id=str(next(self.numbers)))


class OneIdForAll(Reader):
    def event(self, log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
        return replace(super().event(log, offset, key, data), id="same")


class IgnoresKeyOrder(Reader):
    def window_of(self, subscription: Subscription[MemorySource]) -> Subscription[MemorySource]:
        return replace(subscription, order=Order.NONE)


class OneAtATime(Reader):
    def window_of(self, subscription: Subscription[MemorySource]) -> Subscription[MemorySource]:
        return replace(subscription, order=Order.PARTITION)


class ExceedsInFlight(Reader):
    def window_of(self, subscription: Subscription[MemorySource]) -> Subscription[MemorySource]:
        return replace(subscription, in_flight=2 * subscription.in_flight)


class CutsAttemptsOff(Reader):
    def window_of(self, subscription: Subscription[MemorySource]) -> Subscription[MemorySource]:
        return replace(subscription, grace=0.0)


class ChangesTheData(Reader):
    def event(self, log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
        text = data.decode(errors="replace").encode()
        return super().event(log, offset, key, text)


class LosesTheKey(Reader):
    def event(self, log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
        return super().event(log, offset, None, data)


class SkipsTheEmpty(Reader):
    def event(self, log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
        return super().event(log, offset, key, data or b"null")


class BadExtension(Reader):
    def event(self, log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
        return replace(super().event(log, offset, key, data), extensions={"memory-log": log.name})


class DropsTheTail(Reader):
    async def read(
        self, subscription: Subscription[MemorySource], log: MemoryLog, window: Window
    ) -> None:
        try:
            await super().read(subscription, log, window)
        finally:
            unsettled = log.committed[subscription.name]
            if len(log.records) - unsettled > 4 or unsettled == 1:
                # What the window was still holding is forgotten.
                log.committed[subscription.name] = len(log.records)


class IgnoresGrace(MemoryConnector):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        await super().listen(replace(subscription, grace=3600.0))


class SwallowsCancellation(MemoryConnector):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        try:
            await super().listen(subscription)
        except asyncio.CancelledError:
            return


class GoesOnWhenCancelled(MemoryConnector):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        try:
            await super().listen(subscription)
        except asyncio.CancelledError:
            await super().listen(subscription)


class HangsOnCancel(MemoryConnector):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        try:
            await super().listen(subscription)
        finally:
            await asyncio.sleep(100_000)


class RaisesOnCancel(MemoryConnector):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        try:
            await super().listen(subscription)
        except asyncio.CancelledError:
            raise ConnectionResetError("broker hung up") from None


class NeverConnected(MemoryConnector):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        report = subscription.report
        await super().listen(replace(subscription, report=Muted(report)))


class Muted:
    def __init__(self, report: object) -> None: ...

    def connected(self, reason: str = "Connected", message: str = "") -> None: ...

    def disconnected(self, reason: str, message: str = "") -> None: ...

    def lag(self, events: float, parts: object = None) -> None: ...
    def turned_away(self, reason: str) -> None: ...
    def sought(self, seek: Sought) -> None: ...


class ConnectedAfterEvents(Altered):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        self.report = subscription.report
        await super().listen(replace(subscription, report=Muted(subscription.report)))

    async def deliver(self, emit: Emit, event: Event) -> Outcome:
        outcome = await emit(event)
        self.report.connected()
        return outcome


class TreatsGivenBackAsSettled(Altered):
    async def deliver(self, emit: Emit, event: Event) -> Outcome:
        try:
            return await emit(event)
        except GivenBack:
            return Outcome(None)


class CommitsWhatIsGivenBack(Altered):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        self.name, self.log = subscription.name, self._logs.get(subscription.source.log)
        await super().listen(subscription)

    async def deliver(self, emit: Emit, event: Event) -> Outcome:
        try:
            return await emit(event)
        except GivenBack:
            assert self.log is not None
            self.log.committed[self.name] = len(self.log.records)
            raise


class ReturnsWhenUnreachable(MemoryConnector):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        if subscription.source.log in self._logs:
            await super().listen(subscription)


class HangsWhenUnreachable(MemoryConnector):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        if subscription.source.log not in self._logs:
            await asyncio.Event().wait()
        await super().listen(subscription)


class LeavesDeliveriesBehind(Altered):
    def __init__(self, logs: dict[str, MemoryLog]) -> None:
        super().__init__(logs)
        self.behind: list[asyncio.Future[Outcome]] = []

    async def deliver(self, emit: Emit, event: Event) -> Outcome:
        self.behind.append(asyncio.ensure_future(emit(event)))
        return await asyncio.shield(self.behind[-1])


STOPPED = "was not settled (its listener was stopped while it was under way)"

BAD: list[tuple[Factory, str]] = [
    (AcksBeforeItSettles, f"{STOPPED}, and did not come again"),
    (CommitsPastTheUnsettled, f"{STOPPED}, and did not come again"),
    (ForgetsItsPosition, "was settled, and came again after a restart"),
    (BeginsAtTheEnd, "what was produced while nobody listened did not arrive"),
    (FreshIdEachTime, ", and again as ("),
    (OneIdForAll, "two different events bear the identity"),
    (IgnoresKeyOrder, "were under way at once"),
    (OneAtATime, "one event hung, and others, of other keys, did not go on"),
    (ExceedsInFlight, "in_flight is 1, and 2 deliveries were under way at once"),
    (CutsAttemptsOff, "an attempt under way was cut off"),
    (ChangesTheData, "nobody sent the data"),
    (SkipsTheEmpty, "nobody sent the data b'null'"),
    (LosesTheKey, "with the key None"),
    (BadExtension, "extension 'memory-log' must be of a-z and 0-9"),
    (DropsTheTail, "events that waited when the listener was stopped did not come again"),
    (IgnoresGrace, "listen did not end within"),
    (SwallowsCancellation, "listen was cancelled, and it returned"),
    (GoesOnWhenCancelled, "listen did not end within"),
    (HangsOnCancel, "listen did not end within"),
    (RaisesOnCancel, "listen was cancelled, and it raised ConnectionResetError"),
    (NeverConnected, "report.connected() was not called within 10 s"),
    (ConnectedAfterEvents, "report.connected() was not called before the first event"),
    (TreatsGivenBackAsSettled, "was given back, and ("),
    (CommitsWhatIsGivenBack, "was not settled (emit raised GivenBack), and did not come again"),
    (LeavesDeliveriesBehind, "listen ended and left 1 deliveries under way behind"),
    (ReturnsWhenUnreachable, "listen returned, though its source cannot be reached"),
    (HangsWhenUnreachable, "listen did not raise within 10 s of a source"),
]  # fmt: skip


@pytest.mark.parametrize("factory", [MemoryConnector, Altered, Reader])
async def test_a_good_connector_keeps_every_promise(factory: Factory) -> None:
    found = await check_connector(MemoryHarness(factory))
    assert isinstance(found, Conformance)
    open_ones = {result.promise: result.reason for result in found.results if not result.held}
    assert open_ones == {
        "who sent an event that was not settled is told": "the harness does not name ANSWERS",
        "a dead letter comes back as it was": "the harness names no place for them",
        "several processes share a subscription": "the harness does not name SHARES",
    }


@pytest.mark.parametrize(("factory", "sentence"), BAD)
async def test_a_bad_connector_fails_by_the_right_sentence(factory: Factory, sentence: str) -> None:
    with pytest.raises(AssertionError) as caught:
        await check_connector(MemoryHarness(factory))
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("MemoryTrigger breaks its contract: ")


class Server(IgnoresGrace):
    """Shares something among its subscriptions, in a task group of its own."""

    async def __aenter__(self) -> Server:
        self.tasks = asyncio.TaskGroup()
        await self.tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.tasks.__aexit__(kind, error, trace)


async def test_a_connector_that_is_a_context_manager_does_not_wrap_the_sentence() -> None:
    with pytest.raises(AssertionError, match="listen did not end within"):
        await check_connector(MemoryHarness(Server))


class TakesTurns(MemoryConnector):
    """Of several processes the one that holds the claim reads; another takes over."""

    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        if subscription.source.log not in self._logs:
            raise ConnectionError("no such log")
        subscription.report.connected()
        while not await subscription.positions.claim("reader", 60.0):
            await asyncio.sleep(0.1)
        try:
            await super().listen(subscription)
        finally:
            await subscription.positions.release("reader")


class NeverTakesOver(TakesTurns):
    async def listen(self, subscription: Subscription[MemorySource]) -> None:
        if not await subscription.positions.claim("reader", 60.0):
            subscription.report.connected()
            await asyncio.Event().wait()
        await super().listen(subscription)


class Logs(LetterPlaces):
    log: str | None = None


class Burying(MemoryConnector):
    """Keeps dead letters in a list."""

    dead_letter = Logs
    laid: ClassVar[list[Letter]] = []

    async def lay_down(
        self, subscription: Subscription[MemorySource], place: Logs, letter: Letter
    ) -> Mapping[str, str]:
        self.laid.append(letter)
        return {"number": str(len(self.laid) - 1)}

    async def read_back(
        self, subscription: Subscription[MemorySource], coordinates: Mapping[str, str]
    ) -> Event:
        letter = self.laid[int(coordinates["number"])]
        return replace(letter.event, origin=lambda: letter.origin)


class ForgetsKeys(Burying):
    async def read_back(
        self, subscription: Subscription[MemorySource], coordinates: Mapping[str, str]
    ) -> Event:
        return replace(await super().read_back(subscription, coordinates), key=None)


class StripsData(Burying):
    async def lay_down(
        self, subscription: Subscription[MemorySource], place: Logs, letter: Letter
    ) -> Mapping[str, str]:
        stripped = replace(letter.event, data=letter.event.data.strip())
        return await super().lay_down(subscription, place, replace(letter, event=stripped))


class Renames(Burying):
    async def read_back(
        self, subscription: Subscription[MemorySource], coordinates: Mapping[str, str]
    ) -> Event:
        return replace(await super().read_back(subscription, coordinates), source="/dead")


class LosesTheirOrigin(Burying):
    async def read_back(
        self, subscription: Subscription[MemorySource], coordinates: Mapping[str, str]
    ) -> Event:
        return replace(
            await super().read_back(subscription, coordinates), origin=lambda: Origin(key=b"other")
        )


class PutsAllInOnePlace(Burying):
    async def lay_down(
        self, subscription: Subscription[MemorySource], place: Logs, letter: Letter
    ) -> Mapping[str, str]:
        await super().lay_down(subscription, place, letter)
        return {"number": "0"}


def burying(factory: Factory) -> MemoryHarness:
    harness = MemoryHarness(factory)
    harness.letters = Logs(log="dead")
    Burying.laid.clear()
    return harness


async def test_a_connector_that_takes_dead_letters_passes() -> None:
    found = await check_connector(burying(Burying))
    assert Result("a dead letter comes back as it was", held=True) in found.results
    assert Burying.laid


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (ForgetsKeys, "came back as Event("),
        (StripsData, "came back with"),
        (Renames, "came back as ('/dead', "),
        (LosesTheirOrigin, "came back with the origin Origin("),
        (PutsAllInOnePlace, "two letters lie in {'number': '0'}"),
    ],
)
async def test_a_connector_that_keeps_dead_letters_badly_fails(
    factory: Factory, sentence: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        await check_connector(burying(factory))
    assert sentence in str(caught.value)


async def test_processes_that_share_a_subscription_pass() -> None:
    found = await check_connector(MemoryHarness(TakesTurns, ALL | {Feature.SHARES}))
    assert found.results[-1].promise == "several processes share a subscription"
    assert found.results[-1].held


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (MemoryConnector, "was settled in one process, and came to the other as well"),
        (NeverTakesOver, "one process left, and the other did not go on"),
    ],
)
async def test_processes_that_share_badly_fail(factory: Factory, sentence: str) -> None:
    harness = MemoryHarness(factory, ALL | {Feature.SHARES})
    with pytest.raises(AssertionError) as caught:
        await check_connector(harness)
    assert sentence in str(caught.value)


async def test_a_source_of_fewer_features_passes_and_says_what_it_lacks() -> None:
    found = await check_connector(MemoryHarness(MemoryConnector, frozenset({Feature.CARRIES_DATA})))
    report = str(found)
    assert report.startswith("Conformance of MemoryTrigger (CARRIES_DATA)\n")
    assert "  held            what was settled does not come again\n" in report
    for promise, lacking in [
        ("key order holds, and a slow key delays only itself", "does not name KEYED"),
        ("what was not settled comes again, under the same identity", "does not name REPLAYS"),
        (
            "an event given back is not settled",
            "names neither REPLAYS nor ANSWERS: the event is lost",
        ),
        ("what is produced while nobody listens is there for the next listen", "not name KEEPS"),
    ]:
        assert any(
            line.startswith(f"  not applicable  {promise}: ") and line.endswith(lacking)
            for line in report.splitlines()
        ), report


class Unkeyed(Reader):
    def event(self, log: MemoryLog, offset: int, key: str | None, data: bytes) -> Event:
        return super().event(log, offset, "key", data)


@pytest.mark.parametrize(
    ("factory", "features", "error", "sentence"),
    [
        (MemoryConnector, {Feature.KEYED}, ValueError, "KEYED needs CARRIES_DATA"),
        (Unkeyed, {Feature.CARRIES_DATA}, AssertionError, "the harness does not name KEYED"),
        (MemoryConnector, set(), AssertionError, "so it must name CARRIES_DATA"),
    ],
)
async def test_a_harness_that_hides_a_feature_is_found_out(
    factory: Factory, features: set[Feature], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        await check_connector(MemoryHarness(factory, frozenset(features)))
    assert sentence in str(caught.value)


@pytest.mark.looptime(False)
def test_the_kit_needs_neither_pytest_nor_virtual_time() -> None:
    harness = MemoryHarness(MemoryConnector)
    harness.quiet, harness.margin, harness.patience = 0.02, 0.2, 2.0
    harness.unreachable = lambda: None  # type: ignore[method-assign]
    assert asyncio.run(check_connector(harness)).kind == "MemoryTrigger"
