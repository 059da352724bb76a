"""What is answered before anybody asks for an event: browsers by CORS, senders of webhooks.

CORS: the Fetch standard, section 3.2 (https://fetch.spec.whatwg.org/#http-cors-protocol). Webhooks:
CloudEvents, "HTTP 1.1 Web Hooks for Event Delivery", section 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from triggerhub.event import Reply
from triggerhub_http.edge import CORS
from triggerhub_http.messages import Field, Head
from triggerhub_http.source import HTTPSource

_ORIGIN = b"origin"
_METHOD = b"access-control-request-method"
_HEADERS = b"access-control-request-headers"
_SENDER = b"webhook-request-origin"
_VARY = (b"vary", b"origin")


def meant(head: Head) -> str:
    """For the sake of which method an OPTIONS request asks; empty: of none, it is one like any
    other."""
    if _of(head, _SENDER):
        return "POST"
    return _of(head, _METHOD).decode("latin-1") if _of(head, _ORIGIN) else ""


def _of(head: Head, name: bytes) -> bytes:
    return next((value for found, value in head.kept if found == name), b"").strip()


class Sharing:
    """Of one trigger."""

    def __init__(self, source: HTTPSource) -> None:
        self._cors = None if source.cors is None else _Cors(source.cors, source.methods)
        self._senders = None if source.webhook is None else source.webhook.origins
        self._rate = b"*"
        if source.limits is not None and source.limits.rate is not None:
            per_minute = int(source.limits.rate * 60 / source.limits.per)
            self._rate = b"%d" % max(1, per_minute)

    def agreed(self, head: Head) -> Reply | None:
        """What such an OPTIONS request is answered; None: the function shall say it. Whom it does
        not agree with hears nothing that could be taken for consent."""
        sender = _of(head, _SENDER)
        if sender:
            if self._senders is None:
                return None
            fields: list[Field] = [(b"allow", b"POST")]
            if "*" in self._senders or sender.decode("latin-1").lower() in self._senders:
                fields += [
                    (b"webhook-allowed-origin", sender),
                    (b"webhook-allowed-rate", self._rate),
                ]
            return Reply(200, tuple(fields))
        return None if self._cors is None else self._cors.preflight(head)

    def told(self, head: Head, reply: Reply) -> Reply:
        """An answer, with what a browser must know of it."""
        if self._cors is None:
            return reply
        kept = (pair for pair in reply.headers if not pair[0].startswith(b"access-control-"))
        return replace(reply, headers=(*kept, *self._cors.fields(_of(head, _ORIGIN))))


class _Cors:
    def __init__(self, spec: CORS, methods: Iterable[str] | None) -> None:
        self._any = "*" in spec.origins
        self._origins = frozenset(spec.origins)
        self._domains = tuple(
            (scheme, domain)
            for scheme, star, domain in (origin.partition("://*") for origin in spec.origins)
            if star
        )
        self._methods = ", ".join(methods).encode() if methods is not None else b""
        self._headers = b"" if "*" in spec.headers else ", ".join(spec.headers).encode()
        self._all_headers = "*" in spec.headers
        self._age = b"%d" % spec.max_age
        self._more: list[Field] = []
        if spec.credentials:
            self._more.append((b"access-control-allow-credentials", b"true"))
        self._exposed: list[Field] = []
        if spec.expose_headers:
            names = ", ".join(spec.expose_headers).encode()
            self._exposed.append((b"access-control-expose-headers", names))

    def preflight(self, head: Head) -> Reply:
        origin = _of(head, _ORIGIN)
        fields = self._allowed(origin)
        if len(fields) > 1:
            fields.append((b"access-control-allow-methods", self._methods or _of(head, _METHOD)))
            names = _of(head, _HEADERS) if self._all_headers else self._headers
            if names:
                fields.append((b"access-control-allow-headers", names))
            fields.append((b"access-control-max-age", self._age))
        return Reply(204, tuple(fields))

    def fields(self, origin: bytes) -> list[Field]:
        """Of an answer; no more than ``vary`` for an origin that is not let in."""
        fields = self._allowed(origin)
        return fields + self._exposed if len(fields) > 1 else fields

    def _allowed(self, origin: bytes) -> list[Field]:
        if not origin or not self._lets_in(origin.decode("latin-1")):
            return [_VARY]
        return [_VARY, (b"access-control-allow-origin", origin), *self._more]

    def _lets_in(self, origin: str) -> bool:
        if self._any or origin in self._origins:
            return True
        scheme, _, host = origin.partition("://")
        return any(scheme == one and host.endswith(domain) for one, domain in self._domains)
