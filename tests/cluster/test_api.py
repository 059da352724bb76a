"""Requests to an API server that does everything wrong that a server, a proxy or a network can:
each trouble is an ``ApiError`` with a sentence, and nothing hangs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from triggerhub.cluster.access import Access
from triggerhub.cluster.answers import ApiError, Resource
from triggerhub.cluster.api import Api

TRIGGERS = Resource("triggerhub.dev", "v1alpha1", "kafkatriggers")
PATH = "/apis/triggerhub.dev/v1alpha1/namespaces/shop/kafkatriggers"


class Asked:
    """One request that arrived."""

    def __init__(self, head: str, body: bytes) -> None:
        first, *lines = head.split("\r\n")
        self.method, target, _ = first.split(" ")
        self.path, _, query = target.partition("?")
        self.query = dict(pair.split("=") for pair in query.split("&") if pair)
        self.fields = {
            name.lower(): text for name, text in (line.split(": ", 1) for line in lines if line)
        }
        self.body = json.loads(body) if body else None


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """On loopback. ``answer`` writes what it likes, and the connection ends with it."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Answer = reply(b"{}")
        self.url = ""
        self._leave = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                (int(line[16:]) for line in head.lower().split("\r\n")
                 if line.startswith("content-length: ")), 0,
            )  # fmt: skip
            asked = Asked(head, await reader.readexactly(length))
            self.asked.append(asked)
            await self.answer(asked, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def silent(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        """Answers nothing until the end of the test."""
        await self._leave.wait()

    def leave(self) -> None:
        self._leave.set()


def reply(body: bytes, status: str = "200 OK", *fields: str, length: int | None = None) -> Answer:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        size = len(body) if length is None else length
        head = [f"HTTP/1.1 {status}", f"Content-Length: {size}", "Connection: close", *fields]
        writer.write("\r\n".join((*head, "", "")).encode() + body)
        await writer.drain()

    return answer


def said(code: int, reason: str, message: str) -> bytes:
    """A metav1.Status."""
    found = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return json.dumps(found).encode()


def streamed(*chunks: bytes, ends: bool = True) -> Answer:
    """Chunks, each sent for itself; ``ends`` as a chunked body ends."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
            await asyncio.sleep(0)
        if ends:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    return answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        server.url = f"http://127.0.0.1:{port}"
        yield server
        server.leave()


@asynccontextmanager
async def asking(
    url: str, folder: Path, *, patience: float = 5.0, slack: float = 5.0
) -> AsyncIterator[Api]:
    (folder / "token").write_text("one")
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "hub"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"tokenFile": str(folder / "token")}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    async with Api(await Access.find(path, None), patience=patience, slack=slack) as api:
        yield api


@pytest.fixture
async def api(server: Server, tmp_path: Path) -> AsyncIterator[Api]:
    async with asking(server.url, tmp_path) as api:
        yield api


async def listed(api: Api) -> list[str]:
    return [
        item["metadata"]["name"]
        async for page in api.list(TRIGGERS, "shop", limit=2)
        for item in page.items
    ]


async def watched(
    api: Api, timeout: float = 5.0, seen: list[str] | None = None
) -> list[tuple[str, Any]]:
    found = []
    async with asyncio.timeout(20):
        async for kind, body in api.watch(TRIGGERS, "shop", "7", timeout=timeout):
            found.append((kind, (body.get("metadata") or {}).get("name")))
            if seen is not None:
                seen.append(kind)
    return found


REQUESTS: dict[str, Callable[[Api], Awaitable[object]]] = {
    "list": listed,
    "watch": watched,
    "get": lambda api: api.get(TRIGGERS, "shop", "orders"),
    "create": lambda api: api.create(TRIGGERS, "shop", {}),
    "update": lambda api: api.replace(TRIGGERS, "shop", "orders", {}),
    "patch": lambda api: api.patch(TRIGGERS, "shop", "orders", {}, kind="merge"),
    "delete": lambda api: api.delete(TRIGGERS, "shop", "orders"),
    "discover": lambda api: api.discover("triggerhub.dev", "v1alpha1"),
}


VERBS = ("discover", "get", "list", "patch", "watch")
"""Of each way to ask, one."""


async def failed(api: Api, verb: str) -> ApiError:
    """The error that a request of that verb ends with, and soon."""
    began = time.monotonic()
    with pytest.raises(ApiError) as raised:
        async with asyncio.timeout(20):
            await REQUESTS[verb](api)
    assert time.monotonic() - began < 19
    error = raised.value
    assert error.verb == verb
    assert str(error).startswith(f"cannot {verb} ")
    assert "\n" not in str(error).strip()
    return error


def item(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}}


async def test_a_list_comes_in_pages(server: Server, api: Api) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        start = int(asked.query.get("continue", "0"))
        names = [f"t{n}" for n in range(start, min(start + 2, 5))]
        metadata = {"resourceVersion": "9", **({"continue": str(start + 2)} if start < 4 else {})}
        body = json.dumps({"metadata": metadata, "items": [item(name) for name in names]})
        await reply(body.encode())(asked, writer)

    server.answer = answer
    assert await listed(api) == ["t0", "t1", "t2", "t3", "t4"]
    assert [(a.path, a.query) for a in server.asked] == [
        (PATH, {"limit": "2"}),
        (PATH, {"limit": "2", "continue": "2"}),
        (PATH, {"limit": "2", "continue": "4"}),
    ]
    assert server.asked[0].fields["authorization"] == "Bearer one"
    assert api.namespace == "hub"


async def test_a_list_of_nothing_is_one_empty_page(server: Server, api: Api) -> None:
    for body in (b'{"items": []', b'{"items": null', b'{"kind": "KafkaTriggerList"'):
        server.answer = reply(body + b', "metadata": {"resourceVersion": "9"}}')
        if b"items" in body:
            pages = [page async for page in api.list(TRIGGERS, None)]
            assert [(page.items, page.resource_version) for page in pages] == [([], "9")]
        else:
            await failed(api, "list")


async def test_a_list_that_expires_midway_says_so(server: Server, api: Api) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if "continue" in asked.query:
            await reply(said(410, "Expired", "too old"), "410 Gone")(asked, writer)
        else:
            metadata = {"resourceVersion": "9", "continue": "x"}
            await reply(json.dumps({"metadata": metadata, "items": []}).encode())(asked, writer)

    server.answer = answer
    assert (await failed(api, "list")).expired


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "ok"},
        {"items": []},
        {"metadata": {}, "items": []},
        {"metadata": {"resourceVersion": ""}, "items": []},
        {"metadata": {"resourceVersion": 7}, "items": []},
        {"metadata": {"resourceVersion": "7", "continue": 1}, "items": []},
        {"metadata": "x", "items": []},
        {"metadata": {"resourceVersion": "7"}, "items": "x"},
        {"metadata": {"resourceVersion": "7"}, "items": {}},
        {"metadata": {"resourceVersion": "7"}, "items": ["x"]},
        {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": "x"}]},
        {"metadata": {"resourceVersion": "7"}, "items": [None]},
    ],
)
async def test_what_is_no_list_is_never_taken_for_an_empty_one(
    server: Server, api: Api, body: object
) -> None:
    server.answer = reply(json.dumps(body).encode())
    error = await failed(api, "list")
    assert (error.status, error.reason) == (0, "Unreachable")


def line(kind: str, name: str, size: int = 0) -> bytes:
    body = {**item(name), "spec": {"padding": "x" * size}}
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


@pytest.mark.parametrize("cut", [1, 7, 100, 4096, 10**9])
async def test_a_watch_is_read_wherever_it_is_cut(server: Server, api: Api, cut: int) -> None:
    whole = (
        line("ADDED", "a") + line("MODIFIED", "b", 2000 if cut < 100 else 700_000) + b"\n"
        + line("BOOKMARK", "c") + line("DELETED", "d")
    )  # fmt: skip
    server.answer = streamed(*(whole[n : n + cut] for n in range(0, len(whole), cut)))
    assert await watched(api) == [
        ("OPENED", None), ("ADDED", "a"), ("MODIFIED", "b"), ("BOOKMARK", "c"), ("DELETED", "d"),
    ]  # fmt: skip
    (asked,) = server.asked
    assert asked.query == {
        "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "5",
        "resourceVersion": "7",
    }  # fmt: skip


async def test_what_a_watch_was_about_to_say_when_it_ended_is_not_guessed(
    server: Server, api: Api
) -> None:
    server.answer = streamed(line("ADDED", "a") + line("ADDED", "b")[:20])
    assert await watched(api) == [("OPENED", None), ("ADDED", "a")]


async def test_a_watch_that_breaks_off_is_a_trouble(server: Server, api: Api) -> None:
    server.answer = streamed(line("ADDED", "a"), ends=False)
    error = await failed(api, "watch")
    assert error.status == 0


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (b'{"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}\n', 410),
        (b'{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}\n', 500),
        (b"<html>\n", 0),
        (b'{"type": "ADDED", "object": {}}\n', 0),
        (b'{"type": "ADDED", "object": {"metadata": "x"}}\n', 0),
        (b"\xff\xfe\n", 0),
    ],
)
async def test_a_watch_that_tells_nonsense_or_an_error_ends(
    server: Server, api: Api, told: bytes, status: int
) -> None:
    server.answer = streamed(line("ADDED", "a"), told, line("ADDED", "b"))
    assert (await failed(api, "watch")).status == status


async def test_a_watch_that_stays_silent_for_too_long_is_dead(
    server: Server, tmp_path: Path
) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await streamed(line("ADDED", "a"), ends=False)(asked, writer)
        await server.silent(asked, writer)

    server.answer = answer
    async with asking(server.url, tmp_path, slack=0.2) as api:
        seen: list[str] = []
        with pytest.raises(ApiError, match=r"cannot watch .*: found no answer within 0\.3 s"):
            await watched(api, timeout=0.1, seen=seen)
        assert seen == ["OPENED", "ADDED"]


@pytest.mark.parametrize("verb", sorted(set(REQUESTS) - {"list"}))
async def test_a_server_that_never_answers_is_given_up(
    server: Server, tmp_path: Path, verb: str
) -> None:
    server.answer = server.silent
    async with asking(server.url, tmp_path, patience=0.2, slack=-4.8) as api:
        error = await failed(api, verb)
        assert (error.status, error.message) == (0, "found no answer within 0.2 s")


async def half_a_head(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-")


async def no_http(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.com ESMTP\r\n\r\n")


async def nothing(asked: Asked, writer: asyncio.StreamWriter) -> None: ...


async def reset(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def wrong_chunks(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n")


async def endless_head(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000 + b"\r\n\r\n")


BROKEN: dict[str, Answer] = {
    "half a head": half_a_head,
    "no HTTP": no_http,
    "nothing": nothing,
    "reset": reset,
    "wrong chunks": wrong_chunks,
    "endless head": endless_head,
    "half a body": reply(b'{"metadata": {', length=100),
    "a body that is longer than it says": reply(b'{"metadata": {}}', length=5),
    "a body that says it is packed": reply(b"{}", "200 OK", "Content-Encoding: gzip"),
    "a length that is none": reply(b"{}", "200 OK", "Content-Length: x"),
    "HTML": reply(b"<html>sign in</html>"),
    "no object": reply(b"[]"),
    "no text": reply(b"\xff\xfe\x00"),
}


UNFINISHED = {"HTML", "no object", "no text"}
"""Not a whole line: a watch that ended before it said anything."""


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_no_answer(server: Server, api: Api, name: str, verb: str) -> None:
    server.answer = BROKEN[name]
    if verb == "watch" and name == "a body that is longer than it says":
        return  # whether it is seen depends on how the network cuts it
    if verb == "watch" and name in UNFINISHED:
        assert await watched(api) == [("OPENED", None)]
        return
    error = await failed(api, verb)
    assert (error.status, error.reason) == (0, "Unreachable")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (reply(b"", "302 Found", "Location: http://127.0.0.1:1/"), 302, ": 302 Found"),
        (reply(b"<html>no upstream</html>", "502 Bad Gateway"), 502,
         ": 502 Bad Gateway: <html>no upstream</html>"),
        (reply(said(429, "TooManyRequests", "slow down"), "429 Too Many", "Retry-After: 7"), 429,
         ": 429 TooManyRequests: slow down"),
        (reply(said(401, "Unauthorized", "Unauthorized"), "401 Unauthorized"), 401,
         "has it expired"),
        (reply(b"\xff\xfe", "500 Oops"), 500, ": 500 Oops"),
        (reply(b"half", "503 Service Unavailable", length=100), 0, "cannot be reached"),
    ],
    ids=["redirect", "proxy", "429", "401", "no text", "half a refusal"],
)  # fmt: skip
async def test_a_refusal_is_told(
    server: Server, api: Api, verb: str, answer: Answer, status: int, sentence: str
) -> None:
    server.answer = answer
    error = await failed(api, verb)
    assert error.status == status
    assert sentence in str(error)
    assert error.retry_after == (7.0 if status == 429 else 0.0)
    assert len(server.asked) == 1


@pytest.mark.parametrize("verb", sorted(REQUESTS))
async def test_a_server_that_is_away_is_told_with_its_address(
    tmp_path: Path, verb: str, unused_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with asking(url, tmp_path) as api:
        error = await failed(api, verb)
        assert (error.status, error.reason) == (0, "Unreachable")
        assert error.message == f"the API server at {url} cannot be reached: connection refused"


async def test_a_token_that_is_refused_is_looked_up_again(
    server: Server, api: Api, tmp_path: Path
) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.fields["authorization"] == "Bearer two":
            await reply(json.dumps(item("orders")).encode())(asked, writer)
        else:
            await reply(said(401, "Unauthorized", "x"), "401 Unauthorized")(asked, writer)

    server.answer = answer
    (tmp_path / "token").write_text("two")
    assert (await failed(api, "get")).status == 401
    assert await api.get(TRIGGERS, "shop", "orders") == item("orders")


async def test_what_is_written_arrives_as_it_was_meant(server: Server, api: Api) -> None:
    await api.create(TRIGGERS, "shop", {"a": 1})
    await api.replace(TRIGGERS, "shop", "orders", {"b": 2})
    await api.patch(TRIGGERS, "shop", "orders", {"c": "ä"}, kind="apply", subresource="status")
    await api.patch(TRIGGERS, "shop", "orders", [], kind="json", manager="me")
    await api.delete(TRIGGERS, "shop", "orders", uid="u", resource_version="7")
    await api.delete(TRIGGERS, "shop", "orders")
    found = [
        (a.method, a.path.removeprefix(PATH), a.query, a.body, a.fields["content-type"])
        for a in server.asked
    ]
    options = {"apiVersion": "v1", "kind": "DeleteOptions"}
    plain = "application/json"
    assert found == [
        ("POST", "", {}, {"a": 1}, plain),
        ("PUT", "/orders", {}, {"b": 2}, plain),
        ("PATCH", "/orders/status", {"fieldManager": "triggerhub", "force": "true"}, {"c": "ä"},
         "application/apply-patch+yaml"),
        ("PATCH", "/orders", {"fieldManager": "me"}, [], "application/json-patch+json"),
        ("DELETE", "/orders", {},
         options | {"preconditions": {"uid": "u", "resourceVersion": "7"}}, plain),
        ("DELETE", "/orders", {}, options | {"preconditions": {}}, plain),
    ]  # fmt: skip


def by_path(answers: dict[str, Answer]) -> Answer:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await answers[asked.path](asked, writer)

    return answer


RESOURCES = reply(b'{"kind": "APIResourceList", "resources": [{"name": "kafkatriggers"}, 7]}')
NOT_FOUND = reply(b"404 page not found\n", "404 Not Found")
OURS, CORE = "/apis/triggerhub.dev/v1alpha1", "/api/v1"


async def test_what_is_served_is_discovered(server: Server, api: Api) -> None:
    server.answer = by_path({OURS: RESOURCES})
    assert await api.discover("triggerhub.dev", "v1alpha1") == {"kafkatriggers"}
    server.answer = by_path({OURS: NOT_FOUND, CORE: RESOURCES})
    assert await api.discover("triggerhub.dev", "v1alpha1") is None


@pytest.mark.parametrize(
    ("core", "status"),
    [
        (NOT_FOUND, 404),
        (reply(b"default backend", "404 Not Found"), 404),
        (reply(b"{}"), 0),
        (reply(b"", "503 Service Unavailable"), 503),
    ],
)
async def test_a_proxy_without_a_server_is_not_a_server_without_our_kinds(
    server: Server, api: Api, core: Answer, status: int
) -> None:
    server.answer = by_path({OURS: NOT_FOUND, CORE: core})
    assert (await failed(api, "discover")).status == status


async def test_a_watch_that_is_left_gives_its_connection_back(server: Server, api: Api) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await streamed(*(line("ADDED", str(n)) for n in range(100)), ends=False)(asked, writer)
        await server.silent(asked, writer)

    server.answer = answer
    changes = api.watch(TRIGGERS, "shop", "7", timeout=60.0)
    async for kind, _ in changes:
        if kind == "ADDED":
            break
    async with asyncio.timeout(5):
        await changes.aclose()
