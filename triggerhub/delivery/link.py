"""One binding's deliveries: attempts until there is an outcome."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from triggerhub import __version__
from triggerhub.connector import GivenBack
from triggerhub.delivery.course import Course, Failure, plain
from triggerhub.delivery.encoding import (
    encode_binary,
    encode_request,
    encode_structured,
    head_prefix,
)
from triggerhub.delivery.exchange import Exchange, hub_reply
from triggerhub.delivery.failures import Interrupted
from triggerhub.delivery.handover import Handover
from triggerhub.delivery.problems import Problems
from triggerhub.delivery.retry import Policy, Verdict, retry_after
from triggerhub.delivery.tally import Tally
from triggerhub.delivery.target import Format, OnExhausted, Problem, Target
from triggerhub.delivery.transport import Away, BrokenReply, NoReply, Transport, parse_endpoint
from triggerhub.delivery.waits import Waits
from triggerhub.event import Event, Outcome, Reply, Request, Settled
from triggerhub.store.records import Delivery, Store

AGENT = f"triggerhub/{__version__}"
KEPT_OF_A_REPLY = 1024
LARGEST_REPLY = 16 * 1024 * 1024
"""Bytes of a function's answer that can be written elsewhere."""

_ACCEPTED = Outcome(Settled.ACCEPTED)
_DROPPED = Outcome(Settled.DROPPED)
_DEAD = Outcome(Settled.DEAD)


def unheard(binding: str) -> None:
    """In the place of whoever wants to know that a binding changed."""


class Unfit(Exception):  # noqa: N818 - a fact about the event
    """It cannot be made a request."""


