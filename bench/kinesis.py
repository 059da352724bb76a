"""Kinesis to an HTTP function: CPU time per event in the hub, beside a bare client that does
nothing with the records; and what triggers cost that wait."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.measure import Row
from bench.sink import nginx_sink
from integration.hub import Hub, function, running
from integration.kinesis_proxy import Faults, faults
from integration.kinesis_servers import Kinesis
from integration.kinesis_streams import ENVIRONMENT, kinesis_trigger
from integration.kinesis_tools import client, create_stream, put_by, shards_by
from integration.servers import free_port

RECORDS = 20_000
SHARDS = 4
KEYS = 1_000
SIZE = 256
IN_FLIGHT = 64
TRIGGERS = 20
IDLE = 30.0


async def fill(endpoint: str, stream: str) -> None:
    """Numbered records of 256 bytes with 1 000 partition keys."""
    await create_stream(endpoint, stream, SHARDS)
    records = [(f"key-{n % KEYS}", b"%08d" % n + b"x" * (SIZE - 8)) for n in range(RECORDS)]
    async with client(endpoint) as aws:
        await put_by(aws, stream, records)


async def bare(endpoint: str, stream: str) -> None:
    """Prints CPU µs per record and records per second of a loop over GetRecords."""

    async def read(aws: Any, shard: str) -> int:
        at = {"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        iterator, number, behind = (await aws.get_shard_iterator(**at))["ShardIterator"], 0, 1
        while behind:
            answer = await aws.get_records(ShardIterator=iterator)
            iterator, behind = answer["NextShardIterator"], answer["MillisBehindLatest"]
            number += len(answer["Records"])
        return number

    async with client(endpoint) as aws:
        found = await shards_by(aws, stream)
        began, used = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(read(aws, shard["ShardId"])) for shard in found]
        used, seconds = time.process_time() - used, time.perf_counter() - began
    number = sum(reader.result() for reader in readers)
    assert number == RECORDS, f"{number} of {RECORDS}"
    print(used / number * 1e6, number / seconds)


def run_bare(endpoint: str, stream: str) -> tuple[float, float]:
    """CPU µs per record and records per second, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "bench.kinesis", endpoint, stream],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    cpu, rate = map(float, answer.stdout.split())
    return cpu, rate


def run_hub(endpoint: str, stream: str, url: str) -> tuple[float, float]:
    """CPU µs per event, from the trigger's manifest on, and events per second, from the first
    settled event to the last."""
    with hub() as one:
        one.write("f.yaml", function("sink", url))
        one.wait(one.ready, "readiness")
        before = one.cpu()
        name = f"bench-{uuid4().hex[:8]}"
        one.write(
            "t.yaml",
            kinesis_trigger(stream, endpoint, name, "sink", order="Key", inFlight=IN_FLIGHT),
        )
        one.wait(lambda: one.settled() > 0, "first event")
        began, first = time.perf_counter(), one.settled()
        while (settled := one.settled()) < RECORDS:
            assert time.perf_counter() - began < 300, f"{settled} settled of {RECORDS}"
            time.sleep(0.1)
        seconds, cpu = time.perf_counter() - began, one.cpu() - before
        assert settled == RECORDS, f"{settled} settled of {RECORDS}"
        return cpu / RECORDS * 1e6, (RECORDS - first) / seconds


def run_idle(aws: Faults, streams: list[str], url: str) -> tuple[float, float]:
    """Calls a second and percent of a core, of all triggers: one for each of the names."""
    with hub() as one:
        one.write("f.yaml", function("sink", url))
        for n, stream in enumerate(streams):
            one.write(f"t{n}.yaml", kinesis_trigger(stream, aws.endpoint, f"t{n}", "sink"))
        one.wait(
            lambda: one.metric("triggerhub_bindings", state="Ready") == len(streams),
            "readiness of all", 120,
        )  # fmt: skip
        time.sleep(10.0)
        calls, used = aws.calls.total(), one.cpu()
        time.sleep(IDLE)
        return (aws.calls.total() - calls) / IDLE, (one.cpu() - used) / IDLE * 100


@contextmanager
def hub() -> Iterator[Hub]:
    """One in a folder that goes with it."""
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain", env=ENVIRONMENT) as one,
    ):
        yield one


def busy(endpoint: str, url: str) -> list[Row]:
    stream = f"bench-{uuid4().hex[:8]}"
    asyncio.run(fill(endpoint, stream))
    runs = []
    for _ in range(3):
        alone, alone_rate = run_bare(endpoint, stream)
        cpu, rate = run_hub(endpoint, stream, url)
        print(f"      bare {alone:5.1f} us/record {alone_rate:7.0f}/s", end="")
        print(f"      hub {cpu:5.1f} us/event {rate:7.0f}/s", flush=True)
        runs.append((cpu, rate, alone, alone_rate))
    cpu, rate, alone, alone_rate = sorted(runs)[1]
    return [
        Row(
            f"aiobotocore alone: GetRecords of {SHARDS} shards, CPU per record",
            f"{alone:.1f} us ({alone_rate:.0f}/s)", "", True,
        ),
        Row(
            "Kinesis to nginx, order Key, CPU per event in the hub",
            f"{cpu:.1f} us ({rate:.0f}/s)", "<= bare + 80 us", cpu <= alone + 80,
        ),
    ]  # fmt: skip


def idle(endpoint: str, url: str) -> list[Row]:
    own = [f"idle-{uuid4().hex[:8]}" for _ in range(TRIGGERS)]
    one = f"idle-{uuid4().hex[:8]}"
    for stream in own:
        asyncio.run(create_stream(endpoint, stream))
    asyncio.run(create_stream(endpoint, one, SHARDS))
    rows = []
    for streams, what in (
        (own, f"{TRIGGERS} Kinesis triggers that wait, each on a stream of one shard"),
        ([one] * TRIGGERS, f"{TRIGGERS} that wait on one stream of {SHARDS} shards"),
    ):
        with faults(endpoint) as aws:
            calls, cpu = run_idle(aws, streams, url)
            reads = aws.busiest()
        rows.append(
            Row(what, f"{calls:.0f} calls/s, {cpu:.1f} % of a core",
                f"<= 5 reads/s and shard: {reads}", reads <= 5)
        )  # fmt: skip
    return rows


def main() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="triggerhub-kinesis-") as folder:
        server = Kinesis(Path(folder))
        server.start()
        try:
            with nginx_sink(free_port()) as url:
                return [*busy(server.endpoint, url), *idle(server.endpoint, url)]
        finally:
            server.stop()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(bare(sys.argv[1], sys.argv[2]))
    else:
        for row in main():
            print(row)
