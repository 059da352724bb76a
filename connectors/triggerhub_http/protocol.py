"""What uvicorn's HTTP/1.1 lacks at an edge: limits, patience with slow clients, a gentle end."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from triggerhub_http.caller import CONNECTION
from triggerhub_http.clients import IDENTITY, Identity, identity
from triggerhub_http.cycle import Cycle
from triggerhub_http.framing import Malformed, origin_form
from triggerhub_http.messages import Refusal
from triggerhub_http.outbox import Flow, Outbox, Outgoing

MAX_HEAD = 64 * 1024
KEEP_ALIVE = 75.0
"""Seconds; longer than the usual proxies', so that they close first."""

_PIECE = 16 * 1024
"""The parser gets no more at once: a head that is too long is noticed in time."""
_LINGER = 2.0
_MAX_DISCARDED = 16 * 1024 * 1024

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

_log = logging.getLogger(__name__)
_log.setLevel(logging.ERROR)  # what clients send wrong is answered, and no line of ours


class Protocol(HttpToolsProtocol):
    """One client's connection. A standing task answers its requests, one after the other."""

    def __init__(
        self,
        outbox: Outbox,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _log
        self._outbox = outbox
        self.identity: Identity | None = None
        """Who the client is by its certificate."""
        self.since = self.loop.time()
        """When the client was last heard, or answered, in seconds of loop time."""
        self._left = 0
        """Bytes that the client had not taken in, when it was last waited for to take them."""
        self._head_size = 0
        """Bytes since a body or a request went on: of a head, of trailers, between chunks."""
        self._deaf = False
        self._discarded = 0
        self._last_words = b""
        self._rest = b""
        """What came with an offer of another protocol and is not read yet."""
        self._again = False
        """The parser reads a head that was read before."""
        self._next: RequestResponseCycle | None = None
        self._running: RequestResponseCycle | None = None
        self._wake: asyncio.Future[None] | None = None
        self._worker: asyncio.Task[None]

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._outgoing = Outgoing(transport, self._outbox, self._may_close)
        super().connection_made(self._outgoing)
        self.identity = identity(transport.get_extra_info("peercert"))
        self.app_state = {IDENTITY: self.identity, CONNECTION: self}
        self.flow = Flow(self.transport, self.pipeline)
        self._worker = self.loop.create_task(self._work())
        self._worker.add_done_callback(self.tasks.discard)
        self.tasks.add(self._worker)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        super().connection_lost(exc)
        if self._running is not None:
            self._running.disconnected = True
        self._worker.cancel()

    def data_received(self, data: bytes) -> None:
        if len(data) <= _PIECE:
            self._feed(data)
        else:
            for at in range(0, len(data), _PIECE):
                self._feed(data[at : at + _PIECE])

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has nothing more to say is gone: whether it still reads cannot be told. But
        it gets what is answered at once, and hears of a request without its end."""
        if self._within_head or self._within_body:
            self._refuse(Refusal(400, "BadRequest", "found a request without its end"))
        end: Callable[[], None] = self.transport.end  # type: ignore[attr-defined]
        if self.transport.get_extra_info("sslcontext") is not None:
            end()
            return False
        # What came with it has its turn first: uvloop brings both in one.
        self.loop.call_soon(end)
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self.since = self.loop.time()
        self._left = self._outgoing.left()

    def _feed(self, data: bytes) -> None:
        if self._deaf:
            self._discarded += len(data)
            if self._discarded > _MAX_DISCARDED:
                self.transport.abort()
            return
        size = self._head_size = self._head_size + len(data)
        self._rest = data
        while self._rest and not self._deaf:
            fed, self._rest = self._rest, b""
            self._fed = fed
            super().data_received(fed)
        if self._head_size < size or size == len(data):
            self.since = self.loop.time()  # a head began, or something else than heads came
        elif size > MAX_HEAD:
            message = f"the request's head is longer than {MAX_HEAD} bytes"
            self._refuse(Refusal(431, "HeaderTooLarge", message))

    # What uvicorn asks.

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()
        known = error.__context__ if error is not None else None
        found = str(known) if isinstance(known, Malformed) else "found a malformed request"
        self._refuse(Refusal(400, "BadRequest", f"{found}, expected HTTP/1.1"))

    def _unsupported_upgrade_warning(self) -> None:
        # The offer is not taken up (RFC 9110, section 7.8): what follows is the request's body and
        # the next request. The parser took neither; another one does, from a head that ends alike.
        upgrade = sys.exception()
        assert isinstance(upgrade, httptools.HttpParserUpgrade)
        self._rest = self._fed[upgrade.args[0] :]
        framing = (pair for pair in self.headers if pair[0] in _FRAMING)
        head = b"".join(b"%b: %b\r\n" % pair for pair in framing)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._again = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % head)
        self._again = False

    def on_message_begin(self) -> None:
        if not self._again:
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._again:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after the head is a trailer: no field of the request (RFC 9110, 6.5.1).
        if self.cycle is None or self.cycle.scope is not self.scope:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        # As uvicorn's, without what is not used here: root paths, WebSockets, decoded paths.
        if self._again:
            return
        parser, scope, before = self.parser, self.scope, self.cycle
        method, version = parser.get_method().decode(), parser.get_http_version()
        self.url = origin_form(method, version, self.url, self.headers)
        if len(self.url) > MAX_HEAD:
            raise Malformed(f"found a target longer than {MAX_HEAD} bytes")
        path, _, query = self.url.partition(b"?")
        scope["method"], scope["http_version"] = method, version
        scope["raw_path"], scope["query_string"] = path, query
        self.cycle = Cycle(
            scope, self.transport, self.flow, self.logger, self.access_logger, False, [],
            asyncio.Event(), self.expect_100_continue,
            version != "1.0" and parser.should_keep_alive(), self.on_response_complete,
        )  # fmt: skip
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._head_size = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_size = 0
        if self.parser.should_upgrade():
            return  # its body is still to come
        # Also of what is answered already: ``_may_close`` must know.
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._next = cycle
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def on_response_complete(self) -> None:
        # As uvicorn's, without its timer: ``expire`` looks after all connections.
        self.since = self.loop.time()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_words:
            self._hang_up()
        else:
            self.flow.resume_reading()

    async def _work(self) -> None:
        while self.parser is not None:  # else a cancellation came and was spent on the request
            while self._next is None:
                self._wake = self.loop.create_future()
                await self._wake
            cycle = self._running = self._next
            self._next = None
            await cycle.run_asgi(self.app)
            self._running = None
            if self.flow.write_paused:
                await self.flow.drain()
            if self._next is not None:
                await asyncio.sleep(0)  # a client that sends thousands at once is not alone

    # What the application asks.

    def cut(self) -> None:
        """End the answer under way where it is."""
        if self._running is not None:
            self._running.disconnected = True
        self.transport.close()

    def leave(self) -> None:
        """Let the answer under way be the last: its request is not read to its end."""
        if self._running is not None:
            self._running.keep_alive = False

    # What the server asks.

    def expire(self, now: float, patience: float) -> None:
        """Give up on a client that keeps the connection waiting. Seconds of loop time."""
        silent = now - self.since
        cycle = self.cycle
        answered = cycle is None or cycle.response_complete
        if self.flow.write_paused or self.transport.is_closing():
            if silent > patience:
                left = self._outgoing.left()
                if left < self._left:  # it takes something in, if slowly
                    self._left, self.since = left, now
                else:
                    self.transport.abort()
        elif self._deaf:
            return
        elif self._within_head if answered else (cycle.more_body and cycle is self._running):
            if self.flow.read_paused and not answered:
                self.since = now  # its body is not taken any faster
            elif silent > patience:
                message = "the request did not arrive in time"
                self._refuse(Refusal(408, "RequestTimeout", message))
        elif answered and silent > (patience if cycle is None else KEEP_ALIVE):
            self.transport.close()

    @property
    def idle(self) -> bool:
        """Nobody waits for anything on it."""
        answered = self.cycle is None or self.cycle.response_complete
        waits = self._within_head or self._deaf or self.flow.write_paused
        return answered and not waits and not self.transport.is_closing()

    # How it ends.

    @property
    def _within_head(self) -> bool:
        scope = self.scope
        return scope is not None and (self.cycle is None or self.cycle.scope is not scope)

    @property
    def _within_body(self) -> bool:
        return self.cycle is not None and self.cycle.scope is self.scope and self.cycle.more_body

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what cannot be read to its end, after what came before, and then hang up."""
        if self._deaf:
            return
        self._deaf = True
        self._last_words = refusal.encoded()
        cycle = self.cycle
        waits = cycle is not None and not cycle.response_complete
        if waits and self._within_body:
            # This answer takes the place of its own, unless that has begun.
            if cycle.response_started:
                self._last_words = b""
            cycle.disconnected = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
            else:
                waits = False
        if not waits:
            self._hang_up()

    def _hang_up(self) -> None:
        self.transport.write(self._last_words)
        self._linger()

    def _may_close(self) -> bool:
        if self._within_head or self._within_body:
            self._linger()
            return False
        return True

    def _linger(self) -> None:
        """Closing with unread data would reset the connection, and the client might never see
        the answer (RFC 9112, section 9.6): what it still sends is dropped for a while."""
        self._deaf = True
        self.pipeline.clear()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(_LINGER, self._outgoing.finish)
