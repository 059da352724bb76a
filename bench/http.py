"""A synchronous HTTP trigger to nginx, beside nginx itself as a reverse proxy to the same sink.

    python -m bench.http [--rounds 3] [--seconds 4] [--post]

In alternation: nginx (one worker, kept-alive upstream connections), the whole hub (one process)
and a probe that does the least that can be done: a raw ASGI application on uvicorn that passes
each request on through our transport, without route, identity, header filter or metrics.

Then, at half of the hub's rate, how much later answers come through nginx and through the hub than
from the sink itself (``open_loop``).
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from bench.measure import Row, machine
from bench.open_loop import added
from bench.sink import nginx_sink
from integration.hub import function, running, trigger
from integration.servers import free_port
from triggerhub.delivery.transport import Transport, parse_endpoint

CONNECTIONS = 64
_TICKS = os.sysconf("SC_CLK_TCK")
_PROXY = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  upstream sink {{
    server 127.0.0.1:{sink};
    keepalive 128;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://sink;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""
_POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 256)\n'


@dataclass(frozen=True, slots=True)
class Figure:
    """Of one server in one round."""

    rate: float
    """Requests per second."""
    cpu: float
    """CPU µs per request in the server's process."""


@dataclass(frozen=True, slots=True)
class Server:
    """Something that passes requests on to the sink."""

    url: str
    cpu: Callable[[], float]
    """CPU seconds that it has used so far."""


def cpu_of(pid: int) -> float:
    """CPU seconds of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def child(command: list[str], port: int) -> Iterator[Server]:
    """A process that listens on 127.0.0.1:port for the block."""
    process = subprocess.Popen(command)
    try:
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.02)
        yield Server(f"http://127.0.0.1:{port}/", lambda: cpu_of(process.pid))
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def nginx_proxy(sink: str) -> Iterator[Server]:
    """nginx as a reverse proxy."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="triggerhub-proxy-") as folder:
        config = Path(folder, "nginx.conf")
        upstream = parse_endpoint(sink).port
        config.write_text(_PROXY.format(folder=folder, port=port, sink=upstream))
        command = ["/usr/sbin/nginx", "-e", "stderr", "-p", folder, "-c", str(config)]
        with child(command, port) as server:
            yield server


@contextmanager
def whole_hub(sink: str) -> Iterator[Server]:
    """A hub with one trigger and one function."""
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain") as hub,
    ):
        hub.write(
            "all.yaml",
            function("sink", sink),
            trigger("HTTPTrigger", "bench", "sink", {"path": "/"}, inFlight=2 * CONNECTIONS),
        )

        def served() -> bool:
            ready = hub.conditions("bench").get("Ready", {})
            return bool(ready.get("status") == "True")

        hub.wait(served, "served route")
        yield Server(f"http://{hub.listen}/", hub.cpu)


@contextmanager
def bare_probe(sink: str) -> Iterator[Server]:
    """uvicorn and our transport, in a process of their own."""
    port = free_port()
    with child([sys.executable, "-m", "bench.http", "probe", str(port), sink], port) as server:
        yield server


def probe(port: int, sink: str) -> None:
    """What ``bare_probe`` runs."""
    transport = Transport()
    endpoint = parse_endpoint(sink)
    start = b" / HTTP/1.1\r\nhost: " + endpoint.host_header + b"\r\ncontent-length: "

    async def app(scope: Any, receive: Any, send: Any) -> None:
        method = scope["method"]
        body = b"" if method == "GET" else (await receive())["body"]
        head = method.encode() + start + b"%d\r\n\r\n" % len(body)
        reply = await transport.send(endpoint, head, body, 30.0)
        fields = [pair for pair in reply.headers if pair[0] not in (b"connection", b"date")]
        await send({"type": "http.response.start", "status": reply.status, "headers": fields})
        await send({"type": "http.response.body", "body": reply.body})

    uvicorn.run(
        app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", interface="asgi3",
        lifespan="off", ws="none", log_config=None, access_log=False, server_header=False,
    )  # fmt: skip


def wrk(url: str, seconds: int, post: bool, field: str = "") -> float:
    """Requests per second, each with this header field."""
    with tempfile.TemporaryDirectory(prefix="triggerhub-wrk-") as folder:
        script = Path(folder, "post.lua")
        script.write_text(_POST if post else "")
        answer = subprocess.run(
            ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script),
             *(["-H", field] if field else ()), url],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    found = re.search(r"Requests/sec:\s*([\d.]+)", answer.stdout)
    if found is None or "Non-2xx" in answer.stdout or "Socket errors" in answer.stdout:
        raise RuntimeError(f"wrk said: {answer.stdout}")
    return float(found[1])


def measure(server: Server, seconds: int, post: bool, field: str = "") -> Figure:
    """One round of one server."""
    before, began = server.cpu(), time.perf_counter()
    rate = wrk(server.url, seconds, post, field)
    requests = rate * (time.perf_counter() - began)
    return Figure(rate, (server.cpu() - before) / requests * 1e6)


def main(rounds: int = 3, seconds: int = 4, *, post: bool = False) -> list[Row]:
    print(f"      {machine()}")
    with (
        nginx_sink(free_port()) as sink,
        nginx_proxy(sink) as nginx,
        whole_hub(sink) as hub,
        bare_probe(sink) as bare,
    ):
        servers = {"nginx": nginx, "hub": hub, "probe": bare}
        for server in servers.values():
            wrk(server.url, 1, post)
        figures: dict[str, list[Figure]] = {name: [] for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                figures[name].append(measure(server, seconds, post))
            print(
                "      "
                + "   ".join(
                    f"{name} {taken[-1].rate:6.0f}/s {taken[-1].cpu:5.1f} us/request"
                    for name, taken in figures.items()
                )
            )

        half = statistics.median(figure.rate for figure in figures["hub"]) / 2
        urls = {"sink": sink, "nginx": nginx.url, "hub": hub.url}
        later = added(urls, half, rounds, seconds)

    def ratio(below: str) -> float:
        pairs = zip(figures["hub"], figures[below], strict=True)
        return statistics.median(one.rate / other.rate for one, other in pairs)

    typical = sorted(figures["hub"], key=lambda figure: figure.cpu)[rounds // 2]
    return [
        Row(
            f"HTTP, synchronous, {'POST' if post else 'GET'}, requests per second of nginx's",
            f"{ratio('nginx'):.2f} x nginx, {ratio('probe'):.2f} x probe ({typical.rate:.0f}/s, "
            f"{typical.cpu:.0f} us)",
            ">= 0.35 x nginx",
            ratio("nginx") >= 0.35,
        ),
        Row(
            f"HTTP, synchronous, what the hub adds at {half:.0f}/s, half of its rate",
            str(later["hub"]),
            f"nginx adds {later['nginx']}",
            True,
        ),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["probe"]:
        probe(int(sys.argv[2]), sys.argv[3])
    else:
        parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--seconds", type=int, default=4)
        parser.add_argument("--post", action="store_true", help="256 bytes, not GET")
        asked = parser.parse_args()
        for row in main(asked.rounds, asked.seconds, post=asked.post):
            print(row)
