"""What goes in and what comes back: Event, Outcome, and the HTTP pair Request and Reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

EMPTY: Mapping[str, str] = MappingProxyType({})

Headers = tuple[tuple[bytes, bytes], ...]
"""HTTP header fields in wire order; names in lower case."""

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:

    def value(**options):
        """As ``dataclass``, but ``frozen`` holds only for type checkers: at run time one
        ``object.__setattr__`` a field would be a tenth of the hub's work for an event."""
        return dataclass(**(options | {"frozen": False}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the source itself said of an event; a dead letter keeps it byte for byte."""

    coordinates: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Where the event lies in its source, e.g. ``{"topic": …, "partition": …, "offset": …}``."""
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    value: bytes | None = None
    """The whole as the source has it, where the source tells: the event's data may be only a part
    of it, or decoded. None also where there is nothing (a tombstone)."""


class Caller(Protocol):
    """Who waits for the answer to a request, where it can be told while it comes. An answer that is
    short and comes at once is not told so: it is in the outcome alone."""

    async def begin(self, reply: Reply) -> None:
        """The answer's head, and as much of its body as is there."""

    async def take(self, piece: bytes) -> None:
        """More of the body. Returns when the caller can take on."""

    async def end(self) -> None:
        """That was the whole body. Where this is not called, it broke off."""


class Rest(Protocol):
    """What follows of a body."""

    async def read(self) -> bytes:
        """The next piece; empty: that was all. Raises what went wrong."""

    def close(self) -> None:
        """No more is wanted."""


@value(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request to be passed on as it is (HTTP triggers); its body is the event's data."""

    method: str
    path: str = ""
    """What follows the function's own URL path: empty, or ``/…`` still percent-encoded."""
    query: str = ""
    """Without the question mark, still percent-encoded."""
    headers: Headers = ()
    rest: Rest | None = field(default=None, repr=False, compare=False)
    """What follows the event's data of the body, sent as it comes; only of a synchronous request
    with a ``caller``. What it raises, ``emit`` raises. May be closed before its end."""
    length: int | None = None
    """Bytes of the whole body, where it has a ``rest``; None: not known."""
    deferred: bool = False
    """True: nobody waits for the answer. It is delivered like any other event."""
    caller: Caller | None = field(default=None, repr=False, compare=False)
    """Takes an answer that is long, or comes slowly, while it comes. None: it is kept whole, within
    a limit."""


@value(frozen=True, slots=True, kw_only=True)
class Event:
    """One event, by the attribute names of CloudEvents 1.0 (context attributes, section 3).

    ``source`` and ``id`` together are its identity: derived from source coordinates, so that a
    redelivery bears the same pair.
    """

    id: str
    source: str
    type: str
    data: bytes = b""
    datacontenttype: str | None = None
    subject: str | None = None
    time: datetime | None = None
    key: str | None = None
    """What order means for this event; sent as ``partitionkey``."""
    extensions: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Further CloudEvents attributes: names ``[a-z0-9]+``, values text."""
    origin: Callable[[], Origin] | None = None
    """Asked for only when the event becomes a dead letter."""
    request: Request | None = None
    """Set: the event is a request. Unless that is deferred, one attempt, and the function's answer
    comes back in ``Outcome.reply`` whatever its status."""
    fault: str | None = None
    """Set: the source could not make sense of the record. It is never sent; it becomes a dead
    letter with this reason."""
    redelivered: int = 0
    """How often the source brought it before without hearing of an outcome, where it counts: each
    time the delivery failed for a while, was given back, or ended with its process. So it is no
    count of failed attempts; see ``Course``."""


@value(frozen=True, slots=True)
class Reply:
    """A function's HTTP answer."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    truncated: bool = False
    """True when the body went on beyond what the caller asked to keep."""
    rest: Rest | None = field(default=None, repr=False, compare=False)
    """What follows ``body``, while it comes; for whoever sent the request, and nobody after."""


class Settled(StrEnum):
    """How an event left the hub, told to its source (contract, section 2)."""

    ACCEPTED = "accepted"
    FILTERED = "filtered"
    DEAD = "dead"
    DROPPED = "dropped"


@value(frozen=True, slots=True)
class Outcome:
    """What became of an event. A delivery that was not finished has none: ``emit`` raises
    ``GivenBack`` or is cancelled, and its source keeps the event.

    For a synchronous request (``Event.request``) ``settled`` is None unless the function
    accepted: the answer went back to the caller, who holds the event and decides.
    """

    settled: Settled | None
    reply: Reply | None = field(default=None)
