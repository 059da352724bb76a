"""nats-py's client as one connection to one server, for as long as that lasts.

nats-py can connect again by itself, but gives up for good when a server refuses it meanwhile, says
little of why, and waits for ever for a server that answers nothing. So its connection ends with the
first failure, and ``Connection`` makes the next. This is the one module that reaches behind
nats-py's public names; each place says what for.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import nats.errors
from nats.aio.client import Client as NATSClient
from nats.aio.msg import Msg

from triggerhub.nats.access import Access
from triggerhub.nats.headers import Headers

T = TypeVar("T")

log = logging.getLogger("triggerhub.nats")

CONNECT_WITHIN = 5
_ASK_WITHIN = 5.0
_LOOK_EVERY = 3.0
_ANSWER_WITHIN = 4.0
_END_WITHIN = 2.0
_DENIALS = 100
"""What the server did not allow, of late."""
_NEVER = 10 * 365 * 24 * 3600


class NotEncrypted(nats.errors.Error):
    """The server does not offer TLS."""


class HungUp(nats.errors.Error):
    """The server closed the connection without a word."""

    def __init__(self, encrypted: bool) -> None:
        """``encrypted``: after TLS was agreed on."""
        super().__init__("the server closed the connection")
        self.encrypted = encrypted


class Denied(nats.errors.Error):
    """The account may not do that; as text, the server's words."""


class Refusal(nats.errors.Error):
    """JetStream's API refused a request."""

    def __init__(self, code: int, number: int, text: str) -> None:
        """``code`` as of HTTP; ``number`` says exactly what; ``text``: the server's words."""
        super().__init__(f"{text} (code {code}, error {number})")
        self.number = number


async def heed(work: Awaitable[T]) -> T:
    """Await what is nats-py's, and be cancelled where that came meanwhile: nats-py swallows it here
    and there, as does ``asyncio.wait_for`` of Python 3.11, which it uses."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    result = await work
    if task.cancelling() > before:
        raise asyncio.CancelledError
    return result


def speaks_of(denial: str, subject: str) -> bool:
    """Whether it is this subject that the server does not allow. nats-py writes what the server
    said in lower case."""
    return f'"{subject}"'.lower() in denial.lower()


def published(subject: str, reply: str, headers: bytes, data: bytes) -> bytes:
    """The line of the protocol, and what follows it. ``headers``: a whole block."""
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        subject.encode(), reply.encode(), len(headers), len(headers) + len(data), headers, data
    )  # fmt: skip


class Waiting(Protocol):
    """What waits for the server's word, and is told when it will not come."""

    def deny(self, text: str) -> None: ...
    def lose(self) -> None: ...


