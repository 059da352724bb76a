"""How an answer is written: its head with its body, and never one that is not what it says."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from triggerhub_http.cycle import Cycle


class Flow:
    write_paused = False


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True


def cycle(transport: Transport, method: str = "GET", *, keep_alive: bool = True) -> Cycle:
    log: Any = logging.getLogger(__name__)
    sink: Any = transport
    flow: Any = Flow()
    scope: Any = {"method": method}
    return Cycle(
        scope, sink, flow, log, log, False, [], asyncio.Event(), False, keep_alive, lambda: None
    )


async def answer(
    transport: Transport,
    *pieces: bytes,
    status: int = 200,
    fields: tuple[tuple[bytes, bytes], ...] = (),
    **kind: Any,
) -> Cycle:
    one = cycle(transport, **kind)
    await one.send({"type": "http.response.start", "status": status, "headers": fields})
    for at, piece in enumerate(pieces, 1):
        await one.send({"type": "http.response.body", "body": piece, "more_body": at < len(pieces)})
    return one


LENGTH = ((b"content-length", b"5"),)


@pytest.mark.parametrize(
    ("pieces", "options", "written"),
    [
        ([b"hello"], {"fields": LENGTH}, [b"200 OK\r\ncontent-length: 5\r\n\r\nhello"]),
        ([b"he", b"llo"], {"fields": LENGTH}, [b"200 OK\r\ncontent-length: 5\r\n\r\nhe", b"llo"]),
        (
            [b"", b"he", b""],
            {},
            [b"200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2\r\nhe\r\n", b"0\r\n\r\n"],
        ),
        ([b""], {"status": 204}, [b"204 No Content\r\n\r\n"]),
        ([b""], {"fields": LENGTH, "method": "HEAD"}, [b"200 OK\r\ncontent-length: 5\r\n\r\n"]),
        (
            [b""],
            {"status": 204, "keep_alive": False},
            [b"204 No Content\r\nconnection: close\r\n\r\n"],
        ),
    ],
    ids=["whole", "in pieces", "without a length", "without a body", "HEAD", "the last one"],
)
async def test_a_head_goes_out_with_what_comes_first(
    pieces: list[bytes], options: dict[str, Any], written: list[bytes]
) -> None:
    transport = Transport()
    one = await answer(transport, *pieces, **options)
    assert transport.written == [b"HTTP/1.1 " + written[0], *written[1:]]
    assert one.response_complete
    assert transport.closed == (options.get("keep_alive") is False)


@pytest.mark.parametrize(
    "field",
    [(b"x", b"a\r\nset-cookie: b"), (b"x", b"a\nb"), (b"x\r\ny: z\r\nw", b"a"), (b"x", b"a\r")],
    ids=["line", "LF", "name", "CR"],
)
async def test_nothing_is_written_of_an_answer_whose_field_breaks_its_line(
    field: tuple[bytes, bytes],
) -> None:
    transport = Transport()
    with pytest.raises(RuntimeError, match="line break"):
        await answer(transport, b"hello", fields=(*LENGTH, field))
    assert transport.written == []


@pytest.mark.parametrize("pieces", [[b"hello!"], [b"hell"], [b"", b"hell"]], ids=str)
async def test_a_body_is_as_long_as_its_head_says(pieces: list[bytes]) -> None:
    with pytest.raises(RuntimeError, match="as long as"):
        await answer(Transport(), *pieces, fields=LENGTH)
