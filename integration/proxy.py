"""A TCP proxy in front of a server, for what networks do: delay, cut, refuse, swallow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from integration.function import bound, close_by_reset

_CHUNK = 64 * 1024
_UNDER_WAY = 64


class Proxy:
    """Passes connections on, in a thread of its own, on a port that the kernel chose and that it
    keeps. For Kafka that port must be the advertised one (``Kafka(proxied=…)``): a client connects
    anew to what the brokers say of themselves."""

    def __init__(self) -> None:
        self.latency = 0.0
        """Seconds that each byte is under way, in either direction. May be set at any time."""
        self.passed = 0
        """Bytes that went from the server to clients."""
        self.taken = 0
        """Connections so far."""
        self._server: asyncio.Server | None = None
        self._socket = bound(0)
        self.port: int = self._socket.getsockname()[1]
        self._target: tuple[str, int] = ("127.0.0.1", 0)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self.port}"

    def to(self, address: str) -> None:
        """Take connections, and pass them on to ``host:port``."""
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self.accept()

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        self._do(self._cut)

    def refuse(self) -> None:
        """Refuse new connections. Those that there are live on."""
        self._do(self._refuse)

    def accept(self) -> None:
        """Take connections again."""
        asyncio.run_coroutine_threadsafe(self._accept(), self._loop).result(10)

    def hold(self) -> None:
        """Black hole: take connections and bytes, and pass none on."""
        self._do(self._open.clear)

    def release(self) -> None:
        """Pass on what was held, as TCP does when packets get through again."""
        self._do(self._open.set)

    def heal(self) -> None:
        """A network without faults again."""
        self.latency = 0.0
        self.release()
        self.accept()

    def close(self) -> None:
        """End it for good."""
        self._do(self._refuse)
        self._do(self._cut)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()
        self._socket.close()

    def _run(self) -> None:
        self._loop.run_forever()

    def _do(self, work: Callable[[], None]) -> None:
        async def done() -> None:
            work()

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    def _cut(self) -> None:
        for writer in list(self._writers):
            close_by_reset(writer)

    def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            # Bound and not listening: the port is kept, and the kernel refuses connections to it.
            self._socket = bound(self.port)

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._join, sock=self._socket)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        self.taken += 1
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            answers, there = await asyncio.open_connection(*self._target)
            self._writers.add(there)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, there))
                tasks.create_task(self._pass(answers, writer, count=True))
        except* OSError:
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    self._writers.discard(end)
                    close_by_reset(end)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool = False
    ) -> None:
        """Raises ConnectionError at the end, which ends the other direction too."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY)

        async def arrive() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._open.wait()
                if not data:
                    raise ConnectionError("the other side ended it")
                writer.write(data)
                await writer.drain()
                self.passed += len(data) if count else 0

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(arrive())
            data = b"the beginning"
            while data:
                data = await reader.read(_CHUNK)
                await under_way.put((time.monotonic() + self.latency, data))


@contextmanager
def proxy() -> Iterator[Proxy]:
    """A proxy that ends with the block."""
    made = Proxy()
    try:
        yield made
    finally:
        made.close()
