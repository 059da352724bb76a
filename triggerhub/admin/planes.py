"""What the picture reads of the hub's planes: as little as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from prometheus_client import Metric

from triggerhub.connector import Connector
from triggerhub.control.binding import Binding
from triggerhub.control.outlets import Connections
from triggerhub.control.report import SourceState
from triggerhub.control.resources import Function, Snapshot
from triggerhub.control.services import Reach
from triggerhub.control.status import TriggerStatus


class Manifests(Protocol):
    """What the picture needs of the reconciler."""

    snapshot: Snapshot | None

    @property
    def bindings(self) -> Sequence[Binding]: ...
    def ready(self) -> bool: ...
    def status(self) -> list[TriggerStatus]: ...
    def functions(self) -> list[tuple[Function, Reach]]: ...


class Sources(Connections, Protocol):
    """What the picture needs of the listeners."""

    def state(self, name: str) -> SourceState | None: ...
    async def connector(self, kind: str) -> Connector[Any]: ...


class CodeFunctions(Protocol):
    """What the picture needs of the code functions' processes."""

    async def metrics(self) -> Sequence[Metric]: ...


class Watch(Protocol):
    """What the picture needs of a watched API server."""

    def problems(self) -> list[str]: ...
    def alive(self) -> bool: ...
