"""The API server of the tests does what the stories about it rely on."""

from __future__ import annotations

import json
import urllib.error
from typing import Any
from uuid import uuid4

import pytest

from integration.kubernetes import ApiServer, Cluster
from integration.servers import eventually


@pytest.fixture
def maps(namespace: str) -> str:
    """Path of the test's own ConfigMaps."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


def names(server: ApiServer, maps: str) -> set[str]:
    return {found["metadata"]["name"] for found in server.request("GET", maps)["items"]}


def test_a_kind_is_served_once_it_is_applied(apiserver: ApiServer, namespace: str) -> None:
    group = f"{namespace}.example"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }  # fmt: skip
    apiserver.apply(crd)
    wait = f"crd/widgets.{group}"
    apiserver.kubectl("wait", "--for=condition=Established", wait, "--timeout=30s")
    apiserver.apply(
        {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "one"}},
        namespace=namespace,
    )
    found = apiserver.request("GET", f"/apis/{group}/v1/namespaces/{namespace}/widgets/one")
    assert found["kind"] == "Widget"
    apiserver.kubectl("delete", "crd", f"widgets.{group}", "--wait=false")


def test_what_was_stored_is_there_after_the_server_was_killed(
    apiserver: ApiServer, maps: str
) -> None:
    made = apiserver.request("POST", maps, {"metadata": {"name": "one"}})
    with apiserver.away(), pytest.raises(urllib.error.URLError):
        apiserver.request("GET", maps, timeout=5)
    assert apiserver.request("GET", f"{maps}/one")["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_paused_server_answers_nothing_until_it_goes_on(apiserver: ApiServer, maps: str) -> None:
    apiserver.pause()
    try:
        with pytest.raises(OSError, match="timed out"):
            apiserver.request("GET", maps, timeout=1)
    finally:
        apiserver.resume()
    apiserver.request("GET", maps)


def test_an_old_version_is_gone_after_a_compaction(apiserver: ApiServer, maps: str) -> None:
    for name in ("one", "two"):
        newest = apiserver.request("POST", maps, {"metadata": {"name": name}})["metadata"]
    page = apiserver.request("GET", f"{maps}?limit=1")["metadata"]["continue"]
    with apiserver.away():
        apiserver.compact()
    watch = f"{maps}?watch=true&resourceVersion={newest['resourceVersion']}&timeoutSeconds=5"
    sent = apiserver.request("GET", watch)
    assert (sent["type"], sent["object"]["code"]) == ("ERROR", 410)
    with pytest.raises(urllib.error.HTTPError, match="410") as refused:
        apiserver.request("GET", f"{maps}?limit=1&continue={page}")
    refused.value.close()


def test_a_deleted_namespace_goes_with_what_is_in_it(apiserver: ApiServer) -> None:
    name = f"it-{uuid4().hex[:8]}"
    apiserver.kubectl("create", "namespace", name)
    maps = f"/api/v1/namespaces/{name}/configmaps"
    apiserver.request("POST", maps, {"metadata": {"name": "one"}})
    apiserver.kubectl("delete", "namespace", name, "--timeout=60s")
    assert names(apiserver, maps) == set()


def test_what_an_object_owns_goes_with_it(apiserver: ApiServer, maps: str) -> None:
    owner = apiserver.request("POST", maps, {"metadata": {"name": "owner"}})["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
    owned = {"metadata": {"name": "owned", "ownerReferences": [reference]}}
    apiserver.request("POST", maps, owned)
    apiserver.request("DELETE", f"{maps}/owner")
    eventually(lambda: "owned" not in names(apiserver, maps), "end of what was owned")


def test_controllers_that_come_back_do_what_was_left(apiserver: ApiServer, maps: str) -> None:
    apiserver.stop_controllers()
    try:
        absent = {"apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": str(uuid4())}
        orphan = {"metadata": {"name": "orphan", "ownerReferences": [absent]}}
        apiserver.request("POST", maps, orphan)
    finally:
        apiserver.start_controllers()
    eventually(lambda: "orphan" not in names(apiserver, maps), "end of the orphan")


def test_a_service_has_slices_of_endpoints(apiserver: ApiServer, namespace: str) -> None:
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }  # fmt: skip
    apiserver.apply(service, namespace=namespace)
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    eventually(lambda: bool(apiserver.request("GET", path)["items"]), "slice")


def test_an_account_may_do_just_what_its_role_says(apiserver: ApiServer, namespace: str) -> None:
    account = Cluster(apiserver.service_account(namespace, "reader"))
    rule: dict[str, Any] = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
    apiserver.apply(
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
         "metadata": {"name": "reader"}, "rules": [rule]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": {"name": "reader"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
         "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}]},
        namespace=namespace,
    )  # fmt: skip
    listed = json.loads(account.kubectl("get", "configmaps", "-n", namespace, "-o", "json"))
    assert listed["kind"] == "List"
    with pytest.raises(AssertionError, match='cannot list resource "secrets"'):
        account.kubectl("get", "secrets", "-n", namespace)
    with pytest.raises(AssertionError, match='cannot list resource "configmaps"'):
        account.kubectl("get", "configmaps", "-n", "default")
