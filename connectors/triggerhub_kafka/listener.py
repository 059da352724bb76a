"""One subscription: fetch, emit, commit the contiguous prefix, follow the consumer group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    GroupCoordinatorNotAvailableError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from triggerhub.connector import Subscription
from triggerhub.event import Event, Outcome
from triggerhub.window import OffsetTracker, Window
from triggerhub_kafka.access import Access
from triggerhub_kafka.client import Consumer, settings
from triggerhub_kafka.decode import Record, decoder
from triggerhub_kafka.groups import group_of
from triggerhub_kafka.health import Health
from triggerhub_kafka.problems import ListenError, explain
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.starts import find_starts, note

log = logging.getLogger("triggerhub.kafka")

_START_WITHIN = 30.0
_COMMIT_EVERY = 1.0
_COMMIT_WITHIN = 5.0
_WATCH_EVERY = 3.0
_WATCH_WITHIN = 4.0
_COORDINATOR_WITHIN = 15.0
_AWAY_FOR = 120.0


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Listens once. Its state is that of one membership of the consumer group.

    aiokafka's protocol is eager: each rebalance revokes every partition. ``_generation`` counts
    them, and what was fetched in an earlier one is not delivered.
    """

    def __init__(self, subscription: Subscription[KafkaSource], access: Access) -> None:
        self._subscription = subscription
        self._source = subscription.source
        self._topics = subscription.source.topic_names
        self._access = access
        self._group = group_of(subscription)
        self._window = Window(subscription)
        self._generation = 0
        self._assigned = asyncio.Event()
        self._positioned = False
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._decoders: dict[TopicPartition, Callable[[Record], Event]] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._widths: dict[str, int] = {}
        self._handing_back = asyncio.Lock()
        self._health = Health(subscription.report, access.brokers, self._group, subscription.grace)
        self._born: set[str] = set()

    async def run(self) -> None:
        """Listen until cancelled. Raises ListenError, SpecError, and what ``emit`` raises."""
        self._consumer = Consumer(
            self._access, group_id=self._group, **settings(self._subscription.grace)
        )
        try:
            await self._listen()
        except (BaseExceptionGroup, KafkaError, TimeoutError) as error:
            raise self._plain(error) from error
        finally:
            await self._consumer.close()

    async def _listen(self) -> None:
        async with asyncio.timeout(_START_WITHIN):
            await self._consumer.start()
        await self._until_a_topic_exists()
        async with self._window:
            self._consumer.subscribe(list(self._topics), listener=self)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._commit_now_and_then())
                    tasks.create_task(self._watch())
                    await self._pump()
            finally:
                await self._hand_back()

    async def _until_a_topic_exists(self) -> None:
        while True:
            missing = await self._consumer.missing(self._topics)
            self._born |= missing
            self._health.topics(missing)
            if missing != self._topics:
                return
            await asyncio.sleep(1.0)

    async def _pump(self) -> None:
        while True:
            await self._assigned.wait()
            if not await self._fix_positions():
                continue
            try:
                # At most so many are decompressed and decoded at once.
                batches = await self._consumer.getmany(timeout_ms=1000, max_records=500)
            except NoOffsetForPartitionError:
                # A partition that was assigned while getmany waited, before its start was chosen.
                self._positioned = False
                continue
            except OffsetOutOfRangeError as error:
                if self._positioned:  # else it is found again after that
                    await self._skip_to_what_is_there(error.args[0])
                continue
            generation = self._generation
            # A rebalance may have passed while getmany waited.
            if batches and not await self._fix_positions():
                continue
            for partition, records in batches.items():
                if not await self._take(partition, records, generation):
                    break

    async def _take(
        self, partition: TopicPartition, records: list[Record], generation: int
    ) -> bool:
        """Put all into the window. False: the assignment ended, and the rest is not ours."""
        tracker = self._trackers.get(partition)
        if tracker is None:
            tracker = self._trackers[partition] = OffsetTracker()
        decode = self._decoders.get(partition)
        if decode is None:
            decode = self._decoders[partition] = decoder(partition.topic, partition.partition)
        put = self._window.put
        begin = tracker.begin
        settle = tracker.settle
        for record in records:
            offset = record.offset

            def settled(_: Outcome, offset: int = offset) -> None:
                settle(offset)

            begin(offset)
            if not await put(decode(record), settled, partition):
                return False
            if generation != self._generation:
                return False
        return True

    async def _fix_positions(self) -> bool:
        """See to it that every assigned partition has a start that is committed. False: the
        assignment ended meanwhile."""
        generation = self._generation
        while not self._positioned:
            if not await self._position():
                await asyncio.sleep(0.1)
            if generation != self._generation:
                return False
        return True

    async def _position(self) -> bool:
        generation = self._generation
        starts = await find_starts(
            self._consumer, self._consumer.assignment(), self._source, self._born
        )
        if generation != self._generation:
            return False
        self._widths.update(starts.widths)
        self._committed.update(starts.committed)
        for partition, offset in starts.fresh.items():
            self._consumer.seek(partition, offset)
        # At once, and before connected(): a restart before the first event must not move Latest.
        if starts.fresh and not await self._commit(dict(starts.fresh)):
            return False
        if generation != self._generation:
            return False
        self._positioned = True
        self._health.joined()
        return True

    async def _skip_to_what_is_there(self, lost: dict[TopicPartition, int]) -> None:
        begin = await self._consumer.beginning_offsets(list(lost))
        for partition, offset in begin.items():
            if partition not in self._consumer.assignment():
                continue
            text = (
                f"topic {partition.topic} partition {partition.partition}: offset "
                f"{lost[partition]} is not there any more; going on with {offset}, "
                "the first that is"
            )
            log.warning("kafka.offset_out_of_range %s", text)
            self._health.note("OffsetOutOfRange", text)
            self._trackers[partition] = OffsetTracker()
            self._consumer.seek(partition, offset)
            await self._commit({partition: offset})
        self._health.tell()

    async def _commit_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_EVERY)
            await self._commit_settled()

    async def _commit_settled(self) -> None:
        offsets = {}
        for partition, tracker in self._trackers.items():
            offset = tracker.committable()
            if offset is None or partition.topic in self._health.missing:
                continue
            if offset != self._committed.get(partition):
                offsets[partition] = offset
        if offsets:
            await self._commit(offsets)

    async def _commit(self, offsets: dict[TopicPartition, int]) -> bool:
        """False: the group would not take it, now; what is settled is committed later, or comes
        again."""
        generation = self._generation
        noted = {at: (offset, note(self._widths[at.topic])) for at, offset in offsets.items()}
        try:
            async with asyncio.timeout(_COMMIT_WITHIN):
                await self._consumer.commit(noted)
        except (CommitFailedError, IllegalStateError, TimeoutError) as error:
            log.info("kafka.commit_failed group=%s error=%r", self._group, error)
            return False
        if generation == self._generation:
            self._committed.update(offsets)
        return True

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Called before each (re)join, while heartbeats and commits still work."""
        self._assigned.clear()
        self._positioned = False
        self._health.joining()
        await self._hand_back()

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """The rest is the pump's: what it raises ends the listener, what this raises is lost."""
        self._assigned.set()

    async def _hand_back(self) -> None:
        """Let attempts under way end, commit what is settled, give the rest back."""
        self._generation += 1
        async with self._handing_back:
            await self._window.drain()
            try:
                await self._commit_settled()
            except KafkaError as error:
                log.warning("kafka.commit_failed group=%s error=%r", self._group, error)
            self._trackers.clear()
            self._committed.clear()

    async def _watch(self) -> None:
        """aiokafka tries again inside and says nothing: ask the brokers from time to time."""
        while True:
            try:
                async with asyncio.timeout(_WATCH_WITHIN):
                    await self._look()
            except (KafkaError, OSError) as error:
                if isinstance(error, KafkaError) and not error.retriable:
                    raise
                if self._health.away(str(error) or "no answer in time") > _AWAY_FOR:
                    raise  # to begin anew with the brokers of the manifest
            else:
                self._health.back()
            await asyncio.sleep(_WATCH_EVERY)

    async def _look(self) -> None:
        knows_coordinator = self._consumer.check()
        missing = await self._consumer.missing(self._topics)
        if missing != self._health.missing:
            self._born |= missing
            self._health.topics(missing)
            self._consumer.refresh()
        if not knows_coordinator and self._health.seconds_joining() > _COORDINATOR_WITHIN:
            raise GroupCoordinatorNotAvailableError(self._group)
        generation = self._generation
        partitions = [at for at in self._consumer.assignment() if at.topic not in missing]
        ends = await self._consumer.end_offsets(partitions) if partitions else {}
        if self._positioned and generation == self._generation:
            self._subscription.report.lag(sum(map(self._behind, ends, ends.values())))

    def _behind(self, partition: TopicPartition, end: int) -> int:
        tracker = self._trackers.get(partition)
        offset = None if tracker is None else tracker.committable()
        if offset is None:
            offset = self._committed.get(partition, end)
        return max(0, end - offset)

    def _plain(self, error: BaseException) -> BaseException:
        """The first fault of a group, in words where it is the broker's."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, KafkaError | TimeoutError):
            return error
        reason, text = explain(error, brokers=self._access.brokers, group=self._group)
        self._health.note(reason, text)
        return ListenError(text)
