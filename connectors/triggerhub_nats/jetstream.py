"""One subscription to a stream: pull, emit, tell the server what became of each message."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from triggerhub.connector import Subscription, Telling
from triggerhub.event import Event, Outcome, Settled
from triggerhub.nats.client import Client, heed
from triggerhub.nats.connection import Connection
from triggerhub.nats.problems import explain_jetstream
from triggerhub.sentence import leaf
from triggerhub.window import Window
from triggerhub_nats.consumer import Consumer, Unusable, bind, look
from triggerhub_nats.decode import ack_of, stream_event
from triggerhub_nats.held import ACK, TERM, Held, Key, confirmed
from triggerhub_nats.pull import Forgotten, Pull
from triggerhub_nats.reaching import reached
from triggerhub_nats.source import NATSSource

log = logging.getLogger("triggerhub.nats")

_LOOK_EVERY = 5.0
_TRY_EVERY = 1.0
_CONFIRM_EVERY = 2.0
_GIVE_BACK_WITHIN = 2.0
_AHEAD = 16
"""As the window: so many times ``in_flight`` wait behind those in flight."""

_PROBLEMS = (nats.errors.Error, OSError)


class JetStreamListener:
    """Listens once. What it holds outlives a connection: it is emitted, settled, and acked over
    the next."""

    def __init__(self, subscription: Subscription[NATSSource], connection: Connection) -> None:
        source = subscription.source
        assert source.stream is not None
        self._subscription = subscription
        self._connection = connection
        self._stream = source.stream
        self._by = source.order_header
        self._confirm = source.confirm_acks
        self._telling = Telling(subscription.report)
        self._held = Held()
        self._consumer: Consumer | None = None
        self._awaited = False
        self._inbox: str | None = None
        self._taker: Any = None
        self._pull: Pull | None = None
        self._come: deque[tuple[Key, Event]] = deque()
        self._some = asyncio.Event()
        """Something came, or there is room again."""
        self._news = asyncio.Event()
        """The same, for who asks for more; also set when the connection ends."""
        self._words = asyncio.Event()
        """There is something to tell the server."""

    async def run(self) -> None:
        """Listen until cancelled. Raises ListenError, and what ``emit`` raises."""
        try:
            # What tells the server outlives the window, whose last attempts end while it drains.
            async with asyncio.TaskGroup() as telling:
                tasks = [telling.create_task(self._tell()), telling.create_task(self._remind())]
                try:
                    async with Window(self._subscription) as window, asyncio.TaskGroup() as tasks_:
                        tasks_.create_task(self._emit(window))
                        await self._follow()
                finally:
                    for task in tasks:
                        task.cancel()
                    await self._give_back()
        except BaseExceptionGroup as group:
            raise leaf(group) from group

    async def _follow(self) -> None:
        """From connection to connection."""
        while True:
            client = await reached(self._connection, self._telling)
            client.wakes.add(self._news)
            try:
                self._inbox = client.new_inbox()
                self._taker = await client.listen(f"{self._inbox}.*", self._take)
                if self._confirm:
                    self._repeat()
                while not client.gone:
                    await self._read(client)
            except _PROBLEMS as error:
                if not client.gone:
                    self._problem(error)
                    await asyncio.sleep(_TRY_EVERY)
            finally:
                client.wakes.discard(self._news)
                self._pull = None

    async def _read(self, client: Client) -> None:
        """Until the connection is lost, or the consumer has to be looked at again."""
        try:
            consumer = await bind(client, self._subscription, self._consumer, awaited=self._awaited)
        except Unusable as unusable:
            self._telling.wrong(unusable.problem)
            await self._rest(client)
            return
        except _PROBLEMS as error:
            if client.gone:
                raise
            self._problem(error)
            await self._rest(client)
            return
        self._found(consumer)
        assert self._inbox is not None
        in_flight = self._subscription.in_flight
        pull = Pull(client, consumer, f"{self._inbox}.pull", (1 + _AHEAD) * in_flight)
        self._pull = pull
        self._telling.well()
        self._subscription.report.lag(consumer.waiting)
        if (told := consumer.note.told) is not None:
            self._subscription.report.sought(told)
        try:
            await self._ask(client, pull)
        except Forgotten as forgotten:
            log.info("nats.pull_forgotten stream=%s reason=%s", self._stream, forgotten)
            await self._rest(client, 0.2)

    async def _ask(self, client: Client, pull: Pull) -> None:
        """Ask for more whenever there is room. Raises Forgotten."""
        loop = asyncio.get_running_loop()
        seen = loop.time()
        while not client.gone:
            self._news.clear()
            await pull.ask(len(self._held), self._held.size)
            left = seen + _LOOK_EVERY - loop.time()
            if left <= 0:
                await self._look(client)
                seen = loop.time()
                continue
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _look(self, client: Client) -> None:
        """How far the consumer is. Raises Forgotten where it is another, or gone."""
        assert self._consumer is not None
        try:
            found = await look(client, self._consumer)
        except _PROBLEMS as error:
            raise Forgotten(str(error)) from error
        if found is None or not found.is_same(self._consumer):
            raise Forgotten("the consumer is gone")
        self._consumer = found
        self._subscription.report.lag(found.waiting)

    def _found(self, consumer: Consumer) -> None:
        """Take a consumer for the one that is read."""
        before = self._consumer
        if before is not None and not consumer.of_one_stream(before):
            # Another stream of the same name: what is held is of the one that is gone.
            log.warning("nats.stream_recreated stream=%s", self._stream)
            self._held = Held()
            self._come.clear()
        elif before is not None and not consumer.is_same(before):
            log.warning(
                "nats.consumer_recreated stream=%s consumer=%s here=%s",
                self._stream, consumer.name, consumer.made,
            )  # fmt: skip
            if not consumer.made:
                self._held.forget_settled()
        self._consumer = consumer
        self._awaited = False

    def _problem(self, error: Exception) -> None:
        problem = explain_jetstream(error, self._stream)
        self._awaited = self._awaited or problem.reason == "StreamNotFound"
        self._telling.wrong(problem)

    async def _rest(self, client: Client, seconds: float = _TRY_EVERY) -> None:
        """Before another try."""
        try:
            async with asyncio.timeout(seconds):
                await client.lost.wait()
        except TimeoutError:
            pass

    async def _take(self, message: Msg) -> None:
        """Called with all that comes to the inbox."""
        pull = self._pull
        reply = message.reply
        if not reply:
            last = message.subject.rpartition(".")[2]
            if last != "pull":
                self._held.unconfirmed.pop(confirmed(last), None)
            elif pull is not None:
                pull.status(message)
                self._news.set()
            return
        if pull is not None:
            pull.came()
        ack = ack_of(reply)
        key = int(ack.sequence), ack.stamp
        if self._held.take(key, reply, len(message.data)):
            event = stream_event(
                self._stream, ack, message, self._by, redelivered=int(ack.delivered) - 1
            )
            self._come.append((key, event))
            self._some.set()
        else:
            self._words.set()
        self._news.set()

    async def _emit(self, window: Window) -> None:
        """Put what came into the window, in the order of the stream."""
        come = self._come
        while True:
            while come:
                key, event = come.popleft()
                settled = partial(self._settled, self._held, key)
                await window.put(event, settled, self._stream)
            self._some.clear()
            await self._some.wait()

    def _settled(self, held: Held, key: Key, outcome: Outcome) -> None:
        word = TERM if outcome.settled is Settled.DEAD else ACK
        held.settle(key, word, self._inbox if self._confirm else None)
        self._words.set()
        self._news.set()

    async def _tell(self) -> None:
        """Write what the server is to hear, all that there is in one go. Until cancelled."""
        while True:
            await self._words.wait()
            client = self._connection.client
            if client is None:
                await self._connection.changed()
                continue
            self._words.clear()
            await self._write(client)
            # What is settled meanwhile goes together.
            await asyncio.sleep(0)

    async def _write(self, client: Client) -> None:
        unsaid, self._held.unsaid = self._held.unsaid, []
        await client.write(unsaid)

    async def _remind(self) -> None:
        """Say of what takes long that it is under way, and again what was not confirmed."""
        while True:
            consumer = self._consumer
            every = 1.0 if consumer is None else consumer.ack_wait / 3
            await asyncio.sleep(min(every, _CONFIRM_EVERY))
            self._held.in_progress(every)
            if self._confirm:
                self._repeat()
            if self._held.unsaid:
                self._words.set()

    def _repeat(self) -> None:
        assert self._inbox is not None
        self._held.repeat(self._inbox)

    async def _give_back(self) -> None:
        """What is held goes to whoever asks next. Without a connection the server waits for the
        ack wait."""
        client = self._connection.client
        if client is None or client.gone or self._taker is None:
            return
        try:
            async with asyncio.timeout(_GIVE_BACK_WITHIN):
                await self._write(client)
                await heed(self._taker.drain())  # with it comes what was on its way
                if self._consumer is not None:
                    # The server then drops our requests, which nobody hears any longer. With one of
                    # them there, the first to come again would come after the others.
                    await look(client, self._consumer)
                self._held.give_back()
                await self._write(client)
                await heed(client.flush())
        except (TimeoutError, OSError, nats.errors.Error) as error:
            log.info("nats.give_back_failed stream=%s error=%r", self._stream, error)
