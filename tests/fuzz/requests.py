"""Bytes that look like requests, sent to a hub's socket: each is answered 2xx to 4xx, and its
connection ends; the listener goes on.

    python -m tests.fuzz.requests 100000 [SEED]
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sys
from collections import Counter

from tests.connectors.test_http_connector import Rig, get, hub

FIRST = ("GET / HTTP/1.1", "POST /a/b?c HTTP/1.1", "HEAD / HTTP/1.0", "GET http://b/ HTTP/1.1",
         "DELETE //x HTTP/1.1", "OPTIONS / HTTP/1.1", "PUT /%2f%zz/x HTTP/1.1",
         "POST / HTTP/1.1")  # fmt: skip
BAD_FIRST = ("OPTIONS * HTTP/1.1", "GET /", "CONNECT a:1 HTTP/1.1", "PRI * HTTP/2.0",
             "GET /../x HTTP/1.1")  # fmt: skip
FIELDS = ("connection: close", "connection: upgrade", "upgrade: h2c", "expect: 100-continue",
          "x-forwarded-for: 1.2.3.4", "ce-id: 1", "ce-source: /s", "ce-type: t", "x: \xff",
          "prefer: wait=1", "idempotency-key: k", "origin: https://o", "te: trailers",
          "access-control-request-method: GET", "webhook-request-origin: a", "range: bytes=0-",
          "traceparent: 00-0-0-0", "forwarded: for=x", "ce-\xe4: x",
          "x-" + "y" * 3000 + ": z")  # fmt: skip
BAD_FIELDS = ("host: b:80", "transfer-encoding: gzip, chunked", "content-encoding: br", " folded",
              "ce-specversion: 1.0", "content-type: application/cloudevents+json", "x : y",
              "content-type: application/cloudevents-batch+json", "ce-time: now", "x", "x: \0",
              "content-length: 7000", "content-length: -1", "host: a b")  # fmt: skip
LENGTHS = ("content-length: 5", "content-length: 0", "transfer-encoding: chunked")
BODIES = ("", "hello", "5\r\nhello\r\n0\r\n\r\n", "3;x=y\r\nabc\r\n0\r\nt: u\r\n\r\n", "{}", "[]",
          "ffffffffffffffff\r\n", "0\r\n\r\n", '{"specversion": "1.0"}', "\0" * 20)  # fmt: skip
SPLICED = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b":",
    b"\xff",
    b"\t",
    b"%",
    b"/..",
    b"0",
    b"HTTP/1.1",
)
_EMPTY = frozenset(b"\r\n")


def made_up(chance: random.Random) -> bytes:
    """One to three requests, mostly well-formed, then bytes changed, left out, doubled, put in."""
    parts = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        odd = chance.random() < 0.3
        fields = [chance.choice(BAD_FIELDS)] if odd else []
        fields += ["host: a"] * (chance.random() < 0.95)
        fields += [chance.choice(LENGTHS)] * (chance.random() < 0.6)
        fields += chance.sample(FIELDS, chance.choice((0, 1, 2, 3, 5)))
        head = "\r\n".join([chance.choice(BAD_FIRST if odd else FIRST), *fields, "", ""])
        parts.append((head + chance.choice(BODIES)).encode("latin-1"))
    text = bytearray(b"".join(parts))
    for _ in range(chance.choice((0, 0, 0, 0, 1, 2, 8))):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(4):
            case 0:
                text[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del text[at : at + chance.choice((1, 2, 10, 100))]
            case 2:
                text[at:at] = text[at : at + chance.choice((1, 10, 100))]
            case _:
                text[at:at] = chance.choice(SPLICED)
    return bytes(text)


class _Client(asyncio.Protocol):
    """Keeps what it is told, also before a reset."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.said += data

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)


async def answered(port: int, text: bytes, size: int) -> list[int]:
    """The statuses of what comes back until the connection ends, in pieces of ``size`` sent."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(_Client, "127.0.0.1", port)
    async with asyncio.timeout(60):
        with contextlib.suppress(OSError):  # it was answered before all was sent
            for at in range(0, len(text), size):
                if client.ended.done():
                    break
                transport.write(text[at : at + size])
                await asyncio.sleep(0)
            if not client.ended.done():
                transport.write_eof()
        await client.ended
    said = bytes(client.said)
    statuses = [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z][^\r\n]*\r\n", said)]
    assert bool(statuses) == bool(said), f"no answer: {said!r}"
    return statuses


async def fuzz(rig: Rig, seed: int, count: int, at_once: int = 32) -> Counter[int]:
    """How often each status was answered. Raises AssertionError that shows the input."""
    chance = random.Random(seed)
    inputs = iter(
        [(made_up(chance), chance.choice((9, 200, 100_000, 100_000))) for _ in range(count)]
    )
    found: Counter[int] = Counter()

    async def some() -> None:
        for text, size in inputs:
            statuses = await answered(rig.connector.port, text, size)
            assert all(100 <= status < 500 for status in statuses), (statuses, text)
            assert statuses or _EMPTY.issuperset(text), ("no answer", text)
            found.update(statuses or [0])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(some())
    assert (await rig.ask(get()))[0] == 200
    return found


async def main(count: int, seed: int) -> None:
    async with hub() as rig:
        await rig.serve({"cors": {"origins": ["*"]}, "webhook": {"origins": ["*"]}})
        done = 0
        while done < count:
            part = min(5000, count - done)
            found = await fuzz(rig, seed + done, part)
            print(seed + done, dict(sorted(found.items())), flush=True)
            for listening in rig.listenings:
                listening.function.events.clear()
            done += part


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
