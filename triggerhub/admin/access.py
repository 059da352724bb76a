"""Who may use the admin API: addresses, the bearer token, and what keeps browsers out."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that never need a token and that probes reach under any name."""

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""This machine has no such address (``localhost`` as ::1 without IPv6): others may do."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


UNIX = "unix:"
"""An address that begins so is the path of a socket."""


def split_address(address: str, option: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` taken apart; an empty host means every interface. Raises
    OSError with one sentence."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise OSError(f"{option}: found {address!r}, expected host:port such as 127.0.0.1:9090")
    if ":" in host and not bracketed:
        raise OSError(f"{option}: found {address!r}, expected an IPv6 address as [::1]:9090")
    return host[1:-1] if bracketed else host, int(port)


def is_loopback(host: str) -> bool:
    """True for ``localhost``, its subdomains (RFC 6761, 6.3) and loopback addresses."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def bind(address: str, option: str = "--admin", *, listening: bool = True) -> list[socket.socket]:
    """Sockets bound to each address that the host stands for (port 0: one port for all). Raises
    OSError with one sentence."""
    host, port = split_address(address, option)
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error.strerror}") from None
    bound: list[socket.socket] = []
    refused: OSError | None = None
    for family, place in dict.fromkeys((family, place) for family, _, _, _, place in found):
        taken = bound[0].getsockname()[1] if bound else port
        try:
            bound.append(_bound(family, (place[0], taken, *place[2:]), listening))
        except OSError as error:
            refused = error
            if error.errno not in _NOT_HERE:
                break
    if bound and (refused is None or refused.errno in _NOT_HERE):
        return bound
    for each in bound:
        each.close()
    assert refused is not None
    said = (refused.strerror or str(refused)).lower()
    if refused.errno == errno.EADDRINUSE:
        said += f"; another triggerhub? choose another with {option}"
    raise OSError(f"cannot listen on {address}: {said}")


def bind_unix(path: Path) -> socket.socket:
    """A listening socket for this user alone, in the place of one that was left there. Raises
    OSError with one sentence."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    try:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(128)
    except OSError as error:
        made.close()
        raise OSError(f"cannot listen on {path}: {error.strerror or error}") from None
    return made


def read_token(address: str, file: Path | None) -> str:
    """The token that ``/v1`` asks for; empty where none is needed. Raises OSError with one
    sentence."""
    if file is None:
        host, _ = split_address(address, "--admin")
        if not is_loopback(host):
            raise OSError(
                f"the admin API on {address} can be reached from other machines and so needs a "
                "token: give --admin-token-file FILE, or a loopback address"
            )
        return ""
    try:
        token = file.read_text("ascii").strip()
    except UnicodeDecodeError:
        raise OSError(f"--admin-token-file: {file} holds more than ASCII text") from None
    except OSError as error:
        raise OSError(f"--admin-token-file: {file} cannot be read: {error.strerror}") from None
    if not token:
        raise OSError(f"--admin-token-file: {file} is empty, expected a token")
    return token


class Guard:
    """ASGI middleware. A request passes with the right token (where one is set), and only when
    no browser was talked into sending it: its ``Host`` must be a loopback name where the API
    listens on one (DNS rebinding), and a ``POST`` or ``DELETE`` must not come from another
    origin."""

    def __init__(self, app: ASGIApp, *, loopback: bool, token: str) -> None:
        self._app = app
        self._loopback = loopback
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            refused = self._refused(scope["method"], Headers(scope=scope))
            if refused is not None:
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refused(self, method: str, headers: Mapping[str, str]) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._loopback and host and not is_loopback(_hostname(host)):
            return _refusal(403, "Forbidden", f"this API does not answer under the name {host}")
        origin = headers.get("origin")
        if origin is not None and method not in _SAFE and origin != f"http://{host}":
            return _refusal(403, "Forbidden", f"requests from {origin} are not taken")
        if self._token:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), self._token)
            if scheme.lower() != "bearer" or not same:
                return _refusal(401, "Unauthorized", "expected Authorization: Bearer and the token")
        return None


def _bound(family: int, place: tuple[object, ...], listening: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(place)
        if listening:
            # Now, so that a second process on the address fails here, not later.
            made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def _hostname(host: str) -> str:
    """The name in a ``Host`` header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _refusal(status: int, error: str, message: str) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": error, "message": message}, status, headers)
