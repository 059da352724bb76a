"""A real API server, with etcd and the controllers that make a namespace go away and give service
accounts their tokens; no nodes. And any cluster that a kubeconfig names, for what needs nodes."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from integration.kubernetes_programs import kubernetes_programs
from integration.servers import Server, free_port, needs, unavailable

_TOKEN = "integration"


class Cluster:
    """A Kubernetes, as whoever holds that kubeconfig handles it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._program = str(kubernetes_programs() / "kubectl")

    @classmethod
    def named(cls, folder: Path) -> Cluster:
        """The one that KUBECONFIG names; a user's default one, which may be in production, is left
        alone. Skips, also where ``CI=true``, when none is named; what is named must have a ready
        node. A copy of its kubeconfig is kept in ``folder``."""
        if not os.environ.get("KUBECONFIG"):
            pytest.skip("no cluster with nodes: set KUBECONFIG to one that tests may change")
        cluster = cls(folder / "kubeconfig")
        named = cluster._run("config", "view", "--raw", "--flatten", "--minify")
        cluster.kubeconfig.write_text(named.stdout)
        ready = '{.items[*].status.conditions[?(@.type=="Ready")].status}'
        nodes = cluster._run(
            f"--kubeconfig={cluster.kubeconfig}", "get", "nodes",
            "--request-timeout=10s", f"--output=jsonpath={ready}",
        )  # fmt: skip
        if "True" not in nodes.stdout.split():
            said = (named.stderr + nodes.stderr)[-500:]
            unavailable(f"the cluster that KUBECONFIG names has no ready node: {said}")
        return cluster

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints on stdout; fails with what it says on stderr, and after 120 s."""
        done = self._run(f"--kubeconfig={self.kubeconfig}", *arguments, stdin=stdin)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def _run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *arguments],
            input=stdin, capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | {"KUBECACHEDIR": str(self.kubeconfig.parent / "kubectl-cache")},
        )  # fmt: skip

    def apply(self, *manifests: dict[str, Any], namespace: str = "default") -> None:
        """kubectl apply; a manifest's own namespace must be that one."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self.kubectl("apply", "-n", namespace, "-f", "-", stdin=text)


