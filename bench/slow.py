"""A function that takes 10 ms for each event: prints its port, then answers 204 for ever."""

from __future__ import annotations

import asyncio

import uvloop

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Slow(asyncio.Protocol):
    """Sees a request end by its framing alone: head and body arrive in one or two segments."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
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
            self._loop.call_later(0.010, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Slow, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
