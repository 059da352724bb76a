"""Requests that two servers might read differently, and those that none should take, over a real
socket: after RFC 9112 and what is known of request smuggling (CL.TE, TE.CL, TE.0 and their kin)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import uvloop

from tests.connectors.test_http_connector import Client, Rig, get, hub
from tests.fuzz.requests import fuzz

POST = "POST / HTTP/1.1\r\nhost: a\r\n"
CHUNKED = POST + "transfer-encoding: chunked\r\n\r\n"
END = "0\r\n\r\n"
NEXT = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"

REFUSED = {
    "both lengths": POST + "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n" + END,
    "both, the other way": POST + "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n" + END,
    "two lengths": POST + "content-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
    "one length twice": POST + "content-length: 4\r\ncontent-length: 4\r\n\r\nabcd",
    "a list of lengths": POST + "content-length: 4, 4\r\n\r\nabcd",
    "length with plus": POST + "content-length: +4\r\n\r\nabcd",
    "length below 0": POST + "content-length: -4\r\n\r\nabcd",
    "length in hex": POST + "content-length: 0x4\r\n\r\nabcd",
    "length without digits": POST + "content-length:\r\n\r\nabcd",
    "length of two parts": POST + "content-length: 1 2\r\n\r\nabcd",
    "length beyond 64 bits": POST + "content-length: 18446744073709551617\r\n\r\nabcd",
    "length of 63 bits": POST + "content-length: 9223372036854775807\r\n\r\nabcd",
    "chunked twice": POST
    + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n"
    + END,
    "chunked, chunked": POST + "transfer-encoding: chunked, chunked\r\n\r\n" + END,
    "identity": POST + "transfer-encoding: identity\r\n\r\n" + END,
    "chunked, identity": POST + "transfer-encoding: chunked, identity\r\n\r\n" + END,
    "gzip, chunked": POST + "transfer-encoding: gzip, chunked\r\n\r\n" + END,
    "xchunked": POST + "transfer-encoding: xchunked\r\n\r\n" + END,
    "quoted chunked": POST + 'transfer-encoding: "chunked"\r\n\r\n' + END,
    "chunked after a tab": POST + "transfer-encoding: \x0bchunked\r\n\r\n" + END,
    "no coding": POST + "transfer-encoding:\r\n\r\n" + END,
    "chunked in HTTP/1.0": "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n" + END,
    "a folded field": "GET / HTTP/1.1\r\nhost: a\r\nx: b\r\n c\r\n\r\n",
    "folded chunked": POST + "transfer-encoding:\r\n chunked\r\n\r\n" + END,
    "a folded first line": "GET / HTTP/1.1\r\n host: a\r\n\r\n",
    "bare LF": "GET / HTTP/1.1\nhost: a\n\n",
    "bare LF in a field": "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
    "bare LF at the end": "GET / HTTP/1.1\r\nhost: a\r\n\n",
    "bare CR in a field": "GET / HTTP/1.1\r\nhost: a\rx: y\r\n\r\n",
    "space before colon": "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
    "space before chunked": POST + "transfer-encoding : chunked\r\n\r\n" + END,
    "tab before colon": POST + "content-length\t: 4\r\n\r\nabcd",
    "no name": "GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n",
    "no colon": "GET / HTTP/1.1\r\nhost: a\r\nnothing\r\n\r\n",
    "NUL in a value": "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
    "NUL in a name": "GET / HTTP/1.1\r\nhost: a\r\nx\0: a\r\n\r\n",
    "NUL in the target": "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
    "a control character": "GET / HTTP/1.1\r\nhost: a\r\nx: a\x01b\r\n\r\n",
    "chunk below 0": CHUNKED + "-1\r\na\r\n" + END,
    "chunk with 0x": CHUNKED + "0x1\r\na\r\n" + END,
    "chunk with plus": CHUNKED + "+1\r\na\r\n" + END,
    "chunk beyond 64 bits": CHUNKED + "10000000000000001\r\na\r\n" + END,
    "space after a chunk's size": CHUNKED + "1 \r\na\r\n" + END,
    "space before it": CHUNKED + " 1\r\na\r\n" + END,
    "chunk without size": CHUNKED + "\r\na\r\n" + END,
    "chunks with bare LF": CHUNKED + "1\na\n0\n\n",
    "bare LF after a chunk": CHUNKED + "1\r\na\n" + END,
    "chunk longer than said": CHUNKED + "1\r\nabc\r\n" + END,
    "bare LF in an extension": CHUNKED + "1;a\nb\r\na\r\n" + END,
    "bare CR in an extension": CHUNKED + "1;a\rb\r\na\r\n" + END,
    "NUL in an extension": CHUNKED + "1;\0\r\na\r\n" + END,
    "an extension without end": CHUNKED + "1;" + "a" * 90_000 + "\r\na\r\n" + END,
    "a length as trailer": CHUNKED + "0\r\ncontent-length: 99\r\n\r\n",
    "HTTP/0.9": "GET /\r\n\r\n",
    "version 0.9": "GET / HTTP/0.9\r\nhost: a\r\n\r\n",
    "version 1.2": "GET / HTTP/1.2\r\nhost: a\r\n\r\n",
    "version 2.0": "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
    "HTTP/2 at once": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version and more": "GET / HTTP/1.1x\r\nhost: a\r\n\r\n",
    "CONNECT": "CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
    "CONNECT to a path": "CONNECT /x HTTP/1.1\r\nhost: a\r\n\r\n",
    "a fragment": "GET /x#y HTTP/1.1\r\nhost: a\r\n\r\n",
    "a relative target": "GET x HTTP/1.1\r\nhost: a\r\n\r\n",
    "another scheme": "GET ftp://a/x HTTP/1.1\r\nhost: a\r\n\r\n",
    "a URL with a user": "GET http://u@a/x HTTP/1.1\r\nhost: a\r\n\r\n",
    "a URL without host": "GET http:///x HTTP/1.1\r\nhost: a\r\n\r\n",
    "a space in the target": "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
    "tabs in the first line": "GET\t/\tHTTP/1.1\r\nhost: a\r\n\r\n",
    "a method in lower case": "get / HTTP/1.1\r\nhost: a\r\n\r\n",
    "a target in Latin-1": "GET /\xe9 HTTP/1.1\r\nhost: a\r\n\r\n",
    "a query in Latin-1": "GET /?\xe9 HTTP/1.1\r\nhost: a\r\n\r\n",
    "an endless method": "A" * 70_000 + " / HTTP/1.1\r\nhost: a\r\n\r\n",
    "an endless target": "GET /" + "x" * 70_000 + " HTTP/1.1\r\nhost: a\r\n\r\n",
    "a flood of fields": POST + "".join(f"x{n}: y\r\n" for n in range(9000)) + "\r\n",
    "two hosts": "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "a list of hosts": "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
    "a host with a path": "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "a host with a user": "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with hub() as made:
        yield made


async def answers(client: Client) -> list[int]:
    """All that comes until the connection ends."""
    async with asyncio.timeout(10):
        said = await client.reader.read()
    return [int(status) for status in re.findall(rb"(?:^|})HTTP/1\.1 (\d+) ", said)]


@pytest.mark.parametrize("case", REFUSED)
async def test_what_could_be_read_in_two_ways_is_4xx_and_ends_the_connection(
    rig: Rig, case: str
) -> None:
    function = await rig.serve()
    client = await rig.client()
    client.send(REFUSED[case].encode("latin-1"), NEXT)
    statuses = await answers(client)
    assert len(statuses) == 1
    assert statuses[0] in (400, 413, 431)
    assert function.events == []
    assert (await rig.ask(get()))[0] == 200, "nobody else is concerned"


@pytest.mark.parametrize(
    ("text", "host", "seen"),
    [
        ("GET http://b/x?y HTTP/1.1\r\nhost: a\r\n\r\n", "b", "GET /x?y "),
        ("GET HTTP://b:80 HTTP/1.1\r\nhost: a\r\n\r\n", "b:80", "GET ? "),
        ("GET http://b?y HTTP/1.1\r\nhost: a\r\n\r\n", "b", "GET ?y "),
        ("GET http://b/ HTTP/1.0\r\n\r\n", "b", "GET ? "),
        ("GET //b/x HTTP/1.1\r\nhost: a\r\n\r\n", "a", "GET //b/x? "),
        ("\r\n\r\nGET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n", "[::1]:80", "GET ? "),
        (CHUNKED + "0" * 100 + "1;a=b\r\na\r\n" + END, "a", "POST ? a"),
        (POST + "transfer_encoding: chunked\r\ncontent-length: 2\r\n\r\nab", "a", "POST ? ab"),
        (POST + "content-length: 0002\r\n\r\nab", "a", "POST ? ab"),
    ],
)
async def test_what_can_be_read_in_one_way_only_is_read_so(
    rig: Rig, text: str, host: str, seen: str
) -> None:
    function = await rig.serve()
    assert (await rig.ask(text))[2] == f"orders {seen}".encode()
    (event,) = function.events
    assert event.request is not None
    assert dict(event.request.headers)[b"x-forwarded-host"].decode() == host


async def test_the_host_of_a_full_url_decides_who_serves(rig: Rig) -> None:
    inside = await rig.serve({"host": "inside.example"}, name="inside")
    outside = await rig.serve({"host": "outside.example"}, name="outside")
    text = "GET http://outside.example/ HTTP/1.1\r\nhost: inside.example\r\n\r\n"
    assert (await rig.ask(text))[0] == 200
    assert (len(inside.events), len(outside.events)) == (0, 1)


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    "framing",
    [
        "content-length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
)
async def test_the_body_beside_an_offer_to_upgrade_is_not_lost(
    rig: Rig, size: int, framing: str
) -> None:
    """As Java's client sends it, with every first request."""
    function = await rig.serve()
    client = await rig.client()
    offer = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"
    text = (POST + offer + framing) * 3 + get("/last", "connection: upgrade", "upgrade: websocket")
    for at in range(0, len(text), size):
        client.send(text[at : at + size])
        await client.writer.drain()
    for _ in range(3):
        assert (await client.reply())[2] == b"orders POST ? hello"
    assert (await client.reply())[2] == b"orders GET /last? "
    client.send(get("/more"))
    assert (await client.reply())[0] == 200, "the connection goes on"
    assert len(function.events) == 5


