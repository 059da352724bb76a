"""The hub as pods of a real cluster, installed as `deploy/` says.

KUBECONFIG names a cluster with nodes that these tests may change: what `deploy/install` makes is
made, and removed at the end. IMAGE_LOAD is the command that brings an image archive into its
nodes, such as ``kind load image-archive``. How the image is made: integration/image.py.

The last test uninstalls.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from integration.conftest import ROOT
from integration.hub import function, trigger
from integration.image import NAME, image
from integration.kubernetes import Cluster
from integration.kubernetes_programs import kubernetes_programs
from integration.servers import eventually, unavailable
from integration.test_deploy import CHART, Object, helm, script
from tests.markdown import blocks

HOME = "triggerhub"
LOCAL = str(ROOT / "deploy" / "overlays" / "local")
REPLICAS = ("triggerhub-0", "triggerhub-1")
PYTHON = "/opt/triggerhub/bin/python"
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def archive(cluster: Cluster) -> Path:
    """The hub's image, made and loaded."""
    load = os.environ.get("IMAGE_LOAD")
    if not load:
        unavailable("IMAGE_LOAD names no command that loads an image archive into the nodes")
    made = image()
    done = subprocess.run(
        [*shlex.split(load or ""), str(made)], capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="module")
def hub(cluster: Cluster, archive: Path) -> Iterator[Cluster]:
    """A cluster in which the hub is installed: two replicas, ready."""
    with volumes(cluster, HOME, *REPLICAS):
        try:
            done = script(cluster, "install", LOCAL)
            assert done.returncode == 0, done.stdout + done.stderr
            yield cluster
        finally:
            done = script(cluster, "uninstall", "--yes", LOCAL)
            assert done.returncode == 0, done.stderr


@contextmanager
def volumes(cluster: Cluster, namespace: str, *pods: str) -> Iterator[None]:
    """A volume on the node for each replica's claim, where the cluster makes none by itself."""
    classes = json.loads(cluster.kubectl("get", "storageclasses", "-o", "json"))["items"]
    default = "storageclass.kubernetes.io/is-default-class"
    if any((c["metadata"].get("annotations") or {}).get(default) == "true" for c in classes):
        yield
        return
    folder = f"triggerhub-{uuid4().hex[:8]}"
    # The node would make such folders for root, but a hub is somebody else.
    places = " ".join(f"/at/{folder}-{pod}" for pod in pods)
    on_node(cluster, f"mkdir {places} && chown 65532:65532 {places}")
    made: list[Object] = [
        {
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": f"{folder}-{pod}"},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
                "claimRef": {"namespace": namespace, "name": f"data-{pod}"},
                "hostPath": {"path": f"/var/tmp/{folder}-{pod}", "type": "Directory"},
            },
        }
        for pod in pods
    ]  # fmt: skip
    cluster.apply(*made)
    try:
        yield
    finally:
        names = [one["metadata"]["name"] for one in made]
        cluster.kubectl("delete", "persistentvolume", *names, "--timeout=60s")
        on_node(cluster, f"rm -rf {places}")


def on_node(cluster: Cluster, command: str) -> None:
    """As root, with the node's /var/tmp at /at."""
    name = f"on-node-{uuid4().hex[:8]}"
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "volumes": [{"name": "at", "hostPath": {"path": "/var/tmp"}}],
            "containers": [{
                "name": "sh", "image": NAME, "imagePullPolicy": "Never",
                "command": ["sh", "-c", command], "securityContext": {"runAsUser": 0},
                "volumeMounts": [{"name": "at", "mountPath": "/at"}],
            }],
        },
    }  # fmt: skip
    cluster.apply(pod)
    try:
        cluster.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded",
                        "--timeout=60s")  # fmt: skip
    finally:
        cluster.kubectl("delete", "pod", name, "--now")


