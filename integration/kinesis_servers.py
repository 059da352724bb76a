"""Kinesis endpoints on loopback: an emulator of its API, and a second one for what that lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from integration.servers import (
    Listening,
    Server,
    cached,
    free_port,
    get_now,
    needs,
    say,
    unavailable,
)

KINESIS_LOCAL = "0.6.2"
MOTO = "5.2.5"
REGION = "us-east-1"
KEY_ID, SECRET = "integration", "of-no-account"

# The emulator would listen on all addresses. Node reads this before the program.
_LOOPBACK = """\
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (options, ...rest) {
  if (typeof options === "number") options = { port: options };
  if (options && typeof options === "object") options = { ...options, host: "127.0.0.1" };
  return listen.call(this, options, ...rest.filter((each) => typeof each === "function"));
};
"""


class _Endpoint(Listening):
    """One, of which nothing is left when it ends."""

    def __init__(self, name: str, command: list[str], folder: Path, port: int) -> None:
        self.port = port
        self._server = Server(name, command, folder)

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"


class Kinesis(_Endpoint):
    """kinesis-local: shards with parents, splits and merges, as AWS has them; it knows neither
    limits nor retention, and believes every signature."""

    def __init__(self, folder: Path, *, takes: str = "100ms") -> None:
        """``takes``: how long a stream is CREATING, DELETING or UPDATING."""
        program = kinesis_local()
        (folder / "loopback.js").write_text(_LOOPBACK)
        port = free_port()
        settings = {
            "KINESIS_MOCK_PLAIN_PORT": str(port),
            "KINESIS_MOCK_TLS_PORT": str(free_port()),
            "KINESIS_MOCK_CERT_PATH": str(program / "server.json"),
            "AWS_REGION": REGION,
            "SHARD_LIMIT": "100000",
            "LOG_LEVEL": "ERROR",
            **{
                f"{what}_DURATION": takes
                for what in ("CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS",
                             "UPDATE_SHARD_COUNT", "REGISTER_STREAM_CONSUMER")
            },
        }  # fmt: skip
        command = [
            "env", *(f"{name}={value}" for name, value in settings.items()),
            "node", "-r", str(folder / "loopback.js"), str(program / "main.js"),
        ]  # fmt: skip
        super().__init__("kinesis", command, folder, port)


class Moto(_Endpoint):
    """moto's server: STS and IAM beside Kinesis. A closed shard of its never ends."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        command = [
            "env", f"PYTHONPATH={moto()}",
            sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port),
        ]  # fmt: skip
        super().__init__("moto", command, folder, port)


def kinesis_local() -> Path:
    """Where the emulator is."""
    needs("node", "npm")
    package = cached(f"kinesis-local-{KINESIS_LOCAL}", _fetch_kinesis)
    return package / "node_modules" / "kinesis-local"


def moto() -> Path:
    """Where moto and what it needs are."""
    return cached(f"moto-{MOTO}", _fetch_moto)


def _fetch_kinesis(folder: Path) -> None:
    manifest = {"private": True, "dependencies": {"kinesis-local": KINESIS_LOCAL}}
    (folder / "package.json").write_text(json.dumps(manifest))
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    _fetch(f"kinesis-local {KINESIS_LOCAL}", ["npm", "install", *options], folder)


def _fetch_moto(folder: Path) -> None:
    # In a folder of its own: it wants versions that the hub's client does not.
    packages = [f"moto[kinesis,sts,iam]=={MOTO}", "flask", "flask-cors"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _fetch(f"moto {MOTO}", [*pip, "--target", str(folder), *packages], folder)


def _fetch(name: str, command: list[str], folder: Path) -> None:
    say("kinesis", f"fetching {name}")
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=600, check=False)
    if done.returncode != 0:
        unavailable(f"cannot get {name}: {done.stderr.decode()[-1500:]}")


if __name__ == "__main__":
    get_now("kinesis", kinesis_local)
    get_now("moto", moto)
