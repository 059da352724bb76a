"""A past window of a stream, read once more beside its durable consumers."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from nats.aio.msg import Msg

from triggerhub.connector import Progress, Subscription, Telling, now_and_then
from triggerhub.event import Event, Outcome
from triggerhub.nats.client import Client
from triggerhub.nats.connection import Connection
from triggerhub.nats.problems import explain_jetstream
from triggerhub.sentence import leaf
from triggerhub.window import OffsetTracker, Window
from triggerhub_nats.consumer import Consumer, find
from triggerhub_nats.decode import ack_of, stream_event
from triggerhub_nats.pull import Forgotten, Pull
from triggerhub_nats.reaching import reached
from triggerhub_nats.source import NATSSource, Start
from triggerhub_nats.starts import filters, from_sequence, passing_consumer, sequence_of
from triggerhub_nats.writing import PROBLEMS

_LOOK_EVERY = 5.0
_TRY_EVERY = 1.0
_PAUSE = 0.2
_AHEAD = 512
"""Messages that may wait here for the window."""
_NUMBER = re.compile("[0-9]{1,18}", re.ASCII)
_GIVE_UP = ("StreamNotFound", "NotAuthorized", "JetStreamRefused")


class ReplayError(Exception):
    """The replay cannot go on; says why."""


@dataclass(slots=True)
class _Span:
    """Sequences: the first that belongs to it, the first that does not, the next to be read."""

    begin: int
    end: int
    next: int


class _Come(NamedTuple):
    """A message that came; ``following``: how many are behind it."""

    sequence: int
    following: int
    event: Event


class Replay:
    """One replay. Its consumer acks nothing, is kept in memory, and goes by itself when the hub
    does."""

    def __init__(
        self, subscription: Subscription[NATSSource], connection: Connection, progress: Progress
    ) -> None:
        source = subscription.source
        assert source.stream is not None
        self._subscription = subscription
        self._connection = connection
        self._progress = progress
        self._stream = source.stream
        self._by = source.order_header
        self._telling = Telling(subscription.report)
        self._window = Window(subscription)
        self._tracker = OffsetTracker()
        self._span = _Span(0, 0, 0)
        self._come: deque[_Come] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._change = asyncio.Event()
        self._pull: Pull | None = None

    async def run(self, since: datetime | str, until: datetime | str | None) -> None:
        """Until all is settled. Raises ReplayError, ListenError, ValueError, and what ``emit``
        raises."""
        begin, end = _place(since), None if until is None else _place(until)
        client = await reached(self._connection, self._telling)
        try:
            await self._find(client, begin, end)
        except PROBLEMS as error:
            raise ReplayError(explain_jetstream(error, self._stream).text) from error
        try:
            async with now_and_then(self._tell_reached), self._window:
                await self._read_all()
                await self._settled()
        except BaseExceptionGroup as group:
            raise leaf(group) from group

    async def _find(
        self, client: Client, begin: int | Start | None, end: int | Start | None
    ) -> None:
        """Which sequences it is."""
        state = (await client.ask(f"STREAM.INFO.{self._stream}"))["state"]
        first, last = max(1, int(state["first_seq"])), int(state["last_seq"]) + 1
        source = self._subscription.source
        since = first if begin is None else begin
        if isinstance(since, Start):
            since = max(first, await sequence_of(client, source, since))
        until = last if end is None else end
        if isinstance(until, Start):
            until = await sequence_of(client, source, until)
        if isinstance(begin, int) and isinstance(end, int) and end < begin:
            raise ValueError(f"found {begin} after {end}, expected it before")
        until = min(until, last)
        gone = max(0, min(first, until) - since)
        begins = min(max(since, first), max(until, first))
        self._span = _Span(begins, max(until, begins), begins)
        note = f"not there any more, by the stream's limits: up to {gone}" if gone else ""
        self._progress.window(self._span.end - begins, str(self._span.end), note)

    async def _read_all(self) -> None:
        """From connection to connection."""
        span = self._span
        while span.next < span.end:
            client = await reached(self._connection, self._telling)
            client.wakes.add(self._news)
            taker: Any = None
            name = ""
            come = self._come = deque()
            self._size = 0
            try:
                inbox = client.new_inbox()
                taker = await client.listen(inbox, partial(self._take, come))
                config = from_sequence(span.next) | filters(self._subscription.source)
                found = await passing_consumer(client, self._stream, config)
                name = found["name"]
                if not found["num_pending"]:
                    span.next = span.end
                    break
                self._pull = Pull(client, _passing(self._stream, name), inbox, _AHEAD)
                self._telling.well()
                await self._read(client, self._pull, name)
            except Forgotten:
                await asyncio.sleep(_PAUSE)  # another consumer takes over
            except PROBLEMS as error:
                await self._trouble(client, error)
            finally:
                self._pull = None
                client.wakes.discard(self._news)
                await self._leave(client, taker, name)

    async def _read(self, client: Client, pull: Pull, name: str) -> None:
        """Until the end of the span, or of the connection. Raises Forgotten."""
        span = self._span
        while span.next < span.end and not client.gone:
            self._news.clear()
            await pull.ask(len(self._come), self._size)
            while self._come and span.next < span.end:
                sequence, following, event = self._come.popleft()
                self._size -= len(event.data)
                if sequence < span.end:
                    await self._put(sequence, event)
                # Behind the last one there may be others that are not meant, or gone.
                span.next = span.end if not following or sequence >= span.end else sequence + 1
            if span.next < span.end and not self._come:
                try:
                    async with asyncio.timeout(_LOOK_EVERY):
                        await self._news.wait()
                except TimeoutError:
                    if await find(client, self._stream, name) is None:
                        raise Forgotten("the consumer is gone") from None

    async def _put(self, sequence: int, event: Event) -> None:
        tracker = self._tracker

        def settled(_: Outcome) -> None:
            tracker.settle(sequence)
            self._change.set()

        tracker.begin(sequence)
        await self._window.put(event, settled, self._stream)

    async def _take(self, come: deque[_Come], message: Msg) -> None:
        pull = self._pull
        if pull is None or come is not self._come:
            return  # of a consumer that was given up
        if message.reply:
            pull.came()
            ack = ack_of(message.reply)
            event = stream_event(self._stream, ack, message, self._by)
            come.append(_Come(int(ack.sequence), int(ack.following), event))
            self._size += len(message.data)
        else:
            pull.status(message)
        self._news.set()

    async def _trouble(self, client: Client, error: Exception) -> None:
        if client.gone:
            return
        problem = explain_jetstream(error, self._stream)
        if problem.reason in _GIVE_UP:
            raise ReplayError(problem.text) from error
        self._telling.wrong(problem)
        await asyncio.sleep(_TRY_EVERY)

    async def _leave(self, client: Client, taker: Any, name: str) -> None:
        """The consumer goes at once; one that cannot be deleted goes by itself."""
        if client.gone:
            return
        try:
            if taker is not None:
                await taker.unsubscribe()
            if name:
                await client.ask(f"CONSUMER.DELETE.{self._stream}.{name}")
        except PROBLEMS:
            pass

    async def _settled(self) -> None:
        """Leaving the window would give back what waits for another attempt."""
        while self._tracker.open():
            self._change.clear()
            await self._change.wait()

    def _tell_reached(self) -> None:
        oldest = self._tracker.committable() if self._tracker.open() else None
        reached_ = self._span.next if oldest is None else oldest
        self._progress.reached(reached_ - self._span.begin, str(reached_))


def _place(text: datetime | str) -> int | Start | None:
    """A sequence, a time; None: the first that there is. Raises ValueError."""
    if isinstance(text, datetime):
        return Start(time=text.astimezone(UTC).isoformat())
    if text == "All":
        return None
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f"found {text!r}, expected a time, All, or a sequence such as 1520")
    return max(1, int(text))


def _passing(stream: str, name: str) -> Consumer:
    """What ``Pull`` asks of a consumer."""
    now = datetime.now(UTC)
    return Consumer(stream, name, now, now, 0.0, 0, 0)
