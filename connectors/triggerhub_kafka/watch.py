"""Asks the brokers from time to time: aiokafka tries again inside and says nothing."""

from __future__ import annotations

import asyncio

from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from triggerhub.connector import Subscription
from triggerhub_kafka.client import Consumer
from triggerhub_kafka.health import Health
from triggerhub_kafka.offsets import Offsets
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.topics import Topics

_EVERY = 3.0
_WITHIN = 4.0
_COORDINATOR_WITHIN = 15.0
_AWAY_FOR = 120.0


class Watch:
    """Of one membership: whether its topics exist, its brokers answer, how far it is behind."""

    def __init__(
        self,
        consumer: Consumer,
        group: str,
        subscription: Subscription[KafkaSource],
        topics: Topics,
        offsets: Offsets,
        health: Health,
    ) -> None:
        self._consumer = consumer
        self._group = group
        self._topics = topics
        self._report = subscription.report
        self._offsets = offsets
        self._health = health

    async def run(self) -> None:
        """Until cancelled. Raises KafkaError for what no broker will take back, and after two
        minutes without one, to begin anew with the brokers of the manifest."""
        while True:
            try:
                async with asyncio.timeout(_WITHIN):
                    await self._look()
            except (KafkaError, OSError) as error:
                if isinstance(error, KafkaError) and not error.retriable:
                    raise
                if self._health.away(str(error) or "no answer in time") > _AWAY_FOR:
                    raise
            else:
                self._health.back()
            await asyncio.sleep(_EVERY)

    async def _look(self) -> None:
        knows_coordinator = self._consumer.check()
        await self._topics.look()
        self._topics.follow()
        if not knows_coordinator and self._health.seconds_joining() > _COORDINATOR_WITHIN:
            raise GroupCoordinatorNotAvailableError(self._group)
        generation = self._offsets.generation
        partitions = [at for at in self._consumer.assignment() if at.topic in self._topics.there]
        ends = await self._consumer.end_offsets(partitions) if partitions else {}
        if self._offsets.fixed and generation == self._offsets.generation:
            self._report.lag(sum(map(self._offsets.behind, ends, ends.values())))
        await self._offsets.follow_seek()
