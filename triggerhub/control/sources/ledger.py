"""Which object of which file stands: claims on names, last good versions, generations (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from triggerhub.control.faults import Fault
from triggerhub.control.resources import FUNCTION, Function, Resource, Snapshot, Trigger, Values


class Slot(NamedTuple):
    """A name that one object can have. Triggers of all kinds share one set of names, because a
    binding's name has no kind."""

    kind: str
    """Empty for triggers."""
    namespace: str
    name: str


def slot_of(resource: Resource) -> Slot:
    if isinstance(resource, Trigger):
        kind = ""
    else:
        kind = FUNCTION if isinstance(resource, Function) else resource.kind
    return Slot(kind, resource.namespace, resource.name)


@dataclass(slots=True)
class Page:
    """What one file says, and what it said before."""

    rank: int
    """Of two new files with one name in them, the lower rank has it."""
    good: dict[Slot, Resource] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    kept: dict[Slot, Resource] = field(default_factory=dict)
    """Last good versions of what is missing or faulty now; they stand while the page has a
    fault."""

    def follow(self, before: Page) -> None:
        """Take over what an earlier state of this file held."""
        self.rank = before.rank
        held = {**before.kept, **before.good}
        self.kept = {slot: value for slot, value in held.items() if slot not in self.good}


class _Claim(NamedTuple):
    file: str
    value: Resource
    kept: bool


class _Standing(NamedTuple):
    file: str
    raw: Resource
    final: Resource


class Ledger:
    """Remembers who holds which name, and each object's generation and creation time."""

    def __init__(self) -> None:
        self._standing: dict[Slot, _Standing] = {}

    def settle(self, pages: Mapping[str, Page]) -> Snapshot:
        """The picture that these pages give; what vanished from them is forgotten.

        Of two objects with one name, the one that stands goes on standing; the other is a fault.
        """
        chosen: dict[Slot, _Claim] = {}
        losers: list[tuple[Slot, _Claim]] = []
        ordered = sorted(pages.items(), key=lambda item: item[1].rank)
        for file, page in ordered:
            for slot, value in page.good.items():
                self._claim(slot, _Claim(file, value, False), chosen, losers)
            for slot, value in page.kept.items() if page.faults else ():
                self._claim(slot, _Claim(file, value, True), chosen, losers)
        faults = [fault for page in pages.values() for fault in page.faults]
        # A last good version that lost its name meanwhile is no fault: nobody wrote it twice.
        twice = [(slot, claim) for slot, claim in losers if not claim.kept]
        faults += [_taken(claim.value, chosen[slot].value) for slot, claim in twice]
        in_doubt = {claim.file for _, claim in twice}
        for file, page in ordered:
            if not page.faults and file in in_doubt:
                for slot, value in page.kept.items():
                    chosen.setdefault(slot, _Claim(file, value, True))
            elif not page.faults and page.kept:
                page.kept = {}
        self._standing = {slot: self._final(slot, claim) for slot, claim in chosen.items()}
        finals = sorted(
            (standing.final for standing in self._standing.values()),
            key=lambda value: (value.created, value.namespace, value.name),
        )
        return Snapshot(
            triggers=tuple(value for value in finals if isinstance(value, Trigger)),
            functions=tuple(value for value in finals if isinstance(value, Function)),
            values={value.key: value.data for value in finals if isinstance(value, Values)},
            faults=tuple(sorted(faults, key=lambda fault: (fault.file, fault.line))),
        )

    def _claim(
        self,
        slot: Slot,
        claim: _Claim,
        chosen: dict[Slot, _Claim],
        losers: list[tuple[Slot, _Claim]],
    ) -> None:
        there = chosen.get(slot)
        if there is None:
            chosen[slot] = claim
            return
        standing = self._standing.get(slot)
        if standing is not None and standing.file == claim.file:
            chosen[slot] = claim
            losers.append((slot, there))
        else:
            losers.append((slot, claim))

    def _final(self, slot: Slot, claim: _Claim) -> _Standing:
        file, value = claim.file, claim.value
        before = self._standing.get(slot)
        if before is None or _kind(before.final) != _kind(value):
            return _Standing(file, value, value)
        if before.raw is value:
            return before._replace(file=file)
        generation = before.final.generation + (not _same_spec(before.final, value))
        final = replace(value, generation=generation, created=before.final.created)
        return _Standing(file, value, final)


def _kind(value: Resource) -> str:
    return value.kind if isinstance(value, Trigger) else ""


def _same_spec(before: Resource, after: Resource) -> bool:
    if isinstance(before, Trigger) and isinstance(after, Trigger):
        return before.spec == after.spec and before.source == after.source
    if isinstance(before, Function) and isinstance(after, Function):
        return before.spec == after.spec and before.code_files == after.code_files
    if isinstance(before, Values) and isinstance(after, Values):
        return before.data == after.data
    return False


def _taken(value: Resource, holder: Resource) -> Fault:
    path = ("metadata", "name")
    return Fault(
        value.where.file,
        value.where.line(path),
        str(value),
        "metadata.name",
        f"the name of {holder} at {holder.where.file}:{holder.where.line(path)}",
        "a name of its own",
    )
