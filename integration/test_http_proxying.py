"""A real hub between its callers and a function that ends connections, and sees when they end."""

from __future__ import annotations

import http.client
import socketserver
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

from integration.function import served
from integration.hub import Hub, function, running, trigger

ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: keep-alive, x-hop\r\n"
    b"keep-alive: timeout=5\r\nx-hop: 1\r\nproxy-authenticate: Basic\r\nx-end: 1\r\n\r\n%b"
)


class Function(socketserver.ThreadingTCPServer):
    """Answers with the head that it got; ``/fickle`` only where it is a connection's first request:
    else it ends the connection. ``/slow`` waits until the caller is gone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.lines: Counter[str] = Counter()
        """Of the requests that came."""
        self.left = threading.Event()
        """A caller went away before its answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Conversation(socketserver.StreamRequestHandler):
    server: Function

    def handle(self) -> None:
        first = True
        while line := self.rfile.readline().decode():
            fields = http.client.parse_headers(self.rfile)
            self.rfile.read(int(fields.get("content-length", "0")))
            method, path, _ = line.split()
            self.server.lines[f"{method} {path}"] += 1
            if path == "/slow":
                if not self.rfile.read(1):
                    self.server.left.set()
                return
            if path == "/fickle" and not first:
                return
            first = False
            said = (line + str(fields)).encode()
            self.wfile.write(ANSWER % (len(said), said))


def connect(hub: Hub) -> http.client.HTTPConnection:
    host, _, port = hub.listen.partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=30.0)


def ask(hub: Hub, method: str, path: str, **fields: str) -> tuple[int, dict[str, str], str]:
    """Status, header fields and body of the answer."""
    with closing(connect(hub)) as connection:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request(method, path, b"x" if method != "GET" else None, named)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read().decode().lower()


def test_a_hub_between_callers_and_a_function_is_an_honest_proxy(tmp_path: Path) -> None:
    with served(Function()) as echo, running(tmp_path, start=False) as hub:
        # So long that no attempt ends by itself.
        web = trigger("HTTPTrigger", "web", "echo", {}, timeout="10m")
        hub.write("f.yaml", function("echo", echo.url), web)
        hub.start()
        hub.wait(lambda: hub.condition("web").startswith("True"), "a trigger that is ready")

        # What belongs to one connection stays there, both ways.
        status, fields, said = ask(
            hub, "GET", "/a", connection="keep-alive, x-mine", x_mine="1", te="trailers",
            proxy_authorization="Basic eA==", x_forwarded_for="6.6.6.6", x_other="1",
        )  # fmt: skip
        assert (status, fields["x-end"]) == (200, "1")
        assert not {"x-hop", "keep-alive", "proxy-authenticate", "connection"} & set(fields)
        assert "x-other: 1\n" in said
        assert not any(name in said for name in ("x-mine", "\nte:", "proxy-auth", "6.6.6.6"))
        assert "x-forwarded-for: 127.0.0.1\n" in said
        assert f'forwarded: for=127.0.0.1;host="{hub.listen}";proto=http\n' in said

        # A kept connection that ends under a request: once more only where that is safe.
        asked = {}
        for method, more in (("POST", {}), ("PUT", {}), ("POST", {"idempotency_key": "7"})):
            assert ask(hub, "GET", "/kept")[0] == 200
            before = echo.lines[f"{method} /fickle"]
            status, _, _ = ask(hub, method, "/fickle", **more)
            asked[method, *more] = status, echo.lines[f"{method} /fickle"] - before
        assert asked == {
            ("POST",): (503, 1),
            ("PUT",): (200, 2),
            ("POST", "idempotency_key"): (200, 2),
        }

        # A caller that goes away takes its request along.
        with closing(connect(hub)) as connection:
            connection.request("POST", "/slow", b"x")
            hub.wait(lambda: echo.lines["POST /slow"] == 1, "the request")
        hub.wait(echo.left.is_set, "the end of the function's connection")
        # The POST that was not sent again has no answer, either.
        hub.wait(
            lambda: (
                hub.metric("triggerhub_attempts_total", trigger="web", status_class="none") == 2
            ),
            "two attempts without an answer",
        )
        assert hub.stop() == 0
