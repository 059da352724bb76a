"""The seam: all that a connector author implements and is given.

A connector is a kind, a model of its ``spec.source`` and one coroutine. It never sees Kubernetes,
functions, retries or metrics. ``docs/writing-a-connector.md`` walks through one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from triggerhub.event import EMPTY, Event, Outcome


class Order(StrEnum):
    """What is delivered one after the other, in source order, retries included."""

    NONE = "None"
    KEY = "Key"
    PARTITION = "Partition"


class SpecError(Exception):
    """The source half of a manifest cannot work, whatever is tried again: ``listen`` raises it,
    the trigger's condition shows it, and listening begins anew only when the manifest changes."""


class GivenBack(Exception):  # noqa: N818 - a fact about the delivery, not a fault
    """The delivery ended without an outcome (listener stopping, function gone): the event stays
    with its source, which will bring it again."""


class PositionConflict(Exception):  # noqa: N818
    """Another process changed this position first (compare-and-set failed)."""


class SourceModel(BaseModel):
    """Base of every ``spec.source`` model: frozen, unknown fields refused, camelCase on the wire
    (declare ``alias="…"`` where a Python name differs)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=False, strict=True, validate_default=True
    )


S = TypeVar("S", bound=BaseModel)
S_co = TypeVar("S_co", bound=BaseModel, covariant=True)


class Emit(Protocol):
    """Carry one event along the binding. Returning means settled."""

    async def __call__(self, event: Event) -> Outcome:
        """Deliver, with every retry. Raises ``GivenBack`` when it ends without an outcome."""

    def release(self) -> None:
        """Deliveries that wait between two attempts raise ``GivenBack`` now, and so will those
        whose attempt under way fails, until ``resume``. Attempts under way go on."""

    def resume(self) -> None:
        """Deliveries may wait again."""


@dataclass(frozen=True, slots=True)
class Position:
    """A durable value and the revision that a compare-and-set must name."""

    value: str
    revision: int


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


class Report(Protocol):
    """How the source is. Shown in the trigger's ``Connected`` condition and in metrics."""

    def connected(self) -> None:
        """The listener is attached: what the source brings from now on will be seen."""

    def disconnected(self, reason: str, message: str = "") -> None:
        """``reason`` in CamelCase, e.g. ``BrokerUnreachable``; ``message`` says what to do."""

    def lag(self, events: float) -> None:
        """How many events wait in the source, as far as it can tell."""


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
    report: Report
    created: datetime
    """Creation time of the trigger: where two claim one thing, the older keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What a connector may know of the hub it runs in; given to its factory."""

    listen: str = "127.0.0.1:8080"
    """Where HTTP triggers listen: ``host:port``; port 0 takes a free one."""
    environ: Mapping[str, str] = field(default_factory=lambda: EMPTY, repr=False)
    """Environment: ``TRIGGERHUB_<NAME>`` variables hold a kind's installation-wide defaults."""


class Connector(Protocol[S]):
    """What the entry-point group ``triggerhub.connectors`` names: a class or function that is
    called with an ``Installation`` and returns this. The entry point's name is the kind.

    Where it shares something among its subscriptions (a server, a client), it is also an async
    context manager: entered before its first ``listen``, left after the last one ended.
    """

    kind: str
    source: type[S]
    """``spec.source`` decodes to this; its JSON schema becomes the CRD's."""

    async def listen(self, subscription: Subscription[S]) -> None:
        """Emit the events of one source until cancelled.

        Raise what fails: the hub calls again, with backoff, and says why in the trigger's
        condition. Raise ``SpecError`` for what no repetition cures.
        """
