"""Kafka to nginx with one process of the hub and with two: what the second one brings, and what
stands in its way where cores are few: broker, sink, the hub itself and whatever else runs."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bench.kafka import IN_FLIGHT, fill
from bench.measure import Row, program, stretch
from bench.sink import nginx_sink
from integration.hub import function, running, trigger
from integration.servers import Kafka, free_port

RECORDS = 240_000
SLOW_RECORDS = 60_000
SKIPPED = 20_000
"""The first ones, while the members of the group find together."""
TURNS = 3

_TICKS = os.sysconf("SC_CLK_TCK")
_WHO = ("hub", "broker", "sink", "others")
_KINDS = {"java": "broker", "nginx": "sink", "bench.slow": "sink", "triggerhub": "hub"}


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run."""

    rate: float
    """Events per second."""
    per_event: dict[str, float]
    """CPU µs per event: of ``hub``, ``broker``, ``sink``, and of ``others`` on the machine."""
    cores: float
    """So many the others left."""

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {us:.1f}" for name, us in self.per_event.items())
        return f"{self.rate:7.0f}/s   CPU us/event: {shares}"


def descendants() -> Iterator[tuple[str, float]]:
    """Command line and CPU seconds of all that this process started, at any depth."""
    parents, found = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_text(errors="replace")
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        found[pid] = command, (int(fields[11]) + int(fields[12])) / _TICKS
    for pid, told in found.items():
        above = pid
        while above := parents.get(above, 0):
            if above == os.getpid():
                yield told
                break


def used() -> dict[str, float]:
    """CPU seconds so far, by who used them."""
    seconds = dict.fromkeys(_WHO, 0.0)
    for command, cpu in descendants():
        kind = next((kind for word, kind in _KINDS.items() if word in command), "")
        if kind:
            seconds[kind] += cpu
    with Path("/proc/stat").open() as file:
        user, nice, system, _, _, hard, soft, stolen = map(int, file.readline().split()[1:9])
    busy = (user + nice + system + hard + soft + stolen) / _TICKS
    seconds["others"] = busy - sum(seconds.values())
    return seconds


def measured(broker: str, topic: str, url: str, workers: int, records: int) -> Figures:
    """One hub, from nothing to the end of the topic."""
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain", "--workers", str(workers)) as hub,
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
        hub.wait(lambda: hub.settled() >= SKIPPED, "first events", 120)
        first, last = stretch(hub, records, used, pause=0.5)
        seconds, number = last.at - first.at, last.settled - first.settled
        cpu = {who: last.used[who] - first.used[who] for who in _WHO}
        return Figures(
            number / seconds,
            {who: taken / number * 1e6 for who, taken in cpu.items()},
            (os.cpu_count() or 1) - cpu["others"] / seconds,
        )


def main() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="triggerhub-kafka-") as folder:
        broker = Kafka(Path(folder))
        broker.start()
        try:
            topic = f"bench-{uuid4().hex[:8]}"
            asyncio.run(fill(broker.broker, topic, RECORDS))
            with nginx_sink(free_port(), workers=2) as url:
                pairs = []
                for _ in range(TURNS):
                    one, two = (measured(broker.broker, topic, url, n, RECORDS) for n in (1, 2))
                    print(f"      one {one}\n      two {two}", flush=True)
                    pairs.append((one, two))
            slow_topic = f"slow-{uuid4().hex[:8]}"
            asyncio.run(fill(broker.broker, slow_topic, SLOW_RECORDS))
            with program("slow") as url:
                waiting, waiting_two = (
                    measured(broker.broker, slow_topic, url, n, SLOW_RECORDS) for n in (1, 2)
                )
                print(f"      one {waiting}\n      two {waiting_two}", flush=True)
        finally:
            broker.stop()
    one, two = sorted(pairs, key=lambda pair: pair[1].rate / pair[0].rate)[TURNS // 2]
    ratio = two.rate / one.rate
    # The cores carry the broker and the sink, too: all three can do no more events than fill what
    # the rest of the machine left, however well two workers share their work.
    own = sum(us for who, us in one.per_event.items() if who != "others")
    possible = min(2.0, two.cores * 1e6 / own / one.rate)
    alone = 2.0 * one.per_event["hub"] / two.per_event["hub"]
    waited = waiting_two.rate / waiting.rate
    return [
        Row(
            "Kafka to nginx, two workers, events per second",
            f"{ratio:.2f} x one ({two.rate:.0f}/s; the cores allow {possible:.2f} x)",
            ">= 1.7 x, or 0.9 of what the cores allow",
            ratio >= min(1.7, 0.9 * possible),
        ),
        Row(
            "the same, CPU per event in the hub",
            f"{two.per_event['hub']:.1f} us, one: {one.per_event['hub']:.1f} us "
            f"(with a core for each: {alone:.2f} x)",
            "<= 1.2 x one",
            two.per_event["hub"] <= 1.2 * one.per_event["hub"],
        ),
        Row(
            "to a function that takes 10 ms, two workers",
            f"{waited:.2f} x one ({waiting_two.rate:.0f}/s)",
            ">= 1.7 x",
            waited >= 1.7,
        ),
    ]
