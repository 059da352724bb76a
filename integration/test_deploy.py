"""What `deploy/` holds, held against a real API server: accepted, equal in both forms, and with
exactly the rights that a hub uses."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from integration.conftest import CRDS, ROOT
from integration.function import answering
from integration.gateway_api import gateway_crds
from integration.helm_program import helm_program
from integration.hub import Hub, function, running, trigger
from integration.kubernetes import ApiServer, Cluster
from integration.kubernetes_programs import KUBERNETES, kubernetes_programs
from integration.servers import eventually
from integration.test_values import config_map, plugin, refers, secret  # noqa: F401 - a fixture
from tests.plugins import triggerhub_echo
from triggerhub.control.crds import crd
from triggerhub.control.plugins import Kind

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "triggerhub"
ACCOUNT = "system:serviceaccount:triggerhub:triggerhub"
KINDS = (
    "crontriggers",
    "httptriggers",
    "kafkatriggers",
    "kinesistriggers",
    "natstriggers",
    "echotriggers",
)
CLEANED = ("KafkaTrigger", "KinesisTrigger", "NATSTrigger")
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "Namespace"}
POLICY = {
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [ACCOUNT]}, {"level": "None"}],
}  # fmt: skip
# Two fields of the Prometheus operator's, as its API page has them: enough to find a typing error.
MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com", "scope": "Namespaced",
        "names": {"plural": "servicemonitors", "singular": "servicemonitor",
                  "kind": "ServiceMonitor"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": {
                "type": "object", "required": ["selector", "endpoints"],
                "properties": {
                    "selector": {"type": "object", "properties": {"matchLabels": {
                        "type": "object", "additionalProperties": {"type": "string"}}}},
                    "endpoints": {"type": "array", "items": {"type": "object", "properties": {
                        "port": {"type": "string"}, "path": {"type": "string"},
                        "interval": {"type": "string"}}}},
                }}}}}}],
    },
}  # fmt: skip

Object = dict[str, Any]
Right = tuple[str, str]
"""A verb, and a resource with its group."""


class Audited(ApiServer):
    """Notes what the hub's account asks for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._notes = folder / "audit.log"
        (folder / "audit.yaml").write_text(json.dumps(POLICY))

    def _apiserver_command(self) -> list[str]:
        return [
            *super()._apiserver_command(), f"--audit-log-path={self._folder / 'audit.log'}",
            f"--audit-policy-file={self._folder / 'audit.yaml'}",
        ]  # fmt: skip

    def asked(self) -> list[Object]:
        """Each request of the hub's account for a resource."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [note for line in lines if "objectRef" in (note := json.loads(line))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    """One of this module's own: it is installed on, and uninstalled from."""
    server = Audited(tmp_path_factory.mktemp("audited"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def home(server: Audited) -> str:
    """The hub's namespace."""
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "triggerhub"}})
    return "triggerhub"


@pytest.fixture(scope="module")
def monitors(server: Audited) -> None:
    """The server knows ServiceMonitors, as far as is needed here."""
    server.apply(MONITORS)
    crd = "crd/servicemonitors.monitoring.coreos.com"
    server.kubectl("wait", "--for=condition=Established", crd, "--timeout=30s")


def overlay(folder: Path, *resources: Path, **more: Any) -> Path:
    """A kustomize folder of a user's own."""
    folder.mkdir(exist_ok=True)
    body = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **more}
    body["resources"] = [os.path.relpath(resource, folder.resolve()) for resource in resources]
    (folder / "kustomization.yaml").write_text(json.dumps(body))
    return folder


def kustomized(server: Cluster, folder: Path) -> list[Object]:
    return read(server.kubectl("kustomize", str(folder)))


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm_program(), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def charted(*options: str, name: str = "triggerhub", namespace: str = "triggerhub") -> list[Object]:
    """What the chart renders; its test Pod, which is no part of an installation, is left out."""
    done = helm("template", name, str(CHART), "--namespace", namespace,
                f"--kube-version={KUBERNETES}", "--skip-tests", *options)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def read(text: str) -> list[Object]:
    return [found for found in yaml.safe_load_all(text) if found]


