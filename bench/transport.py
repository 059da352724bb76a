"""The HTTP client alone: POSTs to nginx, in alternation with wrk on the same nginx.

    python -m bench.transport [--seconds 3] [--rounds 5] [--in-flight 64] [--asyncio] [--profile]

Prints requests per second of both (medians), the median of their ratios, and the client's CPU
time per request.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench.measure import Row
from bench.sink import nginx_sink
from integration.servers import free_port
from triggerhub.delivery.transport import Transport, parse_endpoint

_BODY = b"x" * 256
_LUA = 'wrk.method = "POST"\nwrk.body = string.rep("x", 256)\n'


async def _client(url: str, seconds: float, in_flight: int) -> int:
    """Send for so long; how many requests were answered."""
    endpoint = parse_endpoint(url)
    head = (
        b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/octet-stream\r\n"
        b"content-length: %d\r\n\r\n"
    ) % (endpoint.path.encode(), endpoint.host_header, len(_BODY))
    transport = Transport()
    end = time.monotonic() + seconds
    done = 0

    async def work() -> None:
        nonlocal done
        while time.monotonic() < end:
            reply = await transport.send(endpoint, head, _BODY, 30.0)
            assert reply.status == 204, reply
            done += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(work())
    await transport.close()
    return done


def measure_client(
    url: str, seconds: float, in_flight: int, loop: Callable[[], asyncio.AbstractEventLoop]
) -> tuple[float, float]:
    """Requests per second, and CPU seconds per request."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.monotonic()
    with asyncio.Runner(loop_factory=loop) as runner:
        done = runner.run(_client(url, seconds, in_flight))
    took = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done / took, cpu / done


def _measure_wrk(url: str, seconds: float, in_flight: int) -> float:
    """Requests per second."""
    with tempfile.TemporaryDirectory(prefix="triggerhub-wrk-") as folder:
        script = Path(folder, "post.lua")
        script.write_text(_LUA)
        result = subprocess.run(
            ["wrk", "-t1", f"-c{in_flight}", f"-d{max(1, round(seconds))}s", "-s", script, url],
            check=True,
            capture_output=True,
            text=True,
        )
    found = re.search(r"Requests/sec:\s*([\d.]+)", result.stdout)
    if found is None or "Non-2xx" in result.stdout:
        raise RuntimeError(f"wrk said: {result.stdout}")
    return float(found[1])


def main(
    seconds: float = 3.0,
    rounds: int = 5,
    in_flight: int = 64,
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
) -> list[Row]:
    ours: list[float] = []
    costs: list[float] = []
    theirs: list[float] = []
    with nginx_sink(free_port()) as url:
        for _ in range(rounds):
            theirs.append(_measure_wrk(url, seconds, in_flight))
            rate, cost = measure_client(url, seconds, in_flight, loop)
            ours.append(rate)
            costs.append(cost * 1e6)
            print(f"      wrk {theirs[-1]:8.0f}/s   client {rate:8.0f}/s   {costs[-1]:5.1f} us CPU")
    # Of neighbours in time: what else the machine does then weighs on both alike.
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return [
        Row(
            "transport alone to nginx, requests per second of wrk's",
            f"{ratio:.2f} ({statistics.median(ours):.0f}/s, {statistics.median(costs):.1f} us)",
            ">= 0.40",
            ratio >= 0.40,
        )
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--asyncio", action="store_true", help="asyncio's own loop, not uvloop")
    parser.add_argument("--profile", action="store_true", help="one round of the client, profiled")
    options = parser.parse_args()
    chosen = asyncio.new_event_loop if options.asyncio else uvloop.new_event_loop
    if options.profile:
        with nginx_sink(free_port()) as sink, cProfile.Profile() as profile:
            measure_client(sink, options.seconds, options.in_flight, chosen)
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)
    else:
        for row in main(options.seconds, options.rounds, options.in_flight, chosen):
            print(row)
