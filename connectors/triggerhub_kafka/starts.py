"""Where to begin: in partitions for which the group has no committed offset, and after a seek."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from triggerhub.fields import parse_time
from triggerhub_kafka.consumer import Consumer
from triggerhub_kafka.notes import Note, Seek, read_note
from triggerhub_kafka.source import KafkaSource, StartAt


@dataclass(frozen=True, slots=True)
class Starts:
    """Offsets by partition."""

    committed: Mapping[TopicPartition, int]
    """Where the group went on before."""
    fresh: Mapping[TopicPartition, int]
    """Where it begins, or goes on after a seek: to be committed."""
    notes: Mapping[TopicPartition, Note]
    """What is to be written beside the offsets, of every partition of the topics."""
    marked: bool
    """The group has begun with these topics before."""
    whole: bool
    """With ``fresh``, every partition of every topic that is there has an offset."""


async def find_starts(
    consumer: Consumer,
    assigned: Collection[TopicPartition],
    source: KafkaSource,
    topics: Collection[str],
    born: Collection[str],
    *,
    begun: bool = False,
) -> Starts:
    """Read the group's offsets, and choose the others by ``startFrom`` and ``seek``.

    What came into being after the group began is read from its first record, whatever
    ``startFrom`` says, for all of its records are newer than the trigger: topics that appeared
    while the hub looked (``born``), topics that a group that has begun knows nothing of, and
    partitions that were added to a topic. ``topics``: those that are there. ``begun``: the group
    is known to have begun with them, whatever its offsets say: Kafka takes them away with a topic
    that is deleted. Raises KafkaError.
    """
    widths = {topic: len(consumer.partitions_for_topic(topic) or ()) for topic in topics}
    seen = all(widths.values())
    for topic, partition in assigned:  # which may be known before the topic's metadata
        widths[topic] = max(partition + 1, widths.get(topic, 0))
    known = {TopicPartition(topic, n) for topic, width in widths.items() for n in range(width)}
    entries = await consumer.committed_offsets(known) if known else {}
    found = {at: note for at, entry in entries.items() if (note := read_note(entry.metadata))}
    marked = any(note.choice == source.choice for note in found.values())
    notes = _notes(known, found, widths)
    read = {at.topic for at in entries}
    fresh = {at for at in assigned if at not in entries}
    young = {
        at
        for at in fresh
        if at.topic in born
        or at.partition >= notes[at].width
        or ((marked or begun) and at.topic not in read)
    }
    seek = source.seek
    sought: set[TopicPartition] = set()
    if seek is not None:
        # Added to a topic before a seek of which the topic knows nothing yet: it counts for them.
        reached = {at.topic for at in entries if notes[at].done(seek.id)}
        young = {at for at in young if at.topic not in read - set(born) - reached}
        sought = {at for at in assigned if not notes[at].done(seek.id)} - young
    begin = await consumer.beginning_offsets(list(young)) if young else {}
    begin |= await positions(consumer, fresh - young - sought, source.start_from)
    if seek is not None:
        begin |= await _sought(consumer, sought, source, seek.to, entries)
        now = int(time.time())
        notes |= {
            at: notes[at].sought(Seek(seek.id, now, begin[at])) for at in (*sought, *young)
        }  # fmt: skip
    whole = seen and known <= entries.keys() | fresh
    if whole or marked or begun:
        notes = {at: replace(note, choice=source.choice) for at, note in notes.items()}
    return Starts(
        committed={
            at: entry.offset for at, entry in entries.items() if at in assigned and at not in begin
        },
        fresh=begin,
        notes=notes,
        marked=marked,
        whole=whole,
    )


def _notes(
    known: Collection[TopicPartition],
    found: Mapping[TopicPartition, Note],
    widths: Mapping[str, int],
) -> dict[TopicPartition, Note]:
    """With the width of the topic when the group began with it: now, where nothing is noted."""
    began = dict(widths)
    for at, note in found.items():
        began[at.topic] = min(note.width, began[at.topic])
    return {at: replace(found.get(at, Note(0)), width=began[at.topic], choice="") for at in known}


async def _sought(
    consumer: Consumer,
    partitions: set[TopicPartition],
    source: KafkaSource,
    to: Literal["Latest", "Earliest"] | StartAt,
    entries: Mapping[TopicPartition, OffsetAndMetadata],
) -> dict[TopicPartition, int]:
    """Where a seek leads. Those that its offsets do not name stay where they are."""
    named = partitions
    if isinstance(to, StartAt) and to.offsets is not None:
        named = {at for at in partitions if to.offset(at.topic, at.partition) is not None}
    begin = {at: entries[at].offset for at in partitions - named if at in entries}
    begin |= await positions(consumer, partitions - named - begin.keys(), source.start_from)
    return begin | await positions(consumer, named, to)


async def positions(
    consumer: Consumer,
    partitions: Collection[TopicPartition],
    where: Literal["Latest", "Earliest"] | StartAt,
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
    if isinstance(where, StartAt) and where.timestamp is not None:
        since = max(0, int(parse_time(where.timestamp).timestamp() * 1000))
        found = await consumer.offsets_for_times(dict.fromkeys(ordered, since))
        # None: no record is as new as that, so it begins with the next one.
        offsets |= {at: entry.offset for at, entry in found.items() if entry is not None}
    elif isinstance(where, StartAt):
        named = {at: where.offset(at.topic, at.partition) for at in ordered}
        offsets |= {at: offset for at, offset in named.items() if offset is not None}
    return offsets
