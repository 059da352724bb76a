"""Bodies in gzip: out of it, within limits, and after their signature."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import pytest

from tests.connectors.test_http_connector import Rig, get, hub
from triggerhub_http.bodies import inflated
from triggerhub_http.messages import Refusal

GZIP = "content-encoding: gzip"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with hub() as made:
        yield made


def sent(body: bytes, *fields: str) -> bytes:
    return get("/", f"content-length: {len(body)}", *fields, method="POST").encode() + body


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (gzip.compress(b"hello", mtime=0), b"hello"),
        (gzip.compress(b"", mtime=0), b""),
        (gzip.compress(b"one ", mtime=0) + gzip.compress(b"two"), b"one two"),
        (gzip.compress(b"x" * 1_000_000, mtime=0), b"x" * 1_000_000),
        (b"".join(gzip.compress(b"%d," % n, mtime=0) for n in range(4000)),
         b"".join(b"%d," % n for n in range(4000))),
    ],
    ids=["one member", "empty", "two members", "a megabyte", "thousands of members"],
)  # fmt: skip
async def test_the_function_gets_what_is_in_the_gzip(rig: Rig, body: bytes, plain: bytes) -> None:
    function = await rig.serve()
    assert (await rig.ask(sent(body, "content-encoding: GZip , identity")))[0] == 200
    (event,) = function.events
    assert event.data == plain
    assert event.request is not None
    assert b"content-encoding" not in dict(event.request.headers)


async def test_a_chunked_gzip_and_a_structured_event_in_gzip_are_read(rig: Rig) -> None:
    function = await rig.serve()
    event = {"specversion": "1.0", "id": "7", "source": "/s", "type": "t"}
    body = gzip.compress(json.dumps(event).encode())
    head = get("/", "transfer-encoding: chunked", "content-type: application/cloudevents+json",
               "content-encoding: x-gzip", method="POST")  # fmt: skip
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))
    assert (await rig.ask(head, chunks, b"0\r\n\r\n"))[0] == 200
    assert function.events[0].id == "7"


@pytest.mark.parametrize("members", [1, 50])
async def test_a_bomb_is_413_and_never_held(rig: Rig, members: int) -> None:
    function = await rig.serve({"maxBodySize": "100Ki"})
    bomb = gzip.compress(bytes(4_000_000 // members)) * members
    assert len(bomb) < 10_000
    client = await rig.client()
    client.send(sent(bomb, GZIP), sent(gzip.compress(bytes(102_400)), GZIP))
    status, _, body = await client.reply()
    assert (status, json.loads(body)["error"]) == (413, "BodyTooLarge")
    assert (await client.reply())[0] == 200, "the limit itself"
    assert [len(event.data) for event in function.events] == [102_400]


@pytest.mark.parametrize(
    "body",
    [
        b"hello",
        gzip.compress(b"hello", mtime=0)[:-1],
        gzip.compress(b"hello", mtime=0)[:5],
        gzip.compress(b"hello", mtime=0) + b"and more",
        gzip.compress(b"hello", mtime=0)[:-8] + bytes(8),
        zlib.compress(b"hello"),
    ],
)
async def test_what_is_no_gzip_is_400_and_the_connection_goes_on(rig: Rig, body: bytes) -> None:
    function = await rig.serve()
    client = await rig.client()
    client.send(sent(body, GZIP), get())
    status, _, said = await client.reply()
    assert (status, json.loads(said)["error"]) == (400, "BadEncoding")
    assert (await client.reply())[0] == 200
    assert len(function.events) == 1


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "deflate", "gzip, br", "gzi\xfep"])
async def test_another_coding_is_415_and_what_is_taken_is_said(rig: Rig, coding: str) -> None:
    function = await rig.serve()
    client = await rig.client()
    client.send(sent(b"body", f"content-encoding: {coding}"))
    status, fields, _ = await client.reply()
    assert (status, fields["accept-encoding"]) == (415, "gzip")
    assert await client.closed()
    assert function.events == []


async def test_a_coding_of_no_body_does_not_matter(rig: Rig) -> None:
    await rig.serve()
    assert (await rig.ask(get("/", "content-encoding: br")))[0] == 200
    assert (await rig.ask(sent(b"x", "content-encoding: identity")))[0] == 200


async def test_a_signature_is_of_the_gzip_and_nothing_unsigned_is_unpacked(rig: Rig) -> None:
    source = {"signature": {"preset": "GitHub", "env": "KEY"}}
    function = await rig.serve(source, values={"KEY": b"secret"})
    body = gzip.compress(b"hello", mtime=0)
    right = hmac.digest(b"secret", body, hashlib.sha256).hex()
    of_plain = hmac.digest(b"secret", b"hello", hashlib.sha256).hex()
    signed = f"x-hub-signature-256: sha256={right}"
    assert (await rig.ask(sent(body, GZIP, signed)))[0] == 200
    assert function.events[0].data == b"hello"
    unsigned = f"x-hub-signature-256: sha256={of_plain}"
    for one in (body, gzip.compress(bytes(5_000_000))):
        assert (await rig.ask(sent(one, GZIP, unsigned)))[0] == 403


def test_no_more_is_unpacked_than_is_taken() -> None:
    bomb = gzip.compress(bytes(40_000_000))
    tracemalloc.start()
    try:
        for body in (bomb, gzip.compress(bytes(90_000)) * 50):
            with pytest.raises(Refusal):
                inflated(body, 100_000)
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()
