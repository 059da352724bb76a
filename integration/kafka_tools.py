"""What the tests of the Kafka connector do to a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

Header = tuple[str, bytes | None]


@asynccontextmanager
async def admin(broker: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def producer(broker: str, codec: str | None = None) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(
        bootstrap_servers=broker, compression_type=codec, max_request_size=20 * 1024 * 1024,
        enable_idempotence=True,  # what it sends again is written once, and in its place
    )  # fmt: skip
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def create_topic(
    broker: str, name: str, partitions: int = 1, settings: Mapping[str, str] | None = None
) -> None:
    async with admin(broker) as client:
        topic = NewTopic(name, partitions, 1, topic_configs=dict(settings or {}))
        await client.create_topics([topic])
    # The metadata cache of the broker follows its controller.
    async with producer(broker) as client:
        while len(await client.partitions_for(name)) < partitions:
            await asyncio.sleep(0.05)


async def add_partitions(broker: str, name: str, total: int) -> None:
    async with admin(broker) as client:
        await client.create_partitions({name: NewPartitions(total)})


async def delete_topic(broker: str, name: str) -> None:
    async with admin(broker) as client:
        await client.delete_topics([name])


async def topics(broker: str) -> set[str]:
    async with admin(broker) as client:
        return set(await client.list_topics())


async def delete_records(broker: str, name: str, partition: int, before: int) -> None:
    async with admin(broker) as client:
        await client.delete_records(
            {TopicPartition(name, partition): RecordsToDelete(before_offset=before)}
        )


async def produce(
    broker: str,
    topic: str,
    values: Sequence[bytes | None],
    *,
    key: bytes | None = None,
    partition: int | None = 0,
    headers: Sequence[Header] = (),
    codec: str | None = None,
    timestamp_ms: int | None = None,
) -> None:
    async with producer(broker, codec) as client:
        sent = [
            await client.send(
                topic,
                value,
                key=key,
                partition=partition,
                headers=list(headers),
                timestamp_ms=timestamp_ms,
            )
            for value in values
        ]
        for delivery in sent:
            await delivery


async def records(broker: str, topic: str, number: int, within: float = 20.0) -> list[Any]:
    """The first so many records of a topic (aiokafka's ConsumerRecord), by partition and offset;
    fewer when there are no more by then."""
    client = AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest")
    await client.start()
    found: list[Any] = []
    try:
        client.assign([TopicPartition(topic, n) for n in await partitions(broker, topic)])
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while len(found) < number:
                    batches = await client.getmany(timeout_ms=500)
                    found += [record for batch in batches.values() for record in batch]
    finally:
        await client.stop()
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def partitions(broker: str, topic: str) -> set[int]:
    async with producer(broker) as client:
        return set(await client.partitions_for(topic))


async def configure(broker: str, topic: str, **settings: str) -> None:
    """Settings of a topic, with ``_`` for each dot."""
    configs = {name.replace("_", "."): value for name, value in settings.items()}
    async with admin(broker) as client:
        await client.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)]
        )


class RawName(str):
    """A header's name as bytes, which need not be UTF-8: for aiokafka's encoder in Python."""

    data: bytes

    def __new__(cls, data: bytes) -> RawName:
        made = super().__new__(cls, data.decode(errors="replace"))
        made.data = data
        return made

    def encode(self, *_: Any) -> bytes:
        return self.data


def batch_builder(codec: int = 0) -> Any:
    """Encodes one batch of records, in Python: takes a ``RawName``."""
    return _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 2**20)


async def produce_named(broker: str, topic: str, values: Sequence[bytes], name: bytes) -> None:
    """One batch, each record with a header of this name, into partition 0."""
    client = AIOKafkaProducer(bootstrap_servers=broker)
    await client.start()
    try:
        batch = client.create_batch()
        batch._builder = batch_builder()
        for value in values:
            batch.append(key=b"k", value=value, timestamp=None, headers=[(RawName(name), b"v")])
        batch.close()
        await (await client.send_batch(batch, topic, partition=0))
    finally:
        await client.stop()


async def committed(broker: str, group: str, topic: str, partition: int = 0) -> int | None:
    client = AIOKafkaConsumer(bootstrap_servers=broker, group_id=group, enable_auto_commit=False)
    await client.start()
    try:
        offset: int | None = await client.committed(TopicPartition(topic, partition))
        return offset
    finally:
        await client.stop()


async def ends(broker: str, topic: str) -> dict[int, int]:
    """The offset after the last, control records included, in each partition."""
    client = AIOKafkaConsumer(topic, bootstrap_servers=broker)
    await client.start()
    try:
        found = await client.end_offsets(client.assignment())
        return {at.partition: offset for at, offset in found.items()}
    finally:
        await client.stop()


async def ids(broker: str, topic: str) -> set[str]:
    """``<partition>:<offset>`` of each record that there is up to now."""
    client = AIOKafkaConsumer(topic, bootstrap_servers=broker, auto_offset_reset="earliest")
    found: set[str] = set()
    await client.start()
    try:
        left = await client.end_offsets(client.assignment())
        while any([await client.position(at) < end for at, end in left.items()]):
            for at, records in (await client.getmany(timeout_ms=200)).items():
                found |= {f"{at.partition}:{record.offset}" for record in records}
        return found
    finally:
        await client.stop()


async def end(broker: str, topic: str, partition: int = 0) -> int:
    """The offset after the last one of a partition."""
    client = AIOKafkaConsumer(bootstrap_servers=broker)
    await client.start()
    try:
        at = TopicPartition(topic, partition)
        return int((await client.end_offsets([at]))[at])
    finally:
        await client.stop()
