"""The NATS connector: which servers, the connections to them, and a listener for each
subscription."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType

from triggerhub.connector import (
    Installation,
    Letter,
    NotTaken,
    Progress,
    SpecError,
    Subscription,
    Unreadable,
)
from triggerhub.event import Event, Reply
from triggerhub.nats.access import Access
from triggerhub.nats.client import Client
from triggerhub.nats.connection import Connections
from triggerhub.nats.problems import explain_jetstream
from triggerhub_nats.access import Accesses
from triggerhub_nats.core import CoreListener
from triggerhub_nats.jetstream import JetStreamListener
from triggerhub_nats.letters import event_that_died
from triggerhub_nats.reading import message_at
from triggerhub_nats.replay import Replay
from triggerhub_nats.replies import reply_message
from triggerhub_nats.seeks import PositionError, delete_consumer, seek
from triggerhub_nats.source import SERVER, NATSSource, ReplyTo, SubjectForLetters
from triggerhub_nats.writing import PROBLEMS, Writing, reached_by

SERVERS = "TRIGGERHUB_NATS_SERVERS"


class NATSConnector:
    """Listens to JetStream streams and core subjects. An async context manager."""

    kind = "NATSTrigger"
    source = NATSSource
    dead_letter = SubjectForLetters

    def __init__(self, installation: Installation) -> None:
        self._default_servers = installation.environ.get(SERVERS) or "127.0.0.1:4222"
        self._accesses = Accesses()
        self._connections = Connections()
        self._writing = Writing(self._connections)

    async def __aenter__(self) -> NATSConnector:
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connections.__aexit__(kind, error, trace)

    async def listen(self, subscription: Subscription[NATSSource]) -> None:
        """Emit the messages of the stream or the subjects until cancelled.

        Raises ``ListenError``, with a sentence, when no server can be reached at the beginning, or
        refuses; and ``SpecError`` for servers or a secret that cannot be one.
        """
        async with self._connections.to(self._access(subscription)) as connection:
            if subscription.source.stream is not None:
                await JetStreamListener(subscription, connection).run()
            else:
                await CoreListener(subscription, connection).run()

    async def clean_up(self, subscription: Subscription[NATSSource]) -> None:
        """Delete the durable consumer, with its position.

        Raises ``PositionError``, with a sentence, when no server can be reached or one refuses, and
        while anybody listens; and ``SpecError`` as ``listen`` does.
        """
        async with self._reached(subscription) as client:
            await delete_consumer(client, subscription)

    async def seek(self, subscription: Subscription[NATSSource]) -> None:
        """Move the position of a durable consumer that nobody listens to, where the manifest says
        so and it is not done yet.

        Raises ``PositionError``, with a sentence, when no server can be reached or one refuses, and
        while anybody listens; and ``SpecError`` as ``listen`` does.
        """
        async with self._reached(subscription) as client:
            await seek(client, subscription)

    async def replay(
        self,
        subscription: Subscription[NATSSource],
        since: datetime | str,
        until: datetime | str | None,
        progress: Progress,
    ) -> None:
        """Emit the messages between, read by a consumer that leaves no trace.

        Raises ``ValueError`` for a text that is no position, and for a trigger without a stream;
        ``ReplayError``, with a sentence, when the servers refuse; ``SpecError`` as ``listen`` does.
        """
        if subscription.source.stream is None:
            raise ValueError("core NATS keeps nothing, so there is nothing to send once more")
        async with self._connections.to(self._access(subscription)) as connection:
            await Replay(subscription, connection, progress).run(since, until)

    async def lay_down(
        self, subscription: Subscription[NATSSource], place: SubjectForLetters, letter: Letter
    ) -> Mapping[str, str]:
        """Publish a dead letter to its subject. Returns subject, stream and sequence.

        Raises ``NotTaken``, also where no stream takes the subject; and ``SpecError`` as
        ``listen`` does.
        """
        assert place.subject is not None
        access = self._access(subscription)
        return await self._writing.lay_down(access, subscription, place.subject, letter)

    async def read_back(
        self, subscription: Subscription[NATSSource], coordinates: Mapping[str, str]
    ) -> Event:
        """The event of a dead letter that lies in a stream.

        Raises ``Unreadable``; ``NotTaken`` when no server answers; ``SpecError`` as ``listen``
        does.
        """
        stream, sequence = coordinates["stream"], int(coordinates["sequence"])
        where = f"stream {stream} sequence {sequence}"
        access = self._access(subscription)
        async with self._connections.to(access) as connection:
            client = await reached_by(connection)
            try:
                found = await message_at(client, stream, sequence)
            except PROBLEMS as error:
                raise Unreadable(f"{where}: {explain_jetstream(error, stream).text}") from error
        if found is None:
            raise Unreadable(
                f"{where}: it is there no more: the stream's limits took it, or somebody did"
            )
        try:
            return event_that_died(*found, subscription.source.order_header)
        except ValueError as error:
            raise Unreadable(f"{where}: it is no dead letter: {error}") from error

    async def reply(
        self, subscription: Subscription[NATSSource], event: Event, reply: Reply
    ) -> None:
        """Publish a function's answer to the subject of ``spec.source.reply``.

        Raises ``NotTaken``; and ``SpecError`` as ``listen`` does.
        """
        to = subscription.source.reply
        assert isinstance(to, ReplyTo)
        message = reply_message(to.subject, subscription.name, event, reply)
        access = self._access(subscription)
        await self._writing.answer(access, subscription.source, message)

    @asynccontextmanager
    async def _reached(self, subscription: Subscription[NATSSource]) -> AsyncIterator[Client]:
        """A client. Raises PositionError where there is none within some seconds."""
        async with self._connections.to(self._access(subscription)) as connection:
            try:
                yield await reached_by(connection)
            except NotTaken as trouble:
                raise PositionError(str(trouble)) from None

    def _access(self, subscription: Subscription[NATSSource]) -> Access:
        return self._accesses.of(subscription, self._servers(subscription.source))

    def _servers(self, source: NATSSource) -> list[str]:
        if source.servers is not None:
            return source.servers
        try:
            return [SERVER.read(text.strip()) for text in self._default_servers.split(",")]
        except ValueError as error:
            raise SpecError(f"{SERVERS}: {error}") from None