class Link:
    """The delivering end of one binding: what a subscription's ``emit`` is."""

    def __init__(
        self,
        name: str,
        transport: Transport,
        store: Store,
        *,
        changed: Callable[[str], None] = unheard,
        tally: Tally | None = None,
    ) -> None:
        """``changed`` is called with the name when the problem is another, and when an event
        became a dead letter. ``tally``: counts there, too, what another link counts."""
        self.name = name
        self._changed = changed
        self.tally = Tally() if tally is None else tally
        self.target: Target | None = None
        self.last_error = ""
        self._send = transport.send
        self._store = store
        self._waits = Waits(name)
        self._courses: dict[Course, None] = {}
        self._problems = Problems(name, changed)
        self._handover = Handover(AGENT, transport, store, self._waits, self._problems, self._aimed)

    def aim(self, target: Target | None) -> None:
        """From the next attempt on, deliver there; None: nowhere, and what waits is given back."""
        before, self.target = self.target, target
        if target is None:
            self._waits.close()
            return
        self._endpoint = parse_endpoint(target.url)
        self._prefix = head_prefix(self._endpoint.path, self._endpoint.host_header, AGENT)
        self._answers = target.replies is not None
        self._keep = LARGEST_REPLY if self._answers else KEPT_OF_A_REPLY
        self._encode = encode_binary if target.format is Format.BINARY else encode_structured
        if before is None or before.url != target.url:
            self._waits.open()
            self._problems.forget()

    @property
    def problem(self) -> Problem | None:
        """What an operator should know first, or None."""
        return self._problems.gravest

    def release(self) -> None:
        """Give back what waits between attempts, now and until ``resume``."""
        self._waits.release()

    def resume(self) -> None:
        """Deliveries may wait again."""
        self._waits.resume()

    def under_way(self) -> Iterator[Delivery]:
        """The deliveries that needed more than their first attempt and have no outcome yet."""
        for course in self._courses:
            yield course.account(self.name, None, None)

    async def __call__(self, event: Event) -> Outcome:
        """Deliver one event. Raises ``GivenBack`` where it ends without an outcome."""
        target = self._aimed()
        self.tally.received += 1
        try:
            if event.request is not None and not event.request.deferred:
                return await self._answer(event, event.request, target)
            if event.fault is not None or event.redelivered or self._waits.away:
                return await self._persist(Course(event, time.time()), None)
            # The first attempt nearly always is the only one: nothing is made, and no coroutine
            # entered, that it does not need.
            wall, began = time.time(), time.perf_counter()
            try:
                reply = await self._post(event, 1, target)
            except Unfit as error:
                event = replace(event, fault=str(error))
                return await self._persist(Course(event, wall), None)
            except (Away, NoReply, BrokenReply) as error:
                return await self._persist(*self._began(event, wall, began, None, error))
            if not 200 <= reply.status < 300:
                return await self._persist(*self._began(event, wall, began, reply, None))
            if self._answers and reply.body:
                if reply.truncated:
                    broken = _too_large()
                    return await self._persist(*self._began(event, wall, began, None, broken))
                await self._handover.answer(event, reply)
            self._accept(event, wall, began, reply.status)
            return _ACCEPTED
        except BaseException:
            self.tally.given_back += 1
            raise

    def _post(self, event: Event, attempt: int, target: Target) -> Awaitable[Reply]:
        """One attempt. Raises ``Unfit``."""
        endpoint, request = self._endpoint, event.request
        try:
            if request is None:
                head, body = self._encode(self._prefix, event, attempt)
            else:
                path, host = endpoint.path, endpoint.host_header
                head, body = encode_request(path, host, event, request, attempt)
        except Exception as error:
            # Whatever it is, it would come again with the event, and end the hub each time.
            raise Unfit(f"it cannot be encoded as a request: {error!r}") from error
        if request is None:
            return self._send(endpoint, head, body, target.timeout, self._keep)
        return self._send(
            endpoint, head, body, target.timeout, self._keep,
            head_request=request.method == "HEAD",
        )  # fmt: skip

    def _began(
        self, event: Event, wall: float, began: float, reply: Reply | None, failure: Failure | None
    ) -> tuple[Course, Verdict]:
        """A first attempt that was not accepted, and what it means."""
        seconds = time.perf_counter() - began
        course = Course(event, wall, asyncio.get_running_loop().time() - seconds)
        return course, self._note(course, wall, seconds, reply, failure)

    async def _persist(self, course: Course, verdict: Verdict | None) -> Outcome:
        """All that follows a first attempt which was not accepted, or could not be made."""
        self._courses[course] = None
        try:
            outcome = await self._follow(course, verdict)
        except BaseException:
            self._remember(course, None)
            raise
        finally:
            del self._courses[course]
            self._waits.ended(course)
        assert outcome.settled is not None
        self.tally.settle(outcome.settled, max(0.0, time.time() - course.received))
        self._store.journal.note(self._remember(course, outcome.settled))
        return outcome

    async def _follow(self, course: Course, verdict: Verdict | None) -> Outcome:
        loop = asyncio.get_running_loop()
        while verdict is not Verdict.ACCEPTED:
            policy = self._aimed().retry
            reason = course.ending(verdict, policy, loop.time())
            if reason is not None:
                outcome = await self._exhausted(course, reason)
                if outcome is not None:
                    return outcome
                await self._waits.pause(policy.max)
            elif verdict is not None and not self._waits.holds(course):
                await self._waits.pause(self._delay(course, policy, loop.time()))
            verdict = None
            if course.event.fault is None and await self._waits.hold(
                course, lambda: course.left(self._aimed().retry, loop.time())
            ):
                verdict = await self._attempt(course)
        course.fate = f"accepted with {course.describe()}"
        return _ACCEPTED

    async def _attempt(self, course: Course) -> Verdict | None:
        """None: the event cannot be sent, which is its fault from now on."""
        target = self._aimed()
        if course.first is None:
            course.first = asyncio.get_running_loop().time()
        wall, began = time.time(), time.perf_counter()
        reply: Reply | None = None
        failure: Failure | None = None
        try:
            reply = await self._post(course.event, len(course.attempts) + 1, target)
            if self._answers and reply.truncated and 200 <= reply.status < 300:
                raise _too_large()
        except Unfit as error:
            course.event = replace(course.event, fault=str(error))
            return None
        except (Away, NoReply, BrokenReply) as error:
            failure, reply = error, None
        verdict = self._note(course, wall, time.perf_counter() - began, reply, failure)
        if self._answers and verdict is Verdict.ACCEPTED and reply is not None:
            await self._handover.answer(course.event, reply)
        return verdict

    def _note(
        self,
        course: Course,
        wall: float,
        seconds: float,
        reply: Reply | None,
        failure: Failure | None,
    ) -> Verdict:
        """Write an attempt down, and what it says about the function."""
        if reply is not None and len(reply.body) > KEPT_OF_A_REPLY:
            reply = replace(reply, body=reply.body[:KEPT_OF_A_REPLY], truncated=True)
        verdict = course.note(wall, seconds, reply, failure)
        status = None if reply is None else reply.status
        self.tally.attempted(status)
        if verdict is Verdict.ACCEPTED:
            self._well()
            return verdict
        self.last_error = course.describe()
        if verdict is Verdict.AWAY:
            if self._waits.found_away(course):
                self._problems.tell("FunctionAway", f"the function is away: {self.last_error}")
        else:
            self._answered()
            if status == 410:
                self._problems.tell("FunctionGone", "the function answers 410 Gone")
        return verdict

    def _delay(self, course: Course, policy: Policy, now: float) -> float:
        delay = policy.wait(len(course.attempts), random.random)
        if course.reply is not None and course.reply.status in (429, 503):
            delay = max(delay, retry_after(course.reply.headers, datetime.now(UTC)))
        return min(delay, course.left(policy, now))

    async def _exhausted(self, course: Course, reason: str) -> Outcome | None:
        """The function will not accept it. None: it blocks, and is tried again."""
        course.fate = f"{reason} after {len(course.attempts)} attempts: {course.describe()}"
        action = self._aimed().on_exhausted
        if action is OnExhausted.DROP:
            return _DROPPED
        if action is OnExhausted.BLOCK:
            self._problems.tell("Blocked", f"event {course.event.id}: {course.fate}")
            return None
        letter = course.dead_letter(self._aimed(), reason)
        await self._handover.bury(letter)
        course.letter = letter.id
        self._changed(self.name)
        return _DEAD

    async def _answer(self, event: Event, request: Request, target: Target) -> Outcome:
        """A synchronous request: one attempt, and whatever the function says goes back."""
        wall, began = time.time(), time.perf_counter()
        exchange = Exchange(self._send, self._endpoint, event, request, target)
        failure: Failure | None = None
        reply: Reply | None = None
        try:
            reply = await exchange.run()
            if 200 <= reply.status < 300:
                self._accept(event, wall, began, reply.status)
                return Outcome(Settled.ACCEPTED, reply)
        except (Away, NoReply, BrokenReply) as error:
            failure, reply = error, None
        except asyncio.CancelledError:
            why = "the caller went away, or the trigger stopped"
            self._abandon(event, wall, time.perf_counter() - began, exchange.reply, why)
            raise
        except Interrupted as error:
            seconds = time.perf_counter() - began
            self._abandon(event, wall, seconds, exchange.reply, plain(str(error)))
            raise error.cause from None
        course = Course(event, wall)
        self._note(course, wall, time.perf_counter() - began, reply, failure)
        self._waits.ended(course)
        course.fate = f"answered to the caller: {course.describe()}"
        self.tally.given_back += 1
        self._store.journal.note(self._remember(course, None))
        return Outcome(None, reply if reply is not None else hub_reply(target, failure))

    def _abandon(
        self, event: Event, wall: float, seconds: float, begun: Reply | None, why: str
    ) -> None:
        """Nobody waits for the answer, or for the rest of it: that says nothing about the
        function."""
        course = Course(event, wall)
        course.note(wall, seconds, begun, None if begun else NoReply(why))
        before = "its answer had ended" if begun else "there was an answer"
        course.fate = f"{why}, before {before}"
        self.tally.attempted(begun.status if begun else None)
        self._store.journal.note(self._remember(course, None))

    def _accept(self, event: Event, wall: float, began: float, status: int) -> None:
        """The first attempt was accepted."""
        self.tally.accept(event, wall, time.perf_counter() - began, status)
        if self._problems or self._waits.troubled:
            self._well()

    def _remember(self, course: Course, settled: Settled | None) -> Delivery:
        delivery = course.account(self.name, settled, time.time())
        self.tally.recent.append(delivery)
        return delivery

    def _aimed(self) -> Target:
        if self.target is None:
            raise GivenBack(f"{self.name}: no function is bound")
        return self.target

    def _answered(self) -> None:
        self._problems.over("FunctionAway")
        self._waits.answered()

    def _well(self) -> None:
        self._answered()
        self._problems.over("FunctionGone")
        self._problems.over("Blocked")


def _too_large() -> BrokenReply:
    return BrokenReply(f"the answer is larger than {LARGEST_REPLY} bytes")
