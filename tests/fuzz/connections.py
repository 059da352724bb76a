"""Bytes on a connection, through the server's protocol and the connector, to a function that
echoes: whatever they are, what comes back is whole answers of 2xx or 4xx, the connection ends,
nobody has anything to log, and what the function gets is what another server would read, too. A
fuzzer makes them up (``python -m tests.fuzz connections``)."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import looptime

from tests.connectors.test_http_connector import Rig, hub
from tests.fuzz import second
from tests.fuzz.requests import BAD_FIELDS, BAD_FIRST, BODIES, FIELDS, FIRST, LENGTHS
from triggerhub.event import Event
from triggerhub_http.protocol import Protocol

BATCH = """[{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{}},
{"specversion":"1.0","id":"2","source":"/s","type":"t","data_base64":"AA=="}]"""
TRIGGERS: tuple[dict[str, Any], ...] = (
    {"cors": {"origins": ["*"]}, "webhook": {"origins": ["*"]}},
    {"path": "/a/{one}/{two}", "cors": {"origins": ["https://*.o"], "credentials": True}},
    {"path": "/exact", "pathType": "Exact", "methods": ["POST", "PUT"]},
    {"path": "/async", "mode": "Async"},
    {"path": "/prefer", "mode": "Prefer", "maxBodySize": 100},
    {"path": "/from", "auth": {"addresses": {"allow": ["1.2.3.4"], "trustedProxies": ["::/0"]}}},
    {"path": "/by", "auth": {"addresses": {"allow": ["0.0.0.0/0"], "header": "Forwarded",
                                           "trustedProxies": ["10.0.0.0/8", "::/0"]}}},
    {"path": "/none", "maxBodySize": 0, "limits": {"concurrent": 1}},
    {"host": "*.b", "webhook": {"origins": ["a.b"]}, "limits": {"rate": 7}},
)  # fmt: skip

WHOLE, TINY, HALVES, SLOW = range(4)
"""How the bytes arrive: the lower two bits of an input's first byte."""
TLS, DEAF, STAYS = 4, 8, 16
"""Further ones: no half-closed connection; a client that does not take in what it is told; and one
that does not end its side."""
_OTHERWISE = re.compile(b"(?i)gzip|batch")
"""Where a body is another one to the function."""
_PIECES = (1 << 20, 3, 40, 40)
_SILENCE = 31.0
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [A-Z][ A-Za-z'-]*\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9a-z-]+): ([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")


class Wire(asyncio.Transport):
    """What a connection is to the server, without sockets: what is written is kept."""

    def __init__(self, protocol: asyncio.Protocol, kind: int, nobodys: socket.socket) -> None:
        """``nobodys``: holds what the kernel has in hand for the client: nothing."""
        told: dict[str, object] = {
            "peername": ("::1", 5), "sockname": ("::1", 80), "socket": nobodys
        }  # fmt: skip
        super().__init__(told | {"sslcontext": True} if kind & TLS else told)
        self.loop = asyncio.get_running_loop()
        self.protocol = protocol
        self.said = bytearray()
        self.lost = self.loop.create_future()
        self.reading = asyncio.Event()
        self.reading.set()
        self._tls = bool(kind & TLS)
        self._deaf = bool(kind & DEAF)
        self._closing = self._half = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self._half, "written after its own end"
        if not self._closing:
            self.said += data
            if self._deaf:
                self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.said) if self._deaf else 0

    def can_write_eof(self) -> bool:
        return not self._tls

    def write_eof(self) -> None:
        self._half = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.reading.set()
            self.loop.call_soon(self._lose)

    abort = close

    def _lose(self) -> None:
        self.protocol.connection_lost(None)
        self.lost.set_result(None)

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    async def bring(self, kind: int, data: bytes) -> None:
        """As a client's, until the connection ends. Raises TimeoutError when it does not."""
        size = _PIECES[kind & 3]
        for at in range(0, len(data), size):
            await self.reading.wait()
            if self._closing:
                break
            self.protocol.data_received(data[at : at + size])
            await asyncio.sleep(_SILENCE if kind & 3 == SLOW and at == 2 * size else 0)
        await self.reading.wait()
        if not self._closing and not kind & STAYS and not self.protocol.eof_received():
            self.close()
        async with asyncio.timeout(600):
            await self.lost


def statuses(said: bytes, asked: bytes) -> list[int]:
    """Of the answers, one after the other. Raises AssertionError for what is no whole answer."""
    found = []
    at = 0
    while at < len(said):
        status = _STATUS.match(said, at)
        assert status, ("no answer", said[at : at + 200])
        at = status.end()
        fields: dict[bytes, bytes] = {}
        while field := _FIELD.match(said, at):
            assert field[1] not in (b"content-length", b"date") or field[1] not in fields, said
            fields[field[1]] = field[2]
            at = field.end()
        assert said[at : at + 2] == b"\r\n", ("no field", said[at : at + 200])
        at += 2
        found.append(int(status[1]))
        if found[-1] == 100:
            continue
        assert b"date" in fields, said
        length = int(fields[b"content-length"]) if found[-1] != 204 else 0
        if length and b"HEAD" in asked and said[at : at + 9] in (b"", b"HTTP/1.1 "):
            length = 0
        assert len(said) - at >= length, ("cut short", said)
        at += length
    return found


