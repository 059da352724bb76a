"""The values that manifests stand for: Trigger, Function, Values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from triggerhub.control.faults import Fault, dotted
from triggerhub.control.places import FieldPath
from triggerhub.control.services import Service
from triggerhub.control.specs import (
    CodeSpec,
    DeadLetterSpec,
    DeliverySpec,
    FunctionReference,
    FunctionSpec,
    LabelSelector,
    OnFunctionDelete,
    RetryPolicy,
    TriggerSpec,
)
from triggerhub.durations import Duration

__all__ = [
    "API_VERSION",
    "CONFIG_MAP",
    "FUNCTION",
    "GROUP",
    "SECRET",
    "VERSION",
    "CodeSpec",
    "DeadLetterSpec",
    "DeliverySpec",
    "Duration",
    "Function",
    "FunctionReference",
    "FunctionSpec",
    "Invalid",
    "LabelSelector",
    "Manifest",
    "OnFunctionDelete",
    "Resource",
    "ResourceKey",
    "RetryPolicy",
    "Snapshot",
    "Trigger",
    "TriggerSpec",
    "ValueKey",
    "Values",
    "Where",
    "plural_of",
]

GROUP = "triggerhub.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FUNCTION = "Function"
SECRET = "Secret"  # noqa: S105 - a kind
CONFIG_MAP = "ConfigMap"


def plural_of(kind: str) -> str:
    """The name of a kind in the API server's paths."""
    return f"{kind.lower()}s"


class ResourceKey(NamedTuple):
    namespace: str
    name: str


class ValueKey(NamedTuple):
    """A Secret or ConfigMap."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Where:
    """Where a manifest stands."""

    file: str = ""
    """As the user named it; empty for a cluster."""
    folder: Path | None = None
    """What the relative paths of a code function's ``files`` start from."""
    locate: Callable[[FieldPath], int] | None = field(default=None, compare=False, repr=False)

    def line(self, path: FieldPath = ()) -> int:
        """The line of a field, or of the nearest thing around it; 0 when it is not known."""
        return self.locate(path) if self.locate else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One document of a folder or object of a cluster, not yet judged."""

    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    generation: int
    created: datetime
    body: Mapping[str, Any]
    """The whole document: JSON types only."""
    where: Where = Where()

    @classmethod
    def read(
        cls, body: Mapping[str, Any], *, where: Where, created: datetime, generation: int = 1
    ) -> Manifest:
        """Take the names out of a document; what is missing or no text is empty."""
        metadata = body.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        kind, name, labels = body.get("kind"), metadata.get("name"), metadata.get("labels")
        namespace = metadata.get("namespace", "default")
        return cls(
            kind=kind if isinstance(kind, str) else "",
            namespace=namespace if isinstance(namespace, str) else "",
            name=name if isinstance(name, str) else "",
            labels=labels if isinstance(labels, Mapping) else {},
            generation=generation,
            created=created,
            body=body,
            where=where,
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace or '?'}/{self.name or '?'}" if self.kind else ""

    def fault(
        self, path: FieldPath, *, found: str = "", expected: str = "", hint: str = ""
    ) -> Fault:
        """A fault in one of its fields."""
        where = self.where
        return Fault(where.file, where.line(path), str(self), dotted(path), found, expected, hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What to listen to, and which function is meant. Equal when nothing but its place changed."""

    kind: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    generation: int
    created: datetime
    spec: TriggerSpec
    """The hub's half."""
    source: BaseModel | None
    """The connector's half; None while its connector is not installed."""
    where: Where = field(default=Where(), compare=False, repr=False)
    # Made once: every pass over thousands of them asks for these, several times.
    key: ResourceKey = field(init=False, compare=False, repr=False)
    means: ResourceKey | None = field(init=False, compare=False, repr=False)
    """The function that it names; None: it selects some."""
    rank: tuple[datetime, ResourceKey, str] = field(init=False, compare=False, repr=False)
    """Sorts the oldest first."""

    def __post_init__(self) -> None:
        key, name = ResourceKey(self.namespace, self.name), self.spec.function.name
        means = None if name is None else ResourceKey(self.namespace, name)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "rank", (self.created, key, self.kind))

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """What answers events. Equal when nothing but its place changed."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    generation: int
    created: datetime
    spec: FunctionSpec
    code_files: Mapping[str, bytes] | None = field(default=None, repr=False)
    """Relative path to content: of ``inline`` as decoded; of ``files`` once their source has
    read them; None for a function that is a URL."""
    where: Where = field(default=Where(), compare=False, repr=False)
    key: ResourceKey = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Made once: every pass over thousands of them asks for it, several times.
        object.__setattr__(self, "key", ResourceKey(self.namespace, self.name))

    def __str__(self) -> str:
        return f"{FUNCTION} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """A Secret or ConfigMap: what references stand for. Never shown."""

    kind: str
    namespace: str
    name: str
    generation: int
    created: datetime
    data: Mapping[str, bytes] = field(repr=False)
    where: Where = field(default=Where(), compare=False, repr=False)

    @property
    def key(self) -> ValueKey:
        return ValueKey(self.kind, self.namespace, self.name)

    def __str__(self) -> str:
        return str(self.key)


Resource = Trigger | Function | Values
"""What a manifest stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """An object of a cluster that stands for no value. Nothing of what it said before holds: a
    hub that starts now would not know it either."""

    kind: str
    namespace: str
    name: str
    created: datetime
    generation: int
    faults: tuple[Fault, ...]

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is there at one moment."""

    triggers: tuple[Trigger, ...] = ()
    """The oldest first, then by namespace and name."""
    functions: tuple[Function, ...] = ()
    faults: tuple[Fault, ...] = ()
    """What is wrong in files."""
    invalid: tuple[Invalid, ...] = ()
    """What is wrong in objects of a cluster."""
    services: Mapping[ResourceKey, Service] = field(default_factory=dict)
    """Those that functions name."""
    values: Mapping[ValueKey, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    """Data of the Secrets and ConfigMaps that exist; of a cluster, those that are referred to."""
    unread: Mapping[ValueKey, str] = field(default_factory=dict)
    """Why it is not known whether the others that are referred to exist, a sentence each."""

    def complaints(self) -> tuple[Fault, ...]:
        """All that is wrong, wherever."""
        return (*self.faults, *(fault for invalid in self.invalid for fault in invalid.faults))