class Client(NATSClient):
    """A connection to one server. Not used again after it ended."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._access = access
        self._opened = False
        self._encrypted = False
        self._denials: deque[str] = deque(maxlen=_DENIALS)
        self._denied = 0
        self._fault: Exception | None = None
        self.lost = asyncio.Event()
        """It ended, or its server answers no longer."""
        self.wakes: set[asyncio.Event] = set()
        """To be set when it is lost."""
        self.keeping: Waiting | None = None
        """What waits for streams to confirm (``keeping_over``)."""

    @property
    def gone(self) -> bool:
        """It is of no use any longer."""
        return self.lost.is_set() or self.is_closed

    async def open(self, server: str) -> None:
        """Connect and log in. Raises what goes wrong: OSError, TimeoutError, nats.errors.Error."""
        options = dict(self._access.options)
        if self._access.context is not None:
            options["tls"] = self._access.context
        try:
            await heed(
                self.connect(
                    servers=[server],
                    name="triggerhub",
                    error_cb=self._told,
                    disconnected_cb=self._ended,
                    allow_reconnect=False,
                    connect_timeout=CONNECT_WITHIN,
                    # Whether the server answers is asked by ``watch``, which also hears no answer.
                    ping_interval=_NEVER,
                    **options,
                )
            )
        except ConnectionError:
            if not self._encrypted:
                raise
        # It may have said neither yes nor no.
        if not self.is_connected:
            raise HungUp(self._encrypted)
        self._opened = True

    async def watch(self) -> None:
        """Ask the server now and then whether it is there, until it is not. Raises what was raised
        where messages are taken: a programming error."""
        while not self.lost.is_set():
            try:
                async with asyncio.timeout(_ANSWER_WITHIN):
                    await heed(self.flush())
            except (TimeoutError, OSError, nats.errors.Error):
                break
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await self.lost.wait()
            except TimeoutError:
                continue
        self._lose()
        if self._fault is not None:
            raise self._fault

    async def ask(self, subject: str, request: Mapping[str, Any] | None = None) -> Any:
        """What JetStream's API answers. Raises Refusal, Denied, nats.errors.NoRespondersError
        (there is no JetStream), TimeoutError, and nats.errors.Error where the connection ended."""
        payload = b"" if request is None else json.dumps(request).encode()
        return await self._answer(f"$JS.API.{subject}", payload, None)

    async def put(self, subject: str, data: bytes, headers: Mapping[str, str]) -> Any:
        """Publish; returns how the stream behind the subject confirms it. Raises as ``ask``
        (nats.errors.NoRespondersError: there is no such stream), and
        nats.errors.MaxPayloadError."""
        return await self._answer(subject, data, dict(headers))

    async def _answer(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> Any:
        before = self._denied
        try:
            asking = self.request(subject, payload, timeout=_ASK_WITHIN, headers=headers)
            answer = await heed(asking)
        except nats.errors.TimeoutError:
            self._check_denials(before, subject)
            raise
        found = json.loads(answer.data)
        if error := found.get("error"):
            raise Refusal(
                error.get("code", 0), error.get("err_code", 0), error.get("description", "")
            )
        return found

    async def listen(self, subject: str, take: Any, queue: str = "") -> Any:
        """Subscribe, ``take`` being called with each message; returns nats-py's subscription once
        the server has it. Raises Denied, TimeoutError, and nats.errors.Error."""
        before = self._denied
        made = await heed(self.subscribe(subject, queue=queue, cb=take))
        await heed(self.flush())
        self._check_denials(before, subject)
        return made

    async def write(self, lines: Iterable[bytes]) -> None:
        """Send whole lines of the protocol in one go: nats-py's publish makes a future for each,
        and checks what was checked."""
        for line in lines:
            self._pending.append(line)
            self._pending_data_size += len(line)
        await heed(self._flush_pending())

    async def publish_raw(self, subject: str, headers: bytes, data: bytes) -> None:
        """``headers``: a whole block. Returns when the server has it. Raises Denied, and
        nats.errors.Error where the connection ended."""
        before = self._denied
        await self.write([published(subject, "", headers, data)])
        await heed(self.flush())
        self._check_denials(before, subject)

    async def end(self) -> None:
        """Close, within a few seconds whatever the server does."""
        self._lose()
        try:
            async with asyncio.timeout(_END_WITHIN):
                await self.close()
        except (TimeoutError, OSError, nats.errors.Error) as error:
            log.debug("nats.close_failed error=%r", error)
        finally:
            # What nats-py leaves where it was ended while it wrote.
            for subscription in self._subs.values():
                subscription._stop_processing()
            writer = getattr(self._transport, "_bare_io_writer", None)
            if writer is not None:
                writer.transport.abort()

    def _connect_command(self) -> bytes:
        # The last step before anything secret is sent: nats-py sends it in clear to a server, or
        # to who stands before it, that says it has no TLS.
        if self._access.context is not None and not self._server_info.get("tls_required"):
            raise NotEncrypted("the server does not encrypt")
        self._encrypted = bool(self._server_info.get("tls_required"))
        return super()._connect_command()

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py's own overtakes what waits to be written, so that its answer proves nothing of it.
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        await self._send_command(b"PING\r\n")
        await self._flush_pending()

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        # nats-py's own ends its reading, silently, with a subject that is not UTF-8.
        return Msg(self, subject.decode("utf-8", "backslashreplace"), reply.decode(), data, headers)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        # nats-py's own keeps the last of equal names, and what it can read of a value.
        return Headers(NATSClient._parse_header_lines(raw), raw)

    def _lose(self) -> None:
        self.lost.set()
        for wake in self.wakes:
            wake.set()
        if self.keeping is not None:
            self.keeping.lose()

    def _check_denials(self, before: int, subject: str) -> None:
        new = min(self._denied - before, len(self._denials))
        for text in list(self._denials)[len(self._denials) - new :]:
            if speaks_of(text, subject):
                raise Denied(text)

    async def _told(self, error: Exception) -> None:
        """nats-py's error callback. Raised while it connects, it ends that: nats-py would try
        again, and keep the reason to itself."""
        if not self._opened:
            raise error
        text = str(error)
        if "permissions violation" in text.lower():
            self._denied += 1
            self._denials.append(text.removeprefix("nats: "))
            if self.keeping is not None:
                self.keeping.deny(self._denials[-1])
        elif not isinstance(error, nats.errors.Error | OSError):
            # From one of our own callbacks.
            self._fault = error
            self._lose()
        else:
            log.debug("nats.error error=%r", error)

    async def _ended(self) -> None:
        self._lose()