def by_name(objects: list[Object]) -> dict[str, Object]:
    return {f"{found['kind']} {found['metadata']['name']}": found for found in objects}


def tried(server: Cluster, objects: list[Object]) -> None:
    """A server-side dry run; unknown fields are refused."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)


def arguments_of(objects: list[Object]) -> list[str]:
    hub = by_name(objects)["StatefulSet triggerhub"]["spec"]["template"]["spec"]
    found: list[str] = hub["containers"][0]["args"]
    return found


def rights(rules: list[Object]) -> set[Right]:
    return {
        (verb, f"{resource}.{group}" if group else resource)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def granted(objects: list[Object]) -> set[Right]:
    """What the hub's account may do, of all that is rendered."""
    return {
        right
        for found in objects
        if found["kind"] in ("Role", "ClusterRole")
        and not found["metadata"]["name"].endswith(("-edit", "-view"))
        for right in rights(found.get("rules") or [])
    }


@pytest.mark.parametrize("folder", ["base", "overlays/local", "overlays/namespaced"])
@pytest.mark.usefixtures("home")
def test_the_api_server_accepts_every_folder(server: Audited, folder: str) -> None:
    tried(server, kustomized(server, DEPLOY / folder))


@pytest.mark.usefixtures("home", "monitors")
def test_the_api_server_accepts_the_service_monitor(server: Audited, tmp_path: Path) -> None:
    component = os.path.relpath(DEPLOY / "components" / "service-monitor", tmp_path.resolve())
    objects = kustomized(server, overlay(tmp_path, DEPLOY / "base", components=[component]))
    tried(server, objects)
    found = by_name(objects)
    monitor = found["ServiceMonitor triggerhub"]
    admin = found["Service triggerhub-admin"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= admin["metadata"]["labels"].items()
    ports = {port["name"] for port in admin["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_a_hub_of_one_namespace_has_no_right_beyond_it(server: Audited, tmp_path: Path) -> None:
    objects = kustomized(
        server, overlay(tmp_path, DEPLOY / "overlays" / "namespaced", namespace="team")
    )
    assert not CLUSTER_WIDE & {found["kind"] for found in objects}
    assert {found["metadata"]["namespace"] for found in objects} == {"team"}
    assert "--namespace=$(POD_NAMESPACE)" in arguments_of(objects)
    server.kubectl("create", "namespace", "team")
    try:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        server.kubectl("apply", "-f", "-", stdin=text)

        def may(right: Right, namespace: str) -> bool:
            verb, (what, _, group) = right[0], right[1].partition(".")
            resource, _, subresource = what.partition("/")
            asked = {
                "verb": verb, "resource": resource, "subresource": subresource, "group": group,
                "namespace": namespace,
            }  # fmt: skip
            account = "system:serviceaccount:team:triggerhub"
            review = {"spec": {"user": account, "resourceAttributes": asked}}
            path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            return bool(server.request("POST", path, review)["status"]["allowed"])

        rights = granted(objects)
        eventually(lambda: all(may(right, "team") for right in rights), "right in the namespace")
        assert not [right for right in rights if may(right, "default")]
    finally:
        server.kubectl("delete", "namespace", "team", "--timeout=60s")


def test_both_scopes_and_both_forms_grant_the_same(server: Audited) -> None:
    base = granted(kustomized(server, DEPLOY / "base"))
    assert granted(kustomized(server, DEPLOY / "overlays" / "namespaced")) == base
    assert granted(charted()) == base
    assert granted(charted("--set=scope=Namespace")) == base


def test_the_hub_has_exactly_the_rights_that_it_uses(
    server: Audited,
    home: str,
    tmp_path: Path,
    plugin: dict[str, str],  # noqa: F811
) -> None:
    """Through the life of one trigger of each kind, a plugin's included."""
    kind = Kind("EchoTrigger", lambda: triggerhub_echo.EchoConnector)
    shop = f"shop-{uuid4().hex[:8]}"
    base = kustomized(server, DEPLOY / "base")
    roles = [found for found in base if found["kind"] in ("ClusterRole", "Role")]
    # A plugin brings its rights in a role of the same label.
    own = json.loads(json.dumps(by_name(base)["ClusterRole triggerhub-kinds"]))
    own["metadata"]["name"] = "triggerhub-echo"
    own["rules"] = [
        {"apiGroups": ["triggerhub.dev"], "resources": resources, "verbs": verbs}
        for resources, verbs in (
            (["echotriggers"], ["list", "watch", "delete"]),
            (["echotriggers/status"], ["patch"]),
        )
    ]
    server.kubectl("apply", "-f", str(CRDS))
    server.apply(crd("EchoTrigger", {"EchoTrigger": kind}))
    server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    server.kubectl("create", "namespace", shop)
    server.kubectl("apply", "-k", str(DEPLOY / "base"))
    server.apply(own)
    account = server.service_account(home, "triggerhub")
    server.kubectl("apply", "--server-side", "-f", str(gateway_crds()))
    env = plugin | {"TRIGGERHUB_SERVICE": "triggerhub"}
    try:
        with running(tmp_path, kubeconfig=account, env=env) as hub, answering() as target:
            live_through(server, shop, hub, target.url)
            expose(server, shop, hub)
            hub.stop()
    finally:
        server.kubectl("delete", "namespace", shop, "--wait=false")
        server.kubectl("delete", "clusterrole", "triggerhub-echo")
        server.kubectl("delete", "-k", str(DEPLOY / "base"), "--timeout=60s")

    notes = server.asked()
    refused = [note for note in notes if note["responseStatus"]["code"] == 403]
    assert not refused
    assert {right_of(note) for note in notes} == granted([*roles, own])


def right_of(note: Object) -> Right:
    """What a request needed. Server-side apply of what is not there needs the right to make it."""
    where = note["objectRef"]
    resource = "/".join(filter(None, (where["resource"], where.get("subresource"))))
    made = note["verb"] == "patch" and note["responseStatus"]["code"] == 201
    verb = "create" if made else note["verb"]
    return verb, ".".join(filter(None, (resource, where.get("apiGroup"))))


def live_through(server: Cluster, shop: str, hub: Hub, url: str) -> None:
    def apply(*objects: Object) -> None:
        server.apply(*objects, namespace=shop)

    def reason(which: str, kind: str = "Bound") -> str:
        wanted = f'{{.status.conditions[?(@.type=="{kind}")].reason}}'
        return server.kubectl("get", which, "-n", shop, "-o", f"jsonpath={wanted}", check=False)

    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }  # fmt: skip
    behind = function("behind", url)
    behind["spec"] = {"service": {"name": "web", "port": 80}}
    apply(service, behind, function("f", url), secret("s", "pass"), config_map("m", "ca"))
    ends = (
        trigger("CronTrigger", "cron", "f", {"schedule": "@hourly"}),
        trigger("HTTPTrigger", "http", "f", {"path": "/x"}),
        trigger("KafkaTrigger", "kafka", "f",
                {"topic": "t", "brokers": ["127.0.0.1:1"]}),
        trigger("KinesisTrigger", "kinesis", "f",
                {"stream": "s", "region": "eu-central-1", "endpoint": "http://127.0.0.1:1"}),
        trigger("NATSTrigger", "nats", "f", {"stream": "s", "servers": ["127.0.0.1:1"]}),
        refers("echo", "s", "m"),
    )  # fmt: skip
    for one in ends:
        one["spec"]["onFunctionDelete"] = "Delete"
    stays = trigger("HTTPTrigger", "stays", "f", {"path": "/stays"})
    apply(stays, *ends)
    names = [f"{kind}/{kind[:-8]}" for kind in KINDS]
    hub.wait(lambda: all(reason(name) == "Bound" for name in names), "the bindings")
    hub.wait(lambda: reason("functions/behind", "Ready") != "", "the function's status")
    # The same turn twice is one Event, counted.
    for _ in range(2):
        hub.wait(lambda: reason("httptriggers/stays") == "Bound", "the binding")
        server.kubectl("delete", "functions", "f", "-n", shop)
        hub.wait(lambda: reason("httptriggers/stays") == "FunctionNotFound", "its end")
        apply(function("f", url))

    def held() -> list[int]:
        found = server.kubectl("get", *cleaned, "-n", shop, "-o", "json")
        return [len(one["metadata"].get("finalizers") or []) for one in json.loads(found)["items"]]

    def gone() -> bool:
        return all(not server.kubectl("get", n, "-n", shop, "--ignore-not-found") for n in names)

    hub.wait(gone, "the end of what goes with its function")
    keeping = [one for one in ends if one["kind"] in CLEANED]
    cleaned = [f"{one['kind'].lower()}s/cleaned" for one in keeping]
    for one in keeping:
        one["metadata"]["name"], one["spec"]["function"]["name"] = "cleaned", "none"
        del one["spec"]["onFunctionDelete"]
    for choice, finalizers in (("Delete", [1, 1, 1]), ("Keep", [0, 0, 0])):
        for one in keeping:
            one["spec"]["source"]["cleanup"] = choice
        apply(*keeping)
        hub.wait(lambda n=finalizers: held() == n, f"finalizers: {finalizers}")  # type: ignore[misc]


def expose(server: Audited, shop: str, hub: Hub) -> None:
    """A trigger gets an Ingress, then a route instead, then neither; each is changed by others."""

    def there(what: str, namespace: str = shop) -> bool:
        return bool(server.kubectl("get", what, "-n", namespace, "--ignore-not-found"))

    def asked(*right: str) -> bool:
        return right in {right_of(note) for note in server.asked()}

    ingress = (("ingresses.networking.k8s.io", "edge", shop), ("services", "triggerhub-edge", shop))
    group = "gateway.networking.k8s.io"
    route = ((f"httproutes.{group}", "edge", shop),
             (f"referencegrants.{group}", f"triggerhub-{shop}", "triggerhub"))  # fmt: skip
    kinds: tuple[tuple[Object, Any], ...] = (
        ({"ingressClass": "any"}, ingress), ({"gateway": {"name": "any"}}, route), ({}, ()),
    )  # fmt: skip
    for expose, objects in kinds:
        source = {"path": "/edge", "expose": expose or None}
        server.apply(trigger("HTTPTrigger", "edge", "f", source), namespace=shop)
        for what, name, namespace in objects:
            hub.wait(lambda w=f"{what}/{name}", n=namespace: there(w, n), f"{what}")  # type: ignore[misc]
            server.kubectl("annotate", what, name, "-n", namespace, "example.com/a=b")
            hub.wait(lambda w=what: asked("patch", w), f"another look at {what}")  # type: ignore[misc]
    for what, _, _ in (*ingress, *route):
        hub.wait(lambda w=what: asked("delete", w), f"the end of {what}")  # type: ignore[misc]


def test_the_chart_renders_what_kustomize_renders(server: Audited) -> None:
    """But for two labels that helm sets, the namespace, which is helm's user's, and the Secret,
    which the install script makes."""

    def plain(found: Any) -> Any:
        if isinstance(found, dict):
            own = ("app.kubernetes.io/managed-by", "helm.sh/chart")
            return {key: plain(value) for key, value in found.items() if key not in own}
        return [plain(one) for one in found] if isinstance(found, list) else found

    base = by_name(kustomized(server, DEPLOY / "base"))
    del base["Namespace triggerhub"]
    chart = by_name(charted())
    token = chart.pop("Secret triggerhub-admin")
    assert set(token["data"]) == {"token"}
    assert chart.keys() == base.keys()
    for name, found in base.items():
        assert plain(chart[name]) == found, name


def test_the_chart_of_one_namespace_renders_what_its_overlay_renders(server: Audited) -> None:
    overlaid = by_name(kustomized(server, DEPLOY / "overlays" / "namespaced"))
    chart = by_name(charted("--set=scope=Namespace"))
    del chart["Secret triggerhub-admin"]
    assert chart.keys() == overlaid.keys()
    assert not CLUSTER_WIDE & {found["kind"] for found in chart.values()}
    for name in ("Role triggerhub", "RoleBinding triggerhub", "Role triggerhub-leader"):
        for part in ("rules", "subjects", "roleRef"):
            assert chart[name].get(part) == overlaid[name].get(part)
    assert arguments_of(list(chart.values())) == arguments_of(list(overlaid.values()))


def test_the_chart_has_the_kinds_that_the_hub_has() -> None:
    assert {path.name: path.read_text() for path in (CHART / "crds").iterdir()} == {
        path.name: path.read_text() for path in CRDS.iterdir()
    }


def test_the_chart_has_the_hub_s_version() -> None:
    from triggerhub import __version__

    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    base = yaml.safe_load((DEPLOY / "base" / "kustomization.yaml").read_text())
    assert about["appVersion"] == about["version"] == __version__
    assert base["images"][0]["newTag"] == __version__


def test_helm_finds_no_fault_with_the_chart() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("replicas=0", "at '/replicas': minimum: got 0, want 1"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("scope=All", "at '/scope': value must be one of 'Cluster', 'Namespace'"),
        ("image.pulPolicy=Always", "at '/image': additional properties 'pulPolicy' not allowed"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of 'Always'"),
        ("image.repository=", "at '/image/repository': minLength: got 0, want 1"),
        ("storage.size=big", "at '/storage/size': 'big' does not match pattern"),
        ("kafka.broker=k:9092", "at '/kafka': additional properties 'broker' not allowed"),
        (
            "serviceMonitor.enabled=perhaps",
            "at '/serviceMonitor/enabled': got string, want boolean",
        ),
        ("service.type=Ingress", "at '/service/type': value must be one of 'ClusterIP'"),
        ("replica=3", "additional properties 'replica' not allowed"),
    ],
)
def test_a_bad_value_is_refused_in_words(option: str, complaint: str) -> None:
    done = helm("template", "triggerhub", str(CHART), f"--kube-version={KUBERNETES}",
                "--set", option)  # fmt: skip
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--skip-tests=false",),
        ("--set=scope=Namespace",),
        ("--set=admin.existingSecret=token", "--set=kafka.brokers=k-0:9092\\,k-1:9092",
         "--set=nats.servers=n:4222", "--set=store.url=nats://n:4222?replicas=3",
         "--set=store.existingSecret=store"),
        ("--set=networkPolicy.enabled=false", "--set=replicas=3", "--set=image.tag=1.2.3"),
        ("--set=networkPolicy.monitoringNamespace=", "--set=storage.className=fast"),
        ("--set=serviceMonitor.enabled=true", "--set=serviceMonitor.labels.release=prometheus"),
        ("--set=service.type=LoadBalancer", "--set=service.annotations.example\\.com/a=b"),
        (
            "--set=env[0].name=A", "--set=env[0].value=b", "--set=imagePullSecrets[0].name=pull",
            "--set=priorityClassName=system-cluster-critical", "--set=nodeSelector.disk=ssd",
            "--set=tolerations[0].operator=Exists", "--set=podAnnotations.example\\.com/a=b",
            "--set-json=affinity={\"podAntiAffinity\": {}}",
        ),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.usefixtures("home", "monitors")
def test_the_api_server_accepts_what_options_render(
    server: Audited, options: tuple[str, ...]
) -> None:
    tried(server, charted(*options))


def test_options_say_what_they_mean() -> None:
    found = by_name(charted("--set=admin.existingSecret=mine", "--set=kafka.brokers=k:9092",
                            "--set=nats.servers=n:4222", "--set=store.url=nats://n:4222",
                            "--set=store.existingSecret=login",
                            "--set=networkPolicy.enabled=false"))  # fmt: skip
    assert not {name for name in found if name.startswith(("Secret", "NetworkPolicy"))}
    pod = found["StatefulSet triggerhub"]["spec"]["template"]["spec"]
    env = {one["name"]: one for one in pod["containers"][0]["env"]}
    assert env["TRIGGERHUB_KAFKA_BROKERS"]["value"] == "k:9092"
    assert env["TRIGGERHUB_NATS_SERVERS"]["value"] == "n:4222"
    assert env["TRIGGERHUB_STORE"]["value"] == "nats://n:4222"
    assert pod["containers"][0]["envFrom"] == [
        {"prefix": "TRIGGERHUB_STORE_", "secretRef": {"name": "login"}}
    ]
    assert env["TRIGGERHUB_ADMIN_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "mine"
    assert pod["volumes"][0]["secret"]["secretName"] == "mine"


def test_two_releases_work_side_by_side(server: Audited) -> None:
    """No name of the one is a name of the other's, and each finds only its own pods."""
    ours, theirs = charted(), charted(name="blue", namespace="team")
    both = {f"{found['kind']} {found['metadata']['name']}" for found in ours} & {
        f"{found['kind']} {found['metadata']['name']}" for found in theirs
    }
    assert not both
    pods = by_name(theirs)["StatefulSet blue"]["spec"]["template"]["metadata"]["labels"]
    selector = by_name(ours)["Service triggerhub"]["spec"]["selector"]
    assert not selector.items() <= pods.items()
    binding = by_name(theirs)["ClusterRoleBinding blue"]
    assert binding["subjects"][0] == {
        "kind": "ServiceAccount", "name": "blue", "namespace": "team",
    }  # fmt: skip
    server.kubectl("create", "namespace", "team")
    try:
        tried(server, theirs)
    finally:
        server.kubectl("delete", "namespace", "team", "--timeout=60s")


def script(
    server: Cluster, name: str, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """`deploy/install` or `deploy/uninstall`, as one types it."""
    kubectl = str(kubernetes_programs() / "kubectl")
    return subprocess.run(
        [DEPLOY / name, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=240, check=False,
        env=os.environ | {"KUBECTL": kubectl, "KUBECONFIG": str(server.kubeconfig)} | env,
    )  # fmt: skip


def test_install_says_where_to_look_and_uninstall_leaves_nothing(server: Audited) -> None:
    """There is no node here, so the hub cannot become ready."""
    done = script(server, "install", TIMEOUT="1s")
    assert done.returncode == 1
    assert "the hub is not ready after 1s" in done.stderr
    assert "kubectl -n triggerhub describe pod triggerhub-0" in done.stderr
    token = server.kubectl("get", "secret", "triggerhub-admin", "-n", "triggerhub", "-o", "json")

    # Once more is an upgrade: the token stays.
    assert script(server, "install", TIMEOUT="1s").returncode == 1
    again = server.kubectl("get", "secret", "triggerhub-admin", "-n", "triggerhub", "-o", "json")
    assert json.loads(again)["data"] == json.loads(token)["data"]

    cron = trigger("CronTrigger", "tick", "f", {"schedule": "@hourly"})
    cron["metadata"]["finalizers"] = ["triggerhub.dev/cleanup"]  # and no hub to remove it
    server.apply(cron)
    asked = script(server, "uninstall")
    assert asked.returncode == 1
    assert "say --yes" in asked.stderr
    done = script(server, "uninstall", "--yes")
    assert done.returncode == 0, done.stderr
    everything = server.kubectl(
        "get", "crd,clusterroles,clusterrolebindings,namespaces", "-o", "name"
    )
    assert "triggerhub" not in everything
    assert script(server, "uninstall", "--yes").returncode == 0, "nothing to remove is no fault"


@pytest.mark.parametrize("name", ["install", "uninstall"])
def test_a_script_says_what_it_lacks(server: Audited, tmp_path: Path, name: str) -> None:
    powerless = f"{kubernetes_programs() / 'kubectl'} --as=system:serviceaccount:default:default"
    cases: dict[str, dict[str, str]] = {
        "there is no nowhere": {"KUBECTL": "nowhere"},
        "kubectl reaches no cluster": {"KUBECONFIG": "/dev/null"},
        "cannot": {"KUBECTL": powerless},
    }
    for complaint, env in cases.items():
        done = script(server, name, *(["--yes"] if name == "uninstall" else []), **env)
        assert done.returncode == 1, complaint
        assert complaint in done.stderr
    done = script(server, name, str(tmp_path / "none"))
    assert f"found no folder {tmp_path}/none" in done.stderr
