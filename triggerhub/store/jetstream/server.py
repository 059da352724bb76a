"""JetStream as the store asks it: what is tried again, and what becomes a ``StoreError``."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import nats.errors
import structlog

from triggerhub.backoff import backoff
from triggerhub.nats.client import Client, Denied, Refusal
from triggerhub.nats.connection import Connection
from triggerhub.nats.problems import explain_jetstream
from triggerhub.sentence import leaf
from triggerhub.store.jetstream.streams import NOT_FOUND, Stream
from triggerhub.store.records import StoreError, Trouble

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that one call waits for the servers, answers that are under way apart."""

_NO_MESSAGE = 10037
_NOT_DELETED = (_NO_MESSAGE, 10057)
_CHANGED = (10071, 10164)  # the second: while another write to the subject is under way
_REPLICATED = (2, 10)
_FULL = (10077, 10023, 10047)
"""The stream could not store it, resources of the account, of the server."""
_PASSES = (NOT_FOUND, 10008, 10009)
"""The stream is gone, and made anew; JetStream is starting; it has no leader now."""
_AGAIN = 0.1
_LONGEST = 5.0
_AT_ONCE = 64

log = structlog.get_logger(__name__)


class Changed(Exception):  # noqa: N818 - what happened, not a fault
    """The subject's last message is another than was expected: JetStream's words."""


class Full(StoreError):  # noqa: N818 - a fact about the stream
    """The stream takes no more: its limit, or the server's disk."""


@dataclass(frozen=True, slots=True)
class Message:
    """One of a stream."""

    subject: str
    seq: int
    time: float
    """When it was stored, by the server's clock: seconds since the epoch."""
    headers: Mapping[str, str]
    data: bytes


