"""One kept-alive HTTP/1.1 connection: writes a request, reads its reply."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpParserUpgrade

from triggerhub.delivery.failures import Away, BrokenReply, NoReply, Stale, explain
from triggerhub.delivery.flow import Flow
from triggerhub.delivery.reading import MAX_HEAD, Reading, framed, length_of, too_large
from triggerhub.delivery.upload import Upload
from triggerhub.event import Reply

if TYPE_CHECKING:
    from triggerhub.delivery.pool import Pool

_SURPLUS = 64 * 1024
"""A body is read so far beyond what is kept, to keep its connection usable; no further."""
_OVERHEAD = 8
"""Bytes on the wire for one of a body: a chunk of a single byte takes six."""
_HELD = 256 * 1024
"""Bytes of a body that is kept until it is whole, where it might flow."""
_HOLD = 0.05
"""Seconds after the head that a body of unknown length gets to become whole."""
_PIECE = 64 * 1024
"""Longer request bodies are written piece by piece, as fast as the peer takes them."""


class Connection(Reading, asyncio.Protocol):
    """Belongs to a pool. Idle, or busy with one request (``reply`` is set); no pipelining.

    It is used again only after a reply that ended where HTTP says it ends (RFC 9112, section 6.3),
    with the request written whole, nothing after it, and the server willing (section 9.3).
    """

    __slots__ = (
        "_brief",
        "_flow",
        "_idle",
        "_more",
        "_once",
        "_pace",
        "_paused",
        "_pool",
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
        super().__init__()
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
        self._flow: Flow | None = None
        """Takes what comes of the reply's body after its begin has been handed over."""
        self._more: Upload | None = None
        """Sends what is still missing of the request's body."""

    def begin(
        self,
        head: bytes,
        body: bytes,
        keep: int,
        head_request: bool,
        deadline: float,
        once: bool,
        pace: float = 0.0,
        more: Upload | None = None,
    ) -> asyncio.Future[Reply]:
        """Write a request. The future gets the reply, or ``Away``, ``NoReply``, ``BrokenReply``
        or ``Stale``; after ``Stale`` the connection's room in the pool waits for ``replace``.
        ``once``: no ``Stale`` when some of the request was written. ``pace``: seconds that each
        piece of a reply may take that is handed over as it comes; 0: none is. ``more``: sends
        what follows ``body``; from its first piece on, there is no ``Stale``."""
        pool = self._pool
        future = self.reply = pool.loop.create_future()
        self._keep = keep
        self._head_request = head_request
        self._once = once
        self._pace = pace
        self._received = self._status = self._body_size = 0
        self._complete = self._surplus = self._brief = self._written = False
        self.deadline = deadline
        if deadline < pool.wake_at:
            pool.arm(deadline)
        self._more = more
        if len(body) <= _PIECE and more is None:
            pool.write_soon(self, head + body)
        else:
            self.write(head)
            self._unsent = memoryview(body)
            self._write_on()
        if more is not None:
            more.attach(self)
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
        self.reply = self._unsent = self._flow = self._more = None
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
        future, flow = self.reply, self._flow
        self.drop()
        if flow is not None:
            flow.finish(error)
        elif future is not None and not future.done():
            future.set_exception(error)

    def expire(self) -> None:
        """The deadline passed."""
        if self.reply is None:
            self.drop(gently=True)
        elif self._flow is not None:
            self.fail(NoReply(f"nothing more of a reply in {self._pace:g} s"))
        elif self._brief:
            self._let_flow()
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
        elif self._flow is not None:
            self._flow_on(self._flow, len(data))
        elif self._pace and self._status and self._flows():
            self._let_flow()
        elif self._received > MAX_HEAD:
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
        if self._more is not None:
            self._more.wake()

    def _finish(self) -> None:
        """The reply is as whole as it will be: hand it over, then go idle or close."""
        future, flow = self.reply, self._flow
        assert future is not None
        body = b""
        if self._body:
            body = b"".join(self._body)
            self._body.clear()
        whole = self._unsent is None and self._more is None
        written = whole and self._transport.get_write_buffer_size() == 0
        if not (self._complete and written) or (flow is None and future.done()):
            self.drop()
        elif self._surplus or not self._keep_alive:
            self.drop(gently=True)
        else:
            if self._head_request:
                self._new_parser()  # the old one may wait for a body
            if flow is not None and flow.full:
                self._transport.resume_reading()  # a loop may bring what it had before the pause
            self.reply = self._flow = None
            self._used = True
            self._pool.release(self)
        if flow is not None:
            flow.put(body)
            flow.finish()
        elif not future.done():
            truncated = self._body_size > self._keep
            future.set_result(Reply(self._status, self._fields, body, truncated))

    def _ended(self, error: Exception | None) -> None:
        """The peer sends no more, or the connection is gone."""
        if not self.open:
            return
        future = self.reply
        if future is None or (future.done() and self._flow is None):
            self.drop()
        elif self._status and error is None and not framed(self._fields):
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

    def _flows(self) -> bool:
        """Whether a body that is not whole yet is to be handed over as it comes."""
        length = length_of(self._fields)
        if length is not None:
            return length > _HELD
        if not self._brief:
            self._brief = True
            self._due(min(self.deadline, self._pool.loop.time() + _HOLD))
        return self._body_size > _HELD

    def _let_flow(self) -> None:
        """Hand over what there is of the reply; what follows is for whoever has it."""
        future = self.reply
        assert future is not None
        if future.done():
            self.drop()
            return
        flow = self._flow = Flow(self)
        self._keep = sys.maxsize
        body = b"".join(self._body)
        self._body.clear()
        self._idle = 0
        self.renew()
        future.set_result(Reply(self._status, self._fields, body, rest=flow))

    def _flow_on(self, flow: Flow, size: int) -> None:
        """So many bytes came, with or without some of the body."""
        if not self._body:
            self._idle += size
            if self._idle > MAX_HEAD:
                self.fail(BrokenReply(f"{self._idle} bytes within a body, and none of it"))
            return
        self._idle = 0
        flow.put(b"".join(self._body))
        self._body.clear()
        if flow.full:
            self._transport.pause_reading()
        self.renew()

    def read_on(self) -> None:
        """Whoever has the flow takes more."""
        self._transport.resume_reading()
        self.renew()

    @property
    def takes(self) -> bool:
        """Whether more of the request's body can be sent."""
        return self.open and not self._paused and self._unsent is None

    def send_on(self, data: bytes, *, last: bool) -> None:
        """A piece of the request's body."""
        self._once = True
        self.write(data)
        if last:
            self._more = None
        self.renew()

    def renew(self) -> None:
        """The function's time begins anew, unless it waits for the caller itself."""
        flow, more = self._flow, self._more
        if flow is None and self._brief:
            return  # what there is of the reply is handed over soon
        if (more is not None and more.waiting) or (flow is not None and flow.full):
            self.deadline = math.inf
        else:
            self._due(self._pool.loop.time() + self._pace)

    def _due(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self._pool.wake_at:
            self._pool.arm(deadline)

    def _check_size(self) -> None:
        """Bound what an endless reply costs, in memory and in time."""
        if not self._status:
            self.fail(too_large())
        elif self._body_size > self._keep + _SURPLUS:
            self._finish()
        elif self._received > MAX_HEAD + _OVERHEAD * (self._keep + _SURPLUS):
            self.fail(BrokenReply(f"{self._received} bytes for a body of {self._body_size}"))

    def _write_on(self) -> None:
        rest = self._unsent
        while rest is not None and not self._paused:
            self._transport.write(rest[:_PIECE])
            rest = self._unsent = rest[_PIECE:] if len(rest) > _PIECE else None
