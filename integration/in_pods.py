"""What runs in pods beside the hub: a function that notes what it gets, and a client that posts and
notes what it is told. Nothing but the standard library: it is mounted into the hub's own image.

    in_pods.py function           GET / tells how often each event came, and from where
    in_pods.py client HOST PATH   GET / tells how it goes; GET /stop the same, when all has ended

Both listen on 8080.
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from uuid import uuid4

AT_ONCE = 4
PATIENCE = 20.0
"""Seconds for one request."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    def answer(self, status: int, found: Any = None) -> None:
        body = b"" if found is None else json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Function(Handler):
    came: ClassVar[Counter[tuple[str, str]]] = Counter()
    lock = threading.Lock()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.lock:
            self.came[self.headers["ce-source"], self.headers["ce-id"]] += 1
        self.answer(200)

    def do_GET(self) -> None:
        with self.lock:
            found = [[source, name, count] for (source, name), count in self.came.items()]
        self.answer(200, found)


class Client(Handler):
    accepted: ClassVar[list[str]] = []
    troubles: ClassVar[Counter[str]] = Counter()
    lost: ClassVar[dict[str, list[str]]] = {}
    """What was tried twice in vain, and why."""
    lock = threading.Lock()
    ended = threading.Event()
    workers: ClassVar[list[threading.Thread]] = []

    def do_GET(self) -> None:
        if self.path == "/stop":
            self.ended.set()
            for worker in self.workers:
                worker.join()
        with self.lock:
            found = {
                "accepted": self.accepted, "troubles": dict(self.troubles), "lost": self.lost,
            }  # fmt: skip
        self.answer(200, found)

    @classmethod
    def begin(cls, host: str, path: str) -> None:
        """Half of the workers keep their connection for as long as it lasts."""
        for number in range(AT_ONCE):
            worker = threading.Thread(target=cls.post, args=(host, path, number % 2 == 0))
            worker.start()
            cls.workers.append(worker)

    @classmethod
    def post(cls, host: str, path: str, keep: bool) -> None:
        connection = None
        while not cls.ended.is_set():
            name, why = uuid4().hex, []
            for _ in range(2):
                connection = connection or http.client.HTTPConnection(host, timeout=PATIENCE)
                trouble = cls.ask(connection, path, name)
                if trouble or not keep:
                    connection.close()
                    connection = None
                if not trouble:
                    break
                why.append(trouble)
            with cls.lock:
                cls.troubles.update(why)
                if len(why) == 2:
                    cls.lost[name] = why
                else:
                    cls.accepted.append(name)
            cls.ended.wait(0.01)

    @staticmethod
    def ask(connection: http.client.HTTPConnection, path: str, name: str) -> str:
        """Empty: accepted."""
        fresh = "on a new connection" if connection.sock is None else "on a kept connection"
        try:
            connection.request("POST", path, b"x", {"idempotency-key": name})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__} {fresh}"
        return "" if answer.status == 200 else f"{answer.status} {fresh}"


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "client":
        Client.begin(*arguments)
    handler = Client if role == "client" else Function
    server = ThreadingHTTPServer(("0.0.0.0", 8080), handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server.serve_forever()
