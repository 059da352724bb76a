"""The store of several machines, put together."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from triggerhub.connector import Problem
from triggerhub.nats.client import Client
from triggerhub.nats.connection import Connection
from triggerhub.store.jetstream.inbox import JetStreamInbox, count
from triggerhub.store.jetstream.journal import JetStreamJournal
from triggerhub.store.jetstream.letters import JetStreamDeadLetters
from triggerhub.store.jetstream.place import Accesses, place_of
from triggerhub.store.jetstream.positions import Claims, JetStreamPositions
from triggerhub.store.jetstream.reach import Reach
from triggerhub.store.jetstream.server import Server
from triggerhub.store.jetstream.streams import streams_of
from triggerhub.store.records import Room, StoreError, Trouble, Waiting

_PATIENCE_AT_THE_END = 1.0


class _Connection(Connection):
    def __init__(self, accesses: Accesses) -> None:
        super().__init__(accesses.now())
        self._accesses = accesses

    async def _connect(self) -> Client | None:
        try:
            self.access = self._accesses.now()
        except StoreError as error:  # a file that was there is gone, or is something else
            self._tell(None, Problem("AuthenticationFailed", str(error)))
            return None
        return await super()._connect()


class JetStreamStore:
    """``Store`` in streams of NATS JetStream. Each store is a claim holder of its own.

    Opening it waits for nobody: what needs the servers while they are away raises ``StoreError``
    after some seconds, and works again by itself when they are back.
    """

    def __init__(
        self,
        url: str,
        *,
        environ: Mapping[str, str] = os.environ,
        read_only: bool = False,
        room: Room = Room(),  # noqa: B008 - a value
    ) -> None:
        """``url`` as ``place_of`` takes it; ``environ`` has the login (``Accesses``).
        ``read_only`` creates nothing. ``room``: of each inbox. Raises ``StoreError`` for what can
        never work."""
        place = place_of(url)
        streams = streams_of(place, read_only=read_only)
        self._streams = streams
        self._connection = _Connection(Accesses(place, environ))
        self._reach = Reach(self._connection, streams, str(place))
        self._server = Server(self._reach, streams)
        self._claims = Claims(self._server, streams, secrets.token_hex(16))
        self._dead_letters = JetStreamDeadLetters(self._server, streams.dead_letters)
        self._journal = JetStreamJournal(self._server, streams.journal)
        self._room = room
        self._inboxes: dict[str, JetStreamInbox] = {}
        self._waiting: tuple[Mapping[str, Any], dict[str, Waiting]] | None = None
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._scribe: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> Trouble | None:
        """Of the servers, as they were last heard of."""
        return self._reach.trouble

    @property
    def dead_letters(self) -> JetStreamDeadLetters:
        return self._dead_letters

    @property
    def journal(self) -> JetStreamJournal:
        return self._journal

    def positions(self, subscription: str) -> JetStreamPositions:
        """Positions and claims of one subscription."""
        return JetStreamPositions(self._server, self._streams, self._claims, subscription)

    def inbox(self, binding: str) -> JetStreamInbox:
        """What was accepted for one binding and is not delivered yet."""
        binding.encode()
        found = self._inboxes.get(binding)
        if found is None:
            found = JetStreamInbox(self._server, self._streams, binding, self._room)
            self._inboxes[binding] = found
        return found

    async def waiting(self) -> dict[str, Waiting]:
        """What each inbox holds, by binding. Asks for it only where the stream is another than
        before. Raises ``StoreError``."""
        state = await self._server.state(self._streams.inbox)
        if self._waiting is None or self._waiting[0] != state:
            self._waiting = state, await count(self._server, self._streams.inbox)
        return dict(self._waiting[1])

    async def __aenter__(self) -> JetStreamStore:
        await self._tasks.__aenter__()
        for duty in (self._connection.run(), self._reach.keep()):
            self._running.append(self._tasks.create_task(duty))
        self._scribe = self._tasks.create_task(self._journal.keep_writing())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes what is queued, where the servers are there."""
        self._server.patience = _PATIENCE_AT_THE_END
        self._journal.stop()
        try:
            if self._scribe is not None:
                await asyncio.wait([self._scribe])
        finally:
            for task in self._running:
                task.cancel()
            # Not told of the block's own error, which would cancel the connection at its end.
            await self._tasks.__aexit__(None, None, None)
