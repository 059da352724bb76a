"""The sockets that the server listens on."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

BACKLOG = 2048
"""Connections that wait to be taken."""


async def bound(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, one for each of the host's addresses (empty: all of this machine)."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with _all_or_none() as sockets:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind(address)
            one.listen(BACKLOG)
    return sockets


def taken(descriptors: Iterable[int]) -> list[socket.socket]:
    """Sockets that somebody else bound, listening."""
    with _all_or_none() as sockets:
        for descriptor in descriptors:
            one = socket.socket(fileno=os.dup(descriptor))
            sockets.append(one)
            one.setblocking(False)
            one.listen(BACKLOG)
    return sockets


@contextmanager
def _all_or_none() -> Iterator[list[socket.socket]]:
    """They are closed where one cannot be listened on."""
    sockets: list[socket.socket] = []
    try:
        yield sockets
    except OSError:
        for one in sockets:
            one.close()
        raise


def reason(error: OSError) -> str:
    """Why they cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        return "address already in use (another triggerhub, or another program)"
    # The text of a name that is not found is no errno's.
    return os.strerror(error.errno) if (error.errno or 0) > 0 else str(error)  # type: ignore[arg-type]
