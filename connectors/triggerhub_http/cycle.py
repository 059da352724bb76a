"""One request and its answer, as uvicorn keeps them; the answer is put together with less work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent

_WITHOUT_BODY = frozenset({204, 304})  # RFC 9110, section 6.4.1
_LARGE = 16 * 1024


class Cycle(RequestResponseCycle):
    """A head is put together at once, and goes out with the first piece of its body. Fields have
    names in lower case; of ``connection`` there is but ``close``."""

    _head = b""

    async def send(self, message: ASGISendEvent) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self._begin(message)
        elif message["type"] == "http.response.body" and not self.response_complete:
            self._go_on(message)
        else:
            raise RuntimeError(f"{message['type']} out of turn")

    def _begin(self, message: HTTPResponseStartEvent) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        status, lines = message["status"], []
        length: bytes | None = None
        for pair in message["headers"]:
            name = pair[0]
            if name == b"content-length":
                length = pair[1]
            elif name == b"connection":
                self.keep_alive = False
                continue
            lines.append(b"%b: %b\r\n" % pair)
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY:
            if length is None:
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.expected_content_length = int(length)
        fields = b"".join(lines)
        if not fields.count(b"\r") == fields.count(b"\n") == len(lines):
            raise RuntimeError("a header field with a line break")
        self._head = b"%b%b\r\n" % (STATUS_LINE[status], fields)

    def _go_on(self, message: HTTPResponseBodyEvent) -> None:
        piece, more = message["body"], message["more_body"]
        if self.scope["method"] == "HEAD":
            piece = b""
        elif self.chunked_encoding:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            if not more:
                piece += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(piece)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("a body that is not as long as its head says")
        head, self._head = self._head, b""
        if len(piece) < _LARGE:
            self.transport.write(head + piece)
        else:
            self.transport.write(head)
            self.transport.write(piece)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