class ApiServer(Cluster):
    """etcd, kube-apiserver and kube-controller-manager on free ports of 127.0.0.1, RBAC on. Its
    kubeconfig has every right."""

    def __init__(self, folder: Path) -> None:
        needs("etcd")
        super().__init__(folder / "kubeconfig")
        self._folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._trust = ssl.create_default_context()
        self._certify()
        self._write_kubeconfig(self.kubeconfig, _TOKEN)
        self._etcd_url = f"http://127.0.0.1:{free_port()}"
        self._controllers_url = f"https://127.0.0.1:{free_port()}"
        self._etcd = Server("etcd", self._etcd_command(), folder)
        self._apiserver = Server("kube-apiserver", self._apiserver_command(), folder)
        self._controllers = Server("kube-controller-manager", self._controllers_command(), folder)

    def start(self) -> None:
        """Start all, and wait until they are ready."""
        self._etcd.start(lambda: self._answers(f"{self._etcd_url}/health"))
        self.start_apiserver()
        self.start_controllers()

    def stop(self) -> None:
        self._controllers.stop()
        self._apiserver.stop()
        self._etcd.stop()

    def start_apiserver(self) -> None:
        """On the same port and data as before."""
        self._apiserver.start(lambda: self._answers(f"{self.url}/readyz"))

    def kill_apiserver(self) -> None:
        """SIGKILL. Whoever is connected sees the end of the connection."""
        self._apiserver.kill9()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Killed for the time of the block."""
        self.kill_apiserver()
        try:
            yield
        finally:
            self.start_apiserver()

    def pause(self) -> None:
        """The API server takes connections and answers nothing."""
        self._apiserver.pause()

    def resume(self) -> None:
        self._apiserver.resume()

    def start_controllers(self) -> None:
        """Start what collects garbage, empties namespaces and makes accounts."""
        account = f"{self.url}/api/v1/namespaces/default/serviceaccounts/default"
        self._controllers.start(
            lambda: self._answers(f"{self._controllers_url}/healthz") and self._answers(account)
        )

    def stop_controllers(self) -> None:
        self._controllers.stop()

    def compact(self) -> None:
        """etcd forgets every version that anybody has seen. The API server goes on from its own
        memory until it is started again; then each of them is Expired (410), for a watch as for a
        list's next page. So compact while it is away."""
        key = base64.b64encode(b"/integration/one-version-more").decode()
        revision = self._etcd_call("/v3/kv/put", {"key": key})["header"]["revision"]
        self._etcd_call("/v3/kv/compaction", {"revision": revision, "physical": True})

    def forget(self, path: str) -> None:
        """Delete an object where it is stored, so that no watch tells of it: only while the API
        server is away. ``path``: group, plural, namespace and name."""
        key = base64.b64encode(f"/registry/{path}".encode()).decode()
        assert int(self._etcd_call("/v3/kv/deleterange", {"key": key})["deleted"]) == 1

    def request(self, method: str, path: str, body: Any = None, timeout: float = 60.0) -> Any:
        """JSON of one request; raises HTTPError for what is no success."""
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {_TOKEN}", "content-type": content},
        )
        with urllib.request.urlopen(request, timeout=timeout, context=self._trust) as answer:
            return json.loads(answer.read() or b"{}")

    def service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig with just the rights of that account, which is made if it is not there; its
        namespace is the account's, as in a pod."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        self.apply(account, namespace=namespace)
        token = self.kubectl("create", "token", name, "-n", namespace, "--duration=2h").strip()
        path = self._folder / f"{namespace}.{name}.kubeconfig"
        self._write_kubeconfig(path, token, namespace)
        return path

    def _certify(self) -> None:
        """Certificates of our own, and the key that signs the tokens of accounts."""
        authority = trustme.CA()
        authority.configure_trust(self._trust)
        server = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(self._folder / "ca.crt")
        server.private_key_and_cert_chain_pem.write_to_path(self._folder / "server.pem")
        trustme.CA().private_key_pem.write_to_path(self._folder / "accounts.key")
        (self._folder / "tokens.csv").write_text(f'{_TOKEN},tests,tests,"system:masters"\n')

    def _write_kubeconfig(self, path: Path, token: str, namespace: str = "default") -> None:
        cluster = {"server": self.url, "certificate-authority": str(self._folder / "ca.crt")}
        context = {"cluster": "it", "user": "it", "namespace": namespace}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "contexts": [{"name": "it", "context": context}],
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"token": token}}],
        }  # fmt: skip
        path.write_text(json.dumps(config))

    def _etcd_command(self) -> list[str]:
        peers = f"http://127.0.0.1:{free_port()}"
        return [
            "etcd", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync",
            "--listen-client-urls", self._etcd_url, "--advertise-client-urls", self._etcd_url,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"default={peers}",
        ]  # fmt: skip

    def _apiserver_command(self) -> list[str]:
        folder = self._folder
        return [
            str(kubernetes_programs() / "kube-apiserver"), f"--etcd-servers={self._etcd_url}",
            f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            f"--cert-dir={folder}/certs", f"--tls-cert-file={folder}/server.pem",
            f"--tls-private-key-file={folder}/server.pem",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/accounts.key",
            f"--service-account-signing-key-file={folder}/accounts.key",
            "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC",
            f"--token-auth-file={folder}/tokens.csv",
        ]  # fmt: skip

    def _controllers_command(self) -> list[str]:
        folder = self._folder
        return [
            str(kubernetes_programs() / "kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig}", "--leader-elect=false",
            f"--secure-port={self._controllers_url.rpartition(':')[2]}", "--bind-address=127.0.0.1",
            f"--cert-dir={folder}/controllers", f"--tls-cert-file={folder}/server.pem",
            f"--tls-private-key-file={folder}/server.pem", f"--root-ca-file={folder}/ca.crt",
            f"--service-account-private-key-file={folder}/accounts.key",
        ]  # fmt: skip

    def _answers(self, url: str) -> bool:
        asked = urllib.request.Request(url, headers={"authorization": f"Bearer {_TOKEN}"})
        try:
            with urllib.request.urlopen(asked, timeout=2, context=self._trust) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _etcd_call(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._etcd_url + path, data=json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
