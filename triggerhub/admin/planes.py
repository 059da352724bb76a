"""What the picture reads of the hub's planes: as little as it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prometheus_client import Metric

from triggerhub.control.binding import Binding
from triggerhub.control.listeners import SourceState
from triggerhub.control.resources import Snapshot
from triggerhub.control.status import TriggerStatus


class Manifests(Protocol):
    """What the picture needs of the reconciler."""

    snapshot: Snapshot | None
    bindings: list[Binding]

    def ready(self) -> bool: ...
    def status(self) -> list[TriggerStatus]: ...


class Sources(Protocol):
    """What the picture needs of the listeners."""

    def state(self, name: str) -> SourceState | None: ...


class CodeState(Protocol):
    """How one code function stands."""

    @property
    def url(self) -> str | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...


class CodeFunctions(Protocol):
    """What the picture needs of the code functions' processes."""

    def state(self, namespace: str, name: str) -> CodeState: ...
    async def metrics(self) -> Sequence[Metric]: ...
