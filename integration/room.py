"""One namespace of a real API server, and a hub that watches it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration.hub import Hub, running, trigger
from integration.kubernetes import ApiServer

PLURALS = {"Function": "functions", "KafkaTrigger": "kafkatriggers",
           "CronTrigger": "crontriggers", "HTTPTrigger": "httptriggers",
           "NATSTrigger": "natstriggers"}  # fmt: skip


class Room:
    """One namespace of the API server, as a user would handle it."""

    def __init__(self, server: ApiServer, namespace: str, account: Path) -> None:
        """``account``: kubeconfig with the rights of a hub."""
        self.server = server
        self.namespace = namespace
        self.account = account

    def apply(self, *manifests: dict[str, Any]) -> None:
        """kubectl apply."""
        self.server.apply(*manifests, namespace=self.namespace)

    def delete(self, kind: str, name: str, *options: str) -> None:
        """kubectl delete."""
        self.server.kubectl("delete", "-n", self.namespace, PLURALS[kind], name, *options)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """The object; None: it is not there."""
        text = self.server.kubectl(
            "get", "-n", self.namespace, PLURALS[kind], name, "-o", "json", "--ignore-not-found"
        )
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def patch(self, kind: str, name: str, body: Any) -> None:
        """kubectl patch --type merge."""
        text = json.dumps(body)
        self.server.kubectl(
            "patch", "-n", self.namespace, PLURALS[kind], name, "--type=merge", "-p", text
        )

    def condition(self, kind: str, name: str, which: str = "Ready") -> str:
        """``status reason`` of one condition of the present generation; empty: none yet."""
        found = self.get(kind, name)
        status = (found or {}).get("status") or {}
        if found is None or status.get("observedGeneration") != found["metadata"]["generation"]:
            return ""
        for condition in status["conditions"]:
            if condition["type"] == which:
                return f"{condition['status']} {condition['reason']}"
        return ""

    def events(self, name: str) -> list[str]:
        """Reasons of the Events about an object, oldest first."""
        text = self.server.kubectl("get", "-n", self.namespace, "events", "-o", "json")
        found = sorted(json.loads(text)["items"], key=lambda e: e["metadata"]["creationTimestamp"])
        return [e["reason"] for e in found if e["involvedObject"]["name"] == name]


def rights(namespace: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A Role of these rules for the account ``hub`` of that namespace."""
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": {"name": "hub"}, "rules": rules},
        {
            "apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": {"name": "hub"},
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "hub"},
            "subjects": [{"kind": "ServiceAccount", "name": "hub", "namespace": namespace}],
        },
    ]  # fmt: skip


@contextmanager
def hub_of(room: Room, folder: Path, *options: str) -> Iterator[Hub]:
    """A hub of that namespace, with just the rights that `deploy/` gives it."""
    with running(folder, "--namespace", room.namespace, *options, kubeconfig=room.account) as hub:
        yield hub


def http(name: str, to: str, path: str) -> dict[str, Any]:
    return trigger("HTTPTrigger", name, to, {"path": path})


def post(hub: Hub, path: str) -> int:
    """Status of one request to the hub's triggers; 0: no answer."""
    request = urllib.request.Request(f"http://{hub.listen}{path}", data=b"x", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
