"""Positions in a stream as a person writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub_kinesis.places import AFTER, AT, TRIM_HORIZON, Place
from triggerhub_kinesis.spans import find_spans, say_places
from triggerhub_kinesis.stream import Shard

numbers = st.integers(0, 10**56).map(str)
places = st.builds(Place, st.sampled_from([AT, AFTER]), numbers) | st.just(Place(TRIM_HORIZON))
names = st.integers(0, 10**12 - 1).map(lambda n: f"shardId-{n:012}")


@given(st.dictionaries(names, places, min_size=1, max_size=6))
def test_what_is_said_is_understood(said: dict[str, Place]) -> None:
    shards = {name: Shard(name, (), False) for name in said}
    found = find_spans(shards, say_places(said), None)
    assert {name: span.begin for name, span in found.items()} == said
    assert {span.end for span in found.values()} == {None}


def test_an_end_does_not_belong_to_the_window_unless_it_says_so() -> None:
    shards = {f"shardId-{n:012}": Shard(f"shardId-{n:012}", (), False) for n in range(3)}
    found = find_spans(shards, "TrimHorizon", "0:17,1:17+")
    assert [span.end for _, span in sorted(found.items())] == [17, 18, None]


@pytest.mark.parametrize(
    "text", ["", ",", ":", "0:", "0:٣", "0:-1", "x" * 500, "0 :1", "shardId-", "0:1+,", "1:1"]
)
def test_no_text_is_too_strange_to_be_refused(text: str) -> None:
    shards = {"shardId-000000000000": Shard("shardId-000000000000", (), False)}
    with pytest.raises(ValueError, match=r"^from: ") as refused:
        find_spans(shards, text, None)
    assert len(str(refused.value)) < 250
