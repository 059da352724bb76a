"""Gets and starts the real servers that the integration tests speak to.

What a server needs is fetched once by its package manager's ordinary client into the user's cache
folder, keyed by version. A server runs on free loopback ports with a data folder of its own, and
ends with the test session: by its process group, which is its own.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from integration.issuer import Issuer

KAFKA = "4.1.0"

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.triggerhub</groupId>
  <artifactId>integration-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{version}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-nop</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=CONTROLLER://127.0.0.1:{controller},{listeners}
advertised.listeners={advertised}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocols}
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={broker_pem}
ssl.truststore.type=PEM
ssl.truststore.location={ca_pem}
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.scramonly.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scramonly.scram-sha-512.connections.max.reauth.ms=3000
{logins}
listener.name.bearer.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.bearer.oauthbearer.connections.max.reauth.ms=3000
listener.name.bearer.oauthbearer.sasl.server.callback.handler.class={validator}
listener.name.bearer.sasl.oauthbearer.jwt.validator.class={broker_validator}
listener.name.bearer.sasl.oauthbearer.jwks.endpoint.url=file://{keys}
listener.name.bearer.sasl.oauthbearer.expected.issuer={issuer}
listener.name.bearer.sasl.oauthbearer.expected.audience={audience}
log.dirs={disks}
metadata.log.dir={metadata}
num.partitions=1
auto.create.topics.enable=true
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
message.max.bytes=20971520
log.retention.hours=-1
log.cleaner.backoff.ms=200
"""
_LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "LOGIN": "SASL_PLAINTEXT",
    "LOGINTLS": "SASL_SSL",
    "SCRAMONLY": "SASL_PLAINTEXT",
    "BEARER": "SASL_SSL",
}
# Kafka 4.1.0 checks no signature unless its validator is named.
_OAUTH = "org.apache.kafka.common.security.oauthbearer"
_MODULES = {
    "plain": "org.apache.kafka.common.security.plain.PlainLoginModule required {users};",
    "scram-sha-256": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "scram-sha-512": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "oauthbearer": f"{_OAUTH}.OAuthBearerLoginModule required;",
}


def unavailable(reason: str) -> None:
    """Skip the test, with the reason; where ``CI=true``, fail it: there every server must be."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def needs(*programs: str) -> None:
    """Skip or fail unless every program is on the PATH."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        unavailable(f"not installed: {', '.join(missing)}")


def free_port() -> int:
    """A loopback port that was free a moment ago; none is given twice."""
    for port in _ports:
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


def _own_ports() -> Iterator[int]:
    """Of this process among those of one test session, in any order. Not of those that the kernel
    gives to connections: they would take the place of a server that is down for a while."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(10_000 + number % 16, 32_768, 16)
    return iter(secrets.SystemRandom().sample(own, len(own)))


_ports = _own_ports()


def cache() -> Path:
    """The folder ``triggerhub`` of the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triggerhub"


