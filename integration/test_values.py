"""Secrets and ConfigMaps by reference, from a folder and from a real API server."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.function import Function, answering
from integration.hub import Hub, function, running, trigger
from integration.kubernetes import ApiServer
from integration.room import rights
from tests.plugins import triggerhub_echo
from triggerhub.control.crds import crd
from triggerhub.control.plugins import Kind

CANARY = "hunter2"
READ = ["get", "list", "watch"]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a hub in which the plugin is installed."""
    folder = tmp_path_factory.mktemp("plugin")
    info = folder / "triggerhub_echo-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: triggerhub-echo\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[triggerhub.connectors]\nEchoTrigger = triggerhub_echo:EchoConnector\n"
    )
    source = Path(triggerhub_echo.__file__)
    (folder / source.name).write_text(source.read_text())
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(part for part in path if part)}


@pytest.fixture(scope="module")
def echo(apiserver: ApiServer) -> Iterator[None]:
    """The API server knows the plugin's kind."""
    kind = Kind("EchoTrigger", lambda: triggerhub_echo.EchoConnector)
    body = json.dumps(crd("EchoTrigger", {"EchoTrigger": kind}))
    apiserver.kubectl("apply", "-f", "-", stdin=body)
    apiserver.kubectl(
        "wait", "--for=condition=Established", "crd/echotriggers.triggerhub.dev", "--timeout=30s"
    )
    yield
    apiserver.kubectl("delete", "crd", "echotriggers.triggerhub.dev", "--timeout=60s")


class Cluster:
    """One namespace, as a user would handle it."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self.server = server
        self.namespace = namespace

    def apply(self, *manifests: dict[str, Any]) -> None:
        self.server.apply(*manifests, namespace=self.namespace)

    def delete(self, kind: str, name: str) -> None:
        self.server.kubectl("delete", "-n", self.namespace, kind, name)

    def condition(self, name: str, which: str = "Bound") -> str:
        """``status reason: message`` as the API server shows it; empty: none yet."""
        path = "/apis/triggerhub.dev/v1alpha1/namespaces"
        found = self.server.request("GET", f"{path}/{self.namespace}/echotriggers/{name}")
        for condition in found.get("status", {}).get("conditions", ()):
            if condition["type"] == which:
                return "{status} {reason}: {message}".format_map(condition)
        return ""

    def watched(self) -> int:
        """How many Secrets are watched one by one, by whomever."""
        text = self.server.kubectl("get", "--raw", "/metrics")
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in text.splitlines()
            if line.startswith("apiserver_longrunning_requests{")
            and 'resource="secrets"' in line
            and 'scope="resource"' in line
        )


def secret(name: str, password: str, **more: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "data": {
            key: base64.b64encode(text.encode()).decode()
            for key, text in {"password": password, **more}.items()
        },
    }  # fmt: skip


def config_map(name: str, ca: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"ca.crt": ca},
    }  # fmt: skip


def refers(name: str, to: str, also: str = "") -> dict[str, Any]:
    """A trigger to the password of a Secret, and to the certificate of a ConfigMap."""
    source: dict[str, Any] = {"password": {"secretRef": {"name": to, "key": "password"}}}
    if also:
        source["also"] = [{"configMapRef": {"name": also, "key": "ca.crt"}}]
    return trigger("EchoTrigger", name, "f", source)


def echoed(target: Function) -> dict[str, list[str]]:
    """What each trigger's listener was given, each time it began."""
    found: dict[str, list[str]] = {}
    for call in target.accepted:
        found.setdefault(call.headers["ce-source"], []).append(call.body.decode())
    return {source.removeprefix("/echo/"): given for source, given in found.items()}


def told(hub: Hub) -> str:
    """All that a hub shows of itself."""
    paths = ("/v1/triggers", "/v1/bindings", "/v1/functions", "/metrics", "/readyz")
    shown = [hub.request("GET", path)[1].decode() for path in paths]
    return "".join([hub.said(), *shown])


