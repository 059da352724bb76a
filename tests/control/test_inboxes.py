"""What waits in inboxes is delivered, in order, by one process at a time; in virtual time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes import MemoryInboxes, MemoryStore, ScriptedFunction, Sent, event, refused
from triggerhub.connector import InboxFull, Installation, Order, Positions, SourceModel
from triggerhub.control.binding import Listening
from triggerhub.control.inboxes import Inboxes
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import Kind
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.retry import Policy
from triggerhub.delivery.target import Format, OnExhausted, Target
from triggerhub.event import Request, Settled
from triggerhub.testing.fakes import MemoryPositions
from triggerhub.testing.fakes import MemoryStore as MemoryClaims

pytestmark = pytest.mark.looptime
NAME = "shop.orders.handle"


class Source(SourceModel):
    mode: str = "Async"

    @property
    def inboxed(self) -> bool:
        return self.mode == "Async"


class Idle:
    kind = "TestTrigger"
    source = Source

    def __init__(self, installation: Installation) -> None:
        pass

    async def listen(self, subscription: Any) -> None:
        subscription.report.connected()
        await asyncio.Event().wait()


HALF = Listening(
    name=NAME, kind="TestTrigger", namespace="shop", trigger="orders", function="handle",
    source=Source(), order=Order.KEY, in_flight=4, created=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
TARGET = Target(
    namespace="shop", trigger="orders", function="handle", url="http://f.test/", timeout=5.0,
    format=Format.BINARY, retry=Policy(attempts=3, initial=0.2, max=1.0, max_age=3600.0),
    on_exhausted=OnExhausted.DEAD_LETTER,
)  # fmt: skip


@dataclass
class Shared:
    """What the processes of a hub have in common."""

    inboxes: MemoryInboxes = field(default_factory=MemoryInboxes)
    claims: defaultdict[str, MemoryClaims] = field(
        default_factory=lambda: defaultdict(MemoryClaims)
    )


class Store(MemoryStore):
    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.inboxes = shared.inboxes.inboxes
        self._claims = shared.claims
        self._mine: dict[str, MemoryPositions] = {}

    def positions(self, subscription: str) -> Positions:
        return self._mine.setdefault(subscription, MemoryPositions(self._claims[subscription]))


@dataclass
class Process:
    function: ScriptedFunction
    dispatcher: Dispatcher
    listeners: Listeners
    store: Store

    @property
    def inboxes(self) -> Inboxes:
        return self.listeners.inboxes

    async def put(self, number: int, **more: Any) -> int:
        return (await self.inboxes.intake(NAME).put(event(number, **more))).number

    def ids(self) -> list[str]:
        return [sent.id for sent in self.function.sent]


@asynccontextmanager
async def process(
    shared: Shared | None = None, *, bound: bool = True, grace: float = 5.0
) -> AsyncIterator[Process]:
    kind: Any = Kind("TestTrigger", lambda: Idle)
    function, store = ScriptedFunction(), Store(shared or Shared())
    dispatcher = Dispatcher(function, store)
    dispatcher.rebind([TARGET])
    async with Listeners(
        {"TestTrigger": kind}, Installation(), dispatcher, store, grace=grace
    ) as listeners:
        listeners.converge([HALF] if bound else [])
        yield Process(function, dispatcher, listeners, store)


async def until(holds: Any, within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)


async def test_what_is_put_is_delivered_and_then_removed() -> None:
    async with process() as hub:
        for number in range(20):
            await hub.put(number)
        await until(lambda: len(hub.function.sent) == 20)
        await until(lambda: not hub.store.inbox(NAME).entries)
        assert hub.ids() == [str(number) for number in range(20)]
        tally = hub.dispatcher.link(NAME).tally
        assert (tally.received, tally.accepted) == (20, 20)


async def test_what_this_process_put_is_not_read_again() -> None:
    async with process() as hub:
        await hub.put(0)
        await until(lambda: len(hub.function.sent) == 1)
        reads = hub.store.inbox(NAME).reads
        for number in range(1, 101):
            await hub.put(number)
        await until(lambda: len(hub.function.sent) == 101)
        assert hub.store.inbox(NAME).reads - reads <= 2
        assert hub.ids() == [str(number) for number in range(101)]


async def test_what_no_request_can_be_made_of_is_put_aside_and_the_next_is_delivered() -> None:
    async with process() as hub:
        await hub.put(0, extensions={"tenant": 7})
        await hub.put(1)
        await until(lambda: hub.ids() == ["1"])
        await until(lambda: not hub.store.inbox(NAME).entries)
        (letter,) = hub.store.dead_letters.letters.values()
        assert (letter.event.id, letter.reason) == ("0", "Undecodable")


async def test_what_another_process_put_is_delivered_in_its_place() -> None:
    shared = Shared()
    async with process(shared) as one, process(shared) as two:
        for number in range(40):
            await (one, two)[number % 2].put(number, key="k")
        await until(lambda: len(one.function.sent) + len(two.function.sent) == 40)
        # The claim is one process's: all of one key goes through it.
        assert sorted([one.ids(), two.ids()]) == [[], [str(number) for number in range(40)]]


async def test_one_that_dies_is_replaced_within_15_s() -> None:
    shared = Shared()
    gone = MemoryPositions(shared.claims[f"inbox/{NAME}"])
    assert await gone.claim("inbox", 8.0)
    await shared.inboxes.inbox(NAME).put(event(1))
    began = asyncio.get_running_loop().time()
    async with process(shared) as hub:
        await until(lambda: hub.function.sent)
        assert 7.0 < asyncio.get_running_loop().time() - began < 15.0


async def test_a_claim_is_renewed_while_a_delivery_lasts() -> None:
    shared = Shared()
    async with process(shared) as one, process(shared) as two:
        one.function.answer = lambda sent: refused()
        await one.put(1)
        await until(lambda: one.function.sent)
        await asyncio.sleep(120.0)
        assert not two.function.sent
        one.function.answer = lambda sent: 200
        await until(lambda: not one.store.inbox(NAME).entries)
        assert not two.function.sent


async def test_an_idle_process_lets_another_have_the_inbox() -> None:
    shared = Shared()
    async with process(shared) as one, process(shared) as two:
        await one.put(1)
        await until(lambda: one.function.sent)
        await asyncio.sleep(10.0)
        await two.put(2)
        await until(lambda: two.function.sent, within=0.5)


async def test_what_was_not_settled_when_the_hub_stopped_is_delivered_by_the_next() -> None:
    shared = Shared()
    hang = asyncio.get_running_loop().create_future()
    async with process(shared, grace=1.0) as hub:
        hub.function.answer = lambda sent: hang if sent.id == "2" else 200
        for number in range(1, 4):
            await hub.put(number)
        await until(lambda: len(hub.function.sent) == 3)
    async with process(shared) as hub:
        await until(lambda: hub.function.sent)
        await asyncio.sleep(5.0)
        assert hub.ids() == ["2"]
        assert not hub.store.inbox(NAME).entries


async def test_a_paused_trigger_takes_events_in_and_holds_them() -> None:
    async with process(bound=False) as hub:
        hub.listeners.converge([], [HALF])
        await asyncio.sleep(0.1)
        state = hub.listeners.state(NAME)
        assert state is not None
        assert state.attached
        await hub.put(1)
        await asyncio.sleep(30.0)
        assert not hub.function.sent
        hub.listeners.converge([HALF])
        await until(lambda: hub.function.sent)
        assert hub.listeners.state(NAME) is state


async def test_a_paused_trigger_that_delivers_at_once_does_not_listen() -> None:
    async with process(bound=False) as hub:
        hub.listeners.converge([], [replace(HALF, source=Source(mode="Sync"))])
        await asyncio.sleep(0.1)
        assert hub.listeners.state(NAME) is None


async def test_what_is_unbound_waits_and_is_counted() -> None:
    async with process(bound=False) as hub:
        await hub.put(1)
        await asyncio.sleep(30.0)
        assert not hub.function.sent
        assert hub.inboxes.waiting[NAME].events == 1
        hub.listeners.converge([HALF])
        await until(lambda: hub.function.sent)


async def test_a_listener_that_stops_beside_it_only_interrupts_it() -> None:
    async with process() as hub:
        hub.function.answer = lambda sent: refused()
        for number in range(3):
            await hub.put(number, key="k")
        await until(lambda: hub.function.sent)
        link = hub.dispatcher.link(NAME)
        link.release()
        await asyncio.sleep(5.0)
        link.resume()
        hub.function.answer = lambda sent: 200
        sent = len(hub.function.sent)
        await until(lambda: not hub.store.inbox(NAME).entries)
        assert hub.ids()[sent:] == ["0", "1", "2"]


async def test_what_could_not_be_removed_is_not_sent_again() -> None:
    async with process() as hub:
        inbox = hub.store.inbox(NAME)
        await hub.put(0)
        await until(lambda: hub.function.sent)
        await hub.put(1)
        inbox.trouble = "the disk is full"
        await until(lambda: len(hub.function.sent) == 2)
        hub.dispatcher.link(NAME).release()
        hub.dispatcher.link(NAME).resume()
        await asyncio.sleep(20.0)
        inbox.trouble = ""
        await until(lambda: not inbox.entries)
        assert hub.ids() == ["0", "1"]


async def test_a_store_that_fails_is_told_once_and_tried_again() -> None:
    async with process() as hub:
        await hub.put(0)
        with capture_logs() as logs:
            hub.store.inbox(NAME).trouble = "the disk is gone"
            await asyncio.sleep(20.0)
            hub.store.inbox(NAME).trouble = ""
            await until(lambda: hub.function.sent)
        told = [line for line in logs if line["event"] == "inbox.interrupted"]
        assert [line["error"] for line in told] == ["the disk is gone"]


async def test_a_failing_event_becomes_a_dead_letter_as_any_other() -> None:
    async with process() as hub:
        hub.function.answer = lambda sent: 500
        await hub.put(1)
        await until(lambda: hub.store.dead_letters.letters)
        await until(lambda: not hub.store.inbox(NAME).entries)
        assert [sent.fields["triggerhub-attempt"] for sent in hub.function.sent] == ["1", "2", "3"]


async def test_a_request_goes_to_the_function_as_it_came_with_retries() -> None:
    answers = iter([503, 200])
    seen: list[Sent] = []

    def answer(sent: Sent) -> int:
        seen.append(sent)
        return next(answers)

    asked = Request(
        method="PUT", path="/7", query="a=1", headers=((b"x-github-event", b"push"),),
        deferred=True,
    )  # fmt: skip
    async with process() as hub:
        hub.function.answer = answer
        await hub.put(1, request=asked)
        await until(lambda: not hub.store.inbox(NAME).entries)
    assert [sent.fields["x-github-event"] for sent in seen] == ["push", "push"]
    assert [sent.fields["triggerhub-attempt"] for sent in seen] == ["1", "2"]


async def test_a_repeat_within_the_window_is_not_delivered_again() -> None:
    async with process() as hub:
        intake = hub.inboxes.intake(NAME)
        first = await intake.put(event(1), window=60.0)
        await until(lambda: hub.function.sent)
        again = await intake.put(event(1), window=60.0)
        assert (again.number, again.fresh) == (first.number, False)
        await asyncio.sleep(5.0)
        assert hub.ids() == ["1"]


async def test_the_fate_of_an_event_is_told_while_it_waits_and_afterwards() -> None:
    async with process() as hub:
        hub.function.answer = lambda sent: refused() if sent.id == "1" else 400
        intake = hub.inboxes.intake(NAME)
        waits, dies = await hub.put(1), await hub.put(2)
        await until(lambda: len(hub.store.inbox(NAME).entries) == 1)
        waiting = await intake.fate("1", "/test", waits)
        assert waiting is not None
        assert (waiting.waits, waiting.settled) == (True, None)
        assert waiting.attempts > 0
        dead = await intake.fate("2", "/test", dies)
        assert dead is not None
        assert (dead.waits, dead.settled, dead.attempts) == (False, Settled.DEAD, 1)
        assert await intake.fate("3", "/test", dies + 1) is None


async def test_one_can_wait_for_an_outcome_but_not_for_longer_than_that() -> None:
    loop = asyncio.get_running_loop()
    async with process() as hub:
        intake = hub.inboxes.intake(NAME)
        hub.function.answer = lambda sent: 2.0 if sent.id == "1" else refused()
        began = loop.time()
        number = await hub.put(1)
        fate = await intake.fate("1", "/test", number, within=30.0)
        assert fate is not None
        assert fate.settled is Settled.ACCEPTED
        assert loop.time() - began < 3.0
        began = loop.time()
        number = await hub.put(2)
        fate = await intake.fate("2", "/test", number, within=3.0)
        assert fate is not None
        assert fate.waits
        assert 3.0 <= loop.time() - began < 4.0


async def test_one_can_wait_for_the_outcome_in_another_process() -> None:
    shared = Shared()
    async with process(shared) as one, process(shared) as two:
        await one.put(1)
        await until(lambda: one.function.sent)
        one.function.answer = lambda sent: 4.0
        number = await two.put(2)
        fate = await two.inboxes.intake(NAME).fate("2", "/test", number, within=30.0)
        assert fate is not None
        assert not fate.waits
        assert not two.function.sent


async def test_a_full_inbox_is_told_to_the_listener() -> None:
    async with process(bound=False) as hub:
        hub.store.inbox(NAME).most = 1
        await hub.put(1)
        with pytest.raises(InboxFull):
            await hub.put(2)
