"""nats-servers on loopback, of today and of before 2.10; run as a module, it gets both programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from integration.golang import built
from integration.servers import Listening, Server, free_port, get_now

NATS = "2.15.2"
OLD_NATS = "2.9.25"
_PACKAGE = "github.com/nats-io/nats-server/v2"
_GO = "Go builds nats-server, once: install Go 1.21 or newer"


class Nats(Listening):
    """A single nats-server with JetStream, as ``settings`` (its configuration language) add."""

    def __init__(
        self, folder: Path, settings: str = "", *, jetstream: bool = True, old: bool = False
    ) -> None:
        """``old``: of before 2.10."""
        program = old_nats_server() if old else nats_server()
        self.port = free_port()
        self.monitor = free_port()
        """Of its HTTP monitoring."""
        self._configuration = folder / "nats.conf"
        self._store = f'jetstream {{ store_dir: "{folder / "jetstream"}" }}' if jetstream else ""
        self.configure(settings)
        self._server = Server("nats", [str(program), "-c", str(self._configuration)], folder)

    @property
    def server(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    def configure(self, settings: str) -> None:
        """Settings that hold from the next start."""
        self._configuration.write_text(
            f"host: 127.0.0.1\nport: {self.port}\nhttp: 127.0.0.1:{self.monitor}\n"
            f"{self._store}\n{settings}\n"
        )


def nats_server() -> Path:
    """The program of today, built from source; where Go is missing, of 2.10 or newer."""
    found = _on_path()
    if found is not None and not _is_old(found) and shutil.which("go") is None:
        return found
    return _built(NATS)


def old_nats_server() -> Path:
    """One of before 2.10: what is on the PATH, else built from source."""
    found = _on_path()
    return found if found is not None and _is_old(found) else _built(OLD_NATS)


def _on_path() -> Path | None:
    found = shutil.which("nats-server")
    return None if found is None else Path(found)


def _is_old(program: Path) -> bool:
    said = subprocess.run(
        [program, "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    found = re.search(r"v2\.([0-9]+)\.", said)
    assert found, f"{program} --version says {said!r}"
    return int(found[1]) < 10


def _built(version: str) -> Path:
    return built("nats-server", _PACKAGE, version, takes="half a minute", hint=_GO)


if __name__ == "__main__":
    get_now("nats-server", nats_server)
    get_now("nats-server", old_nats_server)
