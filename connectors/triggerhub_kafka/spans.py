"""Which records a replay means: from here to there, in each partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from aiokafka import TopicPartition

from triggerhub_kafka.consumer import Consumer
from triggerhub_kafka.places import read_places


@dataclass(frozen=True, slots=True)
class Spans:
    """By partition, offsets: the first that belongs to it and the first that does not."""

    begins: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]
    gone: Mapping[TopicPartition, int]
    """How many offsets lay in it, or may have, whose records retention has removed."""

    @property
    def size(self) -> int:
        """Offsets in all: at least as many as there are records."""
        return sum(self.ends[at] - begin for at, begin in self.begins.items())


async def find_spans(
    consumer: Consumer,
    partitions: Collection[TopicPartition],
    since: datetime | str,
    until: datetime | str | None,
) -> Spans:
    """``since``, ``until``: as of ``Replayer``. Raises ValueError, KafkaError."""
    named = read_places(since, partitions) if isinstance(since, str) else {}
    if named:
        partitions = named.keys()  # the others are left out
    ordered = sorted(partitions)
    first = await consumer.beginning_offsets(ordered)
    last = await consumer.end_offsets(ordered)
    limits = read_places(until, partitions) if isinstance(until, str) else {}
    for at, offset in named.items():
        if offset > limits.get(at, offset):
            raise ValueError(f"found {since} after {until}, expected it before")
    begins = await _offsets(consumer, since, first, last, named)
    ends = await _offsets(consumer, until, last, last, limits)
    gone = {}
    for at in ordered:
        ends[at] = min(ends[at], last[at])
        # By time nobody can tell how many of those that are gone were as new as that.
        wanted = 0 if isinstance(since, datetime) and begins[at] == first[at] else begins[at]
        gone[at] = max(0, min(first[at], ends[at]) - wanted)
        ends[at] = max(ends[at], first[at])
        begins[at] = min(max(begins[at], first[at]), ends[at])
    return Spans(begins, ends, {at: number for at, number in gone.items() if number})


async def _offsets(
    consumer: Consumer,
    where: datetime | str | None,
    otherwise: Mapping[TopicPartition, int],
    last: Mapping[TopicPartition, int],
    named: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    if isinstance(where, datetime):
        since = max(0, int(where.timestamp() * 1000))
        found = await consumer.offsets_for_times(dict.fromkeys(last, since)) if last else {}
        # None: no record is as new as that.
        return {at: last[at] if entry is None else entry.offset for at, entry in found.items()}
    return {at: named.get(at, offset) for at, offset in otherwise.items()}
