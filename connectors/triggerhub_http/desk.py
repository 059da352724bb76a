"""A request, from its head to its answer: who serves it, and how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING

from triggerhub.event import Reply, Request
from triggerhub_http.batches import events_of, serve_each
from triggerhub_http.bodies import HELD, Gone, Incoming, read_short, unzipped, zipped
from triggerhub_http.caller import CONNECTION, Caller, Ending
from triggerhub_http.clients import IDENTITY
from triggerhub_http.deferred import STATUS
from triggerhub_http.forwarding import forwarding
from triggerhub_http.gate import Entry, admitted
from triggerhub_http.listener import RETRY, Listener
from triggerhub_http.messages import Field, Head, Refusal, read_head, reply_fields, to_event
from triggerhub_http.routes import PathError, Routes
from triggerhub_http.sharing import meant

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope


class Desk:
    """Of all HTTP triggers."""

    def __init__(
        self,
        routes: Routes[Listener],
        listeners: Mapping[str, Listener],
        stopping: Callable[[], bool],
        date: Callable[[], Field],
    ) -> None:
        """``listeners``: by their subscriptions' names. ``date``: the field, as it is now."""
        self._routes = routes
        self._listeners = listeners
        self._stopping = stopping
        self._date = date
        self._changed: asyncio.Future[None]
        """Until there are others to serve."""

    def open(self) -> None:
        """Requests may come."""
        self._changed = asyncio.get_running_loop().create_future()

    def look_again(self) -> None:
        """There are others to serve: tell those who wait."""
        self._changed.set_result(None)
        self.open()

    async def answer(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """The ASGI application. Ends quietly when the client is gone (cancelled)."""
        assert scope["type"] == "http"
        close = False
        try:
            try:
                reply = await self._serve(scope, receive, send)
                if reply is None:
                    return
            except Refusal as refusal:
                reply = refusal.reply
                # Whether a body comes that waits for leave is the client's choice: the next
                # request could not be told from it (RFC 9110, section 10.1.1).
                close = refusal.close or any(name == b"expect" for name, _ in scope["headers"])
            fields = reply_fields(
                reply, self._date(), head_only=scope["method"] == "HEAD", close=close
            )
            await send({"type": "http.response.start", "status": reply.status, "headers": fields})
            await send({"type": "http.response.body", "body": reply.body, "more_body": False})
        except (asyncio.CancelledError, Gone):
            return

    async def _serve(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> Reply | None:
        """None: it is answered. Raises ``Refusal`` or ``Gone``."""
        head = read_head(scope["headers"], scope["http_version"])
        method, path, query = scope["method"], scope["raw_path"].decode(), scope["query_string"]
        if path[0] != "/" or not query.isascii():
            message = "found a malformed target, expected a path"
            raise Refusal(400, "BadRequest", message, close=True)
        reply: Reply | None
        if method == "OPTIONS" and (reply := await self._agreed(head, path)) is not None:
            return reply
        asked = path.startswith(STATUS)
        find = self._asked if asked else self._routed
        listener, rest = await find(head, method, path)
        identity = scope["state"].get(IDENTITY)
        try:
            entry = await admitted(listener.gate, head, scope["client"], identity)
            if asked:
                reply = await self._told(listener, rest, head, entry, receive)
            else:
                reply = await self._delivered(listener, rest, head, entry, scope, receive, send)
        except Refusal as refusal:
            refusal.reply = listener.sharing.told(head, refusal.reply)
            raise
        return None if reply is None else listener.sharing.told(head, reply)

    async def _agreed(self, head: Head, path: str) -> Reply | None:
        """What is answered to who asks whether another request may come; None: nobody asks that,
        or the function is to say it."""
        wanted = meant(head)
        if not wanted:
            return None
        try:
            listener, _ = await self._routed(head, wanted, path)
        except Refusal:
            return None
        return listener.sharing.agreed(head)

    async def _told(
        self,
        listener: Listener,
        rest: str,
        head: Head,
        entry: Entry,
        receive: ASGIReceiveCallable,
    ) -> Reply:
        """What became of an event. Raises ``Refusal`` or ``Gone``."""
        body = b""
        if head.body:
            body = await Incoming(receive, head.length, listener.max_body).gather()
        await entry.check(body)
        with entry:
            reply = await listener.status(rest)
            entry.status = reply.status
            return reply

    async def _delivered(
        self,
        listener: Listener,
        rest: str,
        head: Head,
        entry: Entry,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> Reply | None:
        """None: it is answered. Raises ``Refusal`` or ``Gone``."""
        method, path = scope["method"], scope["raw_path"].decode()
        with listener.turnstile, entry:
            body, incoming = b"", None
            if head.body:
                body, incoming = await _come_in(listener, head, entry, scope, receive)
            elif entry.wants_body:
                await entry.check(body)
            try:
                if listener.stopping:
                    # It began to stop after it let this request in; nobody else's trigger did.
                    name = listener.claim.name
                    listener, rest = await self._routed(head, method, path)
                    if listener.claim.name != name:
                        raise Refusal(503, "Stopping", "its trigger stopped: try again", RETRY)
                    if incoming is not None and not listener.takes_at_once(head):
                        body, incoming = body + await incoming.gather(), None
                listener.name_parameters(head, path)
                caller = Caller(
                    send,
                    scope["state"][CONNECTION],
                    lambda reply: reply_fields(
                        listener.sharing.told(head, reply), self._date(), whole=False
                    ),
                )
                deferred = listener.defers(head)
                if deferred and head.prefer:
                    head.kept[:] = [pair for pair in head.kept if pair[0] != b"prefer"]
                # Before HTTP/1.1, an answer without a length ends as one that is cut does.
                whole = deferred or head.batch or scope["http_version"] != "1.1"
                request = Request(
                    method=method,
                    path=rest,
                    query=scope["query_string"].decode(),
                    headers=(*head.kept, *forwarding(head, scope["client"], scope["scheme"])),
                    deferred=deferred,
                    caller=None if whole else caller,
                    rest=incoming,
                    length=incoming.length if incoming is not None else None,
                )
                if head.batch:
                    serving = serve_each(listener, head, events_of(request, body))
                else:
                    event = to_event(listener.name, head, request, path, body)
                    serving = listener.serve(head, event)
                reply = await caller.hear(serving)
                entry.status = caller.status
                return reply
            finally:
                if incoming is not None:
                    incoming.close()

    async def _routed(self, head: Head, method: str, path: str) -> tuple[Listener, str]:
        """Who serves it, and what follows the prefix in the path. While a listener drains, another
        one may be about to take its place, with a changed manifest or Secret: that is waited for.
        Raises ``Refusal``."""
        while True:
            try:
                claim, rest, allowed = self._routes.find(head.host, path, method)
            except PathError as error:
                raise Refusal(400, "BadRequest", str(error)) from None
            if claim is None:
                if self._stopping():
                    # Its connections end last: a 404 would be taken for good.
                    raise Refusal(503, "Stopping", "the hub stops: try again", RETRY)
                raise _unserved(head.host, path, method, allowed)
            if not claim.leaving or self._stopping():
                return claim.owner, rest
            await asyncio.wait([self._changed])

    async def _asked(self, _head: Head, method: str, path: str) -> tuple[Listener, str]:
        """Whose event is asked for, and which. Raises ``Refusal``."""
        name, _, rest = path.removeprefix(STATUS).partition("/")
        listener = self._listeners.get(name)
        if listener is None:
            if self._stopping():
                raise Refusal(503, "Stopping", "the hub stops: try again", RETRY)
            raise Refusal(404, "NotFound", f"no trigger listens as {name}")
        if method not in ("GET", "HEAD"):
            message = f"{path} does not take {method}, expected GET"
            raise Refusal(405, "MethodNotAllowed", message, (b"allow", b"GET, HEAD"))
        return listener, rest


async def _come_in(
    listener: Listener, head: Head, entry: Entry, scope: HTTPScope, receive: ASGIReceiveCallable
) -> tuple[bytes, Incoming | None]:
    """The body, checked, and out of its gzip; or of a long one, that may flow, the begin, and the
    rest. Raises ``Refusal`` or ``Gone``."""
    in_gzip = zipped(head)
    if 0 < head.length <= HELD:
        body = await read_short(receive, head.length, listener.max_body)
    else:
        connection: Ending = scope["state"][CONNECTION]
        incoming = Incoming(receive, head.length, listener.max_body, connection.leave)
        whole = in_gzip or entry.wants_body or scope["http_version"] != "1.1"
        long = not whole and listener.takes_at_once(head)
        body = await incoming.gather(HELD if long else inf)
        if not incoming.ended:
            return body, incoming
    if entry.wants_body:
        await entry.check(body)
    return await unzipped(head, body, listener.max_body) if in_gzip else body, None


def _unserved(host: str, path: str, method: str, allowed: set[str]) -> Refusal:
    if not allowed:
        return Refusal(404, "NotFound", f"no trigger serves {path} on host {host or '-'}")
    methods = ", ".join(sorted(allowed))
    message = f"{path} does not take {method}, expected one of {methods}"
    return Refusal(405, "MethodNotAllowed", message, (b"allow", methods.encode()))
