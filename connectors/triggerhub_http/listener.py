"""One subscription's requests: how many at once, in which order, and how they end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from triggerhub.connector import GivenBack, InboxFull, Subscription
from triggerhub.event import Event, Outcome, Reply, Settled
from triggerhub_http.deferred import Deferred
from triggerhub_http.gate import Gate
from triggerhub_http.limits import Turnstile
from triggerhub_http.messages import Head, Refusal
from triggerhub_http.preferences import read_preferences
from triggerhub_http.routes import Claim, parameters
from triggerhub_http.sharing import Sharing
from triggerhub_http.signatures import Replays
from triggerhub_http.source import HTTPSource

RETRY = (b"retry-after", b"1")
_WAITING_PER_IN_FLIGHT = 16
_PARAMETER = b"triggerhub-parameter-"


class Listener:
    """One subscription's requests."""

    def __init__(
        self,
        subscription: Subscription[HTTPSource],
        replays: Replays,
        stale: Callable[[], str] = str,
    ) -> None:
        """``replays``: of this trigger. ``stale``: why the server's certificate is not the newest
        one; empty: it is. Raises SpecError."""
        source = subscription.source
        self.claim: Claim[Listener] = Claim(
            host=source.host or "",
            path=source.path,
            exact=source.path_type == "Exact",
            methods=None if source.methods is None else frozenset(source.methods),
            created=subscription.created,
            name=subscription.name,
            owner=self,
        )
        self._parameters = [
            (at, _PARAMETER + name.lower().encode()) for at, name in parameters(source.path)
        ]
        self._subscription = subscription
        self._stale = stale
        self._deferred = Deferred(subscription, self._trouble)
        self._emit = subscription.emit
        self._loop = asyncio.get_running_loop()
        self.name = f"/http/{subscription.namespace}/{subscription.trigger}"
        """The events' source."""
        self.max_body = source.max_body
        self.sharing = Sharing(source)
        self.turnstile = Turnstile(source.limits, subscription.report.turned_away)
        self.gate: Gate | None = None
        """What is asked of whoever calls; None: nothing."""
        if source.auth is not None or source.signature is not None:
            self.gate = Gate(subscription, replays, self.tell)
        self._in_flight = subscription.in_flight
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._quiet: asyncio.Future[None] | None = None
        self.stopping = False
        """Takes no further request."""

    def name_parameters(self, head: Head, path: str) -> None:
        """Put what stands in the raw path for the route's parameters into the header fields, in
        place of what the caller may have set, with underscores as well: some functions cannot
        tell them from hyphens."""
        if not self._parameters:
            return
        elements = path.split("/")
        values = {name: elements[at].encode() for at, name in self._parameters}
        others = (pair for pair in head.kept if pair[0].replace(b"_", b"-") not in values)
        head.kept[:] = [*others, *values.items()]

    def tell(self) -> None:
        """Report whether this listener serves its route."""
        if self.stopping:
            return
        holder = self.claim.holder
        if holder is None:
            trouble = "" if self.gate is None else self.gate.trouble
            if trouble:
                self._subscription.report.connected("KeysUnavailable", trouble)
            elif stale := self._stale():
                self._subscription.report.connected("CertificateNotRenewed", stale)
            else:
                self._subscription.report.connected()
            return
        other = holder.owner._subscription
        self._subscription.report.disconnected(
            "RouteTaken",
            f"{self.claim.host}{self.claim.path} is held by {other.namespace}/{other.trigger} "
            f"(function {other.function}) since {other.created:%Y-%m-%dT%H:%M:%SZ}; choose another "
            "host, path or method",
        )

    def _trouble(self, error: OSError | None) -> None:
        """Events cannot be made safe; None: they can again."""
        reason = "InboxFull" if isinstance(error, InboxFull) else "InboxUnavailable"
        if error is None:
            self.tell()
        elif not self.stopping:
            self._subscription.report.disconnected(reason, str(error))

    async def status(self, rest: str) -> Reply:
        """What became of an event that was accepted. Raises ``Refusal``."""
        return await self._deferred.status(rest)

    def defers(self, head: Head) -> bool:
        """Whether this request is answered before it is delivered."""
        return self._deferred.takes(read_preferences(head.prefer))

    def takes_at_once(self, head: Head) -> bool:
        """Whether the function gets the request while nobody keeps it: its body need not be whole
        before."""
        return not head.whole and not self.defers(head)

    async def serve(self, head: Head, event: Event) -> Reply:
        """Raises ``Refusal``; CancelledError when the client is gone."""
        if self.stopping:
            raise self._unavailable()
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._under_way.add(task)
        try:
            if event.request is not None and event.request.deferred:
                preferences = read_preferences(head.prefer)
                return await self._deferred.accept(event, preferences, named=head.named)
            if self._busy < self._in_flight:
                self._busy += 1
            else:
                await self._turn()
            try:
                outcome = await self._emit(event)
            finally:
                self._pass_on()
        except GivenBack:
            raise self._unavailable() from None
        except asyncio.CancelledError:
            if task in self._under_way:
                raise
            # The grace time is over, and the client still waits.
            task.uncancel()
            raise self._unavailable() from None
        finally:
            self._under_way.discard(task)
            if self._quiet is not None and not self._under_way and not self._quiet.done():
                self._quiet.set_result(None)
        return _reply(outcome)

    async def _turn(self) -> None:
        """Wait until a delivery that ended passes its place on, in the order of arrival."""
        if len(self._waiting) >= _WAITING_PER_IN_FLIGHT * self._in_flight:
            raise Refusal(503, "Busy", f"{self.name}: too many requests wait", RETRY)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._pass_on()
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # else its client is gone
                waiter.set_result(None)
                return
        self._busy -= 1

    async def keep(self) -> None:
        """Keep fresh what callers are checked by, until cancelled."""
        if self.gate is None:
            await self._loop.create_future()
        else:
            await self.gate.keep()

    def stop(self) -> None:
        """Take no further request."""
        self.stopping = True
        self._deferred.stop()

    async def drain(self) -> None:
        """Let requests under way end within the grace time; the rest is answered 503."""
        self._emit.release()
        try:
            if self._under_way:
                self._quiet = asyncio.get_running_loop().create_future()
                await asyncio.wait([self._quiet], timeout=self._subscription.grace)
        finally:
            late = list(self._under_way)
            self._under_way.clear()
            for task in late:
                task.cancel()
            self._emit.resume()
            if self.gate is not None:
                self.gate.close()

    def _unavailable(self) -> Refusal:
        return Refusal(503, "Stopping", f"{self.name} stops listening: try again", RETRY)


def _reply(outcome: Outcome) -> Reply:
    reply = outcome.reply
    if reply is None:
        if outcome.settled in (Settled.ACCEPTED, Settled.FILTERED):
            return Reply(204)
        raise Refusal(502, "NoAnswer", "the function gave no answer")
    if reply.truncated or not 200 <= reply.status <= 599:
        found = "one that was cut short" if reply.truncated else f"status {reply.status}"
        raise Refusal(
            502, "BrokenAnswer", f"expected a whole answer of the function, found {found}"
        )
    return reply
