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

from triggerhub.nats.client import Client, Denied, Refusal
from triggerhub.sentence import leaf
from triggerhub.store.jetstream.reach import Reach, words
from triggerhub.store.jetstream.streams import NOT_FOUND, Stream
from triggerhub.store.records import StoreError

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that one call waits for the servers, answers that are under way apart."""

_NO_MESSAGE = 10037
_NOT_DELETED = (_NO_MESSAGE, 10057)
_CHANGED = (10071, 10164)  # the second: while another write to the subject is under way
_FULL = (10077, 10023, 10047)
"""The stream could not store it, resources of the account, of the server."""
_PASSES = (NOT_FOUND, 10008, 10009)
"""The stream is gone, and made anew; JetStream is starting; it has no leader now."""
_AGAIN = 0.1
_AT_ONCE = 64


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
    """What is asked of the servers.

    A call waits some seconds for servers that are away, and raises ``StoreError`` then; what has
    no answer is asked again, so each request does the same when it comes twice.
    """

    def __init__(self, reach: Reach, streams: Iterable[Stream]) -> None:
        self._reach = reach
        self._streams = list(streams)
        self.patience = PATIENCE

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
                raise Full(f"store {self._reach.where} are full: {error}") from None
            raise self._reach.error(str(error)) from error
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
            raise self._reach.error(str(error)) from error
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
            raise self._reach.error(str(error)) from error
        return True

    async def max_payload(self) -> int:
        """Bytes of a message, headers included, that the server takes. Raises ``StoreError``."""
        return (await self._reach.client(self._deadline())).max_payload

    async def _ask(self, subject: str, request: Mapping[str, Any] | None = None) -> Any:
        try:
            return await self._do(lambda client: client.ask(subject, request))
        except Refusal as error:
            raise self._reach.error(str(error)) from error

    async def _do(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Raises ``Refusal`` and ``StoreError``."""
        deadline = self._deadline()
        while True:
            client = await self._reach.client(deadline)
            try:
                return await self._reach.over(client, work(client))
            except Refusal as error:
                if error.number not in _PASSES:
                    raise
                failure: Exception = error
            except (Denied, nats.errors.MaxPayloadError) as error:
                raise self._reach.error(words(error)) from error
            except (OSError, nats.errors.Error) as error:
                failure = error
            if isinstance(failure, Refusal | nats.errors.NoRespondersError):
                self._reach.look_again()
            if asyncio.get_running_loop().time() >= deadline:
                raise self._reach.error(words(failure)) from failure
            await asyncio.sleep(_AGAIN)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.patience


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
