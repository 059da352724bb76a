"""An HTTP request as an event, and an answer as header fields."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from itertools import product
from json import dumps
from urllib.parse import unquote

from triggerhub.cloudevents import BATCH, STRUCTURED, CloudEventError, decode
from triggerhub.event import EMPTY, Event, Reply, Request
from triggerhub_http.addresses import Hop
from triggerhub_http.ulid import Clock, chance

Field = tuple[bytes, bytes]

# RFC 9110, section 7.6.1, and what earlier ones called hop-by-hop (RFC 2616, section 13.5.1).
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
_FORWARDED = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
     b"x-forwarded-port", b"x-forwarded-prefix", b"x-real-ip"}
)  # fmt: skip
_NOTED = frozenset({b"content-type", b"idempotency-key", b"ce-id", b"ce-specversion", b"prefer"})
CALLER = b"triggerhub-caller"
"""Tells the function who calls: said by the hub alone."""
# A function behind WSGI or CGI reads x_real_ip as x-real-ip (RFC 3875, section 4.1.18).
_DISGUISED = frozenset(
    b"".join(spelt)
    for name in _FORWARDED | {CALLER}
    for spelt in product(*((b"-", b"_") if c == 0x2D else (bytes((c,)),) for c in name))
    if b"_" in spelt
)
_SPECIAL = (
    _HOP_BY_HOP | _FORWARDED | _NOTED | _DISGUISED | {b"host", b"content-length", b"expect", CALLER}
)
_SPECIAL_IN_REPLY = _HOP_BY_HOP | {b"content-length", b"date"}
_NO_BODY = frozenset({204, 304})  # RFC 9110, section 6.4.1
_CLOSE = (b"connection", b"close")
_clock = Clock()


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """The hub's own answer: a status and one plain sentence."""

    def __init__(
        self, status: int, error: str, message: str, *fields: Field, close: bool = False
    ) -> None:
        super().__init__(message)
        self.close = close
        """True: what follows on the connection cannot be read."""
        body = dumps({"error": error, "message": message}, ensure_ascii=False).encode()
        self.reply = Reply(status, ((b"content-type", b"application/json"), *fields), body)

    def encoded(self) -> bytes:
        """As the last answer on its connection."""
        status, date = HTTPStatus(self.reply.status), formatdate(usegmt=True).encode()
        fields = reply_fields(self.reply, (b"date", date), close=True)
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (
            status,
            status.phrase.encode(),
            b"".join(b"%b: %b\r\n" % field for field in fields),
            self.reply.body,
        )


class Head:
    """What a request's header fields say."""

    __slots__ = ("believed", "body", "content_type", "event_id", "event_version", "forwarded",
                 "host", "idempotency_key", "kept", "length", "prefer")  # fmt: skip

    def __init__(self) -> None:
        self.kept: list[Field] = []
        """The end-to-end fields, but for those that say how the request came."""
        self.forwarded: dict[bytes, bytes] = {}
        """What it says itself of how it came, by field: whoever calls may have made it up."""
        self.believed: list[Hop] = []
        """And what of that is believed: from whom it came, the client first, up to whom is
        connected. Empty: whom is connected is the client."""
        self.host = ""
        self.body = False
        """Whether a body follows (RFC 9112, section 6.3)."""
        self.length = 0
        self.content_type: str | None = None
        self.idempotency_key = ""
        self.event_id = ""
        self.event_version = ""
        self.prefer = ""

    @property
    def cloud_event(self) -> bool:
        """In binary or structured mode."""
        kind = self.content_type
        return bool(self.event_version) or (
            kind is not None and kind.lower().startswith(STRUCTURED)
        )

    @property
    def whole(self) -> bool:
        """Only the whole body says which event it is, or events."""
        kind = self.content_type
        return kind is not None and kind.lower().startswith((STRUCTURED, BATCH))

    @property
    def batch(self) -> bool:
        """Several, by the media type (CloudEvents, HTTP binding, section 3.3)."""
        kind = self.content_type
        return kind is not None and kind.partition(";")[0].strip().lower() == BATCH

    @property
    def named(self) -> bool:
        """The request says itself which event it is."""
        return bool(self.idempotency_key or self.event_id) or self.cloud_event or self.batch


