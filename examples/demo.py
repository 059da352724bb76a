"""`make demo`: runs examples/quickstart on a real hub and drives it for a moment.

    python examples/demo.py [--once]

Works on a copy in .triggerhub/demo, so that it can mend the function's bug while the hub runs.
With --once, or where the output is no terminal, it ends after the story; else on Ctrl-C.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

HERE = Path(__file__).parent
PLACE = Path(".triggerhub/demo")
say = Console(highlight=False, soft_wrap=True)


class Demo:
    """A hub on a copy of the quickstart, and what is told of it."""

    def __init__(self) -> None:
        shutil.rmtree(PLACE, ignore_errors=True)
        shutil.copytree(HERE / "quickstart", PLACE / "manifests")
        self.listen = _address(8080)
        self.admin = _address(9090)
        self.log = (PLACE / "hub.log").open("wb")
        self.hub = subprocess.Popen(
            [sys.executable, "-m", "triggerhub", "run", "-f", str(PLACE / "manifests"),
             "--data", str(PLACE / "data"), "--listen", self.listen, "--admin", self.admin],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def story(self) -> None:
        began = time.monotonic()
        step("A hub on a folder of manifests: two functions, an HTTP and a cron trigger")
        command(f"triggerhub run -f {PLACE / 'manifests'}")
        self.until(self.ready, "the hub to be ready")
        say.print(f"  ready after {time.monotonic() - began:.1f} s; its log is {PLACE / 'hub.log'}")

        step("An HTTP trigger carries a request to its function, and the answer back")
        url = f"http://{self.listen}/hello?name=you"
        command(f"curl '{url}'")
        with urllib.request.urlopen(url, timeout=10) as answer:
            say.print(f"  {answer.read().decode()}")

        step("The cron trigger fires every two seconds. Its function has hiccups, and a bug")
        say.print("  waiting for both (20 s at most) ...", style="dim")
        self.until(lambda: bool(self.letters()), "a dead letter")
        self.triggerhub("bindings")

        step("The bug: some events are rejected. They are not lost, they are dead letters")
        self.triggerhub("dlq", "list")
        letter = self.letters()[0]

        step("Why? The story of one event")
        self.triggerhub("why", letter["event"]["id"])

        step("Mend the function while the hub runs: the new version takes over when it is ready")
        report = PLACE / "manifests" / "report.py"
        before = self.report()["url"]
        report.write_text(report.read_text().replace("second % 10 == 8", "second == 61"))
        command(f"sed -i 's/second % 10 == 8/second == 61/' {report}")
        self.until(lambda: self.report()["url"] != before, "the new version")

        step("Send the dead letters again, along the same binding")
        self.triggerhub("dlq", "redrive", "--all")
        self.triggerhub("dlq", "list")

    def next_things(self) -> None:
        admin = "" if self.admin.endswith(":9090") else f" --admin {self.admin}"
        step("Now you, in another terminal (the hub goes on until Ctrl-C here)")
        for line in (
            f"curl 'http://{self.listen}/hello?name=ann'",
            f".venv/bin/triggerhub bindings{admin}",
            f".venv/bin/triggerhub emit hello --data '{{}}'{admin}",
            f"$EDITOR {PLACE}/manifests/report.py     # break it, and watch the dead letters",
            ".venv/bin/triggerhub run --help           # your own manifests: README.md",
        ):
            say.print(f"  {line}")

    def triggerhub(self, *arguments: str) -> None:
        """Run a command of the CLI, shown as one would type it."""
        command("triggerhub " + " ".join(arguments))
        ended = subprocess.run(
            [sys.executable, "-m", "triggerhub", *arguments, "--admin", self.admin],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        for line in (ended.stdout + ended.stderr).rstrip().splitlines():
            say.print(f"  {line}", markup=False)

    def ready(self) -> bool:
        try:
            return bool(self.get("/readyz") is not None)
        except OSError:
            return False

    def report(self) -> dict[str, Any]:
        """How the function `report` stands; each version has a process, and a URL, of its own."""
        functions = self.get("/v1/functions")["functions"]
        return next(f for f in functions if f["name"] == "report")

    def letters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/v1/dead-letters")["deadLetters"]
        return found

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text.startswith((b"{", b"[")) else text

    def until(self, holds: Callable[[], bool], what: str, within: float = 40.0) -> None:
        end = time.monotonic() + within
        while not holds():
            if self.hub.poll() is not None or time.monotonic() > end:
                say.print(f"waited in vain for {what}; the log says:", style="red")
                say.print((PLACE / "hub.log").read_text()[-2000:], markup=False)
                raise SystemExit(1)
            time.sleep(0.05)

    def stop(self) -> None:
        """The hub drains and ends; exit code 0 unless something is wrong."""
        if self.hub.poll() is None:
            self.hub.send_signal(signal.SIGTERM)
        self.hub.wait(30)
        self.log.close()


def step(text: str) -> None:
    say.print()
    say.print(text, style="bold")


def command(text: str) -> None:
    say.print(f"$ {text}", style="cyan", markup=False)


def _address(port: int) -> str:
    """The usual port, or a free one where it is taken."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def main() -> None:
    once = "--once" in sys.argv[1:] or not sys.stdout.isatty()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demo = Demo()
    try:
        demo.story()
        if not once:
            demo.next_things()
            while demo.hub.poll() is None:
                time.sleep(0.2)
    except KeyboardInterrupt:
        say.print("\nstopping ...", style="dim")
    finally:
        demo.stop()
    say.print(f"the hub has stopped (exit code {demo.hub.returncode})", style="dim")


if __name__ == "__main__":
    main()
