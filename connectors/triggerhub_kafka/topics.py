"""Which topics one membership reads."""

from __future__ import annotations

from triggerhub_kafka.brokers import View, beat
from triggerhub_kafka.consumer import Consumer
from triggerhub_kafka.health import Health
from triggerhub_kafka.source import KafkaSource


async def find_topics(
    consumer: Consumer, source: KafkaSource
) -> tuple[frozenset[str], frozenset[str]]:
    """Which topics are there of those that are asked for, and which named ones are not. Raises
    KafkaError."""
    if source.topic_pattern is None:
        missing = frozenset(await consumer.missing(source.topic_names))
        return source.topic_names - missing, missing
    return frozenset(filter(source.reads, await consumer.topic_names())), frozenset()


class Topics:
    """Those that are there of what the manifest asks for, as they were when last looked for.

    aiokafka can follow a pattern by itself, but takes the assignment away at once when a topic
    comes or goes, so that what ended last could not be committed. Here it is a rebalance like any
    other.
    """

    def __init__(self, consumer: Consumer, source: KafkaSource, health: Health) -> None:
        self._consumer = consumer
        self._source = source
        self._health = health
        self._looked = False
        self.there: frozenset[str] = frozenset()
        self.born: set[str] = set()
        """That came into being while they were looked for."""

    @property
    def wanted(self) -> frozenset[str]:
        """What to subscribe to: named topics also while they are not there."""
        return self._source.topic_names or self.there

    async def look(self) -> View:
        """Ask the brokers. Raises KafkaError."""
        asked = self._source.topic_names or await self._matching()
        view = await self._consumer.look(asked)
        # Of those that match, one may have gone or been forbidden since.
        missing = frozenset(view.missing(self._source.topic_names))
        there = asked & view.leaders.keys()
        self.born |= missing
        if self._looked:
            self.born |= there - self.there
        if there != self.there or not self._looked:
            self._looked, self.there = True, there
            pattern = self._source.topic_pattern
            self._health.topics(missing, pattern if pattern and not there else "")
            self._consumer.refresh()
        return view

    async def _matching(self) -> frozenset[str]:
        return frozenset(filter(self._source.reads, await self._consumer.topic_names()))

    async def until_one_is_there(self) -> None:
        """And may be read. Raises KafkaError."""
        while True:
            view = await self.look()
            if self.there:
                await self._consumer.check_may_read(self.there, view)
                return
            await beat(1.0)

    def follow(self) -> None:
        """See to it that the group reads what is wanted; by a rebalance where it does not."""
        if self.wanted != self._consumer.subscription():
            self._consumer.rejoin()
