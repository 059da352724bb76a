"""Requests as another server reads them, h11: what a proxy in front might see."""

from __future__ import annotations

import h11

Read = tuple[str, bytes]
"""Method and body."""

_LENIENT = ("illegal request line", "no request line received")
"""What h11 takes to be no request and the hub's parser does: a CR or LF, or two spaces in a row,
about the first line. Neither moves the end of a request."""


def requests(data: bytes) -> tuple[list[Read], bool]:
    """Those of a connection, up to the first that cannot be read; and whether the hub may read it
    all the same."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    server.receive_data(b"")
    found: list[Read] = []
    method, body = "", b""
    try:
        while server.our_state is not h11.MUST_CLOSE:
            match server.next_event():
                case h11.Request() as request:
                    method, body = request.method.decode(), b""
                case h11.Data() as piece:
                    body += piece.data
                case h11.EndOfMessage():
                    found.append((method, body))
                    fields = [("content-length", "0")]
                    server.send(h11.Response(status_code=404, headers=fields))
                    server.send(h11.EndOfMessage())
                    if server.our_state is h11.DONE:
                        server.start_next_cycle()
                case _:
                    break
    except h11.RemoteProtocolError as error:
        return found, str(error).startswith(_LENIENT)
    return found, False


def among(some: list[Read], all_of_them: list[Read]) -> bool:
    """In the same order."""
    rest = iter(all_of_them)
    return all(any(one == other for other in rest) for one in some)
