"""A real hub as a child process, for end-to-end stories and benchmarks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from integration.servers import ends_with_us, free_port

API = "triggerhub.dev/v1alpha1"
_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE = re.compile(r"^triggerhub_(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(slots=True)
class Account:
    """What one binding took in, and what became of it."""

    received: int = 0
    in_flight: int = 0
    settled: dict[str, int] = field(default_factory=dict)
    """By outcome: accepted, filtered, dead, dropped, given_back."""


class Hub:
    """`triggerhub run`, with addresses and data of its own: on a folder of manifests, or on the
    API server that a kubeconfig names."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        env: dict[str, str] | None = None,
        kubeconfig: Path | None = None,
    ) -> None:
        self.manifests = folder / "manifests"
        self.data = folder / "data"
        self.log = folder / "hub.log"
        self.manifests.mkdir(parents=True, exist_ok=True)
        self.listen = f"127.0.0.1:{free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"
        self._source = (
            ["-f", str(self.manifests)] if kubeconfig is None else ["--kubeconfig", str(kubeconfig)]
        )
        self._options = options
        self._env = os.environ | (env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, ready: bool = True) -> None:
        """Start it, and wait until it says that it is ready (bounded)."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*ends_with_us(), sys.executable, "-m", "triggerhub", "run", *self._source,
                 "--data", str(self.data), "--listen", self.listen, "--admin", self.admin,
                 *self._options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env,
            )  # fmt: skip
        if ready:
            self.wait(self.ready, "readiness")

    def stop(self, within: float = 40.0) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise

    def kill9(self) -> None:
        """The machine goes away."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def exit_code(self, within: float = 20.0) -> int:
        """Wait until it has ended by itself."""
        assert self._process is not None
        return self._process.wait(within)

    def write(self, name: str, *documents: dict[str, Any]) -> Path:
        """Write manifests (JSON is YAML) into one file, atomically."""
        path = self.manifests / name
        text = "\n---\n".join(json.dumps(document) for document in documents)
        temporary = path.with_name(f".{name}.tmp")
        temporary.write_text(text)
        temporary.replace(path)
        return path

    def delete(self, name: str) -> None:
        """Remove a manifest file."""
        (self.manifests / name).unlink()

    def get(self, path: str) -> Any:
        """JSON of the admin API; raises OSError while nothing answers."""
        return json.loads(self.request("GET", path)[1])

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of the admin API's answer."""
        request = urllib.request.Request(
            f"http://{self.admin}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def ready(self) -> bool:
        """What /readyz says; False while nothing answers."""
        try:
            return self.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name which bear those labels."""
        text = self.request("GET", "/metrics")[1].decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def accounts(self) -> dict[str, Account]:
        """Every binding's events by its name, all from one scrape."""
        text = self.request("GET", "/metrics")[1].decode()
        found: dict[str, Account] = {}
        for name, labels, value in _SAMPLE.findall(text):
            own = dict(_LABEL.findall(labels))
            if "function" not in own:
                continue
            binding = f"{own['namespace']}.{own['trigger']}.{own['function']}"
            account = found.setdefault(binding, Account())
            if name == "events_received_total":
                account.received = int(value)
            elif name == "in_flight":
                account.in_flight = int(value)
            elif name == "events_settled_total":
                account.settled[own["outcome"]] = int(value)
        return {name: account for name, account in found.items() if account.settled}

    def settled(self, outcome: str = "accepted") -> float:
        """How many events ended so, over all bindings."""
        return self.metric("triggerhub_events_settled_total", outcome=outcome)

    def conditions(self, trigger: str) -> dict[str, dict[str, Any]]:
        """A trigger's conditions by type; empty while it is not known."""
        for item in self.get("/v1/triggers")["triggers"]:
            if item["name"] == trigger:
                return {c["type"]: c for c in item["conditions"]}
        return {}

    def condition(self, trigger: str, kind: str = "Ready") -> str:
        """``status reason`` of one condition; empty while the trigger is not known."""
        condition = self.conditions(trigger).get(kind)
        return "" if condition is None else f"{condition['status']} {condition['reason']}"

    def letters(self, **selection: str) -> list[dict[str, Any]]:
        """Dead letters, oldest first, whole."""
        query = urllib.parse.urlencode(selection)
        found = self.get(f"/v1/dead-letters?{query}")["deadLetters"]
        return [self.get(f"/v1/dead-letters/{letter['id']}") for letter in found]

    def emit(self, trigger: str, **event: Any) -> dict[str, Any]:
        """A test event through a trigger's binding; what became of it so far."""
        status, body = self.request("POST", f"/v1/bindings/{trigger}/emit", event)
        assert status < 400, body
        answer: dict[str, Any] = json.loads(body)
        return answer

    def said(self) -> str:
        """All that it wrote to stdout and stderr."""
        return self.log.read_text(errors="replace")

    def wait(self, holds: Callable[[], bool], what: str, within: float = 60.0) -> None:
        """Wait for a condition, bounded; fails with the end of the hub's log."""
        end = time.monotonic() + within
        while not holds():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"no {what} within {within} s{self._evidence()}")
            time.sleep(0.02)

    def _evidence(self) -> str:
        log = f"; the hub's log:\n{self.said()[-3000:]}"
        try:
            return f"; the triggers: {json.dumps(self.get('/v1/triggers'), indent=1)}{log}"
        except OSError:
            return log

    def cpu(self) -> float:
        """CPU seconds that the process has used so far (children apart)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident(self) -> float:
        """Resident memory in MB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")


@contextmanager
def running(
    folder: Path,
    *options: str,
    start: bool = True,
    env: dict[str, str] | None = None,
    kubeconfig: Path | None = None,
) -> Iterator[Hub]:
    """A hub that is ended with the block, whatever happens."""
    hub = Hub(folder, *options, env=env, kubeconfig=kubeconfig)
    try:
        if start:
            hub.start()
        yield hub
    finally:
        if hub._process is not None and hub._process.poll() is None:
            hub.kill9()


def function(name: str, url: str, **more: Any) -> dict[str, Any]:
    """A Function manifest."""
    return {
        "apiVersion": API, "kind": "Function", "metadata": {"name": name} | more,
        "spec": {"url": url},
    }  # fmt: skip


def trigger(
    kind: str, name: str, function: str, source: dict[str, Any], **delivery: Any
) -> dict[str, Any]:
    """A trigger manifest."""
    return {
        "apiVersion": API, "kind": kind, "metadata": {"name": name},
        "spec": {"function": {"name": function}, "source": source, "delivery": delivery},
    }  # fmt: skip
