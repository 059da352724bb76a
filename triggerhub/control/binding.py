"""Which trigger feeds which function: the only place that knows how triggers choose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from triggerhub.connector import LetterPlaces, Order, Reference, SourceModel
from triggerhub.control.kinds import offered
from triggerhub.control.resources import Function, ResourceKey, Trigger
from triggerhub.delivery.retry import Policy
from triggerhub.delivery.target import Letters, Replies, Target


class Outward(Letters, Replies, Protocol):
    """What writes to a source's own system."""


Outlets = Callable[["Listening", LetterPlaces | None], Outward]
"""Makes the outlet of a binding to a place in its source's own system."""

Chosen = Mapping[ResourceKey, Sequence[Function]]
"""Of every trigger the functions that it means and that exist, by name."""


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
    values: Mapping[Reference, bytes] = field(default_factory=dict, repr=False)
    """What the references in ``source`` stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One trigger joined to one function that exists and can be reached."""

    listening: Listening
    target: Target
    paused: bool
    trigger: Trigger = field(compare=False, repr=False)
    """What it was made of."""

    @property
    def name(self) -> str:
        return self.listening.name


def choose(triggers: Iterable[Trigger], functions: Iterable[Function]) -> Chosen:
    """A trigger means functions of its own namespace, by name or by their labels."""
    named = {function.key: function for function in functions}
    inside: defaultdict[str, list[Function]] = defaultdict(list)
    for key in sorted(named):
        inside[key.namespace].append(named[key])
    chosen: dict[ResourceKey, Sequence[Function]] = {}
    for trigger in triggers:
        if trigger.means is not None:
            found = named.get(trigger.means)
            chosen[trigger.key] = () if found is None else (found,)
        else:
            selector = trigger.spec.function.selector
            assert selector is not None
            chosen[trigger.key] = tuple(
                function
                for function in inside[trigger.namespace]
                if selector.matches(function.labels)
            )
    return chosen


def bind(
    triggers: Iterable[Trigger],
    chosen: Chosen,
    urls: Mapping[ResourceKey, str],
    values: Mapping[ResourceKey, Mapping[Reference, bytes] | None],
    known: Mapping[str, Binding],
    outlets: Outlets,
) -> dict[str, Binding]:
    """All bindings by name, older triggers first.

    ``urls`` holds the functions that can be reached; ``values`` what the references of a trigger
    stand for, None where one stands for nothing. A trigger whose connector is not installed, or
    whose references are not all there, has no binding. Those of ``known`` that would be made
    again as they are stay the same objects: work for one change is work for one binding.
    ``outlets`` makes what writes to a source's own system.
    """
    bindings: dict[str, Binding] = {}
    for trigger in triggers:
        if trigger.source is None:
            continue
        own = values.get(trigger.key, {})
        if own is None:
            continue
        for function in chosen[trigger.key]:
            url = urls.get(function.key)
            if url is None:
                continue
            name = f"{trigger.namespace}.{trigger.name}.{function.name}"
            binding = known.get(name)
            if (
                binding is None
                or binding.trigger is not trigger
                or binding.target.url != url
                or binding.listening.values != own
            ):
                binding = _join(trigger, function, url, own, outlets)
            bindings[name] = binding
    return bindings


def _join(
    trigger: Trigger,
    function: Function,
    url: str,
    values: Mapping[Reference, bytes],
    outlets: Outlets,
) -> Binding:
    delivery = trigger.spec.delivery
    assert trigger.source is not None
    listening = Listening(
        name=f"{trigger.namespace}.{trigger.name}.{function.name}",
        kind=trigger.kind,
        namespace=trigger.namespace,
        trigger=trigger.name,
        function=function.name,
        source=trigger.source,
        order=delivery.order,
        in_flight=delivery.in_flight,
        created=trigger.created,
        values=values,
    )
    place = delivery.dead_letter.place
    # A place to write answers to. `true` is for a source that answers who asks by itself.
    answers = isinstance(offered(trigger.source, "reply"), SourceModel)
    target = Target(
        namespace=trigger.namespace,
        trigger=trigger.name,
        function=function.name,
        url=url,
        format=delivery.format,
        timeout=delivery.timeout,
        retry=Policy(
            attempts=delivery.retry.attempts,
            initial=delivery.retry.initial,
            max=delivery.retry.max,
            max_age=delivery.retry.max_age,
        ),
        on_exhausted=delivery.on_exhausted,
        dead_letter_url=delivery.dead_letter.url,
        letters=None if place is None else outlets(listening, place),
        replies=outlets(listening, None) if answers else None,
    )
    return Binding(listening=listening, target=target, paused=trigger.spec.paused, trigger=trigger)
