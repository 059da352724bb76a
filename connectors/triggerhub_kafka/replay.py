"""A past window of the topics, read once more beside the group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from triggerhub.connector import Problem, Progress, Subscription, now_and_then
from triggerhub.event import Event, Outcome
from triggerhub.sentence import leaf
from triggerhub.window import OffsetTracker, Window
from triggerhub_kafka.access import Access
from triggerhub_kafka.consumer import Consumer, settings
from triggerhub_kafka.decode import Record, decoder
from triggerhub_kafka.groups import group_of
from triggerhub_kafka.places import say_places
from triggerhub_kafka.problems import explain
from triggerhub_kafka.schemas import Schemas, learn, translate
from triggerhub_kafka.seeks import partitions_of
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.spans import Spans, find_spans
from triggerhub_kafka.topics import find_topics

_WITHIN = 30.0
_LOOK_EVERY = 3.0
_LOOK_WITHIN = 4.0


class ReplayError(Exception):
    """The replay cannot go on; says why."""


class Replay:
    """One replay. It has no group, so that nothing that it reads is committed."""

    def __init__(
        self,
        subscription: Subscription[KafkaSource],
        access: Access,
        schemas: Schemas | None,
        progress: Progress,
    ) -> None:
        self._subscription = subscription
        self._access = access
        self._schemas = schemas
        self._progress = progress
        self._consumer = Consumer(
            access, group_id=None, **settings(subscription.grace, subscription.source)
        )
        self._window = Window(subscription)
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._begins: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._read: dict[TopicPartition, int] = {}
        """How far each is read."""
        self._gone: dict[TopicPartition, int] = {}
        self._change = asyncio.Event()

    async def run(self, since: datetime | str, until: datetime | str | None) -> None:
        """Until all is settled. Raises ReplayError, SpecError, ValueError, and what ``emit``
        raises."""
        try:
            async with asyncio.timeout(_WITHIN):
                await self._consumer.start()
                self._begin(await self._spans(since, until))
            if self._unread():
                await self._send()
        except (BaseExceptionGroup, KafkaError, TimeoutError) as error:
            raise self._plain(error) from error
        finally:
            await self._consumer.close()

    async def _spans(self, since: datetime | str, until: datetime | str | None) -> Spans:
        topics = await self._there()
        await self._consumer.learn(topics)
        return await find_spans(self._consumer, partitions_of(self._consumer, topics), since, until)

    async def _there(self) -> frozenset[str]:
        source = self._subscription.source
        there, missing = await find_topics(self._consumer, source)
        self._refuse(missing if there else missing or {f"that matches {source.topic_pattern}"})
        return there

    def _refuse(self, missing: Collection[str]) -> None:
        if missing:
            raise ReplayError(f"there is no topic {', '.join(sorted(missing))} (any more)")

    def _begin(self, spans: Spans) -> None:
        self._begins, self._ends = dict(spans.begins), dict(spans.ends)
        self._gone = dict(spans.gone)
        self._read = dict(spans.begins)
        self._trackers = {at: OffsetTracker() for at in spans.begins}
        self._tell_window(spans.size)

    def _tell_window(self, size: int) -> None:
        self._progress.window(size, self._named(self._ends), _told(self._gone))

    def _named(self, offsets: dict[TopicPartition, int]) -> str:
        several = len(self._subscription.source.topic_names) != 1
        return ",".join(say_places(offsets, several=several))

    async def _send(self) -> None:
        async with now_and_then(self._tell_reached), asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            try:
                async with self._window:
                    await self._pump()
                    await self._settled()
            finally:
                watching.cancel()

    async def _pump(self) -> None:
        consumer = self._consumer
        consumer.assign(list(self._unread()))
        for partition in self._unread():
            consumer.seek(partition, self._read[partition])
        self._subscription.report.connected()
        while unread := self._unread():
            try:
                batches = await consumer.getmany(*unread, timeout_ms=1000, max_records=500)
            except OffsetOutOfRangeError as error:
                await self._skip(error.args[0])
                continue
            for partition, records in batches.items():
                await self._take(partition, records)
            for partition in unread:
                # Where compaction took the last ones, or they were markers of transactions,
                # there is no record that tells.
                if await consumer.position(partition) >= self._ends[partition]:
                    self._read[partition] = self._ends[partition]
                    consumer.pause(partition)

    def _unread(self) -> list[TopicPartition]:
        return [at for at, end in self._ends.items() if self._read[at] < end]

    async def _take(self, partition: TopicPartition, records: list[Record]) -> None:
        tracker = self._trackers[partition]
        decode: Callable[[Record], Event] = decoder(partition.topic, partition.partition)
        if self._schemas is not None:
            known = await learn(self._schemas, records, self._tell_registry, lambda: True)
            decode = partial(translate, known or {}, decode)
        end = self._ends[partition]
        for record in records:
            offset = record.offset
            if offset >= end:
                break

            def settled(_: Outcome, offset: int = offset) -> None:
                tracker.settle(offset)
                self._change.set()

            tracker.begin(offset)
            self._read[partition] = offset + 1
            await self._window.put(decode(record), settled, partition)

    def _tell_registry(self, problem: Problem | None) -> None:
        if problem is not None:
            self._subscription.report.disconnected(*problem)

    async def _skip(self, lost: dict[TopicPartition, int]) -> None:
        """Retention was faster."""
        for partition, offset in (await self._consumer.beginning_offsets(list(lost))).items():
            went_on = min(max(offset, self._read[partition]), self._ends[partition])
            gone = self._gone.get(partition, 0) + went_on - self._read[partition]
            self._gone[partition] = gone
            self._read[partition] = went_on
            self._consumer.seek(partition, max(offset, went_on))
        self._tell_window(sum(self._ends[at] - begin for at, begin in self._begins.items()))

    async def _settled(self) -> None:
        """Leaving the window would give back what waits for another attempt."""
        while any(tracker.open() for tracker in self._trackers.values()):
            self._change.clear()
            await self._change.wait()

    def _tell_reached(self) -> None:
        reached = {}
        for at, read in self._read.items():
            tracker = self._trackers[at]
            oldest = tracker.committable() if tracker.open() else None
            reached[at] = read if oldest is None else oldest
        done = sum(offset - self._begins[at] for at, offset in reached.items())
        self._progress.reached(done, self._named(reached))

    async def _watch(self) -> None:
        """aiokafka tries again inside and says nothing."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                async with asyncio.timeout(_LOOK_WITHIN):
                    self._refuse(await self._consumer.missing({at.topic for at in self._begins}))
            except (KafkaError, OSError) as error:
                if isinstance(error, KafkaError) and not error.retriable:
                    raise
                self._subscription.report.disconnected(*self._explained(error))
            else:
                self._subscription.report.connected()

    def _explained(self, error: Exception) -> Problem:
        return explain(error, brokers=self._access.brokers, group=group_of(self._subscription))

    def _plain(self, error: BaseException) -> BaseException:
        """The first fault of a group, in words where it is the broker's."""
        first = leaf(error)
        if not isinstance(first, KafkaError | TimeoutError):
            return first
        return ReplayError(self._explained(first).text)


def _told(gone: dict[TopicPartition, int]) -> str:
    parts = [
        f"up to {number} of topic {at.topic} partition {at.partition}"
        for at, number in sorted(gone.items())
    ]
    if not parts:
        return ""
    return f"not there any more, by the topic's retention: {', '.join(parts)}"
