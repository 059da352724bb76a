"""Lean HTTP/1.1 client: one attempt is one request on a kept-alive connection."""

from __future__ import annotations

import asyncio
import ssl

from triggerhub.delivery.endpoint import Endpoint, parse_endpoint
from triggerhub.delivery.failures import Away, BrokenReply, NoReply, Stale
from triggerhub.delivery.pool import Pool
from triggerhub.delivery.upload import Upload
from triggerhub.event import Reply

__all__ = ["Away", "BrokenReply", "Endpoint", "NoReply", "Transport", "parse_endpoint"]


class Transport:
    """Sends requests; keeps connections per origin, at most ``max_connections`` each.

    All within one event loop. Who finds every connection busy waits, first come first served;
    the connection that came back last is used first, so that what is not needed falls idle and is
    closed after ``idle_timeout`` seconds.
    """

    def __init__(
        self,
        *,
        max_connections: int = 256,
        idle_timeout: float = 60.0,
        connect_timeout: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """``connect_timeout`` covers DNS, TCP and TLS. ``ssl_context`` replaces the default:
        the system's authorities, host names checked."""
        if max_connections < 1:
            raise ValueError(f"expected max_connections of at least 1, found {max_connections}")
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._connect_timeout = connect_timeout
        self._ssl_context = ssl_context
        self._pools: dict[str, Pool] = {}
        self._closed = False

    @property
    def open_connections(self) -> dict[str, int]:
        """How many connections each origin (``scheme://host:port``) has, idle, busy or being
        opened."""
        return {origin: pool.slots for origin, pool in self._pools.items() if pool.slots}

    async def send(
        self,
        endpoint: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        keep: int = 1024,
        *,
        head_request: bool = False,
        once: bool = False,
        pace: float = 0.0,
        more: Upload | None = None,
    ) -> Reply:
        """Send one request and return its reply, whatever its status; redirects are not followed.

        ``head`` is the whole request head with its final blank line; it must state the length of
        ``body``. ``timeout`` seconds cover everything. Up to ``keep`` bytes of the reply's body
        are kept. ``head_request``: the method is HEAD, so the reply has no body. ``pace``: a reply
        that is long, or comes slowly, has a ``rest``, which is to be read or closed; so many
        seconds may pass before each piece of it. 0: no reply has one. ``more``: sends what follows
        ``body``, and is to be run beside; ``pace`` is then the time to take each piece, too.

        Raises ``Away``, ``NoReply`` or ``BrokenReply``; with ``more``, ``Interrupted``. A reused
        connection that ends before any byte of a reply was closed by the server while idle (RFC
        9112, section 9.3.1): the request is then sent once more, on a fresh one; but not, with
        ``once``, when some of it was written: that is ``Away``, too. Cancelling closes the
        connection.
        """
        pool = self._pools.get(endpoint.origin)
        if pool is None:
            pool = self._open_pool(endpoint)
        deadline = pool.loop.time() + timeout
        idle = pool.idle
        connection = idle.pop() if idle else await pool.acquire(deadline)
        while True:
            future = connection.begin(head, body, keep, head_request, deadline, once, pace, more)
            try:
                return await future
            except asyncio.CancelledError:
                if connection.reply is future:
                    connection.drop()
                raise
            except Stale:  # never twice: the next one is fresh
                connection = await pool.replace(connection, deadline)

    async def close(self) -> None:
        """Close every connection, and wait until they are. Attempts under way, waiting ones and
        all later ones raise ``Away``."""
        self._closed = True
        for pool in self._pools.values():
            pool.shut()
        for pool in self._pools.values():
            await pool.emptied()

    def _open_pool(self, endpoint: Endpoint) -> Pool:
        if self._closed:
            raise Away("the hub is stopping")
        # Functions move: the pools of their old places go when a new place comes.
        for origin, pool in tuple(self._pools.items()):
            if not pool.slots and not pool.connections:
                pool.shut()
                del self._pools[origin]
        context = None
        if endpoint.scheme == "https":
            if self._ssl_context is None:
                self._ssl_context = ssl.create_default_context()
            context = self._ssl_context
        pool = self._pools[endpoint.origin] = Pool(
            endpoint,
            limit=self._max_connections,
            idle_timeout=self._idle_timeout,
            connect_timeout=self._connect_timeout,
            ssl_context=context,
        )
        return pool
