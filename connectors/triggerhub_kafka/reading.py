"""One record by its coordinates: a bare fetch, without a consumer and its group."""

from __future__ import annotations

from aiokafka import TopicPartition
from aiokafka.errors import NotLeaderForPartitionError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from triggerhub_kafka.client import Client
from triggerhub_kafka.records import Found

_WAIT_MS = 500
_BYTES = 1024 * 1024
"""Of what follows it in its batch and behind; a larger record comes all the same (KIP-74)."""


async def fetch(client: Client, at: TopicPartition, offset: int) -> Found | None:
    """None: there is no record of that offset any more, or not yet. Raises KafkaError."""
    if client.cluster.partitions_for_topic(at.topic) is None:
        if await client.missing([at.topic]):
            return None
        await client._wait_on_metadata(at.topic)
    leader = client.cluster.leader_for_partition(at)
    if leader is None or leader < 0:
        client.force_metadata_update()
        raise NotLeaderForPartitionError(str(at))
    request = FetchRequest(
        _WAIT_MS, 1, 16 * _BYTES, 0, [(at.topic, [(at.partition, offset, _BYTES)])]
    )
    answer = await client.send(leader, request)
    for _, partitions in answer.topics:
        for _, code, _, *_, records in partitions:
            error = for_code(code)
            if issubclass(error, OffsetOutOfRangeError):
                return None
            if error.errno != 0:
                if getattr(error, "invalid_metadata", False):
                    client.force_metadata_update()
                raise error(str(at))
            return _find(at, MemoryRecords(records), offset)
    return None


def _find(at: TopicPartition, batches: MemoryRecords, offset: int) -> Found | None:
    while batches.has_next():
        batch = batches.next_batch()
        if batch.is_control_batch:
            continue
        for record in batch:
            if record.offset == offset:
                return Found(
                    topic=at.topic,
                    partition=at.partition,
                    offset=offset,
                    timestamp=record.timestamp,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                )
            if record.offset > offset:
                return None
    return None