class Server:
    """One connection and what is asked over it. ``keep`` runs beside it, as a task of the owner.

    A call waits some seconds for servers that are away, and raises ``StoreError`` then; what has
    no answer is asked again, so each request does the same when it comes twice.
    """

    def __init__(self, connection: Connection, streams: Iterable[Stream], where: str) -> None:
        self._connection = connection
        self._streams = list(streams)
        self._where = where
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
        self.patience = PATIENCE

    @property
    def trouble(self) -> Trouble | None:
        """None: all streams were found over the connection that there is."""
        if self._client is not None and not self._client.gone:
            return None
        return Trouble(f"store {self._where}: {self._trouble}", self._refused or not self._heard)

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
                    await asyncio.sleep(backoff(failures, _AGAIN, _LONGEST))
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

    async def _over(self, client: Client, work: Awaitable[T]) -> T:
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
                note = await self._over(client, stream.prepare(client))
                if note and self._noted.get(name) != note:
                    self._noted[name] = note
                    log.warning("store.stream_differs", stream=name, found=note)
        except (StoreError, OSError, nats.errors.Error) as error:
            refused = isinstance(
                error, StoreError | Refusal | Denied | nats.errors.NoRespondersError
            )
            self._away(_words(error, name), refused=refused)
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

    async def put(
        self,
        subject: str,
        data: bytes,
        *,
        last: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Publish; returns the sequence. ``last``: of the subject's last message, 0 for none.
        Raises ``Changed`` where that is another, and ``StoreError``."""
        # A message whose confirmation was lost is known by it when it comes again, and is
        # confirmed once more.
        headers = {**(headers or {}), "Nats-Msg-Id": secrets.token_hex(12)}
        if last is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(last)
        try:
            answer = await self._do(lambda client: client.put(subject, data, headers))
        except Refusal as error:
            if error.number in _CHANGED:
                stored = await self._sequence(subject, headers["Nats-Msg-Id"])
                if stored is not None:
                    return stored
                raise Changed(str(error)) from None
            if error.number in _FULL:
                raise Full(f"store {self._where} are full: {error}") from None
            raise self._error(str(error)) from error
        return int(answer["seq"])

    async def _sequence(self, subject: str, message_id: str) -> int | None:
        """Where the subject's last message lies, if it is that one. When a message comes again,
        servers of today (2.15) look at what it expects before they look whether they have it."""
        stream = next(s for s in self._streams if subject.startswith(f"{s.root}."))
        found = await self.get(stream, last_by_subj=subject)
        if found is None or found.headers.get("Nats-Msg-Id") != message_id:
            return None
        return found.seq

    async def get(self, stream: Stream, **which: str | int) -> Message | None:
        """One message, by ``seq``, ``last_by_subj``, or ``seq`` and ``next_by_subj``; None: there
        is none. Raises ``StoreError``."""
        try:
            answer = await self._do(
                lambda client: client.ask(f"STREAM.MSG.GET.{stream.name}", which)
            )
        except Refusal as error:
            if error.number == _NO_MESSAGE:
                return None
            raise self._error(str(error)) from error
        found = answer["message"]
        return Message(
            found["subject"],
            found["seq"],
            datetime.fromisoformat(found["time"]).timestamp(),
            _headers(b64decode(found.get("hdrs", ""))),
            b64decode(found.get("data", "")),
        )

    async def get_all(self, stream: Stream, subjects: Sequence[str]) -> list[Message | None]:
        """The last message of each subject. Raises ``StoreError``."""
        found: list[Message | None] = []
        for start in range(0, len(subjects), _AT_ONCE):
            some = subjects[start : start + _AT_ONCE]
            found += await together(self.get(stream, last_by_subj=subject) for subject in some)
        return found

    async def state(self, stream: Stream) -> Mapping[str, Any]:
        """``messages``, ``first_seq``, ``last_seq`` and more. Raises ``StoreError``."""
        answer = await self._ask(f"STREAM.INFO.{stream.name}")
        state: Mapping[str, Any] = answer["state"]
        return state

    async def subjects(self, stream: Stream, wanted: str) -> list[str]:
        """The subjects that have messages, of those that ``wanted`` means. Raises
        ``StoreError``."""
        found: dict[str, int] = {}
        while True:
            request = {"subjects_filter": wanted, "offset": len(found)}
            answer = await self._ask(f"STREAM.INFO.{stream.name}", request)
            page = answer["state"].get("subjects") or {}
            before = len(found)
            found |= page
            if len(found) == before or len(found) >= answer.get("total", 0):
                return list(found)

    async def purge(self, stream: Stream, subject: str, before: int | None = None) -> int:
        """Remove a subject's messages, with ``before`` only those of a lesser sequence; returns
        how many. Raises ``StoreError``."""
        if before is not None and before <= 1:
            return 0  # to the server, those before 1 are all
        request = {"filter": subject} | ({} if before is None else {"seq": before})
        answer = await self._ask(f"STREAM.PURGE.{stream.name}", request)
        return int(answer["purged"])

    async def delete(self, stream: Stream, seq: int) -> bool:
        """Remove one message. False: it is not there. Raises ``StoreError``."""
        request = {"seq": seq, "no_erase": True}
        try:
            await self._do(lambda client: client.ask(f"STREAM.MSG.DELETE.{stream.name}", request))
        except Refusal as error:
            if error.number in _NOT_DELETED:
                return False
            raise self._error(str(error)) from error
        return True

    async def max_payload(self) -> int:
        """Bytes of a message, headers included, that the server takes. Raises ``StoreError``."""
        return (await self._reached(self._deadline())).max_payload

    async def _ask(self, subject: str, request: Mapping[str, Any] | None = None) -> Any:
        try:
            return await self._do(lambda client: client.ask(subject, request))
        except Refusal as error:
            raise self._error(str(error)) from error

    async def _do(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Raises ``Refusal`` and ``StoreError``."""
        deadline = self._deadline()
        while True:
            client = await self._reached(deadline)
            try:
                return await self._over(client, work(client))
            except Refusal as error:
                if error.number not in _PASSES:
                    raise
                failure: Exception = error
            except (Denied, nats.errors.MaxPayloadError) as error:
                raise self._error(_words(error, "")) from error
            except (OSError, nats.errors.Error) as error:
                failure = error
            if isinstance(failure, Refusal | nats.errors.NoRespondersError):
                self._wake.set()  # the stream may be gone
            if asyncio.get_running_loop().time() >= deadline:
                raise self._error(_words(failure, "")) from failure
            await asyncio.sleep(_AGAIN)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.patience

    async def _reached(self, deadline: float) -> Client:
        while (client := self._client) is None or client.gone:
            self._client = None
            if self._refused:
                raise self._error(self._trouble)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._turned.wait()
            except TimeoutError:
                raise self._error(self._trouble) from None
        return client

    def _here(self, client: Client) -> None:
        if self._told:
            log.info("store.available", store=self._where)
        self._client, self._told, self._trouble = client, "", "the connection was lost"
        self._turn(refused=False)

    def _away(self, trouble: str, *, refused: bool = False) -> None:
        self._client, self._trouble = None, trouble
        if not self._told:
            log.warning("store.unavailable", store=self._where, error=trouble)
        self._told = trouble
        self._turn(refused=refused)

    def _turn(self, *, refused: bool) -> None:
        self._heard, self._refused = True, refused
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    def _error(self, text: str) -> StoreError:
        return StoreError(f"store {self._where}: {text}")


async def together(works: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """All of them at once. Raises ``StoreError``, the first one's, as it is."""
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(work) for work in works]
    except* StoreError as errors:
        failure = leaf(errors)
    if failure is not None:
        raise failure
    return [each.result() for each in asked]


def _headers(block: bytes) -> dict[str, str]:
    found = {}
    for line in block.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found[name] = value.strip()
    return found


def _words(error: Exception, stream: str) -> str:
    if isinstance(error, Refusal) and error.number != NOT_FOUND:
        return f"stream {stream}: {error}" if stream else str(error)
    if isinstance(error, StoreError | nats.errors.MaxPayloadError):
        return str(error).removeprefix("nats: ")
    return explain_jetstream(error, stream or "of the store").text
