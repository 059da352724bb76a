"""The values that the store keeps, and what every store can do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    """As it was sent: attributes and data byte for byte (``origin`` unset; ``request`` only where
    that is deferred)."""
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


@dataclass(frozen=True, slots=True)
class Room:
    """How much one inbox may hold."""

    events: int = 1_000_000
    size: int = 1024 * 1024 * 1024
    """Bytes of data and attributes. An empty inbox takes one event, however large."""


class Entry(NamedTuple):
    """An event in an inbox."""

    number: int
    """No other entry of the store ever gets it; within an inbox it ascends."""
    event: Event
    """As it was put, ``request`` included; ``origin`` gives what it gave then."""


class Put(NamedTuple):
    """What became of a ``put``."""

    number: int
    fresh: bool
    """False: ``once`` was put before, under this number; nothing was put now."""
    before: int | None = None
    """The number of the entry put before it into the same inbox, whether or not it is still
    there; 0: there was none. None: this store cannot tell."""


class Waiting(NamedTuple):
    """What an inbox holds."""

    events: int
    size: int
    """Bytes, as ``Room`` counts them."""


class Inbox(Protocol):
    """Events of one binding that were accepted and are not delivered yet. Several processes may
    put and read; every method raises ``StoreError``."""

    async def put(self, event: Event, *, once: str = "", window: float = 0.0) -> Put:
        """Durable (synced to disk) when it returns. ``once``: where the same text was put into
        this inbox within the last ``window`` seconds (that put's own window counts), nothing is
        put. Raises ``InboxFull``."""

    async def read(
        self, after: int = 0, *, limit: int = 256, size: int = 8 * 1024 * 1024
    ) -> Sequence[Entry]:
        """Oldest first those whose number is greater than ``after``: at most ``limit``, and no
        more than make ``size`` bytes of data, but for the first. Those of one process are all
        there once its ``put`` has returned."""

    async def remove(self, numbers: Collection[int]) -> None:
        """They are settled; no error for one that is not there. What was put ``once`` stays
        known."""

    async def purge(self) -> int:
        """Remove all that was there when it was called; returns how many. What was put ``once``
        stays known."""

    async def has(self, number: int) -> bool | None:
        """Whether it is there; False: it was; None: no entry of this inbox had that number."""


class Trouble(NamedTuple):
    """Why a store cannot be used now."""

    text: str
    """One sentence, which says which store."""
    refused: bool
    """Waiting alone does not mend it, or nothing is known yet: a hub that starts is not ready."""


class Store(Protocol):
    """Open it as an async context manager; entering raises ``StoreError``."""

    @property
    def trouble(self) -> Trouble | None:
        """None: it answers, or took what it was last given. Asks nobody."""

    @property
    def dead_letters(self) -> DeadLetters: ...

    @property
    def journal(self) -> Journal: ...

    def positions(self, subscription: str) -> Positions: ...

    def inbox(self, binding: str) -> Inbox: ...

    async def waiting(self) -> Mapping[str, Waiting]:
        """What each inbox holds, by binding; those that are empty may be left out. Raises
        ``StoreError``."""
