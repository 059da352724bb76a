"""Listens for HTTP requests: all HTTP triggers of a process share one server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType

from triggerhub.connector import Installation, SpecError, Subscription
from triggerhub_http.certificates import Certificates
from triggerhub_http.desk import Desk
from triggerhub_http.listener import Listener
from triggerhub_http.messages import Field
from triggerhub_http.routes import Claim, Routes
from triggerhub_http.server import Server
from triggerhub_http.signatures import Replays
from triggerhub_http.source import HTTPSource

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
        self._desk = Desk(self._routes, self._listeners, self._stopping, self._date)
        self._replays: dict[str, Replays] = {}
        """By subscription: a listener that starts anew knows what the last one knew."""
        files = installation.tls
        self._asks = files is not None and files.client_ca is not None
        """Clients for certificates."""
        self._certificates = None if files is None else Certificates(files, self._tell_all)
        self._server = Server(
            self._desk.answer,
            installation.listen,
            installation.sockets,
            self._certificates,
            patience=patience,
        )

    async def __aenter__(self) -> HTTPConnector:
        self._desk.open()
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
        self._desk.look_again()

    def _date(self) -> Field:
        return self._server.date

    def _stale(self) -> str:
        return "" if self._certificates is None else self._certificates.trouble

    def _tell_all(self) -> None:
        for listener in self._listeners.values():
            listener.tell()

    def _tell(self, claims: Iterable[Claim[Listener]]) -> None:
        for claim in claims:
            claim.owner.tell()
