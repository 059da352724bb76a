"""A function that takes 10 ms for each event: prints its port, then answers 204 for ever.

Timers have a grain of a millisecond and fire late on a busy machine, so it measures how long its
answers really took and corrects its timer: on average they leave 10 ms after their request came.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

import uvloop

TAKES = 0.010
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Slow(asyncio.Protocol):
    """Sees a request end by its framing alone: head and body arrive in one or two segments."""

    delay = TAKES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        self._pending += data
        head, found, body = self._pending.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._pending = body[length:]
            self._loop.call_later(_Slow.delay, self._answer, time.perf_counter())

    def _answer(self, came: float) -> None:
        late = time.perf_counter() - came - TAKES
        _Slow.delay = min(TAKES, max(0.0, _Slow.delay - 0.002 * late))
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Slow, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
