"""A schema registry for tests: a small real HTTP server of our own that speaks the part of
Confluent's REST API with which schemas are looked up. It keeps them in memory."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from integration.function import Answer, Call, Function, answering, reply

Reference = tuple[str, str, int]
"""Name, subject, version."""

_TYPE = "application/vnd.schemaregistry.v1+json"


class SchemaRegistry:
    """Knows what was registered with it."""

    def __init__(self, server: Function, scheme: str) -> None:
        self.server = server
        self.url = f"{scheme}://127.0.0.1:{server.port}/registry"
        self.login: str | None = None
        """Value of ``Authorization`` that it wants."""
        self.answer: Answer | None = None
        """What it says to everything, instead of a schema."""
        self._schemas: dict[int, dict[str, Any]] = {}
        self._subjects: dict[tuple[str, int], int] = {}
        server.script = self._script

    def register(
        self,
        subject: str,
        schema: Any,
        kind: str = "AVRO",
        references: Sequence[Reference] = (),
        number: int | None = None,
    ) -> int:
        """The schema's id."""
        number = len(self._schemas) + 1 if number is None else number
        version = 1 + sum(one == subject for one, _ in self._subjects)
        entry: dict[str, Any] = {"schema": json.dumps(schema)}
        if kind != "AVRO":
            entry["schemaType"] = kind
        if references:
            names = ("name", "subject", "version")
            entry["references"] = [dict(zip(names, one, strict=True)) for one in references]
        self._schemas[number] = entry
        self._subjects[subject, version] = number
        return number

    def asked(self, path: str) -> int:
        """How often for this path."""
        return sum(
            call.target.partition("?")[0] == f"/registry{path}" for call in self.server.calls
        )

    def _script(self, call: Call) -> Answer:
        if self.answer is not None:
            return self.answer
        if self.login is not None and call.headers.get("authorization") != self.login:
            return _json(401, {"error_code": 401, "message": "Unauthorized"})
        path = call.target.partition("?")[0].split("/")
        if path[:4] == ["", "registry", "schemas", "ids"]:
            entry = self._schemas.get(int(path[4]))
            if entry is None:
                return _json(404, {"error_code": 40403, "message": "Schema not found"})
            return _json(200, entry)
        if path[:3] == ["", "registry", "subjects"] and path[4] == "versions":
            subject, version = unquote(path[3]), int(path[5])
            number = self._subjects.get((subject, version))
            if number is None:
                return _json(404, {"error_code": 40401, "message": "Subject not found"})
            more = {"subject": subject, "version": version, "id": number}
            return _json(200, self._schemas[number] | more)
        return _json(404, {"error_code": 404, "message": "HTTP 404 Not Found"})


def basic(name: str, password: str) -> str:
    """Value of ``Authorization``."""
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


def _json(status: int, body: dict[str, Any]) -> Answer:
    return reply(status, json.dumps(body).encode(), headers=[("content-type", _TYPE)])


@contextmanager
def registering(context: ssl.SSLContext | None = None) -> Iterator[SchemaRegistry]:
    """A registry that ends with the block; with a ``context``, it speaks TLS."""
    with answering(context=context) as server:
        yield SchemaRegistry(server, "http" if context is None else "https")
