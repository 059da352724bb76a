"""What the picture shows: values, and how they follow from one link or status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from triggerhub.control.status import TriggerStatus
from triggerhub.delivery.link import Link
from triggerhub.delivery.tally import Tally

Key = tuple[str, str, str]
"""Namespace, trigger, function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingView:
    """One binding as it stands, or a trigger that has none (``name`` and ``function`` empty)."""

    name: str
    kind: str
    namespace: str
    trigger: str
    function: str
    url: str
    state: str
    """``Ready``, ``Paused``, ``Connecting``, ``NotReady``, ``Unbound`` or ``Stopping``."""
    reason: str
    message: str
    received: int = 0
    accepted: int = 0
    filtered: int = 0
    dead: int = 0
    dropped: int = 0
    given_back: int = 0
    in_flight: int = 0
    rate: float = 0.0
    """Events settled per second, over the last seconds."""
    lag: float | None = None
    lag_by_partition: Mapping[str, float] = field(default_factory=dict)
    """Where the source has partitions or shards."""
    last_error: str = ""
    last_error_age: float | None = None
    """Seconds since an attempt last failed."""
    dead_letters: int = 0
    inbox: int = 0
    """Events that were accepted into its inbox and are not settled."""
    seek: Mapping[str, str] | None = None
    """The last one that is done, as far as this process knows: ``id``, ``time``, ``positions``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionView:
    """One function as it stands."""

    namespace: str
    name: str
    kind: str
    """``url``, ``service`` or ``code``."""
    url: str
    reason: str
    """``Ready``, or why it is not: ``Starting``, ``CodeError``, ``Crashed``…"""
    message: str


def key_of(name: str) -> Key:
    """The parts of a binding's name."""
    namespace, trigger, function = name.split(".", 2)
    return namespace, trigger, function


def settled(tally: Tally) -> int:
    """Events that left the hub with an outcome."""
    return tally.accepted + tally.filtered + tally.dead + tally.dropped


def counters(tally: Tally) -> Mapping[str, int]:
    """A tally's counters by the names of ``BindingView``'s fields."""
    return {
        "received": tally.received,
        "accepted": tally.accepted,
        "filtered": tally.filtered,
        "dead": tally.dead,
        "dropped": tally.dropped,
        "given_back": tally.given_back,
        "in_flight": tally.in_flight,
    }


def stopping(link: Link) -> BindingView:
    """A binding that is gone, whose deliveries under way still end."""
    namespace, trigger, function = key_of(link.name)
    tally = link.tally
    return BindingView(
        name=link.name,
        kind="",
        namespace=namespace,
        trigger=trigger,
        function=function,
        url="",
        state="Stopping",
        reason="Unbound",
        message="its deliveries under way end",
        lag_by_partition={},
        **counters(tally),
        last_error=link.last_error,
        seek=None,
    )


def held(name: str, events: int) -> BindingView:
    """A binding that is gone, and what was accepted for it."""
    namespace, trigger, function = key_of(name)
    return BindingView(
        name=name,
        kind="",
        namespace=namespace,
        trigger=trigger,
        function=function,
        url="",
        state="Unbound",
        reason="Unbound",
        message=f"{events} events wait in its inbox for its trigger and function to be there again",
        inbox=events,
    )


def unbound(status: TriggerStatus) -> BindingView:
    """A trigger that has no binding."""
    ready = status.ready
    return BindingView(
        name="",
        kind=status.kind,
        namespace=status.namespace,
        trigger=status.name,
        function="",
        url="",
        state="Unbound",
        reason=ready.reason,
        message=ready.message,
    )
