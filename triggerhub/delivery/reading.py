"""One reply, as the parser reads it off a connection."""

from __future__ import annotations

from httptools import HttpResponseParser

from triggerhub.delivery.failures import BrokenReply
from triggerhub.event import Headers

MAX_HEAD = 64 * 1024
"""Bytes of a reply's head, and of what comes within its body and is none of it."""


class Reading:
    """What has come of the reply under way; its connection begins each anew."""

    __slots__ = (
        "_body",
        "_body_size",
        "_complete",
        "_fields",
        "_head_request",
        "_headers",
        "_keep",
        "_keep_alive",
        "_parser",
        "_received",
        "_status",
        "_surplus",
    )

    _complete: bool
    """The reply ended where HTTP says so."""
    _surplus: bool
    """Something came after its end."""
    _keep: int
    _head_request: bool
    _keep_alive: bool
    _received: int
    """Bytes."""
    _status: int
    """0: there is no head yet."""
    _body_size: int
    """Bytes that came, whether kept or not."""

    def __init__(self) -> None:
        self._body: list[bytes] = []
        self._fields: Headers = ()
        self._new_parser()

    def _new_parser(self) -> None:
        self._parser = HttpResponseParser(self)

    # httptools calls these

    def on_message_begin(self) -> None:
        if self._complete:
            self._surplus = True
        self._headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return  # an interim reply; the real one follows (RFC 9110, section 15.2)
        if status < 200 or status > 599:
            raise BrokenReply(f"expected a status from 200 to 599, found {status}")
        self._status = status
        self._fields = tuple(self._headers)  # later ones are trailers
        if self._received > MAX_HEAD:
            size = sum(len(name) + len(value) + 4 for name, value in self._fields)
            if size > MAX_HEAD:
                raise too_large()
        if self._head_request:
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        if self._complete:
            self._surplus = True
            return
        room = self._keep - self._body_size
        self._body_size += len(data)
        if room > 0:
            self._body.append(data[:room])

    def on_message_complete(self) -> None:
        if self._status:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()


def too_large() -> BrokenReply:
    return BrokenReply(f"a header section of more than {MAX_HEAD // 1024} KiB")


def length_of(fields: Headers) -> int | None:
    """As the fields say it; the parser has seen that they say one thing."""
    for name, value in fields:
        if name == b"content-length":
            return int(value)
    return None


def framed(fields: Headers) -> bool:
    """Whether the fields say where the body ends; else the connection's end does
    (RFC 9112, section 6.3)."""
    return any(
        name == b"content-length"
        or (name == b"transfer-encoding" and value.lower().endswith(b"chunked"))
        for name, value in fields
    )
