"""One subscription: fetch, emit, follow the consumer group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from triggerhub.connector import Subscription
from triggerhub.event import Event, Outcome
from triggerhub.sentence import leaf
from triggerhub.window import Window
from triggerhub_kafka.access import Access
from triggerhub_kafka.brokers import Brokers
from triggerhub_kafka.consumer import Consumer, settings
from triggerhub_kafka.decode import Record, decoder
from triggerhub_kafka.groups import group_of, member_name, until_free
from triggerhub_kafka.health import Health
from triggerhub_kafka.naming import FencedInstanceIdError
from triggerhub_kafka.offsets import Offsets
from triggerhub_kafka.problems import ListenError, explain
from triggerhub_kafka.schemas import Schemas, learn, translate
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.topics import Topics
from triggerhub_kafka.watch import Watch

log = logging.getLogger("triggerhub.kafka")

_START_WITHIN = 30.0
_LOOK_WITHIN = 2.0


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Listens once. Its state is that of one membership of the consumer group."""

    def __init__(
        self,
        subscription: Subscription[KafkaSource],
        access: Access,
        brokers: Brokers,
        schemas: Schemas | None = None,
        replica: str = "",
    ) -> None:
        """``replica``: see ``Installation``."""
        self._subscription = subscription
        self._access = access
        self._brokers = brokers
        self._schemas = schemas
        self._member = member_name(subscription, replica)
        self._group = group_of(subscription)
        self._health = Health(subscription.report, access.brokers, self._group, subscription.grace)
        self._window = Window(subscription)
        self._assigned = asyncio.Event()
        self._handing_back = asyncio.Lock()
        self._decoders: dict[TopicPartition, Callable[[Record], Event]] = {}

    async def run(self) -> None:
        """Listen until cancelled. Raises ListenError, SpecError, and what ``emit`` raises."""
        subscription = self._subscription
        source, health = subscription.source, self._health
        consumer = Consumer(
            self._access,
            self._brokers,
            group_id=self._group,
            group_instance_id=self._member,
            **settings(subscription.grace, source),
        )
        self._consumer = consumer
        self._topics = topics = Topics(consumer, source, health)
        self._offsets = Offsets(consumer, self._group, source, topics, health, subscription.report)
        self._watch = Watch(consumer, subscription, topics, self._offsets, health)
        try:
            await self._listen()
        except (BaseExceptionGroup, KafkaError, TimeoutError) as error:
            first, plain = self._plain(error)
            if not isinstance(first, FencedInstanceIdError):
                raise plain from error
        finally:
            await consumer.close()
        # The other one took over. To take it back at once would go on for ever.
        await until_free(self._brokers, self._group, self._member)
        raise plain

    async def _listen(self) -> None:
        async with asyncio.timeout(_START_WITHIN):
            await self._consumer.start()
        await self._topics.until_one_is_there()
        async with self._window:
            self._consumer.subscribe(list(self._topics.wanted), listener=self)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._offsets.commit_now_and_then())
                    tasks.create_task(self._watch.run())
                    await self._pump()
            finally:
                await self._hand_back()

    async def _pump(self) -> None:
        offsets = self._offsets
        while True:
            await self._assigned.wait()
            if not await offsets.fix():
                continue
            offsets.all_taken()
            try:
                # At most so many are decompressed and decoded at once.
                batches = await self._consumer.getmany(timeout_ms=60_000, max_records=500)
            except NoOffsetForPartitionError:
                # A partition that was assigned while getmany waited, before its start was chosen.
                offsets.fixed = False
                continue
            except OffsetOutOfRangeError as error:
                # Before the start is fixed it is found again after that.
                if offsets.fixed and not await offsets.return_to_range(error.args[0]):
                    self._assigned.clear()
                continue
            generation = offsets.generation
            # A rebalance may have passed while getmany waited.
            stale: Collection[TopicPartition] = ()
            if batches and not offsets.fixed:
                if not await offsets.fix():
                    continue
                stale = offsets.moved
            for partition, records in batches.items():
                if partition in stale:
                    continue
                if not await self._take(partition, records, generation):
                    break

    async def _take(
        self, partition: TopicPartition, records: list[Record], generation: int
    ) -> bool:
        """Put all into the window. False: the assignment ended, and the rest is not ours."""
        tracker = self._offsets.tracker(partition)
        decode = self._decoders.get(partition)
        if decode is None:
            decode = self._decoders[partition] = decoder(partition.topic, partition.partition)
        if self._schemas is not None:
            known = await learn(
                self._schemas,
                records,
                self._health.registry,
                lambda: generation == self._offsets.generation,
            )
            if known is None:
                return False
            decode = partial(translate, known, decode)
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
            if generation != self._offsets.generation:
                return False
        return True

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Called before each (re)join, while heartbeats and commits still work."""
        self._assigned.clear()
        self._consumer.interrupt()
        self._health.joining()
        try:
            # Every member looks before it joins, so that a new topic is one rebalance for all.
            async with asyncio.timeout(_LOOK_WITHIN):
                await self._topics.look()
        except (KafkaError, OSError) as error:
            log.debug("kafka.look_failed group=%s error=%r", self._group, error)
        await self._hand_back()
        self._consumer.resubscribe(self._topics.wanted)

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """The rest is the pump's: what it raises ends the listener, what this raises is lost."""
        self._assigned.set()

    async def _hand_back(self) -> None:
        """Let attempts under way end, commit what is settled, give the rest back."""
        self._offsets.revoked()
        async with self._handing_back:
            await self._window.drain()
            try:
                await self._offsets.commit_settled()
            except KafkaError as error:
                log.warning("kafka.commit_failed group=%s error=%r", self._group, error)
            self._offsets.forget()

    def _plain(self, error: BaseException) -> tuple[BaseException, BaseException]:
        """The first fault of a group, and the same in words where it is the broker's."""
        first = leaf(error)
        if not isinstance(first, KafkaError | TimeoutError):
            return first, first
        problem = explain(first, brokers=self._access.brokers, group=self._group)
        self._health.note(problem)
        return first, ListenError(problem.text)
