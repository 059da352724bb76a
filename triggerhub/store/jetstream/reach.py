"""Whether the servers can be used, and over which connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

import nats.errors
import structlog

from triggerhub.backoff import backoff
from triggerhub.nats.client import Client, Denied, Refusal
from triggerhub.nats.connection import Connection
from triggerhub.nats.problems import explain_jetstream
from triggerhub.store.jetstream.streams import NOT_FOUND, Stream
from triggerhub.store.records import StoreError, Trouble

T = TypeVar("T")

_REPLICATED = (2, 10)
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0

log = structlog.get_logger(__name__)


class Reach:
    """One connection, over which all streams were found. ``keep`` runs beside it, as a task of the
    owner."""

    def __init__(self, connection: Connection, streams: Iterable[Stream], where: str) -> None:
        self._connection = connection
        self._streams = list(streams)
        self.where = where
        self._client: Client | None = None
        """One that found all streams."""
        self._trouble = "the servers have not said yet that it can be used"
        self._told = ""
        self._heard = False
        """Whether they can be used has been found out once."""
        self._refused = False
        """The servers say that it cannot be used, and will say so again."""
        self._old = False
        self._noted: dict[str, str] = {}
        """What streams have otherwise than was asked for, by their names."""
        self._turned = asyncio.Event()
        self._wake = asyncio.Event()
        self._under_way: dict[asyncio.Timeout, Client] = {}
        """What is asked now, and over which connection."""

    @property
    def trouble(self) -> Trouble | None:
        """None: all streams were found over the connection that there is."""
        if self._client is not None and not self._client.gone:
            return None
        return Trouble(f"store {self.where}: {self._trouble}", self._refused or not self._heard)

    async def keep(self) -> None:
        """Until cancelled: see to the streams on each connection that is made."""
        async with asyncio.TaskGroup() as tasks:
            watched: Client | None = None
            failures = 0
            while True:
                client = self._connection.client
                if client is None or client.gone:
                    if (problem := self._connection.problem) is not None:
                        refused = problem.reason != "ServerUnreachable"
                        self._away(problem.text, refused=refused)
                    await self._connection.changed()
                    continue
                if client is not watched:
                    watched = client
                    tasks.create_task(self._abort(client))
                self._wake.clear()
                client.wakes.add(self._wake)
                if not await self._prepare(client):
                    failures += 1
                    await asyncio.sleep(backoff(failures, _FIRST_WAIT, _LONGEST_WAIT))
                    continue
                failures = 0
                await self._wake.wait()
                self._client = None

    async def _abort(self, client: Client) -> None:
        """When it is lost, what was asked over it has no answer any more."""
        await client.lost.wait()
        now = asyncio.get_running_loop().time()
        for scope, asked in self._under_way.items():
            if asked is client and not scope.expired():
                scope.reschedule(now)

    async def over(self, client: Client, work: Awaitable[T]) -> T:
        """Raises ``TimeoutError`` once the connection is lost, besides what the work raises."""
        async with asyncio.timeout(None) as scope:
            self._under_way[scope] = client
            try:
                return await work
            finally:
                del self._under_way[scope]

    async def _prepare(self, client: Client) -> bool:
        name = ""
        try:
            for stream in self._streams:
                name = stream.name
                note = await self.over(client, stream.prepare(client))
                if note and self._noted.get(name) != note:
                    self._noted[name] = note
                    log.warning("store.stream_differs", stream=name, found=note)
        except (StoreError, OSError, nats.errors.Error) as error:
            refused = isinstance(
                error, StoreError | Refusal | Denied | nats.errors.NoRespondersError
            )
            self._away(words(error, name), refused=refused)
            return False
        self._look_at_version(client)
        self._here(client)
        return True

    def _look_at_version(self, client: Client) -> None:
        found = client.connected_server_version
        replicated = any(stream.config.get("num_replicas", 1) > 1 for stream in self._streams)
        if replicated and (found.major, found.minor) < _REPLICATED and not self._old:
            self._old = True
            log.warning(
                "store.servers_too_old",
                found=f"nats-server {found.major}.{found.minor}",
                expected="2.10 or newer: with several replicas, older ones confirm two hubs' "
                "writes to the same entry, and keep one",
            )

    async def client(self, deadline: float) -> Client:
        """By then, in the loop's time. Raises ``StoreError``."""
        while (client := self._client) is None or client.gone:
            self._client = None
            if self._refused:
                raise self.error(self._trouble)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._turned.wait()
            except TimeoutError:
                raise self.error(self._trouble) from None
        return client

    def look_again(self) -> None:
        """A stream may be gone."""
        self._wake.set()

    def error(self, text: str) -> StoreError:
        """Of this store."""
        return StoreError(f"store {self.where}: {text}")

    def _here(self, client: Client) -> None:
        if self._told:
            log.info("store.available", store=self.where)
        self._client, self._told, self._trouble = client, "", "the connection was lost"
        self._turn(refused=False)

    def _away(self, trouble: str, *, refused: bool = False) -> None:
        self._client, self._trouble = None, trouble
        if not self._told:
            log.warning("store.unavailable", store=self.where, error=trouble)
        self._told = trouble
        self._turn(refused=refused)

    def _turn(self, *, refused: bool) -> None:
        self._heard, self._refused = True, refused
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()


def words(error: Exception, stream: str = "") -> str:
    """What went wrong, of that stream where it is known."""
    if isinstance(error, Refusal) and error.number != NOT_FOUND:
        return f"stream {stream}: {error}" if stream else str(error)
    if isinstance(error, StoreError | nats.errors.MaxPayloadError):
        return str(error).removeprefix("nats: ")
    return explain_jetstream(error, stream or "of the store").text
