"""What is true of a trigger, its bindings and a function, as conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from triggerhub.connector import Sought
from triggerhub.control.binding import Binding
from triggerhub.control.report import SourceState
from triggerhub.control.resources import Function, Invalid, ResourceKey, Trigger
from triggerhub.control.services import Reach
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


@dataclass(frozen=True, slots=True)
class Exposure:
    """How a trigger stands that asks to be reached from outside of a cluster."""

    condition: Condition
    address: str = ""
    """Of what stands before the hub: IP addresses and host names, separated by ``, ``."""


@dataclass(frozen=True, slots=True)
class BoundFunction:
    """One entry of ``status.bindings``."""

    function: str
    url: str
    seek: Sought | None = None
    """The last one that is done, as far as this process knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerStatus:
    """A trigger's status: its conditions, and its bindings."""

    kind: str
    namespace: str
    name: str
    created: datetime
    """Tells apart objects that bore one name after the other."""
    observed_generation: int
    conditions: tuple[Condition, ...]
    functions: tuple[BoundFunction, ...]
    address: str = ""
    """Where requests from outside of the cluster come in, as far as that is known."""

    @property
    def ready(self) -> Condition:
        return self.conditions[-1]

    @property
    def bindings(self) -> tuple[str, ...]:
        """The bindings' names."""
        prefix = f"{self.namespace}.{self.name}."
        return tuple(prefix + bound.function for bound in self.functions)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStatus:
    """A function's status: its conditions, and where it is reached."""

    namespace: str
    name: str
    created: datetime
    observed_generation: int
    conditions: tuple[Condition, ...]
    url: str


def status_of(
    trigger: Trigger,
    bindings: Sequence[Binding],
    wanted: Sequence[Function],
    *,
    missing: str,
    lacking: str,
    reaches: Mapping[ResourceKey, Reach],
    source: Callable[[str], SourceState | None],
    problem: Callable[[str], Problem | None],
    exposure: Exposure | None = None,
) -> TriggerStatus:
    """``bindings`` are this trigger's own, ``wanted`` the functions that it means; ``missing``
    says what an uninstalled connector needs, ``lacking`` which reference of its source stands for
    nothing; ``reaches`` holds how functions are reached; ``source`` and ``problem`` answer for a
    binding's name; ``exposure`` is for one that asks for it. ``Ready`` does not wait for that."""
    known = {b.name: state for b in bindings if (state := source(b.name)) is not None}
    states = [*known.values()]
    accepted = _accepted(trigger, missing, states)
    bound = _bound(trigger, bindings, wanted, lacking, reaches)
    connected = _connected(trigger, states)
    troubles = [trouble for b in bindings if (trouble := problem(b.name)) is not None]
    ready = _ready((accepted, bound, connected), wanted, reaches, troubles)
    exposed = () if exposure is None else (exposure.condition,)
    return TriggerStatus(
        kind=trigger.kind,
        namespace=trigger.namespace,
        name=trigger.name,
        created=trigger.created,
        observed_generation=trigger.generation,
        conditions=(accepted, bound, connected, *exposed, ready),
        address=exposure.address if exposure is not None else "",
        functions=tuple(
            BoundFunction(
                b.listening.function,
                b.target.url,
                known[b.name].seek if b.name in known else None,
            )
            for b in bindings
        ),
    )


def function_status_of(function: Function, reach: Reach) -> FunctionStatus:
    """``reach`` is how it is reached, or why it is not."""
    status = State.TRUE if not reach.troubled else State.FALSE
    return FunctionStatus(
        namespace=function.namespace,
        name=function.name,
        created=function.created,
        observed_generation=function.generation,
        conditions=(
            Condition("Accepted", State.TRUE, "Accepted"),
            Condition("Ready", status, reach.reason, reach.message),
        ),
        url=reach.url or "",
    )


