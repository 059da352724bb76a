"""An ASGI application on sockets, as a part of this process that does not own it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_ENDING = 2
"""Seconds that requests under way get when the server stops."""

SendLine = Callable[[dict[str, Any]], Awaitable[None]]


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.leave = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        # Its own wakes ten times a second, for as long as the hub lives.
        while not self.leave.is_set():
            await self.on_tick(0)
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.leave.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals are the hub's.
        yield


@asynccontextmanager
async def serving(app: ASGIApp, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Serve for as long as it is entered; the sockets are closed on leaving."""
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_ENDING,
        )
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets))
        try:
            await server.up.wait()
            yield
        finally:
            server.leave.set()


class LinesResponse(Response):
    """JSON lines, each sent when it is known. ``work`` is cancelled when the client goes away."""

    media_type = "application/jsonl"

    def __init__(self, work: Callable[[SendLine], Awaitable[None]]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def line(shape: dict[str, Any]) -> None:
            body = json.dumps(shape, ensure_ascii=False).encode() + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})

        async def until_gone(working: asyncio.Task[None]) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            working.cancel()

        async def work() -> None:
            await self._work(line)

        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work())
            watching = tasks.create_task(until_gone(working))
            await asyncio.wait([working])
            watching.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
