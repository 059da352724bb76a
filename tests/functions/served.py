"""A function in a process of its own, and a plain way to call it."""

from __future__ import annotations

import asyncio
import http.client
import os
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from triggerhub.functions import runtime
from triggerhub.functions.child import Child, Ready

NAME = "shop/handle"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


@dataclass
class Served:
    child: Child
    port: int

    async def call(
        self,
        body: bytes | None = b"",
        *,
        method: str = "POST",
        path: str = "/",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return await call(self.port, body, method=method, path=path, headers=headers)


async def call(
    port: int,
    body: bytes | None = b"",
    *,
    method: str = "POST",
    path: str = "/",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Raises OSError or HTTPException where there is no answer."""

    def send() -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers or {}))
            reply = connection.getresponse()
            return Answer(reply.status, reply.read(), {k.lower(): v for k, v in reply.getheaders()})
        finally:
            connection.close()

    return await asyncio.to_thread(send)


@asynccontextmanager
async def serve(folder: Path, source: str, *options: str) -> AsyncIterator[Served]:
    """``source`` is main.py, whose ``handle`` is served."""
    (folder / "main.py").write_text(textwrap.dedent(source))
    async with Child(NAME, grace=5.0) as child:
        command = [sys.executable, "-P", runtime.__file__, "--code", str(folder)]
        command += ["--handler", "main.handle", "--namespace", "shop", "--name", "handle"]
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        await child.start([*command, *options], cwd=folder, env=env)
        report = await asyncio.wait_for(child.report(), 20)
        assert isinstance(report, Ready), report
        yield Served(child, report.port)


async def until(fact: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until ``fact()`` holds."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"not so after {seconds} s"
        await asyncio.sleep(0.02)
