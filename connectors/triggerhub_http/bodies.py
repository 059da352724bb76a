"""The body of a request, as far as it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggerhub_http.messages import Refusal

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable


class Gone(Exception):  # noqa: N818 - a fact about the client
    """The client went away before its request was read."""


async def read_body(receive: ASGIReceiveCallable, length: int, limit: int) -> bytes:
    """``length``: as announced, 0 where it is not. Raises ``Refusal`` (413) or ``Gone``."""
    if length > limit:
        raise _too_large(f"{length} bytes", limit)
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        piece, more = message["body"], message["more_body"]
        size += len(piece)
        if size > limit:
            raise _too_large("longer", limit)
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(found: str, limit: int) -> Refusal:
    message = f"the body is {found}, expected at most {limit} bytes"
    return Refusal(413, "BodyTooLarge", message, close=True)
