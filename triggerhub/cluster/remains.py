"""What a source may keep for a trigger that is deleted."""

from __future__ import annotations

from collections.abc import Mapping

from triggerhub.cluster.standing import Standing
from triggerhub.connector import Order, Reference
from triggerhub.control.binding import Listening, choose
from triggerhub.control.listeners import to_be_cleaned
from triggerhub.control.references import resolve
from triggerhub.control.resources import Snapshot, Trigger


def names_of(standing: Standing, trigger: Trigger, snapshot: Snapshot) -> set[str]:
    """The names of bindings under which it may keep something."""
    prefix = f"{standing.namespace}.{standing.name}."
    held = standing.reported
    names = set(held.cleanup) if held is not None else set()
    functions = {function for function, _ in held.bindings} if held is not None else set()
    if rival(standing, snapshot) is None:
        # Its status need not say yet what it was bound to last.
        functions |= {f.name for f in choose((trigger,), snapshot.functions)[trigger.key]}
        if trigger.spec.function.name is not None:
            functions.add(trigger.spec.function.name)
    return {name for name in names if name.startswith(prefix)} | {prefix + f for f in functions}


def rival(standing: Standing, snapshot: Snapshot) -> Trigger | None:
    """The trigger of another kind that has its name: triggers of all kinds share one set."""
    for trigger in snapshot.triggers:
        if trigger.name == standing.name and trigger.namespace == standing.namespace:
            return trigger if trigger.kind != standing.kind else None
    return None


def values_of(standing: Standing, snapshot: Snapshot) -> tuple[Mapping[Reference, bytes], str]:
    """What a clean-up needs of Secrets and ConfigMaps; then all that is missing, in words."""
    trigger = standing.value
    if not standing.values or not isinstance(trigger, Trigger):
        return {}, ""
    if not to_be_cleaned(trigger.source):
        return {}, ""
    return resolve(trigger.source, standing.namespace, snapshot, None)


def listening_of(trigger: Trigger, name: str, values: Mapping[Reference, bytes]) -> Listening:
    """The listening half of a binding that was."""
    assert trigger.source is not None
    return Listening(
        name=name,
        kind=trigger.kind,
        namespace=trigger.namespace,
        trigger=trigger.name,
        function=name.removeprefix(f"{trigger.namespace}.{trigger.name}."),
        source=trigger.source,
        order=Order.NONE,
        in_flight=1,
        created=trigger.created,
        values=values,
    )
