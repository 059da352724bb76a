"""The workers' metrics as one hub's: they add up at every moment, and no counter goes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client.parser import text_string_to_metric_families

from triggerhub.workers.figures import (
    Figures,
    Ledger,
    figures_text,
    read_figures,
    with_states,
)

LABELS = 'namespace="shop",trigger="orders",function="handle"'
OUTCOMES = ("accepted", "filtered", "dead", "dropped", "given_back")


def text(
    received: int, in_flight: int, settled: Mapping[str, int] | None = None, labels: str = LABELS
) -> str:
    ends = settled or {}
    lines = [
        "# HELP triggerhub_events_received_total Events that a listener brought.",
        "# TYPE triggerhub_events_received_total counter",
        f"triggerhub_events_received_total{{{labels}}} {received}",
        "# HELP triggerhub_events_settled_total Events that left the hub, by outcome.",
        "# TYPE triggerhub_events_settled_total counter",
        *(
            f'triggerhub_events_settled_total{{{labels},outcome="{how}"}} {ends.get(how, 0)}'
            for how in OUTCOMES
        ),
        "# HELP triggerhub_in_flight Deliveries under way.",
        "# TYPE triggerhub_in_flight gauge",
        f"triggerhub_in_flight{{{labels}}} {in_flight}",
    ]
    return "\n".join(lines) + "\n"


def value(figures: Figures, series: str) -> float:
    name = series.partition("{")[0]
    return figures[name].samples[series]


def test_what_is_read_is_written_again() -> None:
    whole = (
        "# HELP up A gauge: of 2 words.\n# TYPE up gauge\nup 1\n"
        "# HELP h_seconds Times.\n# TYPE h_seconds histogram\n"
        'h_seconds_bucket{f="a b",le="0.5"} 3\nh_seconds_sum{f="a b"} 0.25\n'
        "# HELP bare \n# TYPE bare counter\n"
    )
    assert figures_text(read_figures(whole)) == whole
    families = list(text_string_to_metric_families(figures_text(read_figures(text(3, 1)))))
    assert [family.name for family in families] == [
        "triggerhub_events_received",
        "triggerhub_events_settled",
        "triggerhub_in_flight",
    ]


def test_counters_and_gauges_of_several_workers_are_added_up() -> None:
    total = Ledger().total(
        [
            read_figures(text(5, 2, {"accepted": 3})),
            read_figures(text(7, 0, {"accepted": 6, "dead": 1})),
        ]
    )
    assert value(total, f"triggerhub_events_received_total{{{LABELS}}}") == 12
    assert value(total, f"triggerhub_in_flight{{{LABELS}}}") == 2
    accepted = f'triggerhub_events_settled_total{{{LABELS},outcome="accepted"}}'
    assert value(total, accepted) == 9


@pytest.mark.parametrize(
    ("series", "of_each", "of_all"),
    [
        ("triggerhub_build_info", (1, 1), 1),
        ("triggerhub_dead_letters", (4, 5), 5),
        ("triggerhub_source_lag", (4, 5), 9),
        ("process_start_time_seconds", (100, 90), 90),
        ("process_resident_memory_bytes", (10, 20), 30),
        ("process_max_fds", (10, 20), 30),
    ],
)
def test_a_gauge_is_of_the_hub(series: str, of_each: tuple[int, int], of_all: int) -> None:
    told = [read_figures(f"# HELP {series} X.\n# TYPE {series} gauge\n{series} {n}\n")
            for n in of_each]  # fmt: skip
    assert value(Ledger().total(told), series) == of_all


def test_an_ended_worker_keeps_its_counters_and_gives_back_what_it_had_in_flight() -> None:
    ledger = Ledger()
    lag = "# HELP triggerhub_source_lag X.\n# TYPE triggerhub_source_lag gauge\n"
    ledger.close(read_figures(text(5, 2, {"accepted": 3}) + lag + "triggerhub_source_lag 9\n"))
    ledger.close(read_figures(text(4, 1, {"accepted": 1, "given_back": 2})))
    total = ledger.total([read_figures(text(1, 1))])
    assert value(total, f"triggerhub_events_received_total{{{LABELS}}}") == 10
    assert value(total, f"triggerhub_in_flight{{{LABELS}}}") == 1
    given_back = f'triggerhub_events_settled_total{{{LABELS},outcome="given_back"}}'
    assert value(total, given_back) == 2 + 1 + 2
    assert "triggerhub_source_lag" not in total


def test_a_binding_that_all_workers_have_forgotten_is_forgotten() -> None:
    ledger = Ledger()
    other = LABELS.replace("orders", "bills")
    process = "# HELP process_cpu_seconds_total X.\n# TYPE process_cpu_seconds_total counter\n"
    for labels in (LABELS, other):
        ledger.close(read_figures(text(5, 2, {"accepted": 3}, labels)))
    ledger.close(read_figures(process + "process_cpu_seconds_total 1.5\n"))
    ledger.forget([read_figures(text(0, 0, labels=other)), read_figures("")])
    total = ledger.total([])
    received = total["triggerhub_events_received_total"].samples
    assert received == {f"triggerhub_events_received_total{{{other}}}": 5}
    assert len(total["triggerhub_events_settled_total"].samples) == len(OUTCOMES)
    assert value(total, "process_cpu_seconds_total") == 1.5


def test_bindings_are_counted_once_for_the_hub() -> None:
    told = read_figures(
        "# HELP triggerhub_bindings X.\n# TYPE triggerhub_bindings gauge\n"
        'triggerhub_bindings{state="Ready"} 3\ntriggerhub_bindings{state="Connecting"} 1\n'
    )
    total = with_states(Ledger().total([told, told]), {"Ready": 4})
    assert total["triggerhub_bindings"].samples == {'triggerhub_bindings{state="Ready"}': 4}


@dataclass
class Life:
    """What one worker really counts, and what was seen of it."""

    settled: Counter[str] = field(default_factory=Counter)
    received: int = 0
    seen: Figures = field(default_factory=dict)

    def text(self) -> str:
        in_flight = self.received - self.settled.total()
        return text(self.received, in_flight, self.settled)


class Lives(RuleBasedStateMachine):
    """Workers count, are looked at, end and are followed by others, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.lives = [Life(), Life(), Life()]
        self.before: dict[str, float] = {}

    @rule(who=st.integers(0, 2), number=st.integers(1, 5))
    def receive(self, who: int, number: int) -> None:
        self.lives[who].received += number

    @rule(who=st.integers(0, 2), how=st.sampled_from(OUTCOMES))
    def settle(self, who: int, how: str) -> None:
        life = self.lives[who]
        if life.received > life.settled.total():
            life.settled[how] += 1

    @rule(who=st.integers(0, 2))
    def look(self, who: int) -> None:
        self.lives[who].seen = read_figures(self.lives[who].text())

    @rule(who=st.integers(0, 2))
    def end(self, who: int) -> None:
        self.ledger.close(self.lives[who].seen)
        self.lives[who] = Life()

    @invariant()
    def adds_up_and_never_goes_back(self) -> None:
        total = self.ledger.total(life.seen for life in self.lives)
        sums = {name: sum(family.samples.values()) for name, family in total.items()}
        received = sums.get("triggerhub_events_received_total", 0.0)
        settled = sums.get("triggerhub_events_settled_total", 0.0)
        assert received == settled + sums.get("triggerhub_in_flight", 0.0)
        counters = {
            series: number
            for family in total.values()
            if family.kind == "counter"
            for series, number in family.samples.items()
        }
        assert all(counters[series] >= number for series, number in self.before.items())
        self.before = counters


TestLives = Lives.TestCase
