"""The Kafka connector keeps the contract of a source, against a real broker."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from integration import kafka_tools as tools
from integration.servers import Kafka, free_port
from triggerhub.connector import Connector, Installation
from triggerhub.testing import Feature, Harness, Sample, check_connector
from triggerhub_kafka import KafkaConnector, KafkaSource, TopicForLetters


class KafkaHarness(Harness[KafkaSource]):
    """A topic of two partitions for each promise; a key chooses its partition."""

    features = frozenset(Feature) - {Feature.ANSWERS}
    event_type = "dev.triggerhub.kafka.record"
    patience = 30.0
    quiet = 1.0
    margin = 10.0

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._numbers = itertools.count()

    def connector(self) -> Connector[KafkaSource]:
        return KafkaConnector(Installation())

    async def place(self) -> KafkaSource:
        topic = f"conformance-{next(self._numbers)}"
        await tools.create_topic(self._broker, topic, partitions=2)
        return KafkaSource(topic=topic, brokers=[self._broker])

    async def produce(self, place: KafkaSource, samples: Sequence[Sample]) -> Sequence[Sample]:
        assert place.topic is not None
        async with tools.producer(self._broker) as client:
            for sample in samples:
                key = None if sample.key is None else sample.key.encode()
                await client.send_and_wait(place.topic, sample.data, key=key)
        return samples

    def unreachable(self) -> tuple[Connector[KafkaSource], KafkaSource]:
        nowhere = f"127.0.0.1:{free_port()}"
        return self.connector(), KafkaSource(topic="conformance", brokers=[nowhere])


async def test_the_kafka_connector_keeps_the_contract_of_a_source(kafka: Kafka) -> None:
    await tools.create_topic(kafka.broker, "conformance-dead", partitions=2)
    harness = KafkaHarness(kafka.broker)
    harness.letters = TopicForLetters(topic="conformance-dead")
    found = await check_connector(harness)
    print(found)
    assert {result.promise for result in found.results if not result.held} == {
        "who sent an event that was not settled is told"
    }