def read_head(fields: Iterable[Field], http_version: str) -> Head:
    """Raises ``Refusal`` (400) unless there is one Host field (RFC 9112, section 3.2)."""
    head = Head()
    kept = head.kept
    host: bytes | None = None
    named: set[bytes] | None = None
    for pair in fields:
        name = pair[0]
        if name not in _SPECIAL:
            kept.append(pair)
        elif name == b"host":
            if host is not None:
                raise Refusal(400, "BadRequest", "found 2 Host fields, expected one", close=True)
            host = pair[1]
        elif name == b"connection":
            named = (named or set()).union(map(bytes.strip, pair[1].lower().split(b",")))
        elif name in _FORWARDED:
            before = head.forwarded.get(name)
            head.forwarded[name] = pair[1] if before is None else b"%b, %b" % (before, pair[1])
        else:
            _note(head, pair)
    if host is not None:
        head.host = host.decode("latin-1")
    elif http_version == "1.1":
        raise Refusal(400, "BadRequest", "found 0 Host fields, expected one", close=True)
    if named is not None and not named.isdisjoint(pair[0] for pair in kept):
        kept[:] = [pair for pair in kept if pair[0] not in named]
    return head


def _note(head: Head, pair: Field) -> None:
    name, value = pair
    if name == b"content-length":
        head.length = int(value)
        head.body = head.length > 0
    elif name == b"transfer-encoding":
        head.body = True
    elif name in _NOTED:
        head.kept.append(pair)
        text = _text(value)
        if name == b"content-type":
            head.content_type = text
        elif name == b"idempotency-key":
            if head.idempotency_key:
                message = "found 2 Idempotency-Key fields, expected one"
                raise Refusal(400, "BadRequest", message, close=True)
            head.idempotency_key = text
        elif name == b"ce-id":
            head.event_id = unquote(text)
        elif name == b"prefer":
            head.prefer = f"{head.prefer}, {text}" if head.prefer else text
        else:
            head.event_version = text


def to_event(source: str, head: Head, request: Request, path: str, body: bytes) -> Event:
    """The request as an event; one that is a CloudEvent already, in binary or structured mode,
    keeps its own attributes. Raises ``Refusal`` (400) for one that is malformed."""
    if head.cloud_event:
        return _cloud_event(head, request, body)
    moment, prefix = _clock.read(time.time())
    return Event(
        id=head.idempotency_key or head.event_id or prefix + chance(),
        source=source,
        type="dev.triggerhub.http.request",
        data=body,
        datacontenttype=head.content_type,
        subject=path,
        time=moment,
        extensions=EMPTY,
        request=request,
    )


def _cloud_event(head: Head, request: Request, body: bytes) -> Event:
    try:
        (event,) = decode(request.headers, body)
    except CloudEventError as error:
        raise Refusal(400, "BadCloudEvent", f"a malformed CloudEvent: {error}") from None
    # The function gets the request as it came: what a structured one holds is not taken out.
    return replace(event, data=body, datacontenttype=head.content_type, request=request)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def reply_fields(
    reply: Reply,
    date: Field,
    *,
    head_only: bool = False,
    close: bool = False,
    whole: bool = True,
) -> list[Field]:
    """An answer's end-to-end fields, ``date`` unless it has one, and its length. ``head_only``:
    it answers a HEAD request. ``whole``: its body is there, so that its length is known."""
    fields = []
    named: set[bytes] | None = None
    length: bytes | None = None
    for pair in reply.headers:
        name = pair[0]
        if name not in _SPECIAL_IN_REPLY:
            fields.append(pair)
        elif name == b"date":
            date = pair
        elif name == b"connection":
            if pair[1] != b"keep-alive":
                named = (named or set()).union(map(bytes.strip, pair[1].lower().split(b",")))
        elif name == b"content-length":
            length = pair[1]
    if named is not None:
        fields = [pair for pair in fields if pair[0] not in named]
    fields.append(date)
    if reply.status not in _NO_BODY:
        if whole and (reply.body or not head_only):
            length = b"%d" % len(reply.body)
        if length is not None:
            fields.append((b"content-length", length))
    if close:
        fields.append(_CLOSE)
    return fields
