"""Ten thousand triggers and a thousand functions in a real API server."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.measure import Row
from bench.start import cron
from integration.hub import Hub, function, running
from integration.kubernetes import ApiServer

TRIGGERS = 10_000
FUNCTIONS = 1_000
NAMESPACE = "bench"
API = f"/apis/triggerhub.dev/v1alpha1/namespaces/{NAMESPACE}"
IDLE = 60.0


def fill(server: ApiServer) -> None:
    """Make the objects."""
    server.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    functions = [function(f"f{n}", "http://127.0.0.1:9/") for n in range(FUNCTIONS)]
    triggers = [cron(n) for n in range(TRIGGERS)]
    for n, one in enumerate(triggers):
        one["spec"]["function"]["name"] = f"f{n % FUNCTIONS}"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda body: server.request("POST", f"{API}/functions", body), functions))
        list(pool.map(lambda body: server.request("POST", f"{API}/crontriggers", body), triggers))


def reason(server: ApiServer, name: str) -> str:
    """Why a trigger is as it is, as far as the present generation is concerned."""
    found: Any = server.request("GET", f"{API}/crontriggers/{name}")
    status = found.get("status") or {}
    if status.get("observedGeneration") != found["metadata"]["generation"]:
        return ""
    return str(next(c["reason"] for c in status["conditions"] if c["type"] == "Ready"))


def effect(server: ApiServer, hub: Hub, name: str) -> float:
    """Seconds from a change of one trigger to its status in the API server."""
    began = time.perf_counter()
    server.request("PATCH", f"{API}/crontriggers/{name}", {"spec": {"paused": True}})
    hub.wait(lambda: reason(server, name) == "Paused", "effect")
    return time.perf_counter() - began


def listed(hub: Hub) -> int:
    """How many bindings the hub has that listen."""
    return int(hub.metric("triggerhub_bindings", state="Ready"))


def measure(server: ApiServer) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder,
        running(Path(folder), start=False, kubeconfig=server.kubeconfig) as hub,
    ):
        began = time.perf_counter()
        hub.start(ready=False)
        hub.wait(hub.ready, "readiness", 120)
        ready = time.perf_counter() - began
        assert listed(hub) == TRIGGERS
        hub.wait(lambda: reason(server, f"c{TRIGGERS - 1}") == "Ready", "the last status", 300)
        hub.wait(lambda: quiet(server), "every status", 300)
        written = time.perf_counter() - began
        used = hub.cpu()
        time.sleep(IDLE)
        idle = (hub.cpu() - used) / IDLE * 100
        effects = [effect(server, hub, f"c{n}") for n in range(0, TRIGGERS, TRIGGERS // 20)]
        median = statistics.median(effects)
        memory = hub.resident()
    return [
        Row("10 000 triggers, 1 000 functions: start to ready", f"{ready:.1f} s", "<= 15 s",
            ready <= 15),
        Row("  until every status was written", f"{written:.0f} s", "", True),
        Row("  resident memory", f"{memory:.0f} MB", "<= 300 MB", memory <= 300),
        Row("  idle, over a minute", f"{idle:.1f} % of a core", "<= 2 %", idle <= 2),
        Row("  one change to its status, median of 20",
            f"{median:.2f} s (slowest {max(effects):.2f})", "<= 0.5 s", median <= 0.5),
    ]  # fmt: skip


def quiet(server: ApiServer) -> bool:
    """Every trigger has a status."""
    found = json.loads(server.kubectl("get", "crontriggers", "-n", NAMESPACE, "-o", "json"))
    return all("status" in item for item in found["items"])


def main() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="triggerhub-bench-") as folder:
        server = ApiServer(Path(folder))
        try:
            server.start()
            for path in sorted(Path("crds").glob("*.yaml")):
                server.kubectl("apply", "-f", str(path))
            fill(server)
            return measure(server)
        finally:
            server.stop()


if __name__ == "__main__":
    for row in main():
        print(row)
