"""What must be written elsewhere before an event is settled, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tests.fakes import Answer, MemoryStore, ScriptedFunction, Sent, event
from triggerhub.connector import GivenBack, NotTaken
from triggerhub.delivery.link import LARGEST_REPLY, Link
from triggerhub.delivery.retry import Policy
from triggerhub.delivery.target import Target
from triggerhub.event import Event, Origin, Reply, Settled
from triggerhub.store.records import DeadLetter, Elsewhere

pytestmark = pytest.mark.looptime

TARGET = Target(
    namespace="shop", trigger="orders", function="f", url="http://f.test/in", timeout=5.0,
    retry=Policy(attempts=4, initial=1.0, max=60.0, max_age=3600.0),
)  # fmt: skip


@dataclass(eq=False)
class Cellar:
    """Takes dead letters and answers, unless there is trouble."""

    laid: list[DeadLetter] = field(default_factory=list)
    replies: list[tuple[str, bytes]] = field(default_factory=list)
    trouble: NotTaken | None = None
    picky: bool = False

    async def lay_down(self, letter: DeadLetter) -> Elsewhere:
        if self.trouble is not None:
            raise self.trouble
        self.laid.append(letter)
        return Elsewhere(kind="K", coordinates={"n": str(len(self.laid))}, size=1)

    async def reply(self, event: Event, reply: Reply) -> None:
        if self.trouble is not None:
            raise self.trouble
        if self.picky and reply.body == b"large":
            raise NotTaken("too large: make room", refused=True)
        self.replies.append((event.id, reply.body))


class Bench:
    def __init__(self, answer: Callable[[Sent], Answer]) -> None:
        self.function = ScriptedFunction(answer)
        self.store = MemoryStore()
        self.cellar = Cellar()
        self.link = Link(TARGET.name, self.function, self.store)

    def aim(self, **changes: object) -> Bench:
        self.link.aim(replace(TARGET, **changes))  # type: ignore[arg-type]
        return self

    @property
    def problem(self) -> str:
        return "" if self.link.problem is None else self.link.problem.reason


def burying(answer: Answer = 422) -> Bench:
    bench = Bench(lambda sent: answer)
    return bench.aim(letters=bench.cellar)


def answering(answer: Callable[[Sent], Answer]) -> Bench:
    bench = Bench(answer)
    return bench.aim(replies=bench.cellar)


async def test_the_store_keeps_an_entry_of_a_letter_that_lies_elsewhere() -> None:
    bench = burying()
    origin = Origin(coordinates={"offset": "3"}, key=b"k", headers=(("h", b"v"),), value=b"x")
    one = event(origin=lambda: origin, extensions={"a": "b"})
    assert (await bench.link(one)).settled is Settled.DEAD
    (laid,) = bench.cellar.laid
    assert (laid.event.data, laid.origin) == (b"x", origin)
    (entry,) = bench.store.dead_letters.letters.values()
    assert entry.elsewhere == Elsewhere(kind="K", coordinates={"n": "1"}, size=1)
    assert (entry.event.data, entry.event.extensions, entry.origin) == (b"", {}, Origin())
    assert (entry.id, entry.event.id, entry.reason) == (laid.id, "1", "Rejected")
    assert bench.store.journal.noted[0].dead_letter == laid.id


async def test_a_letter_that_its_place_does_not_take_waits_and_says_why() -> None:
    bench = burying()
    bench.cellar.trouble = NotTaken("topic dead does not exist: create it", refused=True)
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(500)
    assert not call.done()
    assert bench.link.problem is not None
    assert bench.link.problem.reason == "DeadLetterUnavailable"
    assert "topic dead does not exist: create it" in bench.link.problem.message
    assert bench.store.dead_letters.letters == {}
    bench.cellar.trouble = None
    await asyncio.sleep(61)
    assert call.result().settled is Settled.DEAD
    assert bench.problem == ""
    assert len(bench.function.sent) == 1


async def test_a_letter_that_got_there_is_not_written_again_while_its_entry_cannot_be() -> None:
    bench = burying()
    bench.store.dead_letters.trouble = "disk full"
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(500)
    assert not call.done()
    assert bench.problem == "DeadLetterUnavailable"
    bench.aim()  # now to the store: it lies there all the same
    bench.store.dead_letters.trouble = ""
    await asyncio.sleep(61)
    assert call.result().settled is Settled.DEAD
    assert len(bench.cellar.laid) == 1
    (entry,) = bench.store.dead_letters.letters.values()
    assert entry.elsewhere is not None


async def test_a_place_that_is_changed_meanwhile_gets_the_letter() -> None:
    bench = burying()
    bench.cellar.trouble = NotTaken("away")
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(500)
    bench.aim()
    await asyncio.sleep(61)
    assert call.result().settled is Settled.DEAD
    (letter,) = bench.store.dead_letters.letters.values()
    assert (letter.elsewhere, letter.event.data) == (None, b"x")


async def test_an_answer_is_written_before_its_event_is_settled() -> None:
    bench = answering(lambda sent: Reply(200, (), b"done"))
    bench.cellar.trouble = NotTaken("no broker answers")
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(500)
    assert not call.done()
    assert bench.problem == "ReplyUnavailable"
    assert (bench.link.tally.accepted, bench.link.tally.in_flight) == (0, 1)
    bench.cellar.trouble = None
    await asyncio.sleep(61)
    assert call.result().settled is Settled.ACCEPTED
    assert bench.cellar.replies == [("1", b"done")]
    assert len(bench.function.sent) == 1
    assert (bench.problem, bench.link.tally.accepted) == ("", 1)


async def test_an_answer_without_a_body_writes_nothing() -> None:
    bench = answering(lambda sent: 204)
    bench.cellar.trouble = NotTaken("no broker answers")
    assert (await bench.link(event())).settled is Settled.ACCEPTED


async def test_the_answer_to_a_later_attempt_is_written_too() -> None:
    def script(sent: Sent) -> Answer:
        late = sent.fields["triggerhub-attempt"] == "3"
        return Reply(200, (), b"at last") if late else Reply(500, (), b"not yet")

    bench = answering(script)
    assert (await bench.link(event())).settled is Settled.ACCEPTED
    assert bench.cellar.replies == [("1", b"at last")]


async def test_a_refused_answer_is_told_until_the_last_of_them_is_written() -> None:
    bench = answering(lambda sent: Reply(200, (), b"large" if sent.id in "12" else b"small"))
    bench.cellar.picky = True
    calls = [asyncio.create_task(bench.link(event(n))) for n in (1, 2)]
    await asyncio.sleep(500)
    assert bench.problem == "ReplyRefused"
    assert (await bench.link(event(3))).settled is Settled.ACCEPTED
    assert bench.problem == "ReplyRefused"
    calls[0].cancel()
    await asyncio.wait(calls[:1])
    assert bench.problem == "ReplyRefused"
    bench.cellar.picky = False
    await asyncio.sleep(61)
    assert calls[1].result().settled is Settled.ACCEPTED
    assert bench.problem == ""


async def test_an_answer_that_is_too_large_fails_the_attempt() -> None:
    bench = answering(lambda sent: Reply(200, (), b"the beginning", truncated=True))
    assert (await bench.link(event())).settled is Settled.DEAD
    (letter,) = bench.store.dead_letters.letters.values()
    assert (letter.reason, letter.attempts) == ("AttemptsExhausted", 4)
    assert letter.detail == f"the answer is larger than {LARGEST_REPLY} bytes"
    assert bench.cellar.replies == []


async def test_a_dead_letter_keeps_the_head_of_a_refusal_however_much_was_read_of_it() -> None:
    bench = answering(lambda sent: Reply(422, (), b"x" * 5000))
    assert (await bench.link(event())).settled is Settled.DEAD
    (letter,) = bench.store.dead_letters.letters.values()
    assert letter.last_response == b"x" * 1024


async def test_what_waits_for_its_answer_is_given_back_when_the_listener_stops() -> None:
    bench = answering(lambda sent: Reply(200, (), b"done"))
    bench.cellar.trouble = NotTaken("no broker answers")
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(500)
    bench.link.release()
    await asyncio.wait([call], timeout=1)
    assert isinstance(call.exception(), GivenBack)
    assert bench.link.tally.given_back == 1
    assert bench.problem == ""
