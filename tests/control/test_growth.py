"""Whether what waits in a source only grows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from triggerhub.control.growth import ENOUGH, WINDOW, Growths
from triggerhub.control.report import SourceState

NOON = 1_800_000_000.0


def told(samples: Sequence[float], every: float = WINDOW) -> str:
    """The sentence after these samples, one at a time."""
    growths = Growths()
    for number, lag in enumerate(samples):
        growths.note(NOON + number * every, {"": lag})
    return growths.text


@pytest.mark.parametrize(
    ("samples", "grows"),
    [
        ([1, 2, 3, 4, 5, 6, 7], True),
        ([1, 2, 3, 4, 5, 6], False),  # not for long enough
        ([7, 7, 7, 7, 7, 7, 7, 7], False),
        ([0, 0, 0, 0, 0, 0, 0, 0], False),
        ([9, 8, 7, 6, 5, 4, 3, 2], False),
        ([1, 2, 3, 3, 4, 5, 6, 7], False),  # rests once
        ([1, 2, 3, 3, 4, 5, 6, 7, 8, 9], True),
        ([1, 2, 3, 4, 5, 6, 7, 0, 8], False),  # caught up
        ([1, 2, 3, 4, 5, 6, 7, 6, 7], False),  # fell
    ],
)
def test_by_the_minute(samples: Sequence[float], grows: bool) -> None:
    assert bool(told(samples)) is grows


def test_ups_and_downs_within_a_minute_are_no_end_of_it() -> None:
    saw = [base + up for base in range(10, 100, 10) for up in (1, 30, 5, 20)]
    assert told(saw, WINDOW / 4)
    assert not told([1 + up for _ in range(9) for up in (0, 30, 5, 20)], WINDOW / 4)


def test_it_says_since_when() -> None:
    assert "since 2027-01-15T08:02:00Z" in told([5, 5, 5, 6, 7, 8, 9, 10, 11])


def test_the_partitions_are_named() -> None:
    growths = Growths()
    for minute in range(ENOUGH + 2):
        lags = {f"t/{n}": minute + 1.0 for n in range(1, 6)} | {"t/0": 1.0}
        growths.note(NOON + minute * WINDOW, lags)
    assert "in t/1, t/2, t/3 and 2 more only grows" in growths.text
    # Another replica reads them now.
    assert growths.note(NOON + 1000, {"t/0": 1.0})
    assert growths.text == ""


def test_a_condition_changes_when_it_begins_and_when_it_ends() -> None:
    changes: list[str] = []
    clock = [NOON]
    state = SourceState("b", attached=True, changed=changes.append, now=lambda: clock[0])
    for half_minute in range(40):
        clock[0] = NOON + half_minute * 30
        state.lag(half_minute + 1)
    assert changes == ["b"]
    assert "only grows" in state.growing
    state.lag(0)
    assert (changes, state.growing) == (["b", "b"], "")


def test_it_is_told_beside_what_the_connector_tells() -> None:
    state = SourceState("b")
    state.connected("OffsetOutOfRange", "5 records were gone")
    state.growing = "what waits only grows"
    assert state.told == ("LagGrowing", "what waits only grows; 5 records were gone")
    state.connected()
    assert state.told == ("LagGrowing", "what waits only grows")
    state.growing = ""
    assert state.told == ("Connected", "")