class Connections:
    """A hub with some triggers, on a loop whose time passes when there is nothing to do."""

    def __init__(
        self, triggers: Sequence[dict[str, Any]] = TRIGGERS, values: dict[str, bytes] | None = None
    ) -> None:
        self._triggers, self._values = triggers, values
        self._logged: list[str] = []
        self._log = _Kept(self._logged)
        self._runner = asyncio.Runner(loop_factory=partial(looptime.new_event_loop, noop_cycles=1))
        self._events: list[Event] = []
        """Of all functions, in the order in which they came."""
        self._socket = socket.socket()
        self._hub = hub()
        self._rig: Rig

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self._log)
        self._runner.run(self._open())
        return self

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._logged.append(str(context)))
        self._rig = await self._hub.__aenter__()
        for number, trigger in enumerate(self._triggers):
            # No larger, so that nothing is left to threads: virtual time does not wait for them.
            trigger = {"maxBodySize": 4096} | trigger
            function = await self._rig.serve(trigger, name=f"t{number}", values=self._values)
            function.events = self._events

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._close())
        self._runner.close()
        self._socket.close()
        logging.getLogger().removeHandler(self._log)

    async def _close(self) -> None:
        await self._hub.__aexit__(None, None, None)

    def read(self, data: bytes) -> list[int]:
        """One input: how it arrives, in its first byte, and what. The statuses that it is answered;
        raises AssertionError for what should not be."""
        return self._runner.run(self._read(data[0] if data else 0, data[1:]))

    async def _read(self, kind: int, data: bytes) -> list[int]:
        protocol = self._rig.connector._server._inner._connection()
        assert isinstance(protocol, Protocol)
        wire = Wire(protocol, kind, self._socket)
        await wire.bring(kind, data)
        found = statuses(bytes(wire.said), data)
        assert all(100 <= one < 500 for one in found), found
        heard = not kind & (STAYS | DEAF | TLS)  # by TLS, a client that ends its side is gone
        assert found or not heard or not data.strip(b"\r\n"), "no answer"
        assert not self._logged, self._logged
        assert protocol not in protocol.connections
        assert not any(listening.function.now for listening in self._rig.listenings)
        self._compare(data)
        return found

    def _compare(self, data: bytes) -> None:
        """What came to functions with what another server would read."""
        came = [(one.request.method, one.data) for one in self._events if one.request is not None]
        self._events.clear()
        theirs, lenient = second.requests(data)
        if not lenient and not _OTHERWISE.search(data):
            assert second.among(came, theirs), ("read in two ways", came, theirs)


class _Kept(logging.Handler):
    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(self.format(record))


def seeds() -> list[bytes]:
    """Where a fuzzer begins: some of everything that is known to be odd."""
    paths = ("/", "/a/1/2", "/exact", "/async", "/prefer/x", "/from", "/by", "/none")
    fields = (*FIELDS, *BAD_FIELDS, *LENGTHS, "host: a.b", "ce-id: \xff%ff",
              "prefer: respond-async, wait=1", "content-encoding: gzip",
              'forwarded: for=1.2.3.4;proto=https, for="[::1]:5"',
              "x-forwarded-for: 10.0.0.1, 1.2.3.4:5")  # fmt: skip
    made = []
    for number, field in enumerate(fields):
        body = BODIES[number % len(BODIES)]
        head = f"POST {paths[number % len(paths)]} HTTP/1.1\r\nhost: a\r\n{field}\r\n"
        if not field.startswith(("content-l", "transfer")):
            head += f"content-length: {len(body)}\r\n"
        made.append(f"{head}\r\n{body}")
    made += [f"{first}\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n{first}\r\n\r\n"
             for first in (*FIRST, *BAD_FIRST)]  # fmt: skip
    batch = f"content-type: application/cloudevents-batch+json\r\ncontent-length: {len(BATCH)}"
    made += [
        f"POST / HTTP/1.1\r\nhost: a\r\n{batch}\r\n\r\n{BATCH}",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx",
        "GET /exact HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.b\r\n\r\n" * 9,
        "GET /.triggerhub/events/shop.t3.handle/1/2 HTTP/1.1\r\nhost: a\r\n\r\n" * 3,
    ]
    return [bytes([number % 8]) + text.encode("latin-1") for number, text in enumerate(made)]


def reading() -> Callable[[bytes], object]:
    return Connections().__enter__().read
