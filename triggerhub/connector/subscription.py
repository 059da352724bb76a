"""One binding's listening half: what a connector is given, and what it says of its source."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

from triggerhub.connector.kept import Intake, Positions
from triggerhub.connector.source import Reference
from triggerhub.event import Event, Outcome

S_co = TypeVar("S_co", bound=BaseModel, covariant=True)


class Order(StrEnum):
    """What is delivered one after the other, in source order, retries included."""

    NONE = "None"
    KEY = "Key"
    PARTITION = "Partition"


class GivenBack(Exception):  # noqa: N818 - a fact about the delivery, not a fault
    """The delivery ended without an outcome (listener stopping, function gone): the event stays
    with its source, which will bring it again."""


class Emit(Protocol):
    """Carry one event along the binding. Returning means settled."""

    async def __call__(self, event: Event) -> Outcome:
        """Deliver, with every retry. Raises ``GivenBack`` when it ends without an outcome."""

    def release(self) -> None:
        """Deliveries that wait between two attempts raise ``GivenBack`` now, and so will those
        whose attempt under way fails, until ``resume``. Attempts under way go on."""

    def resume(self) -> None:
        """Deliveries may wait again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """A seek that is done: the positions of a binding were moved because its manifest says so."""

    id: str
    """As the manifest names it: each is done once."""
    time: datetime
    positions: str
    """Where to, in the source's own words, e.g. ``0:1520,1:1498``."""


class Report(Protocol):
    """How the source is. Shown in the trigger's ``Connected`` condition and in metrics."""

    def connected(self, reason: str = "Connected", message: str = "") -> None:
        """The listener is attached: what the source brings from now on will be seen. Another
        ``reason`` in CamelCase, with a message, tells of something that happened and that the
        user is to know although it goes on, until the next report."""

    def disconnected(self, reason: str, message: str = "") -> None:
        """``reason`` in CamelCase, e.g. ``BrokerUnreachable``; ``message`` says what to do."""

    def lag(self, events: float, parts: Mapping[str, float] | None = None) -> None:
        """How many events wait in the source for this process, as far as it can tell: what
        several processes of a hub tell is added up. ``parts``: and in each of its partitions or
        shards that this process reads, by a name such as ``orders/3``."""

    def turned_away(self, reason: str) -> None:
        """Somebody who sent something was refused, and no event came of it. ``reason`` in
        CamelCase, one of few: they are counted by it."""

    def sought(self, seek: Sought) -> None:
        """The seek that the manifest asks for is done, now or long ago. Kept in the trigger's
        status."""


async def alone() -> None:
    """Of a hub that is one process: nobody else uses its positions."""


async def at_once() -> float:
    """The turn of a process without replicas: from now on."""
    return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription(Generic[S_co]):
    """One binding's listening half, as its connector sees it."""

    name: str
    """``namespace.trigger.function``: unique, stable, fit for a consumer group or durable."""
    namespace: str
    trigger: str
    function: str
    source: S_co
    emit: Emit
    order: Order = Order.KEY
    in_flight: int = 64
    grace: float = 25.0
    """Seconds that in-flight deliveries get to end when the listener stops."""
    positions: Positions
    inbox: Intake
    report: Report
    created: datetime
    """Creation time of the trigger: where two claim one thing, the older keeps it."""
    values: Mapping[Reference, bytes] = field(default_factory=dict, repr=False)
    """What the references in ``source`` stand for."""
    own: Callable[[], Awaitable[None]] = alone
    """For a source that keeps in ``positions`` what is under way: wait until no other process of
    this hub does so. What is found there afterwards is nobody's any more. It stays so until the
    process ends."""
    turn: Callable[[], Awaitable[float]] = at_once
    """For a source that spreads nothing among replicas by itself (a clock): wait until this
    process is the one that acts for them all. Returns the time (seconds since the epoch) since
    when what falls due is its own; infinity: from now on. Loses it only together with the
    listener, which is cancelled then and started anew."""

    def value(self, reference: Reference) -> bytes:
        """What a reference stands for. Raises LookupError for one that is not in ``source``."""
        value = self.values.get(reference)
        if value is None:
            raise LookupError(f"{reference} is not there")
        return value
