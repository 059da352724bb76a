"""Positions moved because the manifest says so: while nobody listens, and what to tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError

from triggerhub.connector import Sought, Subscription
from triggerhub_kafka.access import Access
from triggerhub_kafka.consumer import Consumer, settings
from triggerhub_kafka.groups import group_of
from triggerhub_kafka.notes import Note, read_note
from triggerhub_kafka.places import say_places
from triggerhub_kafka.problems import explain
from triggerhub_kafka.source import KafkaSource, Seek
from triggerhub_kafka.starts import find_starts
from triggerhub_kafka.topics import find_topics

_WITHIN = 30.0
_LOOK = 1.0
_SHOWN = 50
"""Partitions whose offsets a status tells."""


class SeekError(Exception):
    """The seek is not done; says why."""


async def seek(subscription: Subscription[KafkaSource], access: Access) -> None:
    """Do the seek of ``source`` in a group without members, and report it.

    Raises ``SeekError``, with a sentence; SpecError for what the manifest must cure.
    """
    group = group_of(subscription)
    consumer = Consumer(access, group_id=group, **settings(subscription.grace, subscription.source))
    try:
        await _seek(consumer, subscription)
    except CommitFailedError as error:
        raise SeekError(f"consumer group {group} still has members") from error
    except (KafkaError, TimeoutError) as error:
        text = explain(error, brokers=access.brokers, group=group).text
        raise SeekError(text) from error
    finally:
        await consumer.close()


async def _seek(consumer: Consumer, subscription: Subscription[KafkaSource]) -> None:
    source = subscription.source
    born: set[str] = set()
    async with asyncio.timeout(_WITHIN):
        await consumer.start()
    while True:
        async with asyncio.timeout(_WITHIN):
            there, missing = await find_topics(consumer, source)
            if there:
                await _move(consumer, there, source, born)
                notes = await read_notes(consumer, there)
        if there and not missing:
            break
        # They are read from their first record when they come: that is written down then.
        born |= missing
        names = ", ".join(sorted(missing)) or f"that matches {source.topic_pattern}"
        subscription.report.disconnected("TopicNotFound", f"there is no topic {names}")
        await asyncio.sleep(_LOOK)
    done = last_done(notes, source.seek)
    if done is not None:
        subscription.report.sought(done)


async def _move(
    consumer: Consumer, topics: Collection[str], source: KafkaSource, born: Collection[str]
) -> None:
    await consumer.learn(topics)
    partitions = partitions_of(consumer, topics)
    starts = await find_starts(consumer, partitions, source, topics, born)
    if starts.fresh:
        consumer.assign(partitions)  # only what is assigned can be committed
        consumer.pause(*partitions)
        await consumer.commit(
            {at: (offset, str(starts.notes[at])) for at, offset in starts.fresh.items()}
        )


async def read_notes(
    consumer: Consumer, topics: Iterable[str]
) -> dict[TopicPartition, Note | None]:
    """What is written beside the group's offsets; None where there is no offset. Raises
    KafkaError."""
    partitions = partitions_of(consumer, topics)
    entries = await consumer.committed_offsets(partitions) if partitions else {}
    return {at: read_note(entries[at].metadata) if at in entries else None for at in partitions}


def last_done(notes: Mapping[TopicPartition, Note | None], wanted: Seek | None) -> Sought | None:
    """The last seek that was done; None where there was none, or while the one that is wanted is
    not done in all partitions."""
    if wanted is not None and not all(
        note is not None and note.done(wanted.id) for note in notes.values()
    ):
        return None
    done = {at: note.seek for at, note in notes.items() if note is not None and note.seek}
    if not done:
        return None
    last = max(done.values(), key=lambda seek: seek.time)
    there = {at: seek.offset for at, seek in done.items() if seek.id == last.id}
    return Sought(
        id=last.id,
        time=datetime.fromtimestamp(last.time, UTC),
        positions=_shown(there),
    )


def _shown(offsets: Mapping[TopicPartition, int]) -> str:
    told = say_places(offsets, several=len({at.topic for at in offsets}) > 1)
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return ",".join(told[:_SHOWN]) + more


def partitions_of(consumer: Consumer, topics: Iterable[str]) -> list[TopicPartition]:
    """Of topics that the consumer has learned of, in order."""
    return [
        TopicPartition(topic, partition)
        for topic in sorted(topics)
        for partition in sorted(consumer.partitions_for_topic(topic) or ())
    ]
