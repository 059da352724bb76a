"""An object of the API server as the hub keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from zlib import crc32

from triggerhub.cluster.answers import Object, Resource
from triggerhub.cluster.reported import Reported
from triggerhub.control.decoding import decode
from triggerhub.control.faults import Fault
from triggerhub.control.plugins import Kind
from triggerhub.control.references import wanted
from triggerhub.control.resources import (
    API_VERSION,
    GROUP,
    VERSION,
    Function,
    Invalid,
    Manifest,
    ResourceKey,
    Trigger,
    ValueKey,
    Where,
    plural_of,
)
from triggerhub.event import EMPTY

FINALIZER = "triggerhub.dev/clean-up"
"""On triggers whose source's remains are to go with them."""


def resource_of(kind: str) -> Resource:
    """Of a kind of ours."""
    return Resource(GROUP, VERSION, plural_of(kind))


@dataclass(frozen=True, slots=True)
class Standing:
    """What the API server holds of one object."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    created: datetime
    generation: int
    labels: Mapping[str, str]
    deleting: datetime | None
    """Since when it is being deleted."""
    finalizers: tuple[str, ...]
    reported: Reported | None
    """Its status."""
    value: Trigger | Function | None
    """None: it has faults."""
    faults: tuple[Fault, ...]
    values: tuple[ValueKey, ...] = ()
    """The Secrets and ConfigMaps that it refers to."""

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.namespace, self.name)

    @property
    def gone(self) -> bool:
        """Nothing is to be done for it any more, and nothing cleaned up."""
        return self.deleting is not None and FINALIZER not in self.finalizers

    def looks_like(self, other: Standing) -> bool:
        """Nothing that a snapshot shows differs."""
        return (
            self.value is other.value
            and self.faults == other.faults
            and self.generation == other.generation
            and (self.deleting is None) == (other.deleting is None)
            and self.gone == other.gone
        )


def read_standing(
    kind: str, body: Object, before: Standing | None, kinds: Mapping[str, Kind]
) -> Standing:
    """What is kept of an object. What was decoded stays the same value while only the status,
    or nothing of ours, changed."""
    metadata = body.get("metadata") or {}
    generation = int(metadata.get("generation") or 0)
    labels = metadata.get("labels") or EMPTY
    uid = str(metadata.get("uid") or "")
    if (
        before is not None
        and generation
        and (before.uid, before.generation, before.labels) == (uid, generation, labels)
    ):
        labels, value, faults, values = before.labels, before.value, before.faults, before.values
        created = before.created
    else:
        created = _created(metadata, uid)
        value, faults = _decoded(kind, body, generation, created, kinds)
        values = ()
        if isinstance(value, Trigger):
            values = tuple(wanted(value.source, value.namespace))
    return Standing(
        kind=kind,
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata.get("name") or ""),
        uid=uid,
        resource_version=str(metadata.get("resourceVersion") or ""),
        created=created,
        generation=generation,
        labels=labels,
        deleting=_time(metadata.get("deletionTimestamp")),
        finalizers=tuple(metadata.get("finalizers") or ()),
        reported=Reported.read(body.get("status")),
        value=value,
        faults=faults,
        values=values,
    )


def invalid(found: Standing | Trigger, faults: tuple[Fault, ...]) -> Invalid:
    """An object that stands for no value, and why."""
    return Invalid(
        kind=found.kind,
        namespace=found.namespace,
        name=found.name,
        created=found.created,
        generation=found.generation,
        faults=faults,
    )


def taken(trigger: Trigger, holder: Trigger) -> Invalid:
    """A trigger whose name an older one of another kind has."""
    fault = Fault(
        object=str(trigger),
        field="metadata.name",
        found=f"the name of {holder}",
        expected="a name of its own: triggers of all kinds share one set of names",
    )
    return invalid(trigger, (fault,))


def _decoded(
    kind: str, body: Object, generation: int, created: datetime, kinds: Mapping[str, Kind]
) -> tuple[Trigger | Function | None, tuple[Fault, ...]]:
    # A list's items need not have a kind of their own.
    whole = {"apiVersion": API_VERSION, "kind": kind, **body}
    manifest = Manifest.read(whole, where=Where(), created=created, generation=generation)
    value = decode(manifest, kinds)
    return (None, value) if isinstance(value, tuple) else (value, ())


def _created(metadata: Object, uid: str) -> datetime:
    """The server tells seconds. The uid tells apart what was made within one: an object that is
    deleted and made anew in one breath is another, and the older of two is the same one for
    every replica."""
    created = _time(metadata.get("creationTimestamp")) or datetime.now(UTC)
    return created.replace(microsecond=crc32(uid.encode()) % 1_000_000)


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
