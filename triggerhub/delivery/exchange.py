"""A synchronous request: one attempt, and whatever the function says goes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from triggerhub.delivery.course import Failure, plain
from triggerhub.delivery.encoding import encode_request
from triggerhub.delivery.endpoint import Endpoint
from triggerhub.delivery.failures import BrokenReply, NoReply
from triggerhub.delivery.target import Target
from triggerhub.event import Caller, Event, Reply, Request

LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of a function's answer that a caller can get who takes it only whole."""

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


async def ask(
    send: Callable[..., Awaitable[Reply]],
    endpoint: Endpoint,
    event: Event,
    request: Request,
    target: Target,
) -> Reply:
    """Send it once. Where the answer has a ``rest``, ``pass_on`` is to follow. Raises ``Away``,
    ``NoReply`` or ``BrokenReply``."""
    head, body = encode_request(endpoint.path, endpoint.host_header, event, request)
    reply = await send(
        endpoint,
        head,
        body,
        target.timeout,
        LARGEST_ANSWER,
        head_request=request.method == "HEAD",
        once=not _repeatable(request),
        pace=0.0 if request.caller is None else target.timeout,
    )
    if reply.truncated:
        raise BrokenReply(f"the answer is larger than {LARGEST_ANSWER} bytes")
    return reply


async def pass_on(reply: Reply, caller: Caller) -> None:
    """Tell the caller the answer while it comes. Raises as ``ask`` does, where it breaks off."""
    rest = reply.rest
    assert rest is not None
    try:
        await caller.begin(reply)
        while piece := await rest.read():
            await caller.take(piece)
        await caller.end()
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