class Shop:
    """A namespace with a function in pods."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments)

    def apply(self, *objects: Object) -> None:
        self.cluster.apply(*objects, namespace=self.namespace)

    def condition(self, which: str, kind: str = "Ready") -> str:
        """``status reason``."""
        wanted = f'{{range .status.conditions[?(@.type=="{kind}")]}}{{.status}} {{.reason}}{{end}}'
        return self.kubectl("get", which, "-o", f"jsonpath={wanted}")

    def wait(self, which: str, condition: str, within: float = 60.0) -> None:
        eventually(lambda: self.condition(which) == condition, f"{which} {condition}", within)

    def ask(self, pod: str, path: str = "/") -> Any:
        """JSON of a pod's answer, by the API server's proxy."""
        at = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8080/proxy{path}"
        return json.loads(self.kubectl("get", "--raw", at))

    def scale(self, replicas: int) -> None:
        self.kubectl("scale", "deployment/sink", f"--replicas={replicas}")

    def came(self, source: str) -> Counter[str]:
        """How often the function got each event of one trigger, in its present pod."""
        pod = self.kubectl(
            "get", "pods", "-l", "app=sink", "-o", "jsonpath={.items[*].metadata.name}"
        )
        found = self.ask(pod.strip())
        return Counter({name: count for where, name, count in found if where == source})

    def run(self, name: str, *arguments: str) -> None:
        """A pod of integration/in_pods.py."""
        metadata = {"name": name, "labels": {"app": name}}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                    "spec": self.pod(*arguments)})  # fmt: skip
        self.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")

    @staticmethod
    def pod(*arguments: str) -> Object:
        return {
            "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "python", "image": NAME, "imagePullPolicy": "Never",
                "command": [PYTHON, "-u", "/code/in_pods.py", *arguments],
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                "volumeMounts": [{"name": "code", "mountPath": "/code"}],
            }],
            "volumes": [{"name": "code", "configMap": {"name": "code"}}],
        }  # fmt: skip


@pytest.fixture(scope="module")
def shop(hub: Cluster) -> Iterator[Shop]:
    """A function behind a Service, an HTTPTrigger and a CronTrigger that fires each second."""
    name = f"shop-{uuid4().hex[:8]}"
    hub.kubectl("create", "namespace", name)
    shop = Shop(hub, name)
    labels = {"app": "sink"}
    behind = function("sink", "")
    behind["spec"] = {"service": {"name": "sink", "port": "http"}}
    try:
        code = (Path(__file__).parent / "in_pods.py").read_text()
        shop.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"},
             "data": {"in_pods.py": code}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sink"},
             "spec": {"selector": labels,
                      "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "sink"},
             "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
                 "metadata": {"labels": labels}, "spec": Shop.pod("function")}}},
            behind,
            trigger("HTTPTrigger", "web", "sink", {"path": "/orders"}),
            trigger("CronTrigger", "tick", "sink", {"schedule": "* * * * * *"},
                    retry={"initial": "100ms", "max": "1s"}),
        )  # fmt: skip
        shop.wait("httptrigger/web", "True Ready")
        shop.wait("crontrigger/tick", "True Ready")
        yield shop
    finally:
        hub.kubectl("delete", "namespace", name, "--timeout=100s")


def times(ids: Counter[str]) -> list[datetime]:
    return sorted(datetime.fromisoformat(name) for name in ids)


@contextmanager
def load(shop: Shop) -> Iterator[dict[str, Any]]:
    """A client of the hub's Service while the block runs; then what it was told."""
    name = f"client-{uuid4().hex[:8]}"
    shop.run(name, "client", f"triggerhub.{HOME}.svc", "/orders")
    told: dict[str, Any] = {}
    try:
        eventually(lambda: len(shop.ask(name)["accepted"]) > 100, "traffic")
        yield told
        told |= shop.ask(name, "/stop")
        print(f"{len(told['accepted'])} accepted, troubles: {told['troubles']}")
    finally:
        shop.kubectl("delete", "pod", name, "--now")


def nothing_lost(shop: Shop, told: dict[str, Any]) -> None:
    came = shop.came(f"/http/{shop.namespace}/web")
    assert not [name for name in told["accepted"] if name not in came]
    assert told["lost"] == {}, "tried twice in vain"
    final = [trouble for trouble in told["troubles"] if trouble.startswith("4")]
    assert not final, "no client may take a stop for an answer"


