"""Looks at the brokers from time to time: aiokafka tries again inside and says nothing."""

from __future__ import annotations

import asyncio
import logging
from sys import intern

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from triggerhub.connector import Subscription
from triggerhub_kafka.brokers import View, beat
from triggerhub_kafka.consumer import Consumer
from triggerhub_kafka.health import Health
from triggerhub_kafka.offsets import Offsets
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.topics import Topics

log = logging.getLogger("triggerhub.kafka")

_EVERY = 3.0
_WITHIN = 5.0
_AWAY_FOR = 120.0


class Watch:
    """Of one membership: whether its topics exist, its brokers answer, how far it is behind."""

    def __init__(
        self,
        consumer: Consumer,
        subscription: Subscription[KafkaSource],
        topics: Topics,
        offsets: Offsets,
        health: Health,
    ) -> None:
        self._consumer = consumer
        self._topics = topics
        self._report = subscription.report
        self._offsets = offsets
        self._health = health

    async def run(self) -> None:
        """Until cancelled. Raises KafkaError for what no broker will take back, and after two
        minutes without one, to begin anew with the brokers of the manifest."""
        while True:
            try:
                coordinated = self._consumer.check()
                async with asyncio.timeout(_WITHIN):
                    view = await self._topics.look()
                self._topics.follow()
            except (KafkaError, OSError) as error:
                if isinstance(error, KafkaError) and not error.retriable:
                    raise
                if self._health.away(str(error) or "no answer in time") > _AWAY_FOR:
                    raise
            else:
                self._health.back(coordinated, self._troubles(view))
                if not await self._tell(view):
                    continue  # it took as long as a look, which tells why
            await beat(_EVERY)

    def _troubles(self, view: View) -> dict[TopicPartition, str]:
        """What is ours and cannot be read."""
        refused = self._consumer.refused
        found = {at: view.trouble(at) or refused.get(at, "") for at in self._assigned()}
        return {at: why for at, why in found.items() if why}

    def _assigned(self) -> list[TopicPartition]:
        """Of topics that are there."""
        return [at for at in self._consumer.assignment() if at.topic in self._topics.there]

    async def _tell(self, view: View) -> bool:
        """Lag and seek. False: no answer in time. Raises KafkaError as ``run`` does."""
        try:
            async with asyncio.timeout(_WITHIN):
                await self._measure(view)
                await self._offsets.follow_seek()
        except (KafkaError, OSError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise
            # Brokers answer, but the one that was asked: the next look tells which.
            log.debug("kafka.measure_failed error=%r", error)
            return not isinstance(error, TimeoutError)
        return True

    async def _measure(self, view: View) -> None:
        """What waits in each partition. The end of one comes with each fetch; it is asked for
        where records wait here, because none are fetched then."""
        if not self._offsets.fixed:
            return
        generation = self._offsets.generation
        lags: dict[TopicPartition, int] = {}
        behind = []
        for at in self._assigned():
            standing = self._consumer.standing(at)
            if standing is not None and self._offsets.behind(at, standing[1]) == 0:
                lags[at] = 0
            elif not view.trouble(at):
                behind.append(at)
            elif standing is not None:
                lags[at] = self._offsets.behind(at, standing[1])
        if behind:
            ends = await self._consumer.end_offsets(behind)
            lags |= {at: self._offsets.behind(at, end) for at, end in ends.items()}
        if self._offsets.fixed and generation == self._offsets.generation:
            # Of many triggers on one topic, the names are the same.
            parts = {intern(f"{at.topic}/{at.partition}"): lags[at] for at in sorted(lags)}
            self._report.lag(sum(parts.values()), parts)
