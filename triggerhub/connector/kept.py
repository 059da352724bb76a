"""What the hub keeps for a source that keeps nothing, or no positions, itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from triggerhub.event import Event, Settled


@dataclass(frozen=True, slots=True)
class Position:
    """A durable value and the revision that a compare-and-set must name."""

    value: str
    revision: int


class PositionConflict(Exception):  # noqa: N818
    """Another process changed this position first (compare-and-set failed)."""


class Positions(Protocol):
    """A durable cursor, for sources that keep none themselves. Keys are the connector's own;
    each subscription has its own set. Every method raises ``OSError`` when the store cannot be
    read or written."""

    async def load(self, prefix: str = "") -> dict[str, Position]:
        """All stored positions of this subscription whose key begins with ``prefix``."""

    async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
        """Write and return the new revision. ``expect`` is the revision last read, 0 for "must
        not exist yet", None for "whatever is there". Raises ``PositionConflict``."""

    async def delete(self, key: str) -> None:
        """Forget one key; no error when it is not there."""

    async def claim(self, key: str, ttl: float) -> bool:
        """Take ``key`` for this process for ``ttl`` seconds, or renew a claim it holds. False:
        another process holds it."""

    async def release(self, key: str) -> None:
        """Give up a claim that this process holds; no error otherwise."""


class Taken(NamedTuple):
    """An event that is in an inbox, or was."""

    number: int
    """Where: no other event of any inbox gets the same."""
    fresh: bool = True
    """False: it was put before, within the window, and nothing was put now."""


class Fate(NamedTuple):
    """What became of an event that was put into an inbox."""

    waits: bool
    """For its delivery, or for the end of one that is under way."""
    settled: Settled | None = None
    """None: it waits; or how it was settled is not known, and then mostly the first attempt was
    accepted, in another process or long ago."""
    attempts: int = 0
    """As far as this process knows."""
    detail: str = ""
    """One line; empty where there is nothing to say."""


class InboxFull(OSError):  # noqa: N818 - a fact about the inbox
    """An inbox holds as many events as it may, or as many bytes: a sentence that says how many."""


class Intake(Protocol):
    """Where a source that keeps nothing itself makes events safe before they are delivered: the
    hub's inbox of this subscription. The hub delivers what is in it, in the order in which it was
    put and with all that ``emit`` does, in one process at a time, whether or not anybody listens.
    """

    async def put(self, event: Event, *, window: float = 0.0) -> Taken:
        """Returns when the event is safe: written and synced. What ``origin`` says is asked now.

        ``window``: an event of the same ``source`` and ``id`` that was put in the last so many
        seconds is this one, and nothing is put. Raises ``InboxFull``; another ``OSError`` when
        the store cannot be written. Cancelled, it may have been put.
        """

    async def fate(
        self, event_id: str, source: str, taken: int, within: float = 0.0
    ) -> Fate | None:
        """What became of the event that was ``taken`` under this number; waits for its outcome
        for ``within`` seconds at most. An empty ``source`` stands for any. None: no event ever
        had that number. Raises ``OSError``."""
