"""ULIDs sort by time, and never repeat."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from triggerhub.store.ulid import new_ulid


def test_a_ulid_is_26_characters_of_crockford_base_32() -> None:
    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", new_ulid())


def test_the_first_ten_characters_are_the_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    ulid = new_ulid()
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    milliseconds = 0
    for letter in ulid[:10]:
        milliseconds = milliseconds * 32 + alphabet.index(letter)
    assert before <= milliseconds <= time.time_ns() // 1_000_000


def test_each_is_greater_than_the_one_before() -> None:
    made = [new_ulid() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_threads_never_get_the_same() -> None:
    with ThreadPoolExecutor(4) as threads:
        lots = list(threads.map(lambda _: [new_ulid() for _ in range(2_000)], range(4)))
    assert len({ulid for lot in lots for ulid in lot}) == 8_000
