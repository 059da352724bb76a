"""What is past goes along its binding once more, beside the live stream; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes import Answer, MemoryStore, ScriptedFunction, Sent, refused
from triggerhub.connector import GivenBack, Order
from triggerhub.control.binding import Listening
from triggerhub.control.replays import MOST, Refused, Replays, Standing, Wish
from triggerhub.control.report import SourceState
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.retry import Policy
from triggerhub.delivery.target import Target
from triggerhub.event import Event, Settled
from triggerhub.testing.fakes import subscription
from triggerhub.testing.memory import MemoryConnector, MemoryLog, MemorySource

pytestmark = pytest.mark.looptime

NAME = "shop.orders.f"
MARK = "ce-triggerhubreplay"
TARGET = Target(
    namespace="shop", trigger="orders", function="f", url="http://f.test/in",
    retry=Policy(attempts=3, initial=1.0, max=2.0, max_age=3600.0),
)  # fmt: skip
ALL = Wish(since="0", until=None)


class Plane:
    """Replays over the real dispatcher, a scripted function and a log in memory."""

    def __init__(self, answer: Callable[[Sent], Answer] | None = None, records: int = 20) -> None:
        self.function = ScriptedFunction(answer)
        self.store = MemoryStore()
        self.dispatcher = Dispatcher(self.function, self.store)
        self.dispatcher.rebind([TARGET])
        self.log = MemoryLog("orders")
        for n in range(records):
            self.log.append(b"%d" % n, f"k{n % 4}")
        self.broken: Exception | None = None
        self.can = True
        self.replays = Replays(self, self.dispatcher)
        self.seen: list[Standing] = []

    async def connector(self, kind: str) -> Any:
        if not self.can:
            return object()
        return MemoryConnector({} if self.broken else {"orders": self.log})

    def subscription(self, listening: Listening, state: SourceState) -> Any:
        made = subscription(
            listening.source, name=listening.name, in_flight=listening.in_flight, grace=5.0
        )
        return replace(made, report=state, emit=self.dispatcher.link(listening.name))

    async def replay(self, wish: Wish = ALL, name: str = NAME, in_flight: int = 8) -> Standing:
        await self.replays.replay(half(name, in_flight), wish, self.seen.append)
        return self.seen[-1]

    def ids(self) -> list[str]:
        return [sent.id for sent in self.function.sent]

    def conserved(self) -> bool:
        t = self.dispatcher.link(NAME).tally
        ended = t.accepted + t.filtered + t.dead + t.dropped + t.given_back
        return t.received == ended + t.in_flight


def half(name: str = NAME, in_flight: int = 8) -> Listening:
    namespace, trigger, function = name.split(".")
    return Listening(
        name=name, kind="MemoryTrigger", namespace=namespace, trigger=trigger, function=function,
        source=MemorySource(log="orders"), order=Order.KEY, in_flight=in_flight,
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


@asynccontextmanager
async def plane(
    answer: Callable[[Sent], Answer] | None = None, records: int = 20
) -> AsyncIterator[Plane]:
    made = Plane(answer, records)
    async with made.replays:
        yield made


async def test_a_window_is_sent_under_the_first_identities_and_marked_as_a_replay() -> None:
    async with plane() as it:
        standing = await it.replay(Wish(since="5", until="15"))
        assert sorted(it.ids(), key=int) == [str(n) for n in range(5, 15)]
        assert {sent.fields["ce-source"] for sent in it.function.sent} == {"/memory/orders"}
        assert {sent.fields[MARK] for sent in it.function.sent} == {standing.id}
        assert (standing.size, standing.done, standing.since, standing.until) == (
            10, 10, "15", "15",
        )  # fmt: skip
        assert standing.outcomes == {"accepted": 10}


async def test_it_counts_with_its_binding_and_what_is_counted_adds_up() -> None:
    def answer(sent: Sent) -> Answer:
        return 422 if sent.id == "3" else 200

    async with plane(answer) as it:
        await it.dispatcher.dispatch(NAME, Event(id="live", source="/s", type="t"))
        standing = await it.replay()
        tally = it.dispatcher.link(NAME).tally
        assert (tally.received, tally.accepted, tally.dead) == (21, 20, 1)
        assert it.conserved()
        assert standing.outcomes == {"accepted": 19, "dead": 1}
        (letter,) = it.store.dead_letters.letters.values()
        assert (letter.event.id, letter.reason) == ("3", "Rejected")
        assert letter.event.extensions == {"triggerhubreplay": standing.id}


async def test_order_of_keys_and_retries_are_those_of_the_binding_and_half_is_in_flight() -> None:
    def answer(sent: Sent) -> Answer:
        if sent.id == "0" and sent.fields["triggerhub-attempt"] == "1":
            return 500
        return 0.1

    async with plane(answer) as it:
        await it.replay(in_flight=6)
        assert it.function.most == 3
        for key in range(4):
            own = [int(i) for i in dict.fromkeys(it.ids()) if int(i) % 4 == key]
            assert own == sorted(own)
        assert it.ids().count("0") == 2


async def test_it_is_not_faster_than_asked_for() -> None:
    async with plane() as it:
        await it.replay(Wish(since="0", until=None, rate=2.0))
        times = [sent.time for sent in it.function.sent]
        assert 9.4 < times[-1] - times[0] < 9.6


async def test_while_the_function_is_away_it_waits_and_says_so() -> None:
    away = True

    def answer(sent: Sent) -> Answer:
        return refused() if away else 200

    async with plane(answer) as it:
        replaying = asyncio.create_task(it.replay())
        await asyncio.sleep(300)
        assert it.seen[0].trouble.startswith("FunctionAway: ")
        assert it.seen[0].done == 0
        away = False
        standing = await replaying
        assert standing.trouble == ""
        assert standing.outcomes == {"accepted": 20}


async def test_the_live_stream_keeps_what_waits_when_a_replay_is_ended() -> None:
    async with plane(lambda sent: 503) as it:
        live = asyncio.create_task(
            it.dispatcher.dispatch(NAME, Event(id="live", source="/s", type="t"))
        )
        replaying = asyncio.create_task(it.replay())
        await asyncio.sleep(60)
        loop = asyncio.get_running_loop()
        replaying.cancel()
        ended = loop.time()
        await asyncio.wait([replaying])
        assert replaying.cancelled()
        assert loop.time() - ended < 1.0, "what waits between attempts is given back at once"
        assert not live.done()
        assert it.conserved()
        assert it.dispatcher.link(NAME).tally.in_flight == 1
        it.function.answer = lambda sent: 200
        assert (await live).settled is Settled.ACCEPTED


async def test_one_that_is_ended_lets_its_attempts_end_and_knows_how_far_it_came() -> None:
    async with plane(lambda sent: 1.0) as it:
        replaying = asyncio.create_task(it.replay(in_flight=2))
        await asyncio.sleep(5.5)
        replaying.cancel()
        await asyncio.wait([replaying])
        assert it.seen[0].since == "6"
        assert it.ids() == [str(n) for n in range(6)]


async def test_leaving_ends_those_under_way_and_says_why() -> None:
    it = Plane(lambda sent: 1.0)
    async with it.replays:
        replaying = asyncio.create_task(it.replay())
        await asyncio.sleep(2.5)
    with pytest.raises(GivenBack, match="the hub stops"):
        await replaying
    assert it.dispatcher.link(NAME).tally.in_flight == 0


async def test_it_ends_with_its_binding() -> None:
    async with plane(lambda sent: 503) as it:
        replaying = asyncio.create_task(it.replay())
        await asyncio.sleep(10)
        it.dispatcher.rebind([])
        with pytest.raises(GivenBack, match="not bound any more"):
            await replaying
        with pytest.raises(GivenBack):
            await it.replay()


async def test_it_follows_a_function_that_moves() -> None:
    async with plane(lambda sent: 503) as it:
        replaying = asyncio.create_task(it.replay())
        await asyncio.sleep(10)
        it.function.answer = lambda sent: 200
        it.dispatcher.rebind([replace(TARGET, url="http://other.test/")])
        await replaying
        assert it.function.sent[-1].url == "http://other.test/"


async def test_of_one_binding_there_is_one_and_of_all_there_are_a_few() -> None:
    async with plane(lambda sent: 100.0) as it:
        targets = [replace(TARGET, trigger=f"t{n}") for n in range(MOST + 1)]
        it.dispatcher.rebind(targets)
        names = [target.name for target in targets]
        running = [asyncio.create_task(it.replay(name=name)) for name in names[:MOST]]
        await asyncio.sleep(1)
        with pytest.raises(Refused, match="is under way") as refusal:
            await it.replay(name=names[0])
        assert refusal.value.busy
        with pytest.raises(Refused, match="4 replays"):
            await it.replay(name=names[-1])
        running[0].cancel()
        await asyncio.wait([running[0]])
        running[0] = asyncio.create_task(it.replay(name=names[-1]))
        await asyncio.sleep(1)
        assert not running[0].done()


async def test_a_source_that_cannot_is_refused_and_one_that_fails_says_why() -> None:
    async with plane() as it:
        with pytest.raises(ValueError, match="expected an offset"):
            await it.replay(Wish(since="yesterday", until=None))
        it.broken = OSError()
        with pytest.raises(ConnectionError, match="there is no log"):
            await it.replay()
        it.can = False
        with pytest.raises(Refused, match="a MemoryTrigger cannot send again"):
            await it.replay()
        assert it.function.sent == []
