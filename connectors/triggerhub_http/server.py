"""The HTTP server: uvicorn on sockets of our own, within a process that it does not own."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from email.utils import formatdate
from operator import attrgetter
from types import TracebackType
from typing import TYPE_CHECKING

import uvicorn

from triggerhub_http.certificates import Certificates
from triggerhub_http.outbox import Outbox
from triggerhub_http.protocol import Protocol
from triggerhub_http.sockets import BACKLOG, bound, reason, taken

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

    from triggerhub_http.messages import Field

_ENDING = 2.0
"""Seconds that answers under way get to be written when the server stops."""
_MOST = 10_000
"""Connections at once; an idle one takes 8 KB. But no more than three quarters of the files that
the process may have open: functions, manifests and the store need some, too."""


class Server:
    """Listens on one address; an async context manager around ``open`` and all connections."""

    def __init__(
        self,
        app: ASGI3Application,
        address: str,
        shared: Callable[[], Awaitable[Sequence[int]]] | None = None,
        certificates: Certificates | None = None,
        *,
        patience: float,
    ) -> None:
        """``address``: ``host:port``. ``shared``: as ``Installation.sockets``.
        ``certificates``: None: plain HTTP. ``patience``: seconds that a client may take for TLS's
        handshake, for a request's head, between two pieces of its body, and to take in an answer.
        """
        self._address = address
        self._shared = shared
        self._certificates = certificates
        self._watch: asyncio.Task[None] | None = None
        self._inner = _Uvicorn(app, patience)
        self._sockets: list[socket.socket] = []
        self._opening = asyncio.Lock()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Server:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inner.leave.set()
        if self._watch is not None:
            self._watch.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def port(self) -> int:
        """Raises RuntimeError unless open."""
        if not self._sockets:
            raise RuntimeError("the server does not listen yet")
        port: int = self._sockets[0].getsockname()[1]
        return port

    @property
    def date(self) -> Field:
        """The ``date`` field, set anew every second."""
        return self._inner.date

    async def open(self) -> None:
        """Listen, unless that is done already. Raises ``OSError`` with a sentence for the user;
        the next call tries again."""
        host, separator, port = self._address.rpartition(":")
        if not separator or not port.isdecimal() or int(port) > 65535:
            raise OSError(f"cannot listen on {self._address!r}: expected host:port")
        async with self._opening:
            if self._sockets:
                return
            if self._certificates is not None:
                self._inner.context = self._certificates.load()
            try:
                if self._shared is None:
                    self._sockets = await bound(host.strip("[]"), int(port))
                else:
                    self._sockets = taken(await self._shared())
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"cannot listen on {self._address}: {reason(error)}; choose another with "
                    "--listen",
                ) from None
            self._tasks.create_task(self._inner.serve(self._sockets))
            await self._inner.up.wait()
            if self._certificates is not None:
                self._watch = self._tasks.create_task(self._certificates.keep(self._inner.renew))


class _Uvicorn(uvicorn.Server):
    def __init__(self, app: ASGI3Application, patience: float) -> None:
        super().__init__(
            uvicorn.Config(
                app, interface="asgi3", ws="none", lifespan="off", log_config=None,
                access_log=False, proxy_headers=False, server_header=False, date_header=False,
                backlog=BACKLOG,
            )
        )  # fmt: skip
        self._patience = patience
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(_MOST, 3 * files // 4) if files > 0 else _MOST
        self._outbox = Outbox()
        self._listening: list[socket.socket] = []
        self.context: ssl.SSLContext | None = None
        """Of connections that come from now on; None: plain HTTP."""
        self.up = asyncio.Event()
        self.leave = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals are the hub's.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Not uvicorn's own: it sets no limit to TLS's handshake.
        self._listening = sockets or []
        self.servers = await self._accepting()
        self.started = True
        self.up.set()

    async def _accepting(self) -> list[asyncio.Server]:
        """On sockets that stay open: what comes while servers change waits there."""
        loop = asyncio.get_running_loop()
        tls = self.context is not None
        made: list[asyncio.Server] = []
        try:
            for one in self._listening:
                server = await loop.create_server(
                    self._connection,
                    sock=one.dup(),
                    backlog=BACKLOG,
                    ssl=self.context,
                    ssl_handshake_timeout=self._patience if tls else None,
                    ssl_shutdown_timeout=_ENDING if tls else None,
                )
                made.append(server)
        except BaseException:
            for server in made:
                server.close()
            raise
        return made

    def _connection(self) -> asyncio.Protocol:
        if len(self.server_state.connections) >= self._most and not self._room_made():
            return _TurnedAway()
        return Protocol(self._outbox, self.config, self.server_state, {})

    def _room_made(self) -> bool:
        """By those that were idle for longest: some at once, so that the next ones need not seek.
        False: nobody is idle."""
        idle = sorted((one for one in self._connections() if one.idle), key=attrgetter("since"))
        for one in idle[: max(1, self._most // 16)]:
            one.transport.abort()
        return bool(idle)

    async def renew(self, context: ssl.SSLContext, *, distrust: bool) -> None:
        """Connections that come from now on are of this one; those that are there stay, except,
        with ``distrust``, those of clients with a certificate, after what they asked. Raises
        OSError."""
        self.context = context
        before, self.servers = self.servers, await self._accepting()
        for server in before:
            server.close()
        for connection in self._connections():
            if distrust and connection.identity is not None:
                connection.shutdown()

    async def main_loop(self) -> None:
        """What is due once a second: the date, and clients that went silent."""
        loop = asyncio.get_running_loop()
        while not self.leave.is_set():
            self.date = (b"date", formatdate(usegmt=True).encode())
            now = loop.time()
            for connection in self._connections():
                connection.expire(now, self._patience)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(1.0, self._patience / 4)):
                    await self.leave.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers under way be written, then end every connection (uvicorn's own leaves
        those open that are not done in time)."""
        for server in self.servers:
            server.close()
        for one in self._listening:
            one.close()
        for connection in self._connections():
            connection.shutdown()
        if not await self._quiet():
            for connection in self._connections():
                connection.transport.abort()
            if not await self._quiet():
                for task in self.server_state.tasks:
                    task.cancel()
                await self._quiet()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDING):  # who is within a handshake is not waited for
                for server in self.servers:
                    await server.wait_closed()

    async def _quiet(self) -> bool:
        """Whether every answer has ended soon."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _ENDING
        while self.server_state.tasks and loop.time() < end:
            await asyncio.wait(tuple(self.server_state.tasks), timeout=0.02)
        return not self.server_state.tasks

    def _connections(self) -> list[Protocol]:
        return [one for one in self.server_state.connections if isinstance(one, Protocol)]


class _TurnedAway(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
