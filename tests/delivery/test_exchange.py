"""Answers that reach their caller while they come: told in order, counted when they have ended."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import pytest

from tests.delivery.test_link import Bench
from tests.fakes import event
from triggerhub.delivery.failures import Interrupted
from triggerhub.delivery.transport import BrokenReply
from triggerhub.event import Event, Reply, Request, Settled


@dataclass
class Pieces:
    """What follows of a body; an error breaks it off, and without either it never ends."""

    left: deque[bytes | Exception]
    closed: bool = False

    async def read(self) -> bytes:
        if not self.left:
            await asyncio.get_running_loop().create_future()
        piece = self.left.popleft()
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed = True


@dataclass
class Listening:
    """A caller."""

    heard: list[bytes] = field(default_factory=list)

    async def begin(self, reply: Reply) -> None:
        self.heard += [b"%d" % reply.status, reply.body]

    async def take(self, piece: bytes) -> None:
        await asyncio.sleep(0)
        self.heard.append(piece)

    async def end(self) -> None:
        self.heard.append(b"end")


def asked(status: int, *left: bytes | Exception) -> tuple[Bench, Pieces, Listening, Event]:
    rest, caller = Pieces(deque(left)), Listening()
    bench = Bench(lambda sent: Reply(status, (), b"1", rest=rest))
    return bench, rest, caller, event(request=Request(method="GET", caller=caller))


@pytest.mark.parametrize("status", [200, 404])
async def test_an_answer_is_told_as_it_comes_and_counts_when_it_has_ended(status: int) -> None:
    bench, rest, caller, one = asked(status, b"2", b"3", b"")
    outcome = await bench.link(one)
    assert caller.heard == [b"%d" % status, b"1", b"2", b"3", b"end"]
    assert rest.closed
    tally = bench.link.tally
    assert outcome.settled is (Settled.ACCEPTED if status == 200 else None)
    assert (tally.accepted, tally.given_back) == ((1, 0) if status == 200 else (0, 1))
    assert tally.attempts == {f"{status // 100}xx": 1}


async def test_an_answer_that_breaks_off_has_no_end_and_is_no_answer() -> None:
    bench, rest, caller, one = asked(200, b"2", BrokenReply("cut"))
    outcome = await bench.link(one)
    assert outcome.settled is None
    assert caller.heard == [b"200", b"1", b"2"]
    assert rest.closed
    assert (bench.link.tally.given_back, bench.link.tally.attempts) == (1, {"none": 1})
    (delivery,) = bench.link.tally.deliveries("")
    assert "cut" in delivery.detail


async def test_an_answer_is_under_way_until_its_caller_goes_away_within_it() -> None:
    bench, rest, caller, one = asked(200, b"2")
    call = asyncio.create_task(bench.link(one))
    while len(caller.heard) < 3:
        await asyncio.sleep(0)
    assert bench.link.tally.in_flight == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert rest.closed
    tally = bench.link.tally
    assert (tally.in_flight, tally.given_back, tally.attempts) == (0, 1, {"2xx": 1})
    (delivery,) = tally.deliveries("")
    assert "before its answer had ended" in delivery.detail


async def test_what_a_callers_body_raises_is_raised_and_says_nothing_about_the_function() -> None:
    bench = Bench(lambda sent: Interrupted(KeyError("the body is too long")))
    with pytest.raises(KeyError, match="too long"):
        await bench.link(event(request=Request(method="POST", caller=Listening())))
    tally = bench.link.tally
    assert (tally.in_flight, tally.given_back, tally.attempts) == (0, 1, {"none": 1})
    (delivery,) = tally.deliveries("")
    assert delivery.detail.endswith("the body is too long', before there was an answer")
    assert bench.link.problem is None
