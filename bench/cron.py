"""Many cron triggers: memory, lateness at 200 ticks a second, and what a tick costs.

Lateness is from the time at which a tick is to be sent, its part of the jitter included, to the
moment when its function has read the request.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.measure import Row, program
from integration.hub import function, running, trigger
from triggerhub_cron import CronSource
from triggerhub_cron.plan import Plan

TRIGGERS = 10_000
RATE = 200
SECONDS = 60.0
SETTLING = 60.0
"""Longer than the first ticks with jitter take to come."""


def lateness(notes: Path, since: float, source: CronSource) -> list[float]:
    """Seconds, in order, of the ticks that were to be sent after ``since``."""
    plans: dict[str, Plan] = {}
    found = []
    for line in notes.read_text().splitlines():
        path, tick, came = line.split()
        name = path.removeprefix("/cron/")
        plan = plans.setdefault(name, source.plan(name))
        due = time.mktime(time.strptime(tick, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        slot = plan.after(due - 1)
        assert slot is not None
        assert slot.due == due
        if slot.at >= since:
            found.append(float(came) - slot.at)
    return sorted(found)


def bare() -> float:
    """Memory of a hub without triggers, in MB."""
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), "--plain", start=False) as hub,
    ):
        hub.write("t.yaml", trigger("CronTrigger", "t", "none", {"schedule": "0 0 1 1 *"}))
        hub.start()
        time.sleep(SETTLING)
        return hub.resident()


def measure(number: int, source: dict[str, str]) -> tuple[list[float], float, float, float]:
    """Of so many triggers: lateness, milliseconds of CPU a tick, MB of the hub, and seconds until
    all are ready."""
    # Nothing asks for metrics meanwhile: of ten thousand bindings they are a second's work.
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        program("punctual", str(Path(folder, "notes"))) as url,
        # Not beside the notes: a hub looks at what changes where its folder of manifests lies.
        running(Path(folder, "hub"), "--plain", start=False) as hub,
    ):
        hub.write("f.yaml", function("sink", url))
        made = (trigger("CronTrigger", f"t{n}", "sink", source) for n in range(number))
        hub.write("t.yaml", *made)
        began = time.perf_counter()
        hub.start(ready=False)
        hub.wait(hub.ready, "readiness of all", 300)
        ready = time.perf_counter() - began
        time.sleep(SETTLING)
        memory = hub.resident()
        since, used = time.time(), hub.cpu()
        time.sleep(SECONDS)
        used = hub.cpu() - used
        late = lateness(Path(folder, "notes"), since, CronSource.model_validate(source))
        return late, used / max(len(late), 1) * 1000, memory, ready


def _spread(late: list[float]) -> tuple[float, float, float]:
    """Median, 99th percentile and the worst, in milliseconds."""
    return tuple(late[min(len(late) - 1, int(len(late) * part))] * 1000 for part in (0.5, 0.99, 1))  # type: ignore[return-value]


def main() -> list[Row]:
    every = TRIGGERS // RATE
    idle_late, _, memory, ready = measure(TRIGGERS, {"schedule": "0 0 1 1 *"})
    assert not idle_late
    each = (memory - bare()) * 1024 / TRIGGERS
    late, cost, _, _ = measure(TRIGGERS, {"schedule": f"@every {every}s", "jitter": f"{every}s"})
    half, most, worst = _spread(late)
    burst, burst_cost, _, _ = measure(RATE, {"schedule": "* * * * * *"})
    burst_half, burst_most, burst_worst = _spread(burst)
    return [
        Row(f"{TRIGGERS} cron triggers that wait: until all are ready", f"{ready:.1f} s", "", True),
        Row("  memory, each", f"{each:.1f} KB", "", True),
        Row(f"{TRIGGERS} with jitter, {len(late) / SECONDS:.0f} ticks/s: lateness p50, p99, worst",
            f"{half:.0f}, {most:.0f}, {worst:.0f} ms", "p99 <= 100 ms", most <= 100),
        Row("  CPU a tick", f"{cost:.2f} ms", "", True),
        Row(f"{RATE} in the same second, each second: lateness p50, p99, worst",
            f"{burst_half:.0f}, {burst_most:.0f}, {burst_worst:.0f} ms", "p99 <= 100 ms",
            burst_most <= 100),
        Row("  CPU a tick", f"{burst_cost:.2f} ms", "", True),
    ]  # fmt: skip


if __name__ == "__main__":
    for row in main():
        print(row)
