"""One delivery that did not end with its first attempt: its history, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from triggerhub.delivery.retry import Policy, Verdict, judge
from triggerhub.delivery.target import Target
from triggerhub.delivery.transport import Away, BrokenReply, NoReply
from triggerhub.event import Event, Origin, Reply, Settled
from triggerhub.store.records import Attempt, DeadLetter, Delivery
from triggerhub.store.ulid import new_ulid

_ENOUGH = 3
"""Times ``attempts`` deliveries without an outcome end an event that was not attempted again."""

Failure = Away | NoReply | BrokenReply


@dataclass(slots=True, eq=False)
class Course:
    """The attempts for one event so far. ``first`` is loop time, ``received`` wall-clock time.

    An earlier delivery without an outcome (``Event.redelivered``) counts as one failed attempt, so
    that a hub that dies again and again does not begin anew each time. It may have been none, so
    there is always one attempt more; until there were so many that the event must be what ends
    the hub.
    """

    event: Event
    received: float
    first: float | None = None
    failed: int = 0
    """Attempts that count against ``attempts``."""
    attempts: list[Attempt] = field(default_factory=list)
    reply: Reply | None = None
    error: str = ""
    fate: str = ""
    letter: str = ""

    def note(
        self, wall: float, seconds: float, reply: Reply | None, failure: Failure | None
    ) -> Verdict:
        """Write one attempt down; what it means."""
        self.reply = reply
        self.error = "" if failure is None else str(failure)
        self.attempts.append(
            Attempt(
                number=len(self.attempts) + 1,
                time=wall,
                seconds=seconds,
                status=None if reply is None else reply.status,
                error=self.error if reply is None else _first_line(reply),
            )
        )
        if reply is not None:
            verdict = judge(reply.status)
        else:
            verdict = Verdict.AWAY if isinstance(failure, Away) else Verdict.FAILED
        if verdict is Verdict.FAILED:
            self.failed += 1
        return verdict

    def ending(self, verdict: Verdict | None, policy: Policy, now: float) -> str | None:
        """Why there is no further attempt (a dead letter's reason), or None. ``now`` is loop
        time; ``verdict`` None means that no attempt was made since the last look."""
        if self.event.fault is not None:
            return "Undecodable"
        if verdict is Verdict.REJECTED:
            return "Rejected"
        if not self.attempts and self.event.redelivered >= _ENOUGH * policy.attempts:
            return "Redelivered"
        if self.failed + min(self.event.redelivered, policy.attempts - 1) >= policy.attempts:
            return "AttemptsExhausted"
        return "Expired" if self.left(policy, now) <= 0 else None

    def left(self, policy: Policy, now: float) -> float:
        """Seconds until it is too old; before its first attempt it does not age."""
        return policy.max_age if self.first is None else self.first + policy.max_age - now

    def describe(self) -> str:
        """The last attempt in a few words."""
        if self.event.fault is not None:
            return self.event.fault
        if self.reply is None:
            if not self.attempts and self.event.redelivered:
                return f"delivered {self.event.redelivered} times before, without an outcome"
            return self.error
        said = self.attempts[-1].error if self.attempts else ""
        return f"status {self.reply.status}" + (f": {said}" if said else "")

    def dead_letter(self, target: Target, reason: str) -> DeadLetter:
        """All the evidence there is."""
        event = self.event
        return DeadLetter(
            id=new_ulid(),
            namespace=target.namespace,
            trigger=target.trigger,
            function=target.function,
            event=replace(event, origin=None),
            origin=event.origin() if event.origin is not None else Origin(),
            reason=reason,
            detail=self.describe(),
            last_status=self.reply.status if self.reply is not None else None,
            last_response=self.reply.body if self.reply is not None else b"",
            attempts=len(self.attempts),
            first_time=self.attempts[0].time if self.attempts else self.received,
            last_time=self.attempts[-1].time if self.attempts else self.received,
        )

    def account(self, binding: str, settled: Settled | None, ended: float | None) -> Delivery:
        """For `why`. ``ended`` None: still under way."""
        fate = self.fate
        if ended is None:
            fate = f"under way after {len(self.attempts)} attempts: {self.describe()}"
        elif settled is None and not fate:
            fate = "given back to its source"
        return Delivery(
            binding=binding,
            source=self.event.source,
            id=self.event.id,
            type=self.event.type,
            received=self.received,
            ended=ended,
            settled=settled,
            detail=fate,
            attempts=tuple(self.attempts),
            dead_letter=self.letter,
        )


def _first_line(reply: Reply) -> str:
    """What a function says about its refusal, short enough for a table; "" where it accepts."""
    if 200 <= reply.status < 300:
        return ""
    text = reply.body[:400].decode(errors="replace").strip().partition("\n")[0]
    return "".join(c for c in text if c.isprintable())[:120]


def evidence_fields(letter: DeadLetter) -> dict[str, str]:
    """What goes with a dead letter that leaves the hub, by name; printable texts, none empty."""
    fields = {
        "reason": letter.reason,
        "detail": plain(letter.detail),
        "trigger": f"{letter.namespace}/{letter.trigger}",
        "function": letter.function,
        "last-status": "" if letter.last_status is None else str(letter.last_status),
        "attempts": str(letter.attempts),
        "first-time": datetime.fromtimestamp(letter.first_time, UTC).isoformat(),
        "last-time": datetime.fromtimestamp(letter.last_time, UTC).isoformat(),
    }
    return {name: value for name, value in fields.items() if value}


def plain(text: str) -> str:
    """Fit for a header field or inside a JSON string: printable, no quotes or backslashes."""
    return "".join(c for c in text if c.isprintable() and c not in '"\\')
