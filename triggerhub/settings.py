"""What the command line says about one hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of one `triggerhub run`. Addresses are ``host:port``; port 0 takes a free one."""

    paths: tuple[Path, ...]
    """Folders and files of manifests."""
    data: Path = Path(".triggerhub")
    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:9090"
    admin_token_file: Path | None = None
    grace: float = 25.0
    """Seconds that in-flight deliveries get when something stops."""
