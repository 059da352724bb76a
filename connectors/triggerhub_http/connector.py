"""Listens for HTTP requests: all HTTP triggers of a process share one server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

from triggerhub.connector import Installation, SpecError, Subscription
from triggerhub.event import Reply, Request
from triggerhub_http.batches import events_of, serve_each
from triggerhub_http.bodies import Gone, read_body, unzipped, zipped
from triggerhub_http.caller import CUT, Caller
from triggerhub_http.certificates import Certificates
from triggerhub_http.clients import IDENTITY
from triggerhub_http.deferred import STATUS
from triggerhub_http.forwarding import forwarding
from triggerhub_http.gate import admitted
from triggerhub_http.listener import RETRY, Listener
from triggerhub_http.messages import Head, Refusal, read_head, reply_fields, to_event
from triggerhub_http.routes import Claim, PathError, Routes
from triggerhub_http.server import Server
from triggerhub_http.sharing import meant
from triggerhub_http.signatures import Replays
from triggerhub_http.source import HTTPSource

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

_SUCCESSION = 1.0
"""Seconds."""


class HTTPConnector:
    """Requests to functions, and their answers back.

    Use it as an async context manager around all calls of ``listen``. The server opens with the
    first ``listen`` and stays open until the connector is left.
    """

    kind = "HTTPTrigger"
    source = HTTPSource

    def __init__(self, installation: Installation, *, patience: float = 30.0) -> None:
        """``patience``: seconds that a client may take for a request's head, between two pieces
        of its body, and to take in an answer."""
        self._routes: Routes[Listener] = Routes()
        self._listeners: dict[str, Listener] = {}
        """By their subscriptions' names."""
        self._stopping = installation.stopping
        self._departed: dict[str, tuple[Claim[Listener], asyncio.TimerHandle]] = {}
        """Claims whose listeners have ended, by subscription: their routes are kept for a moment,
        so that nobody is told that there is none while another listener starts."""
        self._changed: asyncio.Future[None]
        """Until there are others to serve."""
        self._replays: dict[str, Replays] = {}
        """By subscription: a listener that starts anew knows what the last one knew."""
        files = installation.tls
        self._asks = files is not None and files.client_ca is not None
        """Clients for certificates."""
        self._certificates = None if files is None else Certificates(files, self._tell_all)
        self._server = Server(
            self._answer,
            installation.listen,
            installation.sockets,
            self._certificates,
            patience=patience,
        )

    async def __aenter__(self) -> HTTPConnector:
        self._changed = asyncio.get_running_loop().create_future()
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self._departed):
            self._succeeded(name)
        await self._server.__aexit__(kind, error, trace)

    @property
    def port(self) -> int:
        """Where the server listens. Raises RuntimeError before the first ``listen``."""
        return self._server.port

    async def listen(self, subscription: Subscription[HTTPSource]) -> None:
        """Serve the subscription's route until cancelled; then requests under way end within
        the grace time.

        Raises ``OSError`` when the address cannot be listened on, ``SpecError`` when what its
        references stand for is not what it should be.
        """
        auth = subscription.source.auth
        if auth is not None and auth.client_certificate is not None and not self._asks:
            raise SpecError("spec.source.auth.clientCertificate needs a hub with --tls-client-ca")
        replays = self._replays.setdefault(subscription.name, Replays())
        listener = Listener(subscription, replays, self._stale)
        # Before the server opens: the first request may be for any of those that listen.
        changed = self._routes.add(listener.claim)
        self._succeeded(subscription.name)
        self._listeners[subscription.name] = listener
        try:
            await self._server.open()
            self._tell({listener.claim, *changed})
            await listener.keep()
        finally:
            listener.stop()
            del self._listeners[subscription.name]
            self._tell(self._routes.leave(listener.claim))
            try:
                await listener.drain()
            finally:
                self._departed[subscription.name] = (
                    listener.claim,
                    asyncio.get_running_loop().call_later(
                        0.0 if self._stopping() else _SUCCESSION, self._succeeded, subscription.name
                    ),
                )

    def _succeeded(self, name: str) -> None:
        """The claim of a listener that has ended ends now: another one took its place, or none
        did soon."""
        claim, timer = self._departed.pop(name, (None, None))
        if claim is not None and timer is not None:
            timer.cancel()
            self._tell(self._routes.remove(claim))
        self._changed.set_result(None)
        self._changed = asyncio.get_running_loop().create_future()

    def _stale(self) -> str:
        return "" if self._certificates is None else self._certificates.trouble

    def _tell_all(self) -> None:
        for listener in self._listeners.values():
            listener.tell()

    def _tell(self, claims: Iterable[Claim[Listener]]) -> None:
        for claim in claims:
            claim.owner.tell()

    async def _answer(
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
                reply, self._server.date, head_only=scope["method"] == "HEAD", close=close
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
        try:
            if asked:
                reply = await self._told(listener, rest, head, scope, receive)
            else:
                reply = await self._delivered(listener, rest, head, scope, receive, send)
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
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
    ) -> Reply:
        """What became of an event. Raises ``Refusal`` or ``Gone``."""
        entry = await admitted(listener.gate, head, scope["client"], scope["state"].get(IDENTITY))
        body = await read_body(receive, head.length, listener.max_body) if head.body else b""
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
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> Reply | None:
        """None: it is answered. Raises ``Refusal`` or ``Gone``."""
        method, path = scope["method"], scope["raw_path"].decode()
        entry = await admitted(listener.gate, head, scope["client"], scope["state"].get(IDENTITY))
        with listener.turnstile:
            in_gzip = head.body and zipped(head)
            body = await read_body(receive, head.length, listener.max_body) if head.body else b""
            await entry.check(body)
            with entry:
                if in_gzip:
                    body = await unzipped(head, body, listener.max_body)
                if listener.stopping:
                    # It began to stop after it let this request in; nobody else's trigger did.
                    name = listener.claim.name
                    listener, rest = await self._routed(head, method, path)
                    if listener.claim.name != name:
                        raise Refusal(503, "Stopping", "its trigger stopped: try again", RETRY)
                listener.name_parameters(head, path)
                caller = Caller(
                    send,
                    scope["state"][CUT],
                    lambda reply: reply_fields(
                        listener.sharing.told(head, reply), self._server.date, whole=False
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
                )
                if head.batch:
                    serving = serve_each(listener, head, events_of(request, body))
                else:
                    event = to_event(listener.name, head, request, path, body)
                    serving = listener.serve(head, event)
                reply = await caller.hear(serving)
                entry.status = caller.status
                return reply

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


def _unserved(host: str, path: str, method: str, allowed: set[str]) -> Refusal:
    if not allowed:
        return Refusal(404, "NotFound", f"no trigger serves {path} on host {host or '-'}")
    methods = ", ".join(sorted(allowed))
    message = f"{path} does not take {method}, expected one of {methods}"
    return Refusal(405, "MethodNotAllowed", message, (b"allow", methods.encode()))