async def test_what_follows_an_error_is_not_served(rig: Rig) -> None:
    function = await rig.serve()
    client = await rig.client()
    client.send(get("/1"), "nonsense\r\n\r\n", NEXT)
    assert await answers_after(client, b"orders GET /1? ") == [200, 400]
    client = await rig.client()
    client.send(get("/2", "connection: close"), NEXT)
    assert await answers_after(client, b"orders GET /2? ") == [200]
    assert [event.subject for event in function.events] == ["/1", "/2"]


async def answers_after(client: Client, body: bytes) -> list[int]:
    first = await client.reply()
    assert first[2] == body
    return [first[0], *await answers(client)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (get("/a"), [200]),
        (get("/%2e%2e"), [400]),
        ("GET / HTT", [400]),
        (POST + "content-length: 9\r\n\r\nabc", [400]),
        (CHUNKED + "5\r\nab", [400]),
        (POST + "connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 9\r\n\r\nabc", [400]),
        ("nonsense", [400]),
        ("", []),
    ],
)
async def test_a_client_that_ends_its_side_gets_the_answer_that_is_there(
    rig: Rig, text: str, expected: list[int]
) -> None:
    await rig.serve()
    client = await rig.client()
    client.send(text)
    client.writer.write_eof()
    assert await answers(client) == expected


async def test_a_client_that_ends_its_side_while_the_function_works_is_gone(rig: Rig) -> None:
    function = await rig.serve()
    function.open.clear()
    client = await rig.client()
    client.send(get())
    client.writer.write_eof()
    await function.until(lambda f: f.gone == 1)
    assert await client.closed()


async def test_whatever_is_sent_is_answered_2xx_to_4xx_and_the_listener_goes_on(rig: Rig) -> None:
    await rig.serve()
    found = await fuzz(rig, seed=8, count=400)
    assert found[200] > 100
    assert found[400] > 100


def test_on_the_loop_of_workers_as_well() -> None:
    async def on_it() -> None:
        async with hub() as rig:
            await rig.serve()
            assert (await fuzz(rig, seed=9, count=200))[200] > 50

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(on_it())
