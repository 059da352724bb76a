"""One subscription to core subjects: listen, emit, answer who asks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any
from uuid import uuid4

import nats.errors
from nats.aio.msg import Msg

from triggerhub.connector import InboxFull, Problem, Subscription, Telling
from triggerhub.event import Event, Outcome, Request
from triggerhub.nats.client import Client, heed
from triggerhub.nats.connection import Connection
from triggerhub.nats.problems import explain_core
from triggerhub.sentence import leaf
from triggerhub.window import Window
from triggerhub_nats.answers import Answers, answer_of
from triggerhub_nats.decode import Place, event_of
from triggerhub_nats.reaching import reached
from triggerhub_nats.source import KeyHeader, NATSSource

log = logging.getLogger("triggerhub.nats")

MOST_WAITING = 65_536
"""Messages that may wait in memory, before the window."""
MOST_BYTES = 64 * 1024 * 1024
"""Their data."""
_TELL_OF_DROPS = 60.0
_LOOK_EVERY = 2.0
_TRY_EVERY = 1.0
_LEAVE_WITHIN = 2.0
_AT_MOST_ONCE = Problem(
    "AtMostOnce",
    "core NATS keeps nothing: what is published while the hub is away is lost, and what the hub "
    "holds when it is killed",
)


_KEPT = Problem(
    "KeptOnArrival",
    "core NATS keeps nothing: what is published while no hub listens is lost. What has come is in "
    "the inbox",
)
_KEPT_AT_ONCE = 512


class CoreListener:
    """Listens once. What came outlives the connection that it came by."""

    def __init__(self, subscription: Subscription[NATSSource], connection: Connection) -> None:
        source = subscription.source
        self._subscription = subscription
        self._connection = connection
        self._queue = source.queue or f"triggerhub.{subscription.name}"
        self._by = source.key.header.lower() if isinstance(source.key, KeyHeader) else None
        self._telling = Telling(subscription.report)
        self._answers = Answers(connection)
        self._come: deque[tuple[Event, int]] = deque()
        self._size = 0
        self._some = asyncio.Event()
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._dropped = 0
        self._last_drop = -_TELL_OF_DROPS
        self._unkept: Problem | None = None

    async def run(self) -> None:
        """Listen until cancelled. Raises ListenError, and what ``emit`` raises."""
        # It drains by itself, before the window could give anything back: that would be lost.
        window = Window(replace(self._subscription, grace=0.0))
        durable = self._subscription.source.inboxed
        try:
            async with asyncio.TaskGroup() as answering:
                answers = answering.create_task(self._answers.run())
                try:
                    async with nullcontext() if durable else window, asyncio.TaskGroup() as tasks:
                        emitting = tasks.create_task(
                            self._keep() if durable else self._emit(window)
                        )
                        await self._follow(emitting)
                finally:
                    answers.cancel()
                    self._answers.give_up()
                    await self._leave()
        except BaseExceptionGroup as group:
            raise leaf(group) from group

    async def _follow(self, emitting: asyncio.Task[None]) -> None:
        """From connection to connection."""
        made: list[Any] = []
        try:
            while True:
                client = await reached(self._connection, self._telling)
                made.clear()
                try:
                    for subject in self._subscription.source.subject_names:
                        take = partial(self._take, subject)
                        made.append(await client.listen(subject, take, self._queue))
                    await self._watch(client)
                except (nats.errors.Error, OSError) as error:
                    if not client.gone:
                        self._telling.wrong(explain_core(error))
                        for one in made:
                            await heed(one.unsubscribe())
                        await asyncio.sleep(_TRY_EVERY)
        finally:
            await self._drain(made, emitting)

    async def _watch(self, client: Client) -> None:
        """Tell how it goes, until the connection is lost."""
        loop = asyncio.get_running_loop()
        while not client.gone:
            if self._unkept is not None:
                self._telling.wrong(self._unkept)
            elif loop.time() - self._last_drop < _TELL_OF_DROPS:
                self._telling.well(Problem(
                    "SlowConsumer",
                    f"{self._dropped} messages were dropped so far: more come than the function "
                    f"takes, and {MOST_WAITING} messages or {MOST_BYTES >> 20} MiB already wait. "
                    "Raise inFlight, add replicas, or use a stream",
                ))  # fmt: skip
            else:
                durable = self._subscription.source.inboxed
                self._telling.well(_KEPT if durable else _AT_MOST_ONCE)
            self._subscription.report.lag(len(self._come))
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await client.lost.wait()
            except TimeoutError:
                continue

    async def _take(self, pattern: str, message: Msg) -> None:
        """Called with each message as it comes."""
        data = message.data
        if len(self._come) >= MOST_WAITING or self._size + len(data) > MOST_BYTES:
            self._dropped += 1
            self._last_drop = asyncio.get_running_loop().time()
            return
        headers = message.headers or {}
        identity = headers.get("Nats-Msg-Id") or uuid4().hex
        place = Place(f"/nats/{pattern}", identity, None, {"pattern": pattern})
        event = event_of(place, message.subject, message.headers, data, by=self._by)
        debt = 0
        if self._subscription.source.reply is True and message.reply:
            debt = self._answers.owe(message.reply)
            if event.fault is None:
                event = replace(event, request=_request(event))
        self._size += len(data)
        self._come.append((event, debt))
        self._some.set()

    async def _emit(self, window: Window) -> None:
        """Put what came into the window, in the order in which it came."""
        while True:
            while self._come:
                event, debt = self._come[0]
                self._under_way += 1
                await window.put(event, partial(self._settled, debt))
                self._come.popleft()
                self._size -= len(event.data)
            self._some.clear()
            await self._some.wait()

    async def _keep(self) -> None:
        """Put what came into the inbox, in the order in which it came: all that waits at once, so
        that it shares a sync."""
        while True:
            while self._come:
                unkept = [event for event, _ in islice(self._come, _KEPT_AT_ONCE)]
                number = len(unkept)
                while True:
                    unkept = await self._put(unkept)
                    if not unkept:
                        break
                    await asyncio.sleep(_TRY_EVERY)
                for _ in range(number):
                    self._size -= len(self._come.popleft()[0].data)
            self._quiet.set()
            self._some.clear()
            await self._some.wait()

    async def _put(self, events: list[Event]) -> list[Event]:
        """Those that could not be put."""
        async with asyncio.TaskGroup() as tasks:
            puts = [tasks.create_task(self._put_one(event)) for event in events]
        unkept = [event for event, put in zip(events, puts, strict=True) if not put.result()]
        if not unkept:
            self._unkept = None
        return unkept

    async def _put_one(self, event: Event) -> bool:
        try:
            await self._subscription.inbox.put(event)
        except OSError as error:
            reason = "InboxFull" if isinstance(error, InboxFull) else "InboxUnavailable"
            self._unkept = Problem(reason, f"messages cannot be made safe, so they wait: {error}")
            return False
        return True

    def _settled(self, debt: int, outcome: Outcome) -> None:
        if debt:
            self._answers.pay(debt, answer_of(outcome))
        self._under_way -= 1
        if not self._under_way:
            self._quiet.set()

    async def _drain(self, made: list[Any], emitting: asyncio.Task[None]) -> None:
        """Take no more; bring what came to an end, within the grace time."""
        try:
            async with asyncio.timeout(_LEAVE_WITHIN):
                for subscription in made:
                    await heed(subscription.drain())
        except (TimeoutError, OSError, nats.errors.Error) as error:
            log.debug("nats.unsubscribe_failed error=%r", error)
        try:
            async with asyncio.timeout(self._subscription.grace):
                while (self._come or self._under_way) and not emitting.done():
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            lost = len(self._come) + self._under_way
            log.warning("nats.given_up binding=%s events=%d", self._subscription.name, lost)

    async def _leave(self) -> None:
        """Send the last answers."""
        client = self._connection.client
        try:
            async with asyncio.timeout(_LEAVE_WITHIN):
                await self._answers.send()
                if client is not None and not client.gone:
                    await heed(client.flush())
        except (TimeoutError, OSError, nats.errors.Error) as error:
            log.debug("nats.last_answers_failed error=%r", error)


def _request(event: Event) -> Request:
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if event.datacontenttype is not None:
        headers = ((b"content-type", event.datacontenttype.encode("latin-1", "replace")),)
    return Request(method="POST", headers=headers)