def replicas_ready(cluster: Cluster) -> bool:
    wanted = "jsonpath={.status.readyReplicas} {.status.updatedReplicas}"
    found = cluster.kubectl("-n", HOME, "get", "statefulset", "triggerhub", "-o", wanted)
    return found.split() == ["2", "2"]


def test_the_image_is_its_base_and_the_hub(archive: Path) -> None:
    """Nothing of how packages are got here is in it, and nobody in it is root."""
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        about = json.load(tar.extractfile(manifest[0]["Config"]))  # type: ignore[arg-type]
        found: list[str] = []
        for layer in manifest[0]["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(layer)) as files:
                found += [name.removeprefix("./") for name in files.getnames()]
    config = about["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["triggerhub"]
    assert not [e for e in config["Env"] if e.startswith("PIP_") or "proxy" in e.lower()]
    assert "opt/triggerhub/bin/triggerhub" in found
    assert not [name for name in found if name.startswith("src/") or name.endswith("pip.conf")]
    base = os.environ.get("IMAGE_BASE")
    if base is not None:
        others = [name for name in found if not name.startswith("opt/triggerhub")]
        assert not [name for name in others if not os.path.lexists(Path(base) / name)]
        assert "opt/triggerhub/bin/pip" not in found


def test_two_replicas_serve_from_a_read_only_image(hub: Cluster) -> None:
    def inside(*command: str) -> str:
        return hub.kubectl("-n", HOME, "exec", "triggerhub-0", "--", *command)

    assert inside("triggerhub", "--version").startswith("triggerhub 0.")
    connectors = inside("triggerhub", "connectors")
    assert [line.split()[0] for line in connectors.splitlines()[1:]] == [
        "CronTrigger", "HTTPTrigger", "KafkaTrigger", "KinesisTrigger", "NATSTrigger",
    ]  # fmt: skip
    assert inside("id", "-u").strip() == "65532"
    with pytest.raises(AssertionError, match="Read-only file system"):
        inside("touch", "/opt/triggerhub/x")
    assert replicas_ready(hub)


def test_events_flow_through_the_hub_s_service(shop: Shop) -> None:
    with load(shop) as told:
        pass
    assert told["troubles"] == {}
    nothing_lost(shop, told)
    bound = shop.kubectl("get", "httptrigger/web", "-o", "jsonpath={.status.bindings[*].url}")
    assert bound == f"http://sink.{shop.namespace}.svc/"
    table = shop.kubectl("get", "triggerhub")
    print(table)
    for name in ("crontrigger", "httptrigger", "function"):
        assert f"{name}.triggerhub.dev/" in table
    for pod in REPLICAS:
        said = shop.cluster.kubectl("-n", HOME, "exec", pod, "--", "triggerhub", "bindings")
        print(said)
        assert {f"{shop.namespace}/web", f"{shop.namespace}/tick"} <= set(said.split())


def test_each_tick_comes_once_from_two_replicas(shop: Shop) -> None:
    source = f"/cron/{shop.namespace}/tick"
    eventually(lambda: len(shop.came(source)) >= 10, "ten ticks")
    came = shop.came(source)
    assert set(came.values()) == {1}
    found = times(came)
    assert all(b - a == SECOND for a, b in itertools.pairwise(found))


def test_a_pod_deleted_under_load_loses_no_accepted_event(shop: Shop) -> None:
    for pod in REPLICAS:
        with load(shop) as told:
            shop.cluster.kubectl("-n", HOME, "delete", "pod", pod, "--timeout=60s")
            eventually(lambda: replicas_ready(shop.cluster), "two replicas")
        nothing_lost(shop, told)


def test_a_rolling_update_under_load_loses_no_accepted_event(shop: Shop) -> None:
    with load(shop) as told:
        shop.cluster.kubectl("-n", HOME, "rollout", "restart", "statefulset/triggerhub")
        shop.cluster.kubectl("-n", HOME, "rollout", "status", "statefulset/triggerhub",
                             "--timeout=110s")  # fmt: skip
    nothing_lost(shop, told)


def test_a_function_of_no_pods_is_said_and_its_events_wait(shop: Shop) -> None:
    source = f"/cron/{shop.namespace}/tick"
    shop.scale(0)
    shop.wait("crontrigger/tick", "False NoEndpoints", within=20)
    shop.wait("httptrigger/web", "False NoEndpoints", within=5)
    away = datetime.now(UTC)
    time.sleep(5)  # ticks fall due
    back = datetime.now(UTC)
    shop.scale(1)
    shop.kubectl("rollout", "status", "deployment/sink", "--timeout=60s")
    shop.wait("crontrigger/tick", "True Ready")
    shop.wait("httptrigger/web", "True Ready")
    due = {(away + n * SECOND).replace(microsecond=0) for n in range(1, (back - away).seconds)}
    eventually(lambda: due <= set(times(shop.came(source))), f"{len(due)} ticks that waited")


def test_the_first_trigger_of_the_document_does_what_it_says(hub: Cluster, tmp_path: Path) -> None:
    page = [b for b in blocks("yaml", "sh") if b.page == "docs/kubernetes.md"]
    manifests = [b for b in page if b.mark[0] == "write"]
    (typed,) = [b.text for b in page if b.mark == ("run", "pods")]
    for block in manifests:
        (tmp_path / block.mark[1]).write_text(block.text)
    path = f"{kubernetes_programs()}{os.pathsep}{os.environ['PATH']}"
    try:
        done = subprocess.run(
            ["sh", "-eu", "-c", typed], cwd=tmp_path,
            env=os.environ | {"KUBECONFIG": str(hub.kubeconfig), "PATH": path},
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        for said in ("httptrigger.triggerhub.dev/greet", "default/greet", "accepted with 200",
                     "hello bob", "Observed Generation"):  # fmt: skip
            assert said in done.stdout
    finally:
        for block in manifests:
            hub.kubectl("delete", "-f", str(tmp_path / block.mark[1]), "--ignore-not-found")


def test_an_eviction_waits_for_the_other_replica(hub: Cluster) -> None:
    def evict(pod: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": pod, "namespace": HOME}}  # fmt: skip
        at = f"/api/v1/namespaces/{HOME}/pods/{pod}/eviction"
        hub.kubectl("create", "--raw", at, "-f", "-", stdin=json.dumps(body))

    eventually(lambda: replicas_ready(hub), "two replicas")
    evict("triggerhub-0")
    with pytest.raises(AssertionError, match="disruption budget"):
        evict("triggerhub-1")
    eventually(lambda: replicas_ready(hub), "two replicas")


def test_a_release_of_helm_works_beside_it(hub: Cluster) -> None:
    """In a namespace of its own, for that namespace, and its own test passes."""
    where = ("--namespace=blue", f"--kubeconfig={hub.kubeconfig}")
    options = "scope=Namespace,replicas=1,image.tag=local,image.pullPolicy=Never"
    with volumes(hub, "blue", "blue-0"):
        try:
            done = helm("install", "blue", str(CHART), "--create-namespace", "--wait",
                        "--timeout=100s", f"--set={options}", *where)  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert "kubectl -n blue exec blue-0 -- triggerhub bindings" in done.stdout
            done = helm("test", "blue", "--timeout=60s", *where)
            assert done.returncode == 0, done.stdout + done.stderr
            said = hub.kubectl("-n", "blue", "exec", "blue-0", "--", "triggerhub", "bindings")
            assert said.startswith("no triggers")
            done = helm("uninstall", "blue", "--wait", *where)
            assert done.returncode == 0, done.stderr
        finally:
            hub.kubectl("delete", "namespace", "blue", "--ignore-not-found", "--timeout=100s")


def test_uninstall_leaves_nothing(hub: Cluster) -> None:
    done = script(hub, "uninstall", "--yes", LOCAL)
    assert done.returncode == 0, done.stderr
    left = hub.kubectl("get", "-o", "name",
                       "crd,namespaces,clusterroles,clusterrolebindings")  # fmt: skip
    assert "triggerhub" not in left
