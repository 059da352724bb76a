"""Messages that a stream is to keep: published, and confirmed by it."""

from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

import nats.errors
from nats.aio.msg import Msg

from triggerhub.nats.client import Client, Denied, Refusal, published, speaks_of


class Kept(NamedTuple):
    """Where a stream put a message."""

    stream: str
    sequence: int
    duplicate: bool
    """One with the same ``Nats-Msg-Id`` lay there already, not long ago."""


def keeping_over(client: Client) -> Keeping:
    """The one of this connection."""
    if not isinstance(client.keeping, Keeping):
        client.keeping = Keeping(client)
    return client.keeping


class Keeping:
    """Publishes over one connection. nats-py's request takes the first answer for the answer; but
    who else listens to a subject may answer, too."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._opening = asyncio.Lock()
        self._open = False
        self._number = 0
        self._waiting: dict[str, tuple[str, asyncio.Future[Kept]]] = {}

    async def publish(self, subject: str, headers: bytes, data: bytes, within: float) -> Kept:
        """``headers``: a whole block. Returns when a stream has it; where nobody heard it, or it
        was refused, none has. Raises NoRespondersError, Refusal, Denied; TimeoutError,
        and nats.errors.Error where the connection ended: then one may have it."""
        async with self._opening:
            if not self._open:
                await self._client.listen(f"{self._inbox}.*", self._take)
                self._open = True
        self._number += 1
        token = str(self._number)
        future: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self._waiting[token] = subject, future
        try:
            await self._client.write([published(subject, f"{self._inbox}.{token}", headers, data)])
            if self._client.gone:
                raise nats.errors.ConnectionClosedError
            async with asyncio.timeout(within):
                return await future
        finally:
            del self._waiting[token]

    def deny(self, text: str) -> None:
        """The server said that something is not allowed."""
        for subject, future in self._waiting.values():
            if speaks_of(text, subject) and not future.done():
                future.set_exception(Denied(text))

    def lose(self) -> None:
        """The connection ended."""
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(nats.errors.ConnectionClosedError())

    async def _take(self, message: Msg) -> None:
        _, future = self._waiting.get(message.subject.rpartition(".")[2], ("", None))
        if future is None or future.done():
            return
        if not message.data and (message.headers or {}).get("Status") == "503":
            future.set_exception(nats.errors.NoRespondersError())
            return
        try:
            found = json.loads(message.data)
            error = found.get("error")
            kept = None if error else Kept(
                found["stream"], int(found["seq"]), bool(found.get("duplicate"))
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # somebody else's word
        if kept is not None:
            future.set_result(kept)
        elif isinstance(error, dict):
            future.set_exception(Refusal(
                error.get("code", 0), error.get("err_code", 0), error.get("description", "")
            ))  # fmt: skip
