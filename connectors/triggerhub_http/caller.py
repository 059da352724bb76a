"""Who waits for an answer, and takes one that is long or slow while it comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from triggerhub.event import Reply
from triggerhub_http.messages import Field, Refusal

if TYPE_CHECKING:
    from uvicorn._types import ASGISendCallable

CONNECTION = "connection"
"""In the state of a request: an ``Ending``."""


class Ending(Protocol):
    """How a request's connection ends."""

    def cut(self) -> None:
        """Now, within the answer."""

    def leave(self) -> None:
        """With the answer, as the request is not read to its end."""


class Caller:
    """Of one request."""

    __slots__ = ("_begun", "_connection", "_ended", "_fields", "_send", "status")

    def __init__(
        self,
        send: ASGISendCallable,
        connection: Ending,
        fields: Callable[[Reply], list[Field]],
    ) -> None:
        """``fields``: of an answer whose length only its own fields say."""
        self._send = send
        self._connection = connection
        self._fields = fields
        self._begun = self._ended = False
        self.status = 0
        """Of an answer that went out whole."""

    async def begin(self, reply: Reply) -> None:
        self._begun = True
        self.status = reply.status
        fields = self._fields(reply)
        await self._send({"type": "http.response.start", "status": reply.status, "headers": fields})
        await self.take(reply.body)

    async def take(self, piece: bytes) -> None:
        # Waits before it writes: what was written last may still be on its way.
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self._ended = True

    async def hear(self, serving: Awaitable[Reply]) -> Reply | None:
        """What is still to be answered. None: nothing, as the answer went out while it came, or
        broke off; then its connection ends, so that nobody takes it for whole. Raises
        ``Refusal``."""
        try:
            reply = await serving
        except Refusal:
            if not self._begun:
                raise
        if not self._begun:
            self.status = reply.status
            return reply
        if not self._ended:
            self.status = 0
            self._connection.cut()
        return None
