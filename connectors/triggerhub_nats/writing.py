"""Messages that the hub writes, over the connection that listeners of the same servers share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import nats.errors

from triggerhub.connector import Letter, Subscription
from triggerhub.nats.access import Access
from triggerhub.nats.client import Client
from triggerhub.nats.connection import Connection, Connections
from triggerhub.nats.keeping import Kept, keeping_over
from triggerhub_nats import untaken
from triggerhub_nats.letters import Outgoing, coordinates_of, letter_message
from triggerhub_nats.reading import message_at
from triggerhub_nats.source import NATSSource

_REACH_WITHIN = 5.0
_CONFIRM_WITHIN = 5.0
_LOOK_AGAIN = 2.0
"""Seconds for which a subject that no stream takes is believed to be so."""

PROBLEMS = (nats.errors.Error, OSError)

_Place = tuple[Access, str]
"""A subject, and how its servers are reached."""


class Writing:
    """Knows which stream takes which subject.

    What was handed to a server is never taken back; a message that is handed in again has the same
    identity, and a stream takes it once within its window for duplicates.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._streams: dict[_Place, str] = {}
        self._kept: set[_Place] = set()
        """Where a stream took a message: none goes there without one any more."""
        self._without: dict[_Place, float] = {}
        """Loop time at which no stream took the subject."""

    async def lay_down(
        self, access: Access, subscription: Subscription[NATSSource], subject: str, letter: Letter
    ) -> Mapping[str, str]:
        """Its coordinates, once its stream has it. Raises NotTaken, within some seconds."""
        message = letter_message(subject, subscription.name, letter)
        async with self._connections.to(access) as connection:
            client = await reached_by(connection)
            stream = await self._stream_of(client, (access, subject))
            if subscription.source.reads_in(stream, subject):
                self._streams.pop((access, subject), None)
                raise untaken.in_itself(subject, stream)
            kept = await self._keep(client, access, stream, message)
            if kept.duplicate and await self._is_gone(client, kept, subject):
                again = letter_message(subject, subscription.name, letter, again=letter.id)
                kept = await self._keep(client, access, stream, again)
        return coordinates_of(subject, kept.stream, kept.sequence)

    async def answer(self, access: Access, source: NATSSource, message: Outgoing) -> None:
        """Returns when the message is in the stream that takes its subject; where none does, or
        ever did, when a server has it. Raises NotTaken, within some seconds."""
        async with self._connections.to(access) as connection:
            client = await reached_by(connection)
            stream = await self._stream_if_any(client, (access, message.subject), source)
            if stream:
                if source.reads_in(stream, message.subject):
                    self._streams.pop((access, message.subject), None)
                    raise untaken.in_itself(message.subject, stream)
                await self._keep(client, access, stream, message)
                return
            _check_size(client, message)
            try:
                async with asyncio.timeout(_CONFIRM_WITHIN):
                    await client.publish_raw(*message)
            except PROBLEMS as error:
                raise untaken.told(error, message.subject, "") from error

    async def _stream_of(self, client: Client, place: _Place) -> str:
        """The stream that takes a subject. Raises NotTaken where none does."""
        if (known := self._streams.get(place)) is not None:
            return known
        _, subject = place
        try:
            found = await client.ask("STREAM.NAMES", {"subject": subject})
        except PROBLEMS as error:
            raise untaken.told(error, subject, "") from error
        names = found.get("streams") or ()
        if not names:
            raise untaken.no_stream(subject)
        # Those of one account do not overlap.
        name = self._streams[place] = str(names[0])
        return name

    async def _stream_if_any(self, client: Client, place: _Place, source: NATSSource) -> str:
        now = asyncio.get_running_loop().time()
        if now - self._without.get(place, -_LOOK_AGAIN) < _LOOK_AGAIN:
            return ""
        try:
            return await self._stream_of(client, place)
        except untaken.NoStream as trouble:
            # Who reads a stream has JetStream, also where it does not answer now.
            away = not trouble.certain and source.stream is not None
            if place in self._kept or away:
                raise
        self._without[place] = now
        return ""

    async def _keep(self, client: Client, access: Access, stream: str, message: Outgoing) -> Kept:
        """Publish it; returns when its stream has it. Raises NotTaken."""
        place = access, message.subject
        _check_size(client, message)
        try:
            kept = await keeping_over(client).publish(*message, _CONFIRM_WITHIN)
        except PROBLEMS as error:
            # It may be deleted, or another one take the subject by now.
            self._streams.pop(place, None)
            if isinstance(error, nats.errors.NoRespondersError):
                await self._stream_of(client, place)
            raise untaken.told(error, message.subject, stream) from error
        self._kept.add(place)
        return kept

    async def _is_gone(self, client: Client, kept: Kept, subject: str) -> bool:
        """A stream knows for a while what it had and has no more. Raises NotTaken."""
        try:
            return await message_at(client, kept.stream, kept.sequence) is None
        except PROBLEMS as error:
            raise untaken.told(error, subject, kept.stream) from error


async def reached_by(connection: Connection) -> Client:
    """A connected client. Raises NotTaken where there is none within some seconds."""
    try:
        async with asyncio.timeout(_REACH_WITHIN):
            while (client := connection.client) is None or client.gone:
                await connection.changed()
    except TimeoutError:
        raise untaken.no_server(connection) from None
    return client


def _check_size(client: Client, message: Outgoing) -> None:
    if message.size > client.max_payload:
        raise untaken.too_large(message, client.max_payload)
