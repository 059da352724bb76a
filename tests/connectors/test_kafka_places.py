"""Offsets by partition, as people read and write them."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from triggerhub_kafka.places import read_places, say_places

ORDERS = [TopicPartition("orders", n) for n in range(3)]
BOTH = [*ORDERS, TopicPartition("returns", 0)]

topics = st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True)
partitions = st.builds(TopicPartition, topics, st.integers(0, 99_999))


@given(st.dictionaries(partitions, st.integers(0, 10**17), min_size=1, max_size=8))
def test_what_is_said_is_read_as_it_was(offsets: dict[TopicPartition, int]) -> None:
    several = len({at.topic for at in offsets}) > 1
    text = ",".join(say_places(offsets, several=several))
    assert read_places(text, list(offsets)) == offsets


@pytest.mark.parametrize(
    ("text", "among", "found"),
    [
        ("0:7", ORDERS, {ORDERS[0]: 7}),
        ("orders:2:7, 0:1", ORDERS, {ORDERS[2]: 7, ORDERS[0]: 1}),
        ("returns:0:0", BOTH, {BOTH[3]: 0}),
        ("Earliest", BOTH, {}),
    ],
)
def test_a_topic_is_named_where_there_are_several(
    text: str, among: list[TopicPartition], found: dict[TopicPartition, int]
) -> None:
    assert read_places(text, among) == found


@pytest.mark.parametrize(
    ("text", "among"),
    [
        ("", ORDERS), ("7", ORDERS), ("0:", ORDERS), ("0:-1", ORDERS), ("0:1;1:1", ORDERS),
        ("0:1,0:1", ORDERS), ("3:1", ORDERS), ("returns:0:1", ORDERS), ("0:1", BOTH),
        ("earliest", ORDERS), ("٣:1", ORDERS), ("0:1", []),
    ],
)  # fmt: skip
def test_anything_else_is_an_error_that_says_what_was_found(
    text: str, among: list[TopicPartition]
) -> None:
    with pytest.raises(ValueError, match="found"):
        read_places(text, among)
