"""The admin API's address: opened, guarded, and what is answered where a handler gives up."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from triggerhub.admin.access import (
    UNIX,
    Guard,
    bind,
    bind_unix,
    is_loopback,
    read_token,
    split_address,
)
from triggerhub.admin.server import serving


@dataclass(frozen=True, slots=True)
class Front:
    """Sockets that take connections already, and who may use them."""

    address: str
    """``host:port``, or ``unix:`` and a path."""
    sockets: Sequence[socket.socket]
    token: str
    loopback: bool

    @asynccontextmanager
    async def serving(
        self, routes: Sequence[BaseRoute], handlers: Mapping[Any, Any]
    ) -> AsyncIterator[None]:
        """Answer for as long as it is entered. ``handlers``: Starlette's, of exceptions."""
        app = Starlette(
            routes=routes,
            middleware=[Middleware(Guard, loopback=self.loopback, token=self.token)],
            exception_handlers={HTTPException: _http_error, Exception: _crash, **handlers},
        )
        async with serving(app, list(self.sockets)):
            yield


def open_front(address: str, token_file: Path | None) -> Front:
    """Raises OSError with one sentence where the address cannot be opened to anyone, or must not
    be."""
    if address.startswith(UNIX):
        return Front(address, [bind_unix(Path(address.removeprefix(UNIX)))], "", True)
    token = read_token(address, token_file)
    host, _ = split_address(address, "--admin")
    sockets = bind(address)
    port = sockets[0].getsockname()[1]
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Front(shown, sockets, token, is_loopback(host))


def refusal(status: int, error: str, message: str, headers: Any = None) -> Response:
    """An error as the API tells it: its name in CamelCase, and one sentence."""
    return JSONResponse({"error": error, "message": message}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    names = {404: "NotFound", 405: "MethodNotAllowed", 409: "Conflict", 413: "TooLarge",
             429: "TooMany"}  # fmt: skip
    message = error.detail
    if message == "Not Found":
        message = f"there is nothing at {request.url.path}"
    elif message == "Method Not Allowed":
        message = f"{request.url.path} does not take {request.method}"
    name = names.get(error.status_code, "Error")
    return refusal(error.status_code, name, message, error.headers)


async def _crash(_request: Request, error: Exception) -> Response:
    # Told to the client in short; the server, which gets it too, logs the traceback.
    message = f"{type(error).__name__}: a defect of the hub; see its log"
    return refusal(500, "InternalError", message)
