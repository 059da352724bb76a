"""Kafka to an HTTP function: CPU time per event in the hub, beside a bare probe of the path.

The probe does the least that can be done: aiokafka's getmany, our transport, 64 in flight, no
order, no identity, no retries, no metrics.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.measure import Row, program, stretch
from bench.sink import nginx_sink
from bench.transport import measure_client
from integration.hub import function, running, trigger
from integration.kafka_tools import create_topic
from integration.servers import Kafka, free_port
from triggerhub.delivery.transport import Transport, parse_endpoint

RECORDS = 60_000
KEYS = 1_000
SIZE = 256
IN_FLIGHT = 64
SLOW_RECORDS = 30_000
SLOW = 0.010
"""Seconds that the slow function takes."""


async def fill(broker: str, topic: str, records: int) -> None:
    """Numbered records of 256 bytes with 1 000 keys, on four partitions."""
    await create_topic(broker, topic, 4)
    producer = AIOKafkaProducer(bootstrap_servers=broker, linger_ms=20, max_batch_size=65536)
    await producer.start()
    rng = random.Random(1)
    for n in range(records):
        value = b"%08d" % n + b"x" * (SIZE - 8)
        await producer.send(topic, value, key=b"key-%d" % rng.randrange(KEYS))
    await producer.stop()


async def probe(broker: str, topic: str, url: str, records: int) -> None:
    """Prints CPU seconds and wall seconds for all records."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=broker, group_id=f"probe-{uuid4()}", enable_auto_commit=False,
        auto_offset_reset="earliest",
    )  # fmt: skip
    await consumer.start()
    transport = Transport()
    endpoint = parse_endpoint(url)
    start = b"POST / HTTP/1.1\r\nhost: " + endpoint.host_header + b"\r\ncontent-length: "
    queue: asyncio.Queue[bytes] = asyncio.Queue(1000)

    async def work() -> None:
        while True:
            body = await queue.get()
            await transport.send(endpoint, start + b"%d\r\n\r\n" % len(body), body, 30.0)
            queue.task_done()

    cpu, wall, done = time.process_time(), time.perf_counter(), 0
    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(work()) for _ in range(IN_FLIGHT)]
        while done < records:
            for batch in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                for record in batch:
                    await queue.put(record.value)
                done += len(batch)
        await queue.join()
        for worker in workers:
            worker.cancel()
    print(time.process_time() - cpu, time.perf_counter() - wall)
    await transport.close()
    await consumer.stop()


def run_probe(broker: str, topic: str, url: str) -> tuple[float, float]:
    """CPU µs per event and events per second."""
    answer = subprocess.run(
        [sys.executable, "-m", "bench.kafka", broker, topic, url],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    cpu, wall = map(float, answer.stdout.split())
    return cpu / RECORDS * 1e6, RECORDS / wall


def run_hub(broker: str, topic: str, url: str, records: int) -> tuple[float, float]:
    """CPU µs per event and events per second."""
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain") as hub,
    ):
        hub.write(
            "all.yaml",
            function("sink", url),
            trigger(
                "KafkaTrigger", f"bench-{uuid4().hex[:8]}", "sink",
                {"topic": topic, "brokers": [broker], "startFrom": "Earliest"},
                order="Key", inFlight=IN_FLIGHT,
            ),
        )  # fmt: skip
        hub.wait(lambda: hub.settled() > 0, "first event")
        first, last = stretch(hub, records, hub.cpu)
        settled = last.settled - first.settled
        return (last.used - first.used) / settled * 1e6, settled / (last.at - first.at)


def main() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="triggerhub-kafka-") as folder:
        broker = Kafka(Path(folder))
        broker.start()
        try:
            topic, slow_topic = f"bench-{uuid4().hex[:8]}", f"slow-{uuid4().hex[:8]}"
            asyncio.run(fill(broker.broker, topic, RECORDS))
            asyncio.run(fill(broker.broker, slow_topic, SLOW_RECORDS))
            with nginx_sink(free_port()) as url:
                pairs = [
                    (
                        run_probe(broker.broker, topic, url),
                        run_hub(broker.broker, topic, url, RECORDS),
                    )
                    for _ in range(3)
                ]
            for (probe_cpu, probe_rate), (hub_cpu, hub_rate) in pairs:
                print(
                    f"      probe {probe_cpu:5.1f} us/event {probe_rate:7.0f}/s   "
                    f"hub {hub_cpu:5.1f} us/event {hub_rate:7.0f}/s"
                )
            (probe_cpu, _), (hub_cpu, hub_rate) = sorted(pairs, key=lambda p: p[1][0])[1]
            rows.append(
                Row(
                    "Kafka to nginx, order Key, CPU per event in the hub",
                    f"{hub_cpu:.1f} us ({hub_cpu / probe_cpu:.2f} x probe, {hub_rate:.0f}/s)",
                    "<= 35 us",
                    hub_cpu <= 35,
                )
            )
            rows += to_slow(broker.broker, slow_topic)
        finally:
            broker.stop()
    return rows


def to_slow(broker: str, topic: str) -> list[Row]:
    """To a function that takes 10 ms, beside our client alone, which finds its next request ready:
    what it misses of the ideal, function, machine and client miss, and no hub could have."""
    ideal, rates = IN_FLIGHT / SLOW, []
    for _ in range(3):
        with program("slow") as url:
            alone, _ = measure_client(url, 3.0, IN_FLIGHT, uvloop.new_event_loop)
            cpu, rate = run_hub(broker, topic, url, SLOW_RECORDS)
        print(
            f"      of {ideal:.0f}/s: client {alone:5.0f}/s {alone / ideal:.0%}   "
            f"hub {rate:5.0f}/s {rate / ideal:.0%} {cpu:5.1f} us/event"
        )
        rates.append((rate / alone, rate, alone))
    ratio, rate, alone = sorted(rates)[1]
    return [
        Row(
            "our client alone to a function that takes 10 ms, 64 in flight",
            f"{alone:.0f}/s ({alone / ideal:.0%} of {ideal:.0f}/s)", "", True,
        ),
        Row(
            "Kafka to that function",
            f"{rate:.0f}/s ({rate / ideal:.0%}; {ratio:.2f} x the client)", ">= 90 %",
            rate >= 0.9 * ideal,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if len(sys.argv) == 4:
        uvloop.run(probe(sys.argv[1], sys.argv[2], sys.argv[3], RECORDS))
        sys.stdout.flush()
        os._exit(0)
    for row in main():
        print(row)
