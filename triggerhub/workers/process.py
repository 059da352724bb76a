"""One worker process: started, heard, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress

from triggerhub.workers.orders import Orders, written

_BEYOND_GRACE = 30.0
"""Seconds that a worker gets to stop besides the grace time of its deliveries."""


class Process:
    """A fresh interpreter in a session of its own, so that a Ctrl-C on the terminal comes to the
    supervisor alone."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._complaint: asyncio.Task[bytes] | None = None
        self._exited: asyncio.Task[int] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                # Safe path: the folder that the hub was started in is not to be imported from.
                *(sys.executable, "-P", "-m", "triggerhub.workers.worker", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *self._orders.descriptors),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = ours
        ours.setblocking(False)
        # Registered from the start: it ends only after asyncio has let go of the process.
        self._exited = asyncio.create_task(self._process.wait())
        self._complaint = asyncio.create_task(_talk(ours, written(self._orders)))

    async def ended(self) -> tuple[int, str]:
        """Wait for its end: the exit code (of a signal, negative), and why it could not start,
        where it said so."""
        assert self._exited is not None
        assert self._complaint is not None
        code = await asyncio.shield(self._exited)
        said = await asyncio.shield(self._complaint)
        return code, said.decode("utf-8", "replace")

    async def stop(self) -> tuple[int, str]:
        """Ask it to stop, and wait until it has: as ``ended``."""
        assert self._exited is not None
        if not self._exited.done():
            self._send(signal.SIGTERM)
            limit = self._orders.settings.grace + _BEYOND_GRACE
            await asyncio.wait([self._exited], timeout=limit)
            if not self._exited.done():
                self._send(signal.SIGKILL)
        return await self.ended()

    def kill(self) -> None:
        """End it at once."""
        if self._exited is not None and not self._exited.done():
            self._send(signal.SIGKILL)

    def close(self) -> None:
        """Let go of it, after its end."""
        if self._channel is not None:
            self._channel.close()

    def _send(self, number: signal.Signals) -> None:
        # Not process.send_signal(), which may take the exit code from asyncio's own watcher.
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


async def _talk(channel: socket.socket, orders: bytes) -> bytes:
    """Give the orders; what comes back until its end."""
    loop = asyncio.get_running_loop()
    said = b""
    with suppress(ConnectionError):
        await loop.sock_sendall(channel, orders)
        while piece := await loop.sock_recv(channel, 4096):
            said += piece
    return said