def invalid_trigger(invalid: Invalid) -> TriggerStatus:
    """Of an object that stands for no trigger."""
    accepted, rest = _refused(invalid, ("Bound", "Connected", "Ready"))
    return TriggerStatus(
        kind=invalid.kind,
        namespace=invalid.namespace,
        name=invalid.name,
        created=invalid.created,
        observed_generation=invalid.generation,
        conditions=(accepted, *rest),
        functions=(),
    )


def invalid_function(invalid: Invalid) -> FunctionStatus:
    """Of an object that stands for no function."""
    accepted, rest = _refused(invalid, ("Ready",))
    return FunctionStatus(
        namespace=invalid.namespace,
        name=invalid.name,
        created=invalid.created,
        observed_generation=invalid.generation,
        conditions=(accepted, *rest),
        url="",
    )


def _refused(invalid: Invalid, types: Sequence[str]) -> tuple[Condition, list[Condition]]:
    message = "; ".join(str(fault) for fault in invalid.faults)
    accepted = Condition("Accepted", State.FALSE, "InvalidSpec", message)
    return accepted, [Condition(name, State.FALSE, "InvalidSpec", message) for name in types]


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
    wanted: Sequence[Function],
    lacking: str,
    reaches: Mapping[ResourceKey, Reach],
) -> Condition:
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
    if lacking:
        return Condition("Bound", State.FALSE, "ReferenceNotFound", lacking)
    bound = {b.listening.function for b in bindings}
    for function in wanted:
        if function.name not in bound and trigger.source is not None:
            reach = reaches[function.key]
            return Condition(
                "Bound", State.FALSE, "FunctionNotReady",
                f"function {function.name}: {reach.reason}: {reach.message}",
            )  # fmt: skip
    if trigger.source is None:
        return Condition("Bound", State.FALSE, "ConnectorNotInstalled")
    return Condition("Bound", State.TRUE, "Bound", ", ".join(sorted(bound)))


def _connected(trigger: Trigger, states: Sequence[SourceState]) -> Condition:
    broken = next((state for state in states if state.attached is False), None)
    if trigger.spec.paused:
        return Condition("Connected", State.FALSE, "Paused", paused_message(broken))
    if not states:
        return Condition("Connected", State.FALSE, "NotListening", "no function is bound")
    if broken is not None:
        return Condition("Connected", State.FALSE, broken.reason, broken.message)
    if any(state.attached is None for state in states):
        return Condition("Connected", State.UNKNOWN, "Connecting", states[0].message)
    told = next((state.told for state in states if state.told[1]), None)
    if told is not None:
        return Condition("Connected", State.TRUE, *told)
    return Condition("Connected", State.TRUE, "Connected")


def seek_shape(seek: Sought) -> dict[str, str]:
    """As ``status.bindings[].seek`` has it: the time in RFC 3339, UTC, seconds."""
    time = seek.time.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    return {"id": seek.id, "time": f"{time.isoformat()}Z", "positions": seek.positions}


def paused_message(source: SourceState | None) -> str:
    """What is said of a paused trigger, or of one binding of it; ``source``: how its seek stands,
    where it has one, or how it takes events into its inbox."""
    if source is None or source.attached is not False:
        return "spec.paused is true"
    what = "" if source.reason.startswith("Inbox") else "its seek is not done: "
    return f"spec.paused is true; {what}{source.reason}: {source.message}"


def _ready(
    parts: Sequence[Condition],
    wanted: Sequence[Function],
    reaches: Mapping[ResourceKey, Reach],
    troubles: Sequence[Problem],
) -> Condition:
    for part in parts:
        if part.status is not State.TRUE:
            return Condition("Ready", part.status, part.reason, part.message)
    for function in wanted:
        reach = reaches[function.key]
        if reach.troubled:
            return Condition("Ready", State.FALSE, reach.reason, reach.message)
    if troubles:
        return Condition("Ready", State.FALSE, troubles[0].reason, troubles[0].message)
    told = next((p.message for p in parts if p.type == "Connected"), "")
    return Condition("Ready", State.TRUE, "Ready", told)
