"""What triggers cost that wait: many on one topic of a real broker, beside bare consumers.

The bare ones are aiokafka's at its defaults, each with a group of its own.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import uvloop
from aiokafka import AIOKafkaConsumer

from bench.measure import Row
from bench.sink import nginx_sink
from integration.hub import Hub, function, running, trigger
from integration.kafka_tools import create_topic, produce
from integration.servers import Kafka, free_port

TRIGGERS = 500
BARE = 100
PARTITIONS = 4
IDLE = 60.0


async def bare(broker: str, topic: str, number: int) -> None:
    """Prints CPU seconds of an idle minute, KB and sockets, each for one consumer."""
    before = _resident()
    consumers = [
        AIOKafkaConsumer(topic, bootstrap_servers=broker, group_id=f"bare-{uuid4()}")
        for _ in range(number)
    ]
    async with asyncio.TaskGroup() as tasks:
        for consumer in consumers:
            tasks.create_task(consumer.start())
    await asyncio.sleep(10.0)
    used = time.process_time()
    await asyncio.sleep(IDLE)
    used = time.process_time() - used
    memory = _resident() - before
    print(used / number, memory / number, _sockets(os.getpid()) / number)
    sys.stdout.flush()
    os._exit(0)


def _resident() -> float:
    """Of this process, in KB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def _sockets(pid: int) -> int:
    links = list(Path(f"/proc/{pid}/fd").iterdir())
    return sum(link.is_socket() for link in links)


def run_bare(broker: str, topic: str) -> tuple[float, float, float]:
    """Percent of a core, KB and sockets of one consumer."""
    answer = subprocess.run(
        [sys.executable, "-m", "bench.kafka_idle", broker, topic, str(BARE)],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    cpu, memory, sockets = map(float, answer.stdout.split())
    return cpu / IDLE * 100, memory, sockets


def ready(hub: Hub) -> int:
    """How many bindings are."""
    try:
        return int(hub.metric("triggerhub_bindings", state="Ready"))
    except OSError:
        return 0


def first_record(hub: Hub, broker: str, topic: str, triggers: int) -> float:
    """Seconds from a record to its delivery by every trigger, after an idle time."""
    before = hub.settled()
    began = time.perf_counter()
    asyncio.run(produce(broker, topic, [b"{}"]))
    hub.wait(lambda: hub.settled() >= before + triggers, "delivery by every trigger", 60)
    return time.perf_counter() - began


def run_hub(broker: str, topic: str, url: str) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain") as hub,
    ):
        time.sleep(3.0)
        memory, sockets = hub.resident(), _sockets(hub.pid)
        source = {"topic": topic, "brokers": [broker]}
        began, used = time.perf_counter(), hub.cpu()
        hub.write(
            "all.yaml",
            function("sink", url),
            *(trigger("KafkaTrigger", f"k{n}", "sink", source) for n in range(TRIGGERS)),
        )
        hub.wait(lambda: ready(hub) == TRIGGERS, "readiness of all", 300)
        until_ready, start_cpu = time.perf_counter() - began, hub.cpu() - used
        time.sleep(15.0)
        used = hub.cpu()
        time.sleep(IDLE)
        idle = (hub.cpu() - used) / IDLE * 100 / TRIGGERS
        assert ready(hub) == TRIGGERS
        each = (hub.resident() - memory) * 1024 / TRIGGERS
        open_sockets = (_sockets(hub.pid) - sockets) / TRIGGERS
        delivery = statistics.median(first_record(hub, broker, topic, TRIGGERS) for _ in range(3))
    return [
        Row(f"{TRIGGERS} Kafka triggers on one topic: until all are ready",
            f"{until_ready:.1f} s ({start_cpu:.1f} s of CPU)", "<= 20 s", until_ready <= 20),
        Row("  idle, each", f"{idle:.4f} % of a core", "<= 0.01 %", idle <= 0.01),
        Row("  memory, each", f"{each:.0f} KB, {open_sockets:.2f} sockets", "<= 200 KB",
            each <= 200),
        Row("  one record to all of them", f"{delivery:.2f} s", "", True),
    ]  # fmt: skip


def main() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="triggerhub-kafka-") as folder:
        broker = Kafka(Path(folder))
        broker.start()
        try:
            topic = f"idle-{uuid4().hex[:8]}"
            asyncio.run(create_topic(broker.broker, topic, PARTITIONS))
            cpu, memory, sockets = run_bare(broker.broker, topic)
            with nginx_sink(free_port()) as url:
                rows = run_hub(broker.broker, topic, url)
        finally:
            broker.stop()
    bare_row = Row(
        f"{BARE} bare aiokafka consumers at their defaults: idle, each",
        f"{cpu:.4f} %, {memory:.0f} KB, {sockets:.2f} sockets", "", True,
    )  # fmt: skip
    return [bare_row, *rows]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if len(sys.argv) == 4:
        uvloop.run(bare(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    for row in main():
        print(row)
