"""How answers go out: together, and never cut by the end of their connection."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable, Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

_AT_ONCE = 16 * 1024


class Outbox:
    """What connections have to write, handed to the kernel when all who are ready have written:
    its code and ours evict each other from the processor's caches. And a head goes out with its
    body."""

    def __init__(self) -> None:
        self._full: list[Outgoing] = []

    def add(self, transport: Outgoing) -> None:
        """``flush`` it soon."""
        if not self._full:
            asyncio.get_running_loop().call_soon(self._empty)
        self._full.append(transport)

    def _empty(self) -> None:
        full, self._full = self._full, []
        for transport in full:
            transport.flush()


class Outgoing(asyncio.Transport):
    """A client's transport as uvicorn sees it: writes go through the outbox."""

    def __init__(
        self, transport: asyncio.Transport, outbox: Outbox, closing: Callable[[], bool]
    ) -> None:
        """``closing`` is asked before ``close`` closes; False: it will be closed later."""
        super().__init__()
        self._transport = transport
        self._outbox = outbox
        self._ask = closing
        self._unwritten: list[Any] = []
        self._closing = False
        for name in ("abort", "get_extra_info", "pause_reading", "resume_reading"):
            setattr(self, name, getattr(transport, name))

    def write(self, data: Any) -> None:
        if not data:
            return
        if not self._unwritten:
            self._outbox.add(self)
        self._unwritten.append(data)
        if len(data) > _AT_ONCE:
            # Whether the client takes it decides whether its next request is begun.
            self.flush()

    def write_eof(self) -> None:
        self.flush()
        if self._transport.can_write_eof():  # TLS has no half-closed connections
            self._transport.write_eof()

    def finish(self) -> None:
        """End it, whatever still comes: by TLS, so that the client knows that nothing is missing;
        else ``write_eof`` has told it."""
        if self._transport.can_write_eof():
            self._transport.abort()
        else:
            self._transport.close()

    def flush(self) -> None:
        """Hand over to the kernel."""
        unwritten, self._unwritten = self._unwritten, []
        if not unwritten or self._transport.is_closing():
            return
        if len(unwritten) == 1:
            self._transport.write(unwritten[0])
        else:
            self._transport.writelines(unwritten)

    def left(self) -> int:
        """Bytes that the client has not taken in yet, the kernel's included."""
        try:
            asked = fcntl.ioctl(
                self._transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4)
            )
        except OSError:
            asked = bytes(4)
        queued: int = struct.unpack("i", asked)[0]
        return self._transport.get_write_buffer_size() + queued

    def end(self) -> None:
        """Close, after what is written already."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        self._closing = True
        if self._ask():
            self.flush()
            self._transport.close()


class Flow(FlowControl):
    """Reads no further while requests wait: no more than what one read brought is held for a
    client that does not wait for answers."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()
