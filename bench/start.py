"""From the command to readiness, the time until a change takes effect, and memory."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.measure import Row
from integration.hub import Hub, function, running, trigger

MANY = 2_000
ROUNDS = 5


def cron(n: int, **more: Any) -> dict[str, Any]:
    """A cron trigger that fires at a minute of its own."""
    return trigger("CronTrigger", f"c{n}", "f", {"schedule": f"{n % 60} {n % 24} * * *"}, **more)


def start(hub: Hub) -> float:
    """Seconds from the command to readiness."""
    began = time.perf_counter()
    hub.start()
    return time.perf_counter() - began


def one() -> tuple[float, float]:
    """Seconds to readiness and MB, with one cron trigger."""
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), start=False) as hub,
    ):
        hub.write("all.yaml", function("f", "http://127.0.0.1:9/"), cron(1))
        seconds = start(hub)
        time.sleep(0.5)
        return seconds, hub.resident()


def many() -> tuple[float, float, float]:
    """Seconds to readiness, seconds from a changed file to its effect, and MB, with 2 000."""
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), start=False) as hub,
    ):
        hub.write("f.yaml", function("f", "http://127.0.0.1:9/"))
        for n in range(MANY):
            hub.write(f"c{n}.yaml", cron(n))
        seconds = start(hub)
        time.sleep(1.0)
        memory = hub.resident()
        effects = []
        for n in range(3):
            paused = cron(n)
            paused["spec"]["paused"] = True
            began = time.perf_counter()
            hub.write(f"c{n}.yaml", paused)
            hub.wait(
                lambda n=n: hub.conditions(f"c{n}")["Ready"]["reason"] == "Paused",  # type: ignore[misc]
                "effect",
            )
            effects.append(time.perf_counter() - began)
        return seconds, statistics.median(effects), memory


def main() -> list[Row]:
    ones = [one() for _ in range(ROUNDS)]
    ready, memory = (statistics.median(column) for column in zip(*ones, strict=True))
    many_ready, effect, many_memory = many()
    return [
        Row("start to ready, 1 cron trigger", f"{ready:.2f} s", "<= 1 s", ready <= 1),
        Row("resident memory then", f"{memory:.0f} MB", "<= 60 MB", memory <= 60),
        Row("start to ready, 2 000 triggers", f"{many_ready:.1f} s", "<= 5 s", many_ready <= 5),
        Row("one changed file of 2 000 to its effect", f"{effect:.2f} s", "<= 1 s", effect <= 1),
        Row("resident memory, 2 000 triggers", f"{many_memory:.0f} MB", "<= 150 MB",
            many_memory <= 150),
    ]  # fmt: skip


if __name__ == "__main__":
    for row in main():
        print(row)
