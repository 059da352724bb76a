"""Where to begin in the partitions for which the group has no committed offset."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiokafka import TopicPartition

from triggerhub_kafka.client import Consumer
from triggerhub_kafka.source import KafkaSource, StartTime, parse_time

_NOTE = re.compile(r"triggerhub partitions=(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Starts:
    """Offsets by partition."""

    committed: Mapping[TopicPartition, int]
    """Where the group went on before."""
    fresh: Mapping[TopicPartition, int]
    """Where it begins."""
    widths: Mapping[str, int]
    """By topic: how many partitions it had when the group began with it."""


def note(width: int) -> str:
    """The metadata of a committed offset: with it, a partition that was added to the topic later
    is told from one that the group has always known."""
    return f"triggerhub partitions={width}"


async def find_starts(
    consumer: Consumer,
    assigned: Collection[TopicPartition],
    source: KafkaSource,
    born: Collection[str],
) -> Starts:
    """Read the group's offsets and choose the others by ``startFrom``.

    ``born``: topics that came into being while the hub looked for them. Their partitions, and
    those added to a topic after the group began with it, begin at their first record whatever
    ``startFrom`` says: all of their records are newer than the trigger. Raises KafkaError.
    """
    known = {
        TopicPartition(topic, partition)
        for topic in {partition.topic for partition in assigned}
        for partition in consumer.partitions_for_topic(topic) or ()
    } | set(assigned)
    entries = await consumer.committed_offsets(known) if known else {}
    widths: dict[str, int] = {}
    for partition, entry in entries.items():
        if found := _NOTE.fullmatch(entry.metadata or ""):
            width = int(found[1])
            widths[partition.topic] = min(width, widths.get(partition.topic, width))
    for partition in known:
        if partition.topic not in widths:
            widths[partition.topic] = len(consumer.partitions_for_topic(partition.topic) or ())
    fresh = [partition for partition in assigned if partition not in entries]
    whole = [
        partition
        for partition in fresh
        if partition.topic in born or partition.partition >= widths[partition.topic]
    ]
    begin = await consumer.beginning_offsets(whole) if whole else {}
    begin |= await _by_policy(consumer, sorted(set(fresh) - set(whole)), source)
    committed = {
        partition: entry.offset for partition, entry in entries.items() if partition in assigned
    }
    return Starts(committed=committed, fresh=begin, widths=widths)


async def _by_policy(
    consumer: Consumer, partitions: list[TopicPartition], source: KafkaSource
) -> dict[TopicPartition, int]:
    if not partitions:
        return {}
    offsets: dict[TopicPartition, int]
    if source.start_from == "Earliest":
        offsets = await consumer.beginning_offsets(partitions)
        return offsets
    offsets = await consumer.end_offsets(partitions)
    if isinstance(source.start_from, StartTime):
        since = max(0, int(parse_time(source.start_from.timestamp).timestamp() * 1000))
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, since))
        # None: no record is as new as that, so it begins with the next one.
        offsets |= {at: entry.offset for at, entry in found.items() if entry is not None}
    return offsets
