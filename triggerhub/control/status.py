"""What is true of a trigger and its bindings, as conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from triggerhub.control.binding import Binding, chosen
from triggerhub.control.listeners import SourceState
from triggerhub.control.resources import Function, ResourceKey, Trigger
from triggerhub.delivery.target import Problem


class State(StrEnum):
    """metav1.ConditionStatus."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """As metav1.Condition; ``reason`` is CamelCase, ``message`` says what to do."""

    type: str
    status: State
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerStatus:
    """A trigger's status: its conditions, and the names of its bindings."""

    kind: str
    namespace: str
    name: str
    observed_generation: int
    conditions: tuple[Condition, ...]
    bindings: tuple[str, ...]

    @property
    def ready(self) -> Condition:
        return self.conditions[-1]


def status_of(
    trigger: Trigger,
    bindings: Sequence[Binding],
    functions: Mapping[ResourceKey, Function],
    *,
    missing: str,
    unreachable: Callable[[ResourceKey], tuple[str, str]],
    source: Callable[[str], SourceState | None],
    problem: Callable[[str], Problem | None],
) -> TriggerStatus:
    """``bindings`` are this trigger's own; ``missing`` says what an uninstalled connector needs;
    ``unreachable`` gives reason and message for a function that has no URL; ``source`` and
    ``problem`` answer for a binding's name."""
    states = [state for b in bindings if (state := source(b.name)) is not None]
    accepted = _accepted(trigger, missing, states)
    bound = _bound(trigger, bindings, functions, unreachable)
    connected = _connected(trigger, states)
    ready = _ready(trigger, (accepted, bound, connected), [problem(b.name) for b in bindings])
    return TriggerStatus(
        kind=trigger.kind,
        namespace=trigger.namespace,
        name=trigger.name,
        observed_generation=trigger.generation,
        conditions=(accepted, bound, connected, ready),
        bindings=tuple(b.name for b in bindings),
    )


def _accepted(trigger: Trigger, missing: str, states: Sequence[SourceState]) -> Condition:
    if trigger.source is None:
        return Condition("Accepted", State.FALSE, "ConnectorNotInstalled", missing)
    refused = next((state for state in states if state.refused), None)
    if refused is not None:
        return Condition("Accepted", State.FALSE, refused.reason, refused.message)
    return Condition("Accepted", State.TRUE, "Accepted")


def _bound(
    trigger: Trigger,
    bindings: Sequence[Binding],
    functions: Mapping[ResourceKey, Function],
    unreachable: Callable[[ResourceKey], tuple[str, str]],
) -> Condition:
    wanted = chosen(trigger, functions)
    if not wanted:
        name = trigger.spec.function.name
        if name is None:
            return Condition(
                "Bound", State.FALSE, "NoFunctionMatches",
                f"no function in namespace {trigger.namespace} matches the selector",
            )  # fmt: skip
        return Condition(
            "Bound", State.FALSE, "FunctionNotFound",
            f"function {name} does not exist in namespace {trigger.namespace}; "
            "nothing is listened to until it does",
        )  # fmt: skip
    bound = {b.listening.function for b in bindings}
    for function in wanted:
        if function.name not in bound and trigger.source is not None:
            reason, message = unreachable(function.key)
            return Condition(
                "Bound", State.FALSE, "FunctionNotReady",
                f"function {function.name}: {reason}: {message}",
            )  # fmt: skip
    if trigger.source is None:
        return Condition("Bound", State.FALSE, "ConnectorNotInstalled")
    return Condition("Bound", State.TRUE, "Bound", ", ".join(sorted(bound)))


def _connected(trigger: Trigger, states: Sequence[SourceState]) -> Condition:
    if trigger.spec.paused:
        return Condition("Connected", State.FALSE, "Paused", "spec.paused is true")
    if not states:
        return Condition("Connected", State.FALSE, "NotListening", "no function is bound")
    broken = next((state for state in states if state.attached is False), None)
    if broken is not None:
        return Condition("Connected", State.FALSE, broken.reason, broken.message)
    if any(state.attached is None for state in states):
        return Condition("Connected", State.UNKNOWN, "Connecting", states[0].message)
    return Condition("Connected", State.TRUE, "Connected")


def _ready(
    trigger: Trigger, parts: Sequence[Condition], problems: Sequence[Problem | None]
) -> Condition:
    for part in parts:
        if part.status is not State.TRUE:
            return Condition("Ready", part.status, part.reason, part.message)
    trouble = next((p for p in problems if p is not None), None)
    if trouble is not None:
        return Condition("Ready", State.FALSE, trouble.reason, trouble.message)
    return Condition("Ready", State.TRUE, "Ready")
