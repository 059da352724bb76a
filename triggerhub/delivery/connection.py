"""One kept-alive HTTP/1.1 connection: writes a request, reads its reply."""

from __future__ import annotations

import asyncio
import math
import os
import re
import socket
import ssl
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from triggerhub.event import Headers, Reply

if TYPE_CHECKING:
    from triggerhub.delivery.pool import Pool

_MAX_HEAD = 64 * 1024
_SURPLUS = 64 * 1024
"""A body is read so far beyond what is kept, to keep its connection usable; no further."""
_OVERHEAD = 8
"""Bytes on the wire for one of a body: a chunk of a single byte takes six."""
_PIECE = 64 * 1024
"""Longer request bodies are written piece by piece, as fast as the peer takes them."""


class Away(Exception):  # noqa: N818 - a fact about the function, not a fault of the hub
    """No connection, or one that ended before any byte of a reply: refused, reset, DNS, TLS,
    connect timeout. The text is one plain line."""


class NoReply(Exception):  # noqa: N818
    """The attempt's time passed without a complete reply."""

    reason = "timeout"


class BrokenReply(Exception):  # noqa: N818
    """What came back is not one whole HTTP/1.1 reply. The text says how."""


class Stale(Exception):  # noqa: N818
    """A reused connection ended before any byte of a reply: the server closed it while idle."""


