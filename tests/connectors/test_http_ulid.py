"""Fresh identities."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from triggerhub_http.ulid import Clock, chance


def test_ulids_sort_by_time_and_bear_it() -> None:
    clock = Clock()
    assert clock.read(0)[1] == "0000000000"
    assert clock.read(1469918176.385)[1] == "01ARYZ6S41"
    assert clock.read(1.0)[1] < clock.read(1.5)[1] < clock.read(2.0)[1]


def test_the_time_is_in_milliseconds_and_one_object_within_each() -> None:
    clock = Clock()
    moment, _ = clock.read(1763899200.1234)
    assert moment == datetime(2025, 11, 23, 12, 0, 0, 123000, tzinfo=UTC)
    assert clock.read(1763899200.1239)[0] is moment
    assert clock.read(1763899200.1241)[0] is not moment


def test_chance_is_eighty_bits_of_crockfords_alphabet() -> None:
    taken = {chance() for _ in range(1000)}
    assert len(taken) == 1000
    assert all(re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{16}", one) for one in taken)
