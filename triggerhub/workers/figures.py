"""The workers' metrics as those of one hub: sums that no worker's death takes back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_COUNTED = frozenset({"counter", "histogram", "summary"})

_ONE_FOR_ALL: Mapping[str, Callable[[float, float], float]] = {
    "triggerhub_build_info": max,
    # Each worker counts the one store.
    "triggerhub_dead_letters": max,
    "triggerhub_inbox_events": max,
    "triggerhub_inbox_bytes": max,
    "triggerhub_store_available": min,
    "process_start_time_seconds": min,
}
"""Gauges that are not added up."""

_BINDINGS = "triggerhub_bindings"
_FLIGHT = "triggerhub_in_flight"
_SETTLED = "triggerhub_events_settled_total"
_OF_BINDING = re.compile(r'\{(namespace="[^"]*",trigger="[^"]*",function="[^"]*")')


@dataclass(slots=True)
class Family:
    """Metrics of one name."""

    kind: str
    help: str = ""
    samples: dict[str, float] = field(default_factory=dict)
    """By series, as Prometheus' text format writes it: ``name{label="value",…}``."""


Figures = dict[str, Family]
"""Families by name, as one process tells them."""


def read_figures(text: str) -> Figures:
    """Prometheus' text format as the hub writes it: each family's HELP, TYPE and samples
    together, no timestamps."""
    found: Figures = {}
    family = Family("untyped")
    about = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            family.samples[series] = float(value)
        elif line.startswith("# HELP "):
            _, _, _, about = line.split(" ", 3)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ", 3)
            family = found[name] = Family(kind, about)
    return found


class Ledger:
    """What workers that have ended had counted, as far as it was seen. What they had in flight
    then is given back: their sources bring it again."""

    def __init__(self) -> None:
        self._past: Figures = {}

    def close(self, last: Figures) -> None:
        """A worker has ended, whose figures were last seen to be these."""
        for name, family in last.items():
            if family.kind in _COUNTED:
                past = self._past.setdefault(name, Family(family.kind, family.help))
                for series, value in family.samples.items():
                    past.samples[series] = past.samples.get(series, 0.0) + value
        flight = last.get(_FLIGHT)
        if flight is not None:
            past = self._past.setdefault(_SETTLED, Family("counter"))
            for series, value in flight.samples.items():
                labels = series.removeprefix(_FLIGHT + "{").removesuffix("}")
                given_back = f'{_SETTLED}{{{labels},outcome="given_back"}}'
                past.samples[given_back] = past.samples.get(given_back, 0.0) + value

    def forget(self, present: Iterable[Figures]) -> None:
        """Bindings that all workers, each of them with its manifests read, know no longer."""
        known = {
            found[1]
            for figures in present
            for series in (figures[_FLIGHT].samples if _FLIGHT in figures else ())
            if (found := _OF_BINDING.search(series))
        }
        for family in self._past.values():
            for series in list(family.samples):
                found = _OF_BINDING.search(series)
                if found and found[1] not in known:
                    del family.samples[series]

    def total(self, present: Iterable[Figures]) -> Figures:
        """Those of the workers there are, and of those there were."""
        total: Figures = {}
        for figures in (*present, self._past):
            for name, family in figures.items():
                known = total.setdefault(name, Family(family.kind, family.help))
                join = _ONE_FOR_ALL.get(name, _sum)
                for series, value in family.samples.items():
                    before = known.samples.get(series)
                    known.samples[series] = value if before is None else join(before, value)
        return total


def with_states(figures: Figures, states: Mapping[str, int]) -> Figures:
    """With so many bindings in each state: they are in every worker, and are not added up."""
    family = figures.get(_BINDINGS, Family("gauge"))
    samples = {f'{_BINDINGS}{{state="{state}"}}': float(n) for state, n in sorted(states.items())}
    return figures | {_BINDINGS: Family(family.kind, family.help, samples)}


def figures_text(figures: Figures) -> str:
    """Prometheus' text format, version 0.0.4."""
    return "\n".join(_lines(figures)) + "\n"


def _lines(figures: Figures) -> Iterator[str]:
    for name, family in figures.items():
        yield f"# HELP {name} {family.help}"
        yield f"# TYPE {name} {family.kind}"
        for series, value in family.samples.items():
            yield f"{series} {int(value) if value.is_integer() else value!r}"


def _sum(one: float, other: float) -> float:
    return one + other
