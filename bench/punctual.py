"""A function that notes when each tick came: prints its port, answers 204 for ever, and writes
``source id arrival`` (seconds since the epoch) into the file that it is given."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TextIO, cast

import uvloop

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Punctual(asyncio.Protocol):
    """Sees a request end by its framing alone; ticks without data have no body."""

    notes: TextIO

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            head, _, self._pending = self._pending.partition(b"\r\n\r\n")
            fields = dict(
                line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if line
            )
            self.notes.write(f"{fields['ce-source']} {fields['ce-id'].upper()} {now}\n")
            self._transport.write(_ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Punctual, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with open(sys.argv[1], "w", buffering=1) as _Punctual.notes:
        uvloop.run(_serve())
