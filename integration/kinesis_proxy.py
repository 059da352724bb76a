"""An HTTP proxy in front of a Kinesis endpoint, for what AWS does and an emulator does not: it
refuses, throttles, forgets, is slow, fails, answers with nothing."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

_READS_A_SECOND = 5
_DROPPED = ("host", "content-length", "transfer-encoding", "connection")


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a client sent it."""

    operation: str
    """Such as GetRecords."""
    arguments: dict[str, Any]
    request: web.Request


Fault = Callable[[Call], Awaitable[web.Response | None]]
"""What a call is answered with; None: it is passed on."""


def error(code: str, message: str = "injected", status: int = 400) -> Fault:
    """An error as AWS tells it."""

    async def answer(call: Call) -> web.Response | None:
        return _answer({"__type": code, "message": message}, status)

    return answer


def expiring(rate: float) -> Fault:
    """Of GetRecords: so many of the iterators have expired, and stay so."""
    expired: set[str] = set()

    async def answer(call: Call) -> web.Response | None:
        iterator = call.arguments["ShardIterator"]
        if random.random() < rate:
            expired.add(iterator)
        if iterator not in expired:
            return None
        return _answer({"__type": "ExpiredIteratorException", "message": "Iterator expired."})

    return answer


def broken(status: int = 500) -> Fault:
    """An answer that is none of Kinesis."""

    async def answer(call: Call) -> web.Response | None:
        return web.Response(status=status, text="<html>oh</html>", content_type="text/html")

    return answer


def slow(seconds: float) -> Fault:
    """Passed on, later."""

    async def answer(call: Call) -> web.Response | None:
        await asyncio.sleep(seconds)
        return None

    return answer


def cut() -> Fault:
    """The connection is reset without an answer."""

    async def answer(call: Call) -> web.Response | None:
        if call.request.transport is not None:
            call.request.transport.abort()
        raise ConnectionResetError

    return answer


def hollow(behind: int = 60_000) -> Fault:
    """Of GetRecords: no records although there are some, as AWS answers where a shard has gaps.
    ``behind``: milliseconds."""

    async def answer(call: Call) -> web.Response | None:
        following = call.arguments["ShardIterator"]
        return _answer(
            {"Records": [], "NextShardIterator": following, "MillisBehindLatest": behind}
        )

    return answer


@dataclass(slots=True)
class _Injected:
    operations: frozenset[str]
    fault: Fault
    left: float
    rate: float


class Faults:
    """The proxy, in a thread of its own, on a port that the kernel chose."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint``: the URL of what answers."""
        self.calls: Counter[str] = Counter()
        """By operation, whatever became of them."""
        self.injected: Counter[str] = Counter()
        """By operation: those that a fault answered; what was only made late is none."""
        self.limited = False
        """True: five reads a second of each shard, as AWS has it. May be set at any time."""
        self._reads: dict[str, list[float]] = defaultdict(list)
        self._granted: dict[str, deque[float]] = defaultdict(deque)
        self._shard_of: dict[str, str] = {}
        self._faults: list[_Injected] = []
        self._target = endpoint
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faults", daemon=True)
        self._thread.start()
        self.port = self._call(self._start())

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def inject(
        self, fault: Fault, *operations: str, times: float = float("inf"), rate: float = 1.0
    ) -> None:
        """Answer these operations (none: all) so: at most ``times`` times, of calls the share
        ``rate``. Faults that were injected before are asked first."""
        named = frozenset(operations)
        self._loop.call_soon_threadsafe(self._faults.append, _Injected(named, fault, times, rate))

    def heal(self) -> None:
        """No faults any more."""
        self.limited = False
        self._loop.call_soon_threadsafe(self._faults.clear)

    def busiest(self, seconds: float = 1.0) -> int:
        """The most reads that any shard had within so many seconds."""
        most = 0
        for times in self._reads.values():
            first = 0
            for last, at in enumerate(times):
                while at - times[first] >= seconds:
                    first += 1
                most = max(most, last - first + 1)
        return most

    def reads(self) -> dict[str, int]:
        """By ``stream/shard``: calls of GetRecords."""
        return {shard: len(times) for shard, times in self._reads.items()}

    def close(self) -> None:
        """End it."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> int:
        self._client = ClientSession(timeout=ClientTimeout(total=60), auto_decompress=False)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        operation = request.headers.get("x-amz-target", "").rpartition(".")[2]
        call = Call(operation, json.loads(body) if operation and body else {}, request)
        self.calls[operation] += 1
        answer = self._limit(call) if operation == "GetRecords" else None
        if answer is not None:
            return answer
        for fault in list(self._faults):
            if fault.operations and operation not in fault.operations:
                continue
            if fault.left >= 1 and random.random() < fault.rate:
                fault.left -= 1
                answer = await fault.fault(call)
                if answer is not None:
                    self.injected[operation] += 1
                    return answer
        return await self._pass(call, body)

    def _limit(self, call: Call) -> web.Response | None:
        shard = self._shard_of.get(call.arguments.get("ShardIterator", ""), "?")
        now = time.monotonic()
        self._reads[shard].append(now)
        granted = self._granted[shard]
        while granted and now - granted[0] >= 1.0:
            granted.popleft()
        if self.limited and len(granted) >= _READS_A_SECOND:
            self.injected["GetRecords"] += 1
            text = f"Rate exceeded for shard {shard}"
            return _answer({"__type": "ProvisionedThroughputExceededException", "message": text})
        granted.append(now)
        return None

    async def _pass(self, call: Call, body: bytes) -> web.StreamResponse:
        headers = {
            name: value
            for name, value in call.request.headers.items()
            if name.lower() not in _DROPPED
        }
        try:
            async with self._client.request(
                call.request.method, f"{self._target}{call.request.path_qs}",
                data=body, headers=headers,
            ) as answer:  # fmt: skip
                found = await answer.read()
        except (OSError, ClientError):
            return web.Response(status=502)
        if answer.status == 200 and call.operation in ("GetShardIterator", "GetRecords"):
            self._follow(call, json.loads(found))
        kept = {n: v for n, v in answer.headers.items() if n.lower() not in _DROPPED}
        return web.Response(status=answer.status, body=found, headers=kept)

    def _follow(self, call: Call, found: dict[str, Any]) -> None:
        """Which shard an iterator is of."""
        given = call.arguments.get("ShardIterator", "")
        shard = self._shard_of.get(given, "?")
        if "ShardId" in call.arguments:
            which = call.arguments.get("StreamName") or call.arguments.get("StreamARN")
            shard = f"{which}/{call.arguments['ShardId']}"
        following = found.get("ShardIterator") or found.get("NextShardIterator")
        if following:
            self._shard_of[following] = shard


def _answer(body: dict[str, Any], status: int = 0) -> web.Response:
    status = status or (400 if "__type" in body else 200)
    data = json.dumps(body).encode()
    return web.Response(status=status, body=data, content_type="application/x-amz-json-1.1")


@contextmanager
def faults(endpoint: str) -> Iterator[Faults]:
    """A proxy that ends with the block."""
    made = Faults(endpoint)
    try:
        yield made
    finally:
        made.close()
