"""A synchronous request: one attempt, and whatever the function says goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from triggerhub.delivery.course import Failure, plain
from triggerhub.delivery.encoding import encode_request
from triggerhub.delivery.endpoint import Endpoint
from triggerhub.delivery.failures import Away, BrokenReply, Interrupted, NoReply
from triggerhub.delivery.target import Target
from triggerhub.delivery.upload import Upload
from triggerhub.event import Caller, Event, Reply, Request, Rest

LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of a function's answer that a caller can get who takes it only whole."""

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class Exchange:
    """One attempt."""

    __slots__ = ("_endpoint", "_event", "_request", "_send", "_target", "reply")

    def __init__(
        self,
        send: Callable[..., Awaitable[Reply]],
        endpoint: Endpoint,
        event: Event,
        request: Request,
        target: Target,
    ) -> None:
        self._send = send
        self._endpoint = endpoint
        self._event = event
        self._request = request
        self._target = target
        self.reply: Reply | None = None
        """As soon as it begins."""

    def run(self) -> Awaitable[Reply]:
        """Done when all of the answer is with the caller, or in the reply. Raises ``Away``,
        ``NoReply``, ``BrokenReply``, or ``Interrupted``."""
        rest = self._request.rest
        return self._ask(None) if rest is None else self._ask_while_it_comes(rest)

    async def _ask(self, more: Upload | None) -> Reply:
        endpoint, request, target = self._endpoint, self._request, self._target
        head, body = encode_request(endpoint.path, endpoint.host_header, self._event, request)
        reply = self.reply = await self._send(
            endpoint,
            head,
            body,
            target.timeout,
            LARGEST_ANSWER,
            head_request=request.method == "HEAD",
            once=not _repeatable(request),
            pace=0.0 if request.caller is None else target.timeout,
            more=more,
        )
        if reply.truncated:
            raise BrokenReply(f"the answer is larger than {LARGEST_ANSWER} bytes")
        if reply.rest is not None and request.caller is not None:
            await _tell(reply, reply.rest, request.caller)
            if more is None:
                await request.caller.end()
        return reply

    async def _ask_while_it_comes(self, rest: Rest) -> Reply:
        """Both bodies at once. An answer that has ended ends the request as well."""
        failure: Failure | Interrupted | None = None
        reply, caller = None, self._request.caller
        length = self._request.length
        upload = Upload(rest, None if length is None else length - len(self._event.data))
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(upload.run())
            try:
                reply = await self._ask(upload)
            except (Away, NoReply, BrokenReply, Interrupted) as error:
                failure = error
            finally:
                sending.cancel()
        rest.close()
        if failure is not None:
            raise failure
        assert reply is not None
        if reply.rest is not None and caller is not None:
            await caller.end()
        return reply


async def _tell(reply: Reply, rest: Rest, caller: Caller) -> None:
    """All but the end."""
    try:
        await caller.begin(reply)
        while piece := await rest.read():
            await caller.take(piece)
    finally:
        rest.close()


def hub_reply(target: Target, failure: Failure | None) -> Reply:
    """What a synchronous caller hears when the function gave no answer of its own."""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    if isinstance(failure, NoReply):
        status, what = 504, f"gave no answer within {target.timeout:g} s"
    elif isinstance(failure, BrokenReply):
        status, what = 502, f"broke its answer: {failure}"
    else:
        status, what = 503, f"is away: {failure}"
        headers = (*headers, (b"retry-after", b"1"))
    text = f'{{"error":"{status}","message":"function {target.function} {plain(what)}"}}\n'
    return Reply(status, headers, text.encode())


def _repeatable(request: Request) -> bool:
    """Whether it may be sent again when it is not known if the function had it (RFC 9110,
    section 9.2.2): by its method, or because its sender gave it a key to be told by."""
    return request.method in _IDEMPOTENT or any(
        name == b"idempotency-key" for name, _ in request.headers
    )
