"""The values that the store keeps, and what every store can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from triggerhub.connector import Positions
from triggerhub.event import Event, Origin, Settled


class StoreError(OSError):
    """The store could not be read or written (disk full, locked, damaged): says which and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One POST to the function."""

    number: int
    time: float
    """When it began, seconds since the epoch."""
    seconds: float
    status: int | None = None
    """None: no reply."""
    error: str = ""
    """Why there was no reply, or the first line of one that did not accept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one event on one binding: the answer to `triggerhub why`."""

    binding: str
    source: str
    id: str
    type: str
    received: float
    """Seconds since the epoch."""
    ended: float | None
    """None: still under way."""
    settled: Settled | None
    """None: under way, answered to its caller, or given back to its source."""
    detail: str = ""
    """One line: why it ended as it did."""
    attempts: tuple[Attempt, ...] = ()
    dead_letter: str = ""
    """Id of the dead letter, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Where a dead letter lies that is not in the store: in its source's own system."""

    kind: str
    """Of the trigger, e.g. ``KafkaTrigger``: its connector reads it back."""
    coordinates: Mapping[str, str]
    size: int
    """Bytes of the event's data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that its function did not accept, with the evidence."""

    id: str
    """A ULID: sorts by the time it was stored."""
    namespace: str
    trigger: str
    function: str
    event: Event
    """As it was sent: attributes and data byte for byte (``origin`` and ``request`` unset)."""
    origin: Origin
    reason: str
    """``Rejected``, ``AttemptsExhausted``, ``Expired`` or ``Undecodable``."""
    detail: str
    last_status: int | None
    last_response: bytes
    """The head of the last response's body, 1 KiB at most."""
    attempts: int
    first_time: float
    last_time: float
    elsewhere: Elsewhere | None = None
    """Set: this is only its entry. Data, extensions and ``origin`` lie there."""

    @property
    def binding(self) -> str:
        return f"{self.namespace}.{self.trigger}.{self.function}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters: all fields that are set must hold."""

    ids: tuple[str, ...] = ()
    trigger: str = ""
    """``name`` or ``namespace/name``."""
    function: str = ""
    reason: str = ""
    older_than: float | None = None
    """Seconds since it was stored."""

    @property
    def empty(self) -> bool:
        return self == Selection()


class Deleted(NamedTuple):
    """What a deletion took out of the store."""

    number: int
    elsewhere: int
    """So many of them were only entries: the letters stay where they lie."""


class DeadLetters(Protocol):
    """Dead letters at rest. Every method raises ``StoreError``."""

    async def add(self, letter: DeadLetter) -> None:
        """Durable (synced to disk) when it returns. Adding an id twice is no error."""

    async def list(
        self, selection: Selection, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """Oldest first, at most ``limit``, those whose id is greater than ``after``."""

    async def get(self, letter_id: str) -> DeadLetter | None: ...

    async def delete(self, selection: Selection) -> Deleted:
        """Of those that lie elsewhere the entry goes."""

    async def counts(self) -> dict[tuple[str, str, str], int]:
        """How many there are, by (namespace, trigger, function)."""


class Journal(Protocol):
    """Deliveries worth explaining for a day: bounded in age and number."""

    def note(self, delivery: Delivery) -> None:
        """Queue for writing; never waits and never fails (what the disk refuses is lost, and
        counted in a log line)."""

    async def find(self, event_id: str, source: str = "") -> Sequence[Delivery]:
        """Newest first."""


class Store(Protocol):
    """Open it as an async context manager; entering raises ``StoreError``."""

    @property
    def dead_letters(self) -> DeadLetters: ...

    @property
    def journal(self) -> Journal: ...

    def positions(self, subscription: str) -> Positions: ...
