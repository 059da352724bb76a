"""Which trigger feeds which function: the only place that knows how triggers choose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from triggerhub.connector import Order
from triggerhub.control.resources import Function, ResourceKey, Trigger
from triggerhub.delivery.retry import Policy
from triggerhub.delivery.target import Format, OnExhausted, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """A binding's listening half: a change restarts the listener."""

    name: str
    kind: str
    namespace: str
    trigger: str
    function: str
    source: BaseModel
    order: Order
    in_flight: int
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One trigger joined to one function that exists and can be reached."""

    listening: Listening
    target: Target
    paused: bool

    @property
    def name(self) -> str:
        return self.listening.name


def chosen(trigger: Trigger, functions: Mapping[ResourceKey, Function]) -> Sequence[Function]:
    """The functions a trigger means, by name: those that exist, in its own namespace."""
    reference = trigger.spec.function
    if reference.name is not None:
        found = functions.get(ResourceKey(trigger.namespace, reference.name))
        return () if found is None else (found,)
    assert reference.selector is not None
    return [
        function
        for key, function in sorted(functions.items())
        if key.namespace == trigger.namespace and reference.selector.matches(function.labels)
    ]


def bind(
    triggers: Iterable[Trigger],
    functions: Mapping[ResourceKey, Function],
    urls: Mapping[ResourceKey, str],
) -> list[Binding]:
    """All bindings, older triggers first. ``urls`` holds the functions that can be reached.

    A trigger whose connector is not installed has none.
    """
    return [
        _join(trigger, function, urls[function.key])
        for trigger in triggers
        if trigger.source is not None
        for function in chosen(trigger, functions)
        if function.key in urls
    ]


def _join(trigger: Trigger, function: Function, url: str) -> Binding:
    delivery = trigger.spec.delivery
    assert trigger.source is not None
    target = Target(
        namespace=trigger.namespace,
        trigger=trigger.name,
        function=function.name,
        url=url,
        format=Format(delivery.format),
        timeout=delivery.timeout,
        retry=Policy(
            attempts=delivery.retry.attempts,
            initial=delivery.retry.initial,
            max=delivery.retry.max,
            max_age=delivery.retry.max_age,
        ),
        on_exhausted=OnExhausted(delivery.on_exhausted),
        dead_letter_url=delivery.dead_letter.url,
    )
    return Binding(
        listening=Listening(
            name=target.name,
            kind=trigger.kind,
            namespace=trigger.namespace,
            trigger=trigger.name,
            function=function.name,
            source=trigger.source,
            order=Order(delivery.order),
            in_flight=delivery.in_flight,
            created=trigger.created,
        ),
        target=target,
        paused=trigger.spec.paused,
    )