def cached(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder ``triggerhub/<name>`` of the user's cache; ``fill`` makes it where it is not.

    It appears whole or not at all, also when two processes fill it at once.
    """
    root = cache()
    folder = root / name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        fill(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def get_now(name: str, get: Callable[[], Path]) -> None:
    """For a module that gets a program, run as one: prints where it is, or why it is missing."""
    try:
        print(get())
    except pytest.skip.Exception as missing:
        say(name, f"{missing.msg}; the tests that need it are skipped")
    except pytest.fail.Exception as missing:
        sys.exit(str(missing.msg))


def say(name: str, line: str) -> None:
    """What takes so long."""
    print(f"{name}: {line} ...", file=sys.stderr, flush=True)


def eventually(holds: Callable[[], bool], what: str, within: float = 60.0) -> None:
    """Wait for a fact, bounded in time (seconds)."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {within} s"
        time.sleep(0.1)


def ends_with_us() -> list[str]:
    """What stands before a command so that it ends when this process does, however that ends. Of
    what another thread than the main one starts, it would end with that thread: then nothing."""
    if threading.current_thread() is not threading.main_thread() or not shutil.which("setpriv"):
        return []
    return ["setpriv", "--pdeathsig", "KILL"]


class Server:
    """A process group that we started, and its log."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self._command = list(command)
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool], within: float = 60.0) -> None:
        """Start, and wait until ``ready()``. Fails the test after ``within`` seconds."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*ends_with_us(), *self._command],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + within
        while not ready():
            if self._process.poll() is not None:
                pytest.fail(f"{self.name} ended with {self._process.returncode}: {self._tail()}")
            if time.monotonic() > deadline:
                self.kill9()
                pytest.fail(f"{self.name} was not ready within {within} s: {self._tail()}")
            time.sleep(0.1)

    def running(self) -> bool:
        """False: it was stopped, or ended by itself."""
        return self._process is not None and self._process.poll() is None

    def stop(self, within: float = 10.0) -> None:
        """SIGTERM, then SIGKILL."""
        self._signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(within)
            except subprocess.TimeoutExpired:
                self.kill9()
        self._process = None

    def kill9(self) -> None:
        """SIGKILL, and wait for the end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


class Listening:
    """A server that is ready when it takes connections at ``port``."""

    port: int
    _server: Server

    def start(self) -> None:
        """Start, on the same port and data as before, and wait until it takes connections."""
        self._server.start(self._listening)

    @contextmanager
    def started(self) -> Iterator[Self]:
        """It runs while the block does, whatever became of it there at the end."""
        try:
            self.start()
            yield self
        finally:
            self.resume()
            self.stop()

    def stop(self) -> None:
        self._server.stop()

    def kill9(self) -> None:
        self._server.kill9()

    def pause(self) -> None:
        self._server.pause()

    def resume(self) -> None:
        self._server.resume()

    def _listening(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Kafka(Listening):
    """A single Apache Kafka node in KRaft mode. It creates topics on its own, as Kafka does by
    default. Beside its plain listener it has others, with TLS, with login, with both."""

    USER = "orders"
    PASSWORD = "at-the-beginning"

    def __init__(
        self, folder: Path, *, proxied: int | None = None, disks: Sequence[Path] = ()
    ) -> None:
        """``proxied``: the port of a proxy in front of a further listener, PROXIED, which says of
        itself that it is there. ``disks``: folders for the records; default one in ``folder``."""
        self._proxied = proxied
        self._disks = list(disks) or [folder / "data"]
        self._listeners = _LISTENERS | ({} if proxied is None else {"PROXIED": "PLAINTEXT"})
        self._ports = {listener: free_port() for listener in self._listeners}
        self.port = self._ports["PLAINTEXT"]
        self._libs = kafka_libraries()
        self.authority = trustme.CA()
        """Has signed the broker's certificate, which is for 127.0.0.1 alone."""
        (folder / "ca.pem").write_bytes(self.authority.cert_pem.bytes())
        broker = self.authority.issue_cert("127.0.0.1")
        certificates = [pem.bytes() for pem in broker.cert_chain_pems]
        (folder / "broker.pem").write_bytes(b"".join((pkcs8(broker), *certificates)))
        self.issuer = Issuer()
        """Of the tokens that the broker takes."""
        self.issuer.write_keys(folder / "keys.json")
        properties = folder / "server.properties"
        properties.write_text(self._properties(folder))
        users = [
            argument
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in (
                "--add-scram", f"{mechanism}=[name={self.USER},password={self.PASSWORD}]"
            )
        ]  # fmt: skip
        cluster = ("-t", "dHJpZ2dlcmh1YnRlc3RzAA")
        self._java("kafka.tools.StorageTool", "format", *cluster, "-c", str(properties), *users)
        self._server = Server(
            "kafka",
            [
                *("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{folder}/keys.json",
                *("-cp", f"{self._libs}/*", "kafka.Kafka", str(properties)),
            ],
            folder,
        )

    @property
    def broker(self) -> str:
        """``host:port`` of the plain listener."""
        return f"127.0.0.1:{self.port}"

    def at(self, listener: str) -> str:
        """``host:port`` of another: TLS, MUTUAL (wants a client's certificate), LOGIN, LOGINTLS,
        SCRAMONLY (no other mechanism than SCRAM-SHA-512, anew every three seconds), BEARER (TLS,
        no other mechanism than OAUTHBEARER, anew every three seconds), PROXIED."""
        return f"127.0.0.1:{self._ports[listener]}"

    def set_password(self, password: str) -> None:
        """Of the user, for SCRAM-SHA-512."""
        self._java(
            "kafka.admin.ConfigCommand", "--bootstrap-server", self.broker, "--alter",
            "--entity-type", "users", "--entity-name", self.USER,
            "--add-config", f"SCRAM-SHA-512=[password={password}]",
        )  # fmt: skip

    def running(self) -> bool:
        """False: it was stopped, or ended by itself."""
        return self._server.running()

    def _properties(self, folder: Path) -> str:
        users = f'user_{self.USER}="{self.PASSWORD}"'
        advertised = self._ports | ({} if self._proxied is None else {"PROXIED": self._proxied})
        return _PROPERTIES.format(
            controller=free_port(),
            disks=",".join(map(str, self._disks)),
            metadata=folder / "metadata",
            advertised=_addresses(advertised),
            broker_pem=folder / "broker.pem",
            ca_pem=folder / "ca.pem",
            validator=f"{_OAUTH}.OAuthBearerValidatorCallbackHandler",
            keys=folder / "keys.json",
            broker_validator=f"{_OAUTH}.BrokerJwtValidator",
            issuer=Issuer.NAME,
            audience=Issuer.AUDIENCE,
            listeners=_addresses(self._ports),
            protocols=",".join(":".join(pair) for pair in self._listeners.items()),
            logins="\n".join(
                f"listener.name.{name.lower()}.{mechanism}.sasl.jaas.config="
                + module.format(users=users)
                for name, protocol in _LISTENERS.items()
                if protocol.startswith("SASL_")
                for mechanism, module in _MODULES.items()
            ),
        )

    def _java(self, main: str, *arguments: str) -> None:
        done = subprocess.run(
            ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{self._libs}/*", main, *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{main} {arguments[0]}: {done.stdout.decode()[-3000:]}")


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def pkcs8(certificate: trustme.LeafCert) -> bytes:
    """Its private key, in the form that Java reads."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def kafka_libraries() -> Path:
    """The folder with Apache Kafka's jars. Skips where they cannot be had or run."""
    needs("java", "mvn")
    return cached(f"kafka-{KAFKA}", _fetch_kafka)


def _fetch_kafka(folder: Path) -> None:
    pom = folder / "pom.xml"
    pom.write_text(_POM.format(version=KAFKA))
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={folder}"], capture_output=True, timeout=600, check=False
    )
    if done.returncode != 0:
        unavailable(f"Maven cannot get Apache Kafka {KAFKA}: {done.stdout.decode()[-1500:]}")


if __name__ == "__main__":
    get_now("kafka", kafka_libraries)
