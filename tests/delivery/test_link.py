"""Deliveries of one binding, in virtual time: a day of backoff in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fakes import Answer, MemoryStore, ScriptedFunction, Sent, event, refused
from triggerhub.connector import GivenBack
from triggerhub.delivery.link import Link
from triggerhub.delivery.retry import Policy
from triggerhub.delivery.target import OnExhausted, Target
from triggerhub.delivery.transport import BrokenReply
from triggerhub.event import Headers, Origin, Outcome, Reply, Request, Settled

pytestmark = pytest.mark.looptime

TARGET = Target(
    namespace="shop", trigger="orders", function="f", url="http://f.test/in", timeout=5.0,
    retry=Policy(attempts=4, initial=1.0, max=60.0, max_age=3600.0),
)  # fmt: skip


class Bench:
    def __init__(self, answer: Callable[[Sent], Answer], target: Target = TARGET) -> None:
        self.function = ScriptedFunction(answer)
        self.store = MemoryStore()
        self.link = Link(target.name, self.function, self.store)
        self.link.aim(target)

    @property
    def letters(self) -> list[str]:
        return [letter.event.id for letter in self.store.dead_letters.letters.values()]

    def conserved(self) -> bool:
        t = self.link.tally
        ended = t.accepted + t.filtered + t.dead + t.dropped + t.given_back
        return t.received == ended + t.in_flight


def by_attempt(*answers: Answer) -> Callable[[Sent], Answer]:
    """The n-th attempt for each event gets the n-th answer; the last one goes on."""
    return lambda sent: answers[min(int(sent.fields["triggerhub-attempt"]), len(answers)) - 1]


async def test_an_accepted_event_takes_one_attempt_and_leaves_no_trace() -> None:
    bench = Bench(lambda sent: 204)
    assert await bench.link(event()) == Outcome(Settled.ACCEPTED)
    assert len(bench.function.sent) == 1
    assert bench.link.tally.accepted == 1
    assert bench.store.journal.noted == []
    (known,) = bench.link.tally.deliveries("b")
    assert (known.id, known.settled, known.attempts[0].status) == ("1", Settled.ACCEPTED, 204)


async def test_a_failed_event_is_tried_again_and_each_attempt_bears_its_number() -> None:
    bench = Bench(by_attempt(500, 409, 200))
    assert (await bench.link(event())).settled is Settled.ACCEPTED
    assert [s.fields["triggerhub-attempt"] for s in bench.function.sent] == ["1", "2", "3"]
    assert len({s.fields["idempotency-key"] for s in bench.function.sent}) == 1
    (noted,) = bench.store.journal.noted
    assert [a.status for a in noted.attempts] == [500, 409, 200]


async def test_attempts_used_up_make_a_dead_letter_with_the_evidence() -> None:
    bench = Bench(lambda sent: Reply(500, (), b"no such order"))
    origin = Origin(coordinates={"partition": "3"}, key=b"\xff", headers=(("h", None),))
    outcome = await bench.link(event(origin=lambda: origin))
    assert outcome.settled is Settled.DEAD
    (letter,) = bench.store.dead_letters.letters.values()
    assert len(bench.function.sent) == letter.attempts == 4
    assert (letter.reason, letter.last_status) == ("AttemptsExhausted", 500)
    assert (letter.last_response, letter.origin) == (b"no such order", origin)
    assert letter.event.data == b"x"
    assert bench.store.journal.noted[0].dead_letter == letter.id


@pytest.mark.parametrize(("before", "attempts"), [(0, 4), (1, 3), (3, 1), (11, 1), (12, 0)])
async def test_earlier_deliveries_count_and_one_attempt_is_made_until_they_are_too_many(
    before: int, attempts: int
) -> None:
    bench = Bench(lambda sent: 500)
    assert (await bench.link(event(redelivered=before))).settled is Settled.DEAD
    (letter,) = bench.store.dead_letters.letters.values()
    assert len(bench.function.sent) == letter.attempts == attempts
    assert letter.reason == ("AttemptsExhausted" if attempts else "Redelivered")
    assert attempts or letter.detail == "delivered 12 times before, without an outcome"


async def test_an_event_that_was_given_back_often_still_outlasts_an_outage() -> None:
    bench = Bench(by_attempt(*[refused()] * 9, 200))
    assert (await bench.link(event(redelivered=11))).settled is Settled.ACCEPTED
    assert bench.conserved()


async def test_a_rejected_event_is_a_dead_letter_at_once() -> None:
    bench = Bench(lambda sent: 422)
    assert (await bench.link(event())).settled is Settled.DEAD
    assert len(bench.function.sent) == 1
    assert next(iter(bench.store.dead_letters.letters.values())).reason == "Rejected"


async def test_a_redirect_is_rejected_and_not_followed() -> None:
    bench = Bench(lambda sent: Reply(302, ((b"location", b"http://elsewhere.test/"),)))
    assert (await bench.link(event())).settled is Settled.DEAD
    assert [s.url for s in bench.function.sent] == ["http://f.test/in"]


async def test_410_rejects_and_the_binding_says_so_until_an_event_is_accepted() -> None:
    bench = Bench(lambda sent: 410 if sent.id == "1" else 200)
    await bench.link(event(1))
    assert bench.link.problem is not None
    assert bench.link.problem.reason == "FunctionGone"
    await bench.link(event(2))
    assert bench.link.problem is None


async def test_no_reply_and_a_broken_reply_count_as_attempts() -> None:
    bench = Bench(by_attempt(99.0, BrokenReply("half a reply"), 99.0, BrokenReply("garbage")))
    assert (await bench.link(event())).settled is Settled.DEAD
    (letter,) = bench.store.dead_letters.letters.values()
    assert (letter.attempts, letter.last_status, letter.detail) == (4, None, "garbage")


async def test_a_function_that_is_away_uses_up_no_attempts() -> None:
    bench = Bench(by_attempt(*[refused()] * 30, 200))
    assert (await bench.link(event())).settled is Settled.ACCEPTED
    assert len(bench.function.sent) == 31


async def test_only_age_ends_an_event_whose_function_is_away() -> None:
    bench = Bench(lambda sent: refused())
    began = asyncio.get_running_loop().time()
    assert (await bench.link(event())).settled is Settled.DEAD
    assert 3599 <= asyncio.get_running_loop().time() - began < 3700
    assert next(iter(bench.store.dead_letters.letters.values())).reason == "Expired"


async def test_retry_after_lengthens_the_wait() -> None:
    bench = Bench(by_attempt(Reply(503, ((b"retry-after", b"500"),)), 200))
    await bench.link(event())
    first, second = bench.function.sent
    assert second.time - first.time >= 500


async def test_an_outage_makes_no_dead_letters_and_one_probe_at_a_time() -> None:
    down = True
    target = replace(TARGET, retry=Policy(attempts=2, initial=0.2, max=30.0, max_age=86400.0))
    bench = Bench(lambda sent: refused() if down else 200, target)
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(bench.link(event(n))) for n in range(64)]
        await asyncio.sleep(5)
        assert bench.link.problem is not None
        assert bench.link.problem.reason == "FunctionAway"
        before = len(bench.function.sent)
        bench.function.most = 0
        await asyncio.sleep(600)
        probes = len(bench.function.sent) - before
        assert bench.function.most == 1
        assert 10 <= probes <= 120
        assert bench.link.tally.in_flight == 64
        assert len({s.id for s in bench.function.sent[before:]}) == 1
        down = False
        await asyncio.sleep(31)
        assert all(call.done() for call in calls)
    assert {call.result().settled for call in calls} == {Settled.ACCEPTED}
    assert bench.letters == []
    assert bench.link.problem is None


async def test_an_event_that_comes_during_an_outage_holds_without_an_attempt() -> None:
    bench = Bench(lambda sent: refused() if sent.id != "late" else 200)
    async with asyncio.TaskGroup() as tasks:
        for n in range(5):
            tasks.create_task(bench.link(event(n)))
        await asyncio.sleep(1)
        late = tasks.create_task(bench.link(event(id="late")))
        await asyncio.sleep(100)
        assert "late" not in {s.id for s in bench.function.sent}
        bench.function.answer = lambda sent: 200
        await asyncio.sleep(61)
        assert late.done()


async def test_when_the_prober_is_cancelled_another_delivery_probes() -> None:
    bench = Bench(lambda sent: refused())
    calls = [asyncio.create_task(bench.link(event(n))) for n in range(8)]
    await asyncio.sleep(5)
    prober = bench.function.sent[-1].id
    calls[int(prober)].cancel()
    await asyncio.sleep(200)
    assert bench.function.sent[-1].id != prober
    bench.function.answer = lambda sent: 200
    await asyncio.wait(calls)
    assert sum(call.cancelled() for call in calls) == 1
    assert bench.link.tally.accepted == 7
    assert bench.link.tally.given_back == 1


async def test_any_answer_at_all_ends_an_outage() -> None:
    bench = Bench(lambda sent: refused())
    calls = [asyncio.create_task(bench.link(event(n))) for n in range(8)]
    await asyncio.sleep(5)
    bench.function.answer = lambda sent: 400
    await asyncio.wait(calls, timeout=120)
    assert all(call.done() and call.result().settled is Settled.DEAD for call in calls)


async def test_a_deleted_function_ends_the_retries() -> None:
    bench = Bench(lambda sent: 500)
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(0.01)
    bench.link.aim(None)
    with pytest.raises(GivenBack):
        await call
    assert bench.letters == []
    assert bench.link.tally.given_back == 1
    with pytest.raises(GivenBack):
        await bench.link(event(2))


async def test_an_attempt_under_way_when_the_function_is_deleted_still_counts() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    bench = Bench(lambda sent: gate)
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(0.01)
    bench.link.aim(None)
    gate.set_result(None)
    assert (await call).settled is Settled.ACCEPTED


async def test_a_function_that_moved_is_followed_at_once() -> None:
    bench = Bench(lambda sent: 200 if "new" in sent.url else refused())
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(300)
    bench.link.aim(replace(TARGET, url="http://new.test/"))
    await asyncio.sleep(0.01)
    assert call.done()
    assert bench.function.sent[-1].url == "http://new.test/"


async def test_release_gives_back_what_waits_and_lets_attempts_end() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    bench = Bench(lambda sent: 500 if sent.id == "1" else gate)
    waiting = asyncio.create_task(bench.link(event(1)))
    running = asyncio.create_task(bench.link(event(2)))
    await asyncio.sleep(0.01)
    bench.link.release()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert isinstance(waiting.exception(), GivenBack)
    gate.set_result(None)
    assert (await running).settled is Settled.ACCEPTED
    bench.link.resume()


async def test_drop_drops_and_stores_nothing() -> None:
    bench = Bench(lambda sent: 400, replace(TARGET, on_exhausted=OnExhausted.DROP))
    assert (await bench.link(event())).settled is Settled.DROPPED
    assert bench.letters == []
    assert bench.link.tally.dropped == 1


async def test_block_goes_on_and_the_binding_says_so() -> None:
    bench = Bench(lambda sent: 400, replace(TARGET, on_exhausted=OnExhausted.BLOCK))
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(1000)
    assert not call.done()
    assert bench.link.problem is not None
    assert bench.link.problem.reason == "Blocked"
    bench.function.answer = lambda sent: 200
    await asyncio.sleep(61)
    assert call.result().settled is Settled.ACCEPTED
    assert bench.link.problem is None


async def test_a_dead_letter_that_cannot_be_stored_keeps_the_event_unsettled() -> None:
    bench = Bench(lambda sent: 400)
    bench.store.dead_letters.trouble = "disk full"
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(500)
    assert not call.done()
    assert bench.link.problem is not None
    assert bench.link.problem.reason == "DeadLetterUnavailable"
    assert "disk full" in bench.link.problem.message
    assert len(bench.function.sent) == 1
    bench.store.dead_letters.trouble = ""
    await asyncio.sleep(61)
    assert call.result().settled is Settled.DEAD
    assert bench.link.problem is None


async def test_a_dead_letter_url_gets_the_event_and_the_evidence() -> None:
    target = replace(TARGET, dead_letter_url="http://graveyard.test/in")
    bench = Bench(lambda sent: 400 if "f.test" in sent.url else 204, target)
    assert (await bench.link(event())).settled is Settled.DEAD
    sent = bench.function.sent[-1]
    assert sent.url == "http://graveyard.test/in"
    assert sent.body == b"x"
    assert sent.fields["triggerhub-reason"] == "Rejected"
    assert sent.fields["triggerhub-trigger"] == "shop/orders"
    assert bench.letters == []


async def test_a_dead_letter_url_that_fails_keeps_the_event_unsettled() -> None:
    target = replace(TARGET, dead_letter_url="http://graveyard.test/in")
    bench = Bench(lambda sent: 400 if "f.test" in sent.url else 500, target)
    call = asyncio.create_task(bench.link(event()))
    await asyncio.sleep(300)
    assert not call.done()
    bench.function.answer = lambda sent: 204
    await asyncio.sleep(61)
    assert call.done()


async def test_what_the_source_could_not_read_is_a_dead_letter_and_never_sent() -> None:
    bench = Bench(lambda sent: 200)
    assert (await bench.link(event(fault="no JSON"))).settled is Settled.DEAD
    assert bench.function.sent == []
    letter = next(iter(bench.store.dead_letters.letters.values()))
    assert (letter.reason, letter.detail, letter.attempts) == ("Undecodable", "no JSON", 0)


@pytest.mark.parametrize("redelivered", [0, 1])
@pytest.mark.parametrize("url", ["", "http://graveyard.test/in"])
async def test_what_cannot_be_made_a_request_is_a_dead_letter_and_ends_nothing(
    redelivered: int, url: str
) -> None:
    bench = Bench(lambda sent: 200, replace(TARGET, dead_letter_url=url or None))
    wrong = event(extensions={"tenant": 7}, redelivered=redelivered)
    assert (await bench.link(wrong)).settled is Settled.DEAD
    assert bench.function.sent == []
    (letter,) = bench.store.dead_letters.letters.values()
    assert (letter.reason, letter.event.data) == ("Undecodable", b"x")
    assert letter.detail.startswith("it cannot be encoded as a request: TypeError")
    assert (await bench.link(event(2))).settled is Settled.ACCEPTED
    assert bench.conserved()


@pytest.mark.parametrize(
    ("answer", "status"),
    [(refused(), 503), (99.0, 504), (BrokenReply("garbage"), 502), (500, 500), (302, 302)],
)
async def test_a_synchronous_request_gets_one_attempt_and_an_answer(
    answer: Answer, status: int
) -> None:
    bench = Bench(lambda sent: answer)
    outcome = await bench.link(event(request=Request(method="GET", path="/x")))
    assert outcome.reply is not None
    assert (outcome.settled, outcome.reply.status) == (None, status)
    assert len(bench.function.sent) == 1
    assert bench.link.tally.given_back == 1
    (delivery,) = bench.link.tally.deliveries("")
    assert delivery.detail.startswith("answered to the caller: ")
    assert bench.letters == []


async def test_a_synchronous_request_whose_caller_went_away_is_counted_and_accounted_for() -> None:
    bench = Bench(lambda sent: 99.0)
    call = asyncio.create_task(bench.link(event(request=Request(method="POST"))))
    await asyncio.sleep(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    tally = bench.link.tally
    assert (tally.given_back, tally.attempts, bench.conserved()) == (1, {"none": 1}, True)
    (delivery,) = tally.deliveries("")
    assert "the caller went away" in delivery.detail
    assert bench.link.problem is None


@pytest.mark.parametrize(
    ("method", "fields", "once"),
    [
        ("GET", (), False),
        ("DELETE", (), False),
        ("POST", (), True),
        ("PATCH", ((b"x", b"y"),), True),
        ("POST", ((b"idempotency-key", b"7"),), False),
    ],
)
async def test_only_what_may_be_repeated_may_be_sent_twice(
    method: str, fields: Headers, once: bool
) -> None:
    bench = Bench(lambda sent: 200)
    await bench.link(event(request=Request(method=method, headers=fields)))
    assert [sent.once for sent in bench.function.sent] == [once]


async def test_counters_are_conserved_through_faults_and_cancellation() -> None:
    import random

    rng = random.Random(7)
    choices: list[Answer] = [200, 200, 500, 503, 400, refused(), BrokenReply("x"), 0.5, 99.0]
    bench = Bench(lambda sent: rng.choice(choices))
    calls = []
    for n in range(400):
        calls.append(asyncio.create_task(bench.link(event(n))))
        if n % 7 == 0:
            rng.choice(calls).cancel()
        await asyncio.sleep(rng.random())
        assert bench.conserved()
        assert bench.link.tally.in_flight == sum(not call.done() for call in calls) or n == 0
    await asyncio.wait(calls)
    assert bench.conserved()
    assert bench.link.tally.in_flight == 0
    assert bench.link.tally.received >= 300
