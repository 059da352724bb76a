"""How late answers are to a client that sends at a fixed rate, whatever becomes of them.

Each request is timed from the moment when it was due, not from when it was sent: that a server
which stalls is asked less does not make it look quick (coordinated omission).
"""

from __future__ import annotations

import gc
import select
import socket
import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

_CONNECTIONS = 256
"""At most; requests that are due when all are busy wait, and their time counts."""


class Lateness(NamedTuple):
    """Of the answers of one run, in seconds."""

    median: float
    p99: float

    def __str__(self) -> str:
        return f"median {self.median * 1e3:.2f} ms, p99 {self.p99 * 1e3:.2f} ms"


def added(urls: Mapping[str, str], rate: float, rounds: int, seconds: float) -> dict[str, Lateness]:
    """How much later answers come from each but the first than from that: medians of the rounds, in
    each of which all are asked in turn."""
    first, *others = urls
    more: dict[str, list[Lateness]] = {name: [] for name in others}
    for _ in range(rounds):
        found = {name: ask(url, rate, seconds) for name, url in urls.items()}
        print("      " + "   ".join(f"{name}: {each}" for name, each in found.items()))
        for name in others:
            pairs = zip(found[name], found[first], strict=True)
            more[name].append(Lateness(*(one - least for one, least in pairs)))
    return {
        name: Lateness(*(statistics.median(values) for values in zip(*each, strict=True)))
        for name, each in more.items()
    }


def ask(url: str, rate: float, seconds: float) -> Lateness:
    """GET ``url``, ``rate`` times a second; what comes in the first fifth, in which connections are
    made, does not count. Raises RuntimeError for an answer that is no 204, and for one that has not
    come ten seconds after the last request was due."""
    parts = urlsplit(url)
    place = (str(parts.hostname), parts.port or 80)
    request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    late: list[float] = []
    idle: list[socket.socket] = []
    busy: dict[socket.socket, float] = {}
    number, count = 0, int(rate * seconds)
    clock = time.perf_counter
    gc.disable()
    try:
        began = clock() + 0.01
        while len(late) < count:
            now = clock()
            while number < count and (due := began + number / rate) <= now:
                if not idle and len(busy) == _CONNECTIONS:
                    break
                one = idle.pop() if idle else _connected(place)
                one.send(request)
                busy[one] = due
                number += 1
            wait = max(0.0, began + number / rate - clock()) if number < count else 1.0
            # Not epoll, which counts in milliseconds.
            for one in select.select(list(busy), [], [], min(wait, 1.0))[0]:
                _check(one.recv(65536))
                late.append(clock() - busy.pop(one))
                idle.append(one)
            if now > began + seconds + 10:
                raise RuntimeError(f"{url}: {count - len(late)} of {count} answers never came")
    finally:
        gc.enable()
        for one in (*idle, *busy):
            one.close()
    late = late[count // 5 :]
    return Lateness(statistics.median(late), statistics.quantiles(late, n=100)[98])


def _connected(place: tuple[str, int]) -> socket.socket:
    one = socket.create_connection(place, 5)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


def _check(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 204") or not answer.endswith(b"\r\n\r\n"):
        raise RuntimeError(f"expected a 204, found {answer[:80]!r}")
