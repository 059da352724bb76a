"""The connections to one origin: which are idle, who waits for one, what has expired."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections import OrderedDict

from triggerhub.delivery.connection import Connection
from triggerhub.delivery.endpoint import Endpoint
from triggerhub.delivery.failures import Away, explain

_MIN_SWEEP = 0.02
"""Seconds between two looks at the deadlines, at least."""
_CLOSED = "the hub is stopping"
_TOGETHER = 8
"""So many requests are written in a row."""


class Pool:
    """At most ``limit`` connections, those being opened included: each has a slot.

    One timer stands for all deadlines. It is moved only when an earlier deadline comes up, so
    that an attempt that ends in time costs no timer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        limit: int,
        idle_timeout: float,
        connect_timeout: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.idle: list[Connection] = []
        """The last one came back last, and is used first."""
        self.connections: set[Connection] = set()
        self.slots = 0
        self._unwritten: list[tuple[Connection, bytes]] = []
        self.wake_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._endpoint = endpoint
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._connect_timeout = connect_timeout
        self._ssl_context = ssl_context
        # A waiter gets a connection, or None for leave to open one; its slot comes along.
        self._waiters: OrderedDict[asyncio.Future[Connection | None], float] = OrderedDict()
        self._connecting: set[asyncio.Timeout] = set()
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    async def acquire(self, deadline: float) -> Connection:
        """A connection when none is idle: a new one, or the next that is done. Raises ``Away``."""
        if self.slots < self._limit:
            self.slots += 1
            return await self._connect(deadline)
        waiter: asyncio.Future[Connection | None] = self.loop.create_future()
        self._waiters[waiter] = deadline
        if deadline < self.wake_at:
            self.arm(deadline)
        try:
            connection = await waiter
        except asyncio.CancelledError:
            self._waiters.pop(waiter, None)
            if not waiter.cancelled() and waiter.exception() is None:
                self._return(waiter.result())
            raise
        if connection is not None and connection.open:
            connection.holds_slot = True
            return connection
        return await self._connect(deadline)

    async def replace(self, stale: Connection, deadline: float) -> Connection:
        """A new connection in the slot of one that was found ``Stale``. Raises ``Away``."""
        stale.reply = None
        stale.holds_slot = False
        return await self._connect(deadline)

    def write_soon(self, connection: Connection, data: bytes) -> None:
        """Write a few requests in a row: the kernel's code and ours evict each other from the
        processor's caches, and in turns, event by event, both ran half as fast. Not too many:
        the first ones wait for the last."""
        if not self._unwritten:
            self.loop.call_soon(self._write)
        self._unwritten.append((connection, data))
        if len(self._unwritten) >= _TOGETHER:
            self._write()

    def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        for connection, data in unwritten:
            connection.write(data)

    def release(self, connection: Connection) -> None:
        """The connection is free again: to the first who waits, else idle."""
        waiter = self._next_waiter()
        if waiter is not None:
            connection.deadline = math.inf
            connection.holds_slot = False
            waiter.set_result(connection)
            return
        connection.deadline = deadline = self.loop.time() + self._idle_timeout
        self.idle.append(connection)
        if deadline < self.wake_at:
            self.arm(deadline)

    def slot_freed(self) -> None:
        """A connection ended, or was never made: the first who waits may open one."""
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(None)
        else:
            self.slots -= 1
            self._note_empty()

    def forget_idle(self, connection: Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def lost(self, connection: Connection) -> None:
        """The connection's socket is closed."""
        self.connections.discard(connection)
        self._note_empty()

    def arm(self, when: float) -> None:
        """Look at the deadlines at ``when`` (loop time)."""
        if self._timer is not None:
            self._timer.cancel()
        self.wake_at = when
        self._timer = self.loop.call_at(when, self._sweep)

    def shut(self) -> None:
        """Close everything; who waits or is under way gets ``Away``. ``emptied`` waits for it."""
        self._closed = True
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(Away(_CLOSED))
        for connecting in self._connecting:
            if not connecting.expired():
                connecting.reschedule(self.loop.time())
        for connection in tuple(self.connections):
            connection.fail(Away(_CLOSED))
        if self._timer is not None:
            self._timer.cancel()

    async def emptied(self) -> None:
        """Return when every connection's socket is closed."""
        while self.slots or self.connections:
            if self._emptied is None or self._emptied.done():
                self._emptied = self.loop.create_future()
            await asyncio.wait([self._emptied])

    async def _connect(self, deadline: float) -> Connection:
        """Open a connection in a slot that is the caller's. Raises ``Away``."""
        endpoint = self._endpoint
        connection = Connection(self)
        opened = False
        limit = asyncio.timeout_at(min(deadline, self.loop.time() + self._connect_timeout))
        try:
            if self._closed:
                raise Away(_CLOSED)
            self._connecting.add(limit)
            async with limit:
                await self.loop.create_connection(
                    lambda: connection,
                    endpoint.host,
                    endpoint.port,
                    ssl=self._ssl_context,
                    server_hostname=endpoint.host if self._ssl_context else None,
                )
            opened = True
        except socket.gaierror:
            raise Away(f"name does not resolve: {endpoint.host}") from None
        except OSError as error:
            raise Away(self._why(error, limit)) from None
        finally:
            self._connecting.discard(limit)
            if not opened:
                self._forget(connection)
        if self._closed:
            connection.drop()
            raise Away(_CLOSED)
        if not connection.open:
            raise Away("closed before a request")
        return connection

    def _forget(self, connection: Connection) -> None:
        """Opening it failed or was cancelled."""
        if connection in self.connections:
            # Cancelled just after it was made; uvloop then says nothing more about it.
            connection.drop()
            self.lost(connection)
        else:
            connection.holds_slot = False
            self.slot_freed()

    def _why(self, error: OSError, limit: asyncio.Timeout) -> str:
        if self._closed:
            return _CLOSED
        if limit.expired():
            return "no connection in time"
        return explain(error)

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                return waiter
        return None

    def _return(self, connection: Connection | None) -> None:
        """What was handed to a waiter that is cancelled, with its slot."""
        if connection is not None and connection.open:
            connection.holds_slot = True
            self.release(connection)
        else:
            self.slot_freed()

    def _sweep(self) -> None:
        self._timer = None
        self.wake_at = earliest = math.inf
        # A loop's clock may lag by a millisecond behind its own timers (uvloop).
        now = self.loop.time() + 0.001
        for connection in tuple(self.connections):
            if connection.deadline <= now:
                connection.expire()
            else:
                earliest = min(earliest, connection.deadline)
        for waiter, deadline in tuple(self._waiters.items()):
            if deadline > now:
                earliest = min(earliest, deadline)
            elif not waiter.done():
                del self._waiters[waiter]
                waiter.set_exception(Away(f"all {self._limit} connections were busy all the time"))
        if earliest < self.wake_at:
            self.arm(max(earliest, now + _MIN_SWEEP))

    def _note_empty(self) -> None:
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
