"""Where to begin: in partitions for which the group has no committed offset, and after a seek."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from aiokafka import TopicPartition

from triggerhub_kafka.client import Consumer
from triggerhub_kafka.notes import Note, Seek, read_note
from triggerhub_kafka.source import KafkaSource, StartTime, parse_time


@dataclass(frozen=True, slots=True)
class Starts:
    """Offsets by partition."""

    committed: Mapping[TopicPartition, int]
    """Where the group went on before."""
    fresh: Mapping[TopicPartition, int]
    """Where it begins, or goes on after a seek: to be committed."""
    notes: Mapping[TopicPartition, Note]
    """What is to be written beside the offsets, of every partition of their topics."""


async def find_starts(
    consumer: Consumer,
    assigned: Collection[TopicPartition],
    source: KafkaSource,
    born: Collection[str],
) -> Starts:
    """Read the group's offsets, and choose the others by ``startFrom`` and ``seek``.

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
    notes = _notes(
        consumer, known, {at: read_note(entry.metadata) for at, entry in entries.items()}
    )
    fresh = {partition for partition in assigned if partition not in entries}
    whole = {
        at for at in fresh if at.topic in born or at.partition >= notes[at].width
    }  # fmt: skip
    seek = source.seek
    sought: set[TopicPartition] = set()
    if seek is not None:
        # Added to a topic before a seek of which the topic knows nothing yet: it counts for them.
        reached = {at.topic for at in entries if notes[at].done(seek.id)}
        whole = {at for at in whole if at.topic in born or at.topic in reached}
        sought = {at for at in assigned if not notes[at].done(seek.id)} - whole
    begin = await consumer.beginning_offsets(list(whole)) if whole else {}
    begin |= await positions(consumer, fresh - whole - sought, source.start_from)
    if seek is not None:
        begin |= await positions(consumer, sought, seek.to)
        now = int(time.time())
        notes |= {
            at: notes[at].sought(Seek(seek.id, now, begin[at])) for at in (*sought, *whole)
        }  # fmt: skip
    committed = {
        at: entry.offset for at, entry in entries.items() if at in assigned and at not in begin
    }
    return Starts(committed=committed, fresh=begin, notes=notes)


def _notes(
    consumer: Consumer,
    known: Collection[TopicPartition],
    found: Mapping[TopicPartition, Note | None],
) -> dict[TopicPartition, Note]:
    """With the width of the topic when the group began with it: now, where nothing is noted."""
    widths: dict[str, int] = {}
    for at, note in found.items():
        if note is not None:
            widths[at.topic] = min(note.width, widths.get(at.topic, note.width))
    for at in known:
        if at.topic not in widths:
            widths[at.topic] = len(consumer.partitions_for_topic(at.topic) or ())
    notes = {}
    for at in known:
        note = found.get(at)
        width = widths[at.topic]
        notes[at] = Note(width) if note is None else Note(width, note.seek, note.before)
    return notes


async def positions(
    consumer: Consumer,
    partitions: Collection[TopicPartition],
    where: Literal["Latest", "Earliest"] | StartTime,
) -> dict[TopicPartition, int]:
    """The offsets that a position stands for now. Raises KafkaError."""
    if not partitions:
        return {}
    ordered = sorted(partitions)
    offsets: dict[TopicPartition, int]
    if where == "Earliest":
        offsets = await consumer.beginning_offsets(ordered)
        return offsets
    offsets = await consumer.end_offsets(ordered)
    if isinstance(where, StartTime):
        since = max(0, int(parse_time(where.timestamp).timestamp() * 1000))
        found = await consumer.offsets_for_times(dict.fromkeys(ordered, since))
        # None: no record is as new as that, so it begins with the next one.
        offsets |= {at: entry.offset for at, entry in found.items() if entry is not None}
    return offsets
