"""Where the API server is and as whom it is asked: the one module that knows the Kubernetes
client."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import structlog
import yaml
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes_asyncio.config.kube_config import KubeConfigLoader

log = structlog.get_logger()

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_USER = "~/.kube/config"
_AGAIN = 60.0
"""Seconds after which tokens and certificates are looked at again: files rotate."""
_PATIENCE = 30.0
"""Seconds that a plugin gets to bring a token."""
# What the loader raises for a file that is wrong: it looks at little before it uses it.
_WRONG = (
    AssertionError, AttributeError, ConfigException, LookupError, OSError, RuntimeError, TypeError,
    ValueError, aiohttp.ClientError, yaml.YAMLError,
)  # fmt: skip


class Access:
    """The address, and what proves who asks; follows files that rotate and plugins whose tokens
    expire."""

    def __init__(
        self,
        configuration: Configuration,
        namespace: str,
        loader: KubeConfigLoader | None,
        proxy: str | None,
    ) -> None:
        self.url = str(configuration.host).rstrip("/")
        self.namespace = namespace
        """The hub's own."""
        self.proxy = proxy
        self.server_name: str | None = configuration.tls_server_name
        """What the server's certificate names, where that is not the host of the address."""
        self._configuration = configuration
        self._loader = loader
        self._looked = time.monotonic()
        self._looking = asyncio.Lock()
        self._doubted = False
        self._files = self._stamps()
        self.tls = _tls(configuration)

    @classmethod
    async def find(cls, kubeconfig: Path | None, context: str | None) -> Access:
        """The pod's account, where there is one and nothing is named; else a kubeconfig, found as
        kubectl finds it. Raises OSError with one sentence."""
        if kubeconfig is None and context is None and (_POD / "token").exists():
            return cls._of_pod()
        return await cls._of_kubeconfig(kubeconfig, context)

    @classmethod
    def _of_pod(cls) -> Access:
        configuration = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            namespace = (_POD / "namespace").read_text().strip()
            # No proxy: it is meant for what lies outside of the cluster.
            return cls(configuration, namespace or "default", None, None)
        except _WRONG as error:
            raise OSError(f"the pod's service account cannot be used: {_said(error)}") from None

    @classmethod
    async def _of_kubeconfig(cls, named: Path | None, context: str | None) -> Access:
        path = _path(named)
        configuration = Configuration()
        try:
            async with asyncio.timeout(_PATIENCE):
                loader = await load_kube_config(
                    config_file=path, context=context, client_configuration=configuration
                )
            chosen = (loader.current_context or {}).get("context") or {}
            proxy = configuration.proxy or _proxy(str(configuration.host))
            return cls(configuration, chosen.get("namespace") or "default", loader, proxy)
        except TimeoutError:
            why = f"its plugin has brought no token within {_PATIENCE:g} s"
        except _WRONG as error:
            why = _said(error)
        raise OSError(f"kubeconfig {path} cannot be used: {why}")

    async def authorization(self) -> str | None:
        """What the header field of that name says; None: a certificate says it, or nothing."""
        if self._doubted or time.monotonic() - self._looked > _AGAIN:
            async with self._looking:  # one looks, the others wait for what it finds
                if self._doubted or time.monotonic() - self._looked > _AGAIN:
                    await self._look()
        configuration = self._configuration
        token: str | None
        try:
            token = await configuration.get_api_key_with_prefix("BearerToken")
        except _WRONG:
            # The pod's token file cannot be read just now: the server will say what that means.
            token = configuration.api_key.get("BearerToken")
        return token

    def doubt(self) -> None:
        """The server did not accept it: look again before the next request."""
        self._doubted = True

    async def _look(self) -> None:
        doubted, self._doubted, self._looked = self._doubted, False, time.monotonic()
        try:
            if self._loader is not None and (doubted or not _lasting(self._loader)):
                async with asyncio.timeout(_PATIENCE):
                    await self._loader.load_and_set(self._configuration)
            files = self._stamps()
            if files != self._files:
                self.tls, self._files = _tls(self._configuration), files
        except _WRONG as error:
            # What was good a minute ago may still be: the server will say.
            log.warning("credentials.failed", error=_said(error))

    def _stamps(self) -> list[tuple[str, int]]:
        """The certificate files, and when they changed. Raises OSError."""
        configuration = self._configuration
        paths = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        return [(path, os.stat(path).st_mtime_ns) for path in paths if path]


def _lasting(loader: KubeConfigLoader) -> bool:
    """A plugin's token without an end is good until the server refuses it: running the plugin
    anew each time would be a burden."""
    user = loader._user
    return user is not None and "exec" in user and not hasattr(loader, "exec_plugin_expiry")


def _tls(configuration: Configuration) -> ssl.SSLContext:
    """Raises OSError for files that hold no certificates."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Many clusters' own authorities lack extensions that newer Pythons insist on; Go's client,
    # which they were tried with, does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _path(named: Path | None) -> str:
    if named is not None:
        if not named.expanduser().is_file():
            raise OSError(f"there is no kubeconfig at {named}")
        return str(named)
    path = os.environ.get("KUBECONFIG") or str(Path(_USER).expanduser())
    if not any(Path(part).expanduser().is_file() for part in path.split(os.pathsep) if part):
        raise OSError(
            "no -f was given, so manifests would come from Kubernetes; found neither a pod's "
            f"service account nor a kubeconfig at {path}"
        )
    return path


def _proxy(url: str) -> str | None:
    """What the environment says."""
    parts = urlsplit(url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _said(error: Exception) -> str:
    """Its first line; with its name, where that line was not written to be read alone."""
    name, line = type(error).__name__, (str(error).strip().splitlines() or [""])[0]
    return line if line and isinstance(error, ConfigException | OSError) else f"{name} {line}"
