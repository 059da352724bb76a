"""What the command line says about one hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triggerhub.tls import Files


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of one `triggerhub run`. Addresses are ``host:port``; port 0 takes a free one."""

    paths: tuple[Path, ...]
    """Folders and files of manifests; none: from a Kubernetes API server."""
    namespace: str | None = None
    """Of the cluster, the one namespace whose manifests are meant; None: all."""
    kubeconfig: Path | None = None
    """None: the account of the pod, where this is one, else as kubectl finds it."""
    context: str | None = None
    """Of the kubeconfig; None: its current one."""
    data: Path = Path(".triggerhub")
    store: str = ""
    """``nats://…``, as ``store.jetstream.place`` has it; empty: in ``data``."""
    listen: str = "127.0.0.1:8080"
    tls: Files | None = None
    """Of ``listen``; None: plain HTTP."""
    admin: str = "127.0.0.1:9090"
    """Or ``unix:`` and a path: for this user alone, without a token."""
    admin_token_file: Path | None = None
    worker: int = 0
    """Which of one hub's processes this is, from 1; 0: the only one."""
    sockets: tuple[int, ...] = ()
    """Of a worker: descriptors bound to ``listen``, which the others have, too."""
    grace: float = 25.0
    """Seconds that in-flight deliveries get when something stops."""
