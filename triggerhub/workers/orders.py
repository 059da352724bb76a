"""What a supervisor tells a worker when it starts it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from triggerhub.settings import Settings
from triggerhub.tls import Files

_PATHS = ("kubeconfig", "data", "admin_token_file")


@dataclass(frozen=True, slots=True)
class Orders:
    """One hub's settings for one of its workers."""

    settings: Settings
    lock: int
    """Descriptor that holds the data directory as long as it is open."""
    debug: bool = False

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the worker inherits."""
        return (self.lock, *self.settings.sockets)


def written(orders: Orders) -> bytes:
    """As one line."""
    return json.dumps(asdict(orders), default=str).encode() + b"\n"


def read(line: bytes) -> Orders:
    """What ``written`` wrote."""
    told = json.loads(line)
    return Orders(_settings(told["settings"]), told["lock"], told["debug"])


def _settings(told: Mapping[str, Any]) -> Settings:
    values = dict(told)
    values["paths"] = tuple(map(Path, told["paths"]))
    values["sockets"] = tuple(told["sockets"])
    for name in _PATHS:
        values[name] = _path(told[name])
    if told["tls"] is not None:
        values["tls"] = Files(**{name: _path(path) for name, path in told["tls"].items()})
    return Settings(**values)


def _path(told: str | None) -> Any:
    return None if told is None else Path(told)