class Connection(asyncio.Protocol):
    """Belongs to a pool. Idle, or busy with one request (``reply`` is set); no pipelining.

    It is used again only after a reply that ended where HTTP says it ends (RFC 9112, section 6.3),
    with the request written whole, nothing after it, and the server willing (section 9.3).
    """

    __slots__ = (
        "_body",
        "_body_size",
        "_complete",
        "_fields",
        "_head_request",
        "_headers",
        "_keep",
        "_keep_alive",
        "_once",
        "_parser",
        "_paused",
        "_pool",
        "_received",
        "_status",
        "_surplus",
        "_transport",
        "_unsent",
        "_used",
        "_written",
        "deadline",
        "holds_slot",
        "open",
        "reply",
    )

    _transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.open = True
        self.holds_slot = True
        """Whether its end makes room in the pool; otherwise the room is already someone's."""
        self.deadline = math.inf
        """Loop time at which ``expire`` is due: of the reply when busy, else of idleness."""
        self.reply: asyncio.Future[Reply] | None = None
        self._pool = pool
        self._used = False
        self._paused = False
        self._unsent: memoryview | None = None
        self._body: list[bytes] = []
        self._fields: Headers = ()
        self._new_parser()

    def begin(
        self, head: bytes, body: bytes, keep: int, head_request: bool, deadline: float, once: bool
    ) -> asyncio.Future[Reply]:
        """Write a request. The future gets the reply, or ``Away``, ``NoReply``, ``BrokenReply``
        or ``Stale``; after ``Stale`` the connection's room in the pool waits for ``replace``.
        ``once``: no ``Stale`` when some of the request was written."""
        pool = self._pool
        future = self.reply = pool.loop.create_future()
        self._keep = keep
        self._head_request = head_request
        self._once = once
        self._written = False
        self._received = self._status = self._body_size = 0
        self._complete = self._surplus = False
        self.deadline = deadline
        if deadline < pool.wake_at:
            pool.arm(deadline)
        if len(body) <= _PIECE:
            pool.write_soon(self, head + body)
        else:
            self.write(head)
            self._unsent = memoryview(body)
            self._write_on()
        return future

    def write(self, data: bytes) -> None:
        """Hand over to the kernel, unless the attempt was given up meanwhile."""
        if self.open:
            self._written = True
            self._transport.write(data)

    def drop(self, *, gently: bool = False) -> None:
        """Close at once, or ``gently``: with TLS's farewell. Whoever waits is not told."""
        self.open = False
        self.deadline = math.inf
        self.reply = self._unsent = None
        self._pool.forget_idle(self)
        if self.holds_slot:
            self.holds_slot = False
            self._pool.slot_freed()
        if gently:
            self._transport.close()
        else:
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """Close at once; the attempt under way raises ``error``."""
        future = self.reply
        self.drop()
        if future is not None and not future.done():
            future.set_exception(error)

    def expire(self) -> None:
        """The deadline passed."""
        if self.reply is None:
            self.drop(gently=True)
        elif self._received:
            self.fail(NoReply(f"only part of a reply in time: {self._received} bytes"))
        else:
            self.fail(NoReply("no reply in time"))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pool.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self.reply is None:
            self.drop()
            return
        self._received += len(data)
        parser = self._parser
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._surplus = True
            if not self._complete:
                cause = error.__context__
                broken = cause if isinstance(cause, BrokenReply) else None
                self.fail(broken or BrokenReply(f"not an HTTP/1.1 reply: {error}"))
                return
        if self._complete:
            self._finish()
        elif self._received > _MAX_HEAD:
            self._check_size()

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._pool.lost(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write_on()

    # httptools calls these

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True
        self._headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return  # an interim reply; the real one follows (RFC 9110, section 15.2)
        if status < 200 or status > 599:
            raise BrokenReply(f"expected a status from 200 to 599, found {status}")
        self._status = status
        self._fields = tuple(self._headers)  # later ones are trailers
        if self._received > _MAX_HEAD:
            size = sum(len(name) + len(value) + 4 for name, value in self._fields)
            if size > _MAX_HEAD:
                raise _too_large()
        if self._head_request:
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        if self._complete:
            self._surplus = True
            return
        room = self._keep - self._body_size
        self._body_size += len(data)
        if room > 0:
            self._body.append(data[:room])

    def on_message_complete(self) -> None:
        if self._status:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def _finish(self) -> None:
        """The reply is as whole as it will be: hand it over, then go idle or close."""
        future = self.reply
        assert future is not None
        body = b""
        if self._body:
            body = b"".join(self._body)
            self._body.clear()
        reply = Reply(self._status, self._fields, body, self._body_size > self._keep)
        written = self._unsent is None and self._transport.get_write_buffer_size() == 0
        if not (self._complete and written) or future.done():
            self.drop()
        elif self._surplus or not self._keep_alive:
            self.drop(gently=True)
        else:
            if self._head_request:
                self._new_parser()  # the old one may wait for a body
            self.reply = None
            self._used = True
            self._pool.release(self)
        if not future.done():
            future.set_result(reply)

    def _ended(self, error: Exception | None) -> None:
        """The peer sends no more, or the connection is gone."""
        if not self.open:
            return
        future = self.reply
        if future is None or future.done():
            self.drop()
        elif self._status and error is None and not _framed(self._fields):
            self._finish()
        elif self._received:
            self.fail(BrokenReply(f"the connection ended within a reply: {self._received} bytes"))
        elif self._used and not (self._once and self._written):
            # Its room in the pool stays taken: the attempt goes on in it.
            self.open = False
            self.deadline = math.inf
            self._transport.abort()
            future.set_exception(Stale())
        else:
            self.fail(Away("closed before a reply" if error is None else explain(error)))

    def _check_size(self) -> None:
        """Bound what an endless reply costs, in memory and in time."""
        if not self._status:
            self.fail(_too_large())
        elif self._body_size > self._keep + _SURPLUS:
            self._finish()
        elif self._received > _MAX_HEAD + _OVERHEAD * (self._keep + _SURPLUS):
            self.fail(BrokenReply(f"{self._received} bytes for a body of {self._body_size}"))

    def _write_on(self) -> None:
        rest = self._unsent
        while rest is not None and not self._paused:
            self._transport.write(rest[:_PIECE])
            rest = self._unsent = rest[_PIECE:] if len(rest) > _PIECE else None

    def _new_parser(self) -> None:
        self._parser = HttpResponseParser(self)


def _too_large() -> BrokenReply:
    return BrokenReply(f"a header section of more than {_MAX_HEAD // 1024} KiB")


def _framed(fields: Headers) -> bool:
    """Whether the fields say where the body ends; else the connection's end does
    (RFC 9112, section 6.3)."""
    return any(
        name == b"content-length"
        or (name == b"transfer-encoding" and value.lower().endswith(b"chunked"))
        for name, value in fields
    )


def explain(error: BaseException) -> str:
    """Why there is no connection, as one plain line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: certificate verify failed: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    number = getattr(error, "errno", None)
    if number is None:
        # asyncio puts the errors of several addresses into one text.
        found = re.findall(r"\[Errno (\d+)\]", str(error))
        number = int(found[-1]) if found else None
    if number is not None:
        return os.strerror(number).lower()
    return str(error).partition("\n")[0] or type(error).__name__