def test_a_folder_s_secret_reaches_its_listener_and_so_does_its_change(
    tmp_path: Path, plugin: dict[str, str]
) -> None:
    with (
        answering() as target,
        running(tmp_path, env=plugin | {"TOKEN": CANARY}, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", refers("one", "kafka", "ca"), refers("two", "other"))
        variable = trigger("EchoTrigger", "three", "f", {"password": {"env": "TOKEN"}})
        hub.write("v.yaml", variable)
        hub.write("s.yaml", secret("kafka", CANARY), config_map("ca", f"{CANARY} ca"))
        hub.start(ready=False)
        first = {"one": [f"{CANARY},{CANARY} ca"], "three": [CANARY]}
        hub.wait(lambda: echoed(target) == first, "the first values")
        assert hub.condition("two", "Bound") == "False ReferenceNotFound"
        hub.write("s.yaml", secret("kafka", "rotated"), config_map("ca", f"{CANARY} ca"))
        hub.wait(lambda: len(echoed(target)["one"]) == 2, "the rotated value")
        assert echoed(target) == {
            "one": [f"{CANARY},{CANARY} ca", f"rotated,{CANARY} ca"], "three": [CANARY]
        }  # fmt: skip
        hub.write("o.yaml", secret("other", CANARY))
        hub.wait(lambda: echoed(target).get("two") == [CANARY], "the missing one")
        hub.write("s.yaml", secret("kafka", CANARY) | {"data": {"password": CANARY}})
        hub.wait(lambda: "manifest.fault" in hub.said(), "the fault")
        assert hub.condition("one", "Bound") == "True Bound"
        assert CANARY not in told(hub)


@pytest.mark.usefixtures("echo")
def test_a_cluster_s_secret_is_followed_without_a_restart(
    tmp_path: Path, plugin: dict[str, str], apiserver: ApiServer, namespace: str
) -> None:
    cluster = Cluster(apiserver, namespace)
    with (
        answering() as target,
        running(
            tmp_path, "--namespace", namespace, env=plugin, kubeconfig=apiserver.kubeconfig
        ) as hub,
    ):
        cluster.apply(
            secret("kafka", CANARY), config_map("ca", "one"), function("f", target.url),
            refers("one", "kafka", "ca"), refers("two", "other"),
            trigger("EchoTrigger", "three", "f", {"password": {"env": "HOME"}}),
        )  # fmt: skip
        hub.wait(lambda: echoed(target) == {"one": [f"{CANARY},one"]}, "the first value")
        lost = "Secret {}/{} does not exist, expected it with the key password"
        missing = f"False ReferenceNotFound: {lost.format(namespace, 'other')}"
        hub.wait(lambda: cluster.condition("two") == missing, "what is missing")
        hub.wait(lambda: "found env: HOME" in cluster.condition("three"), "what is no variable")
        assert cluster.watched() == 2

        cluster.apply(secret("other", "other"))
        hub.wait(lambda: echoed(target).get("two") == ["other"], "the missing one")
        cluster.apply(secret("kafka", "rotated"))
        hub.wait(lambda: echoed(target)["one"][1:] == ["rotated,one"], "the rotated value")
        cluster.apply(config_map("ca", "two"))
        hub.wait(lambda: echoed(target)["one"][2:] == ["rotated,two"], "the rotated map")
        # What nobody refers to changes nothing.
        cluster.apply(secret("kafka", "rotated", more="x"), secret("third", "x"))

        cluster.delete("secret", "kafka")
        missing = f"False ReferenceNotFound: {lost.format(namespace, 'kafka')}"
        hub.wait(lambda: cluster.condition("one") == missing, "the loss")
        cluster.apply(secret("kafka", "back"))
        hub.wait(lambda: echoed(target)["one"][3:] == ["back,two"], "the one that is back")
        hub.wait(lambda: cluster.condition("one", "Ready").startswith("True Ready"), "Ready")
        assert echoed(target)["two"] == ["other"]

        cluster.delete("echotriggers", "one")
        hub.wait(lambda: cluster.watched() == 1, "the end of its watches")
        assert CANARY not in told(hub)


@pytest.mark.usefixtures("echo")
def test_the_right_to_one_secret_is_enough_for_it_and_what_is_refused_is_told(
    tmp_path: Path, plugin: dict[str, str], apiserver: ApiServer, namespace: str
) -> None:
    cluster = Cluster(apiserver, namespace)
    one = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["kafka"], "verbs": READ}
    rules = [
        {"apiGroups": ["triggerhub.dev"], "resources": ["*"], "verbs": READ},
        {"apiGroups": ["triggerhub.dev"], "resources": ["*/status"], "verbs": ["patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
         "verbs": ["get", "create", "update", "patch"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"],
         "verbs": ["create", "patch"]},
        one,
    ]  # fmt: skip
    kubeconfig = apiserver.service_account(namespace, "hub")
    cluster.apply(*rights(namespace, rules), secret("kafka", "allowed"), secret("other", CANARY))
    with (
        answering() as target,
        running(tmp_path, "--namespace", namespace, env=plugin, kubeconfig=kubeconfig) as hub,
    ):
        cluster.apply(function("f", target.url), refers("one", "kafka"), refers("two", "other"))
        hub.wait(lambda: echoed(target) == {"one": ["allowed"]}, "the allowed one")
        hub.wait(lambda: cluster.condition("two") != "", "the refused one")
        said = cluster.condition("two")
        assert said.startswith(f"False ReferenceNotFound: Secret {namespace}/other is not known: ")
        assert f"cannot list secrets in namespace {namespace}: forbidden" in said
        assert cluster.condition("one", "Ready").startswith("True Ready")
        assert hub.ready()
        cluster.apply(secret("kafka", "rotated"))
        hub.wait(lambda: echoed(target) == {"one": ["allowed", "rotated"]}, "the rotated value")
        assert CANARY not in told(hub)
        one["resourceNames"] = ["kafka", "other"]
        cluster.apply(*rights(namespace, rules))
        hub.wait(lambda: echoed(target).get("two") == [CANARY], "the one allowed later", 60)
        assert "watch.failed" in hub.said()
