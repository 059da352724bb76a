"""NATS to an HTTP function: CPU time per event in the hub, from a stream and from core subjects."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.measure import Row
from bench.sink import nginx_sink
from integration.hub import function, running, trigger
from integration.nats_servers import Nats
from integration.nats_tools import connected, create_stream
from integration.servers import free_port

MESSAGES = 40_000
SUBJECTS = 1_000
SIZE = 256
IN_FLIGHT = 64


async def fill(server: str, stream: str) -> None:
    """Numbered messages of 256 bytes on 1 000 subjects."""
    await create_stream(server, stream, f"{stream}.>")
    async with connected(server) as client:
        context = client.jetstream()
        for n in range(0, MESSAGES, 500):
            async with asyncio.TaskGroup() as tasks:
                for one in range(n, n + 500):
                    tasks.create_task(context.publish(f"{stream}.{one % SUBJECTS}", body(one)))


async def flood(server: str, subject: str) -> None:
    """The same without a stream, in steps that leave the hub time: what it cannot take is lost."""
    async with connected(server) as client:
        for n in range(MESSAGES):
            await client.publish(f"{subject}.{n % SUBJECTS}", body(n))
            if n % 200 == 0:
                await client.flush()
                await asyncio.sleep(0.05)
        await client.flush()


def body(number: int) -> bytes:
    return b"%08d" % number + b"x" * (SIZE - 8)


def run_hub(server: str, source: dict[str, Any], url: str, core: str = "") -> tuple[float, float]:
    """CPU µs per event and events per second, from the first settled event to the last."""
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain") as hub,
    ):
        name = f"bench-{uuid4().hex[:8]}"
        hub.write(
            "all.yaml",
            function("sink", url),
            trigger(
                "NATSTrigger", name, "sink", {"servers": [server], **source}, order="Key",
                inFlight=IN_FLIGHT,
            ),
        )  # fmt: skip
        if core:
            hub.wait(lambda: hub.condition(name) == "True Ready", "readiness")
            began, first, before = time.perf_counter(), 0.0, hub.cpu()
            asyncio.run(flood(server, core))
        else:
            hub.wait(lambda: hub.settled() > 0, "first event")
            began, first, before = time.perf_counter(), hub.settled(), hub.cpu()
        while (settled := hub.settled()) < MESSAGES:
            assert time.perf_counter() - began < 300, f"{settled} settled of {MESSAGES}"
            time.sleep(0.25)
        seconds, cpu = time.perf_counter() - began, hub.cpu() - before
        assert settled == MESSAGES, f"{settled} settled of {MESSAGES}"
        return cpu / (MESSAGES - first) * 1e6, (MESSAGES - first) / seconds


def main() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="triggerhub-nats-") as folder:
        server = Nats(Path(folder))
        server.start()
        try:
            stream, subject = f"BENCH{uuid4().hex[:8]}", f"bench{uuid4().hex[:8]}"
            asyncio.run(fill(server.server, stream))
            with nginx_sink(free_port()) as url:
                whole = {"stream": stream, "startFrom": "All"}
                runs = sorted(run_hub(server.server, whole, url) for _ in range(3))
                for cpu, rate in runs:
                    print(f"      stream {cpu:5.1f} us/event {rate:7.0f}/s")
                cpu, rate = runs[1]
                core, _ = run_hub(server.server, {"subject": f"{subject}.*"}, url, core=subject)
        finally:
            server.stop()
    return [
        Row(
            "JetStream to nginx, order Key, CPU per event in the hub",
            f"{cpu:.1f} us ({rate:.0f}/s)", "<= 90 us", cpu <= 90,
        ),
        Row(
            "a core subject to nginx, the same", f"{core:.1f} us", "<= 60 us", core <= 60,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    for row in main():
        print(row)
