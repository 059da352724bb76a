"""Real servers, one of each for the session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from integration import nats_tools as tools
from integration.kinesis_servers import Kinesis, Moto
from integration.kubernetes import ApiServer, Cluster
from integration.nats_servers import Nats
from integration.room import Room
from integration.servers import Kafka

ROOT = Path(__file__).parents[1]
CRDS = ROOT / "crds"
_RIGHTS = {"Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole",
           "ClusterRoleBinding"}  # fmt: skip


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Apache Kafka, started."""
    with Kafka(tmp_path_factory.mktemp("kafka")).started() as server:
        yield server


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """nats-server with JetStream, started."""
    with Nats(tmp_path_factory.mktemp("nats")).started() as server:
        yield server


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker of the test's own, started, that it may kill."""
    with Kafka(tmp_path_factory.mktemp("kafka")).started() as server:
        yield server


@pytest.fixture
def own_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A server of the test's own, started, that it may kill."""
    with Nats(tmp_path_factory.mktemp("nats")).started() as server:
        yield server


@pytest.fixture(scope="session")
def kinesis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinesis]:
    """A Kinesis endpoint, started."""
    with Kinesis(tmp_path_factory.mktemp("kinesis")).started() as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """Another one, with STS, started."""
    with Moto(tmp_path_factory.mktemp("moto")).started() as server:
        yield server


@pytest.fixture
def url(nats: Nats) -> Iterator[str]:
    """Of a store of the test's own, in NATS."""
    prefix = f"t{uuid4().hex[:8]}"
    yield f"nats://{nats.server}?prefix={prefix}&deadLetters=64Mi&inbox=64Mi"
    with ThreadPoolExecutor(1) as thread:  # a loop may run in this one
        thread.submit(asyncio.run, tools.delete_streams(nats.server, f"{prefix}-")).result()


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A Kubernetes API server without nodes, started; it knows our kinds."""
    server = ApiServer(tmp_path_factory.mktemp("kubernetes"))
    try:
        server.start()
        server.kubectl("apply", "-f", str(CRDS))
        server.kubectl("wait", "--for=condition=Established", "-f", str(CRDS), "--timeout=30s")
        yield server
    finally:
        server.stop()


@pytest.fixture
def namespace(apiserver: ApiServer) -> Iterator[str]:
    """One of the test's own; what is in it goes afterwards."""
    name = f"it-{uuid4().hex[:8]}"
    apiserver.kubectl("create", "namespace", name)
    yield name
    apiserver.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="session")
def account(apiserver: ApiServer) -> Path:
    """A kubeconfig with the rights of a hub that was installed by `deploy/install`."""
    rendered = yaml.safe_load_all(apiserver.kubectl("kustomize", str(ROOT / "deploy" / "base")))
    apiserver.apply(*(m for m in rendered if m["kind"] in _RIGHTS), namespace="triggerhub")
    return apiserver.service_account("triggerhub", "triggerhub")


@pytest.fixture
def room(apiserver: ApiServer, namespace: str, account: Path) -> Room:
    """A namespace, and the rights of a hub."""
    return Room(apiserver, namespace, account)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A cluster in which pods run."""
    return Cluster.named(tmp_path_factory.mktemp("cluster"))
