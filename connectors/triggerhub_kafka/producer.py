"""aiokafka's producer with what one that is shared, and never gives up, needs besides.

Like ``client``, it reaches behind aiokafka's public names; each place says what for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    ProducerClosed,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import RecordMetadata

from triggerhub_kafka.access import Access
from triggerhub_kafka.client import Client
from triggerhub_kafka.records import Outgoing

log = logging.getLogger("triggerhub.kafka")

_REQUEST_MS = 30_000
_FLUSH_WITHIN = 5.0
_CLOSE_WITHIN = 2.0
_NO_LIMIT = 2**31 - 1


class Producer(AIOKafkaProducer):  # type: ignore[misc]
    """Idempotent, acknowledged by all replicas in sync; creates no topics.

    Each of aiokafka's settings on purpose:

    ``linger_ms`` 0: a record goes at once; what comes while a request is under way goes together.
    ``request_timeout_ms``: how long a broker may wait for its replicas, and we for a broker. Of
    what is under way nothing expires by that: an idempotent producer tries again until the broker
    takes it, under the same sequence number, so that it is there once.
    ``max_request_size``: none of ours, what a topic takes is its ``max.message.bytes``; so that
    each record that could be consumed can be written.
    """

    def __init__(self, access: Access) -> None:
        connection = {
            **access.options,
            "client_id": "triggerhub",
            "request_timeout_ms": _REQUEST_MS,
            "metadata_max_age_ms": 30_000,
        }
        super().__init__(
            **connection, enable_idempotence=True, acks="all", max_request_size=_NO_LIMIT
        )
        # One that creates no topics in the place of the one that it made, which has neither
        # connections nor tasks before start().
        self.client = Client(**connection)
        self._metadata = self._message_accumulator._cluster = self.client.cluster
        self._sender.client = self.client
        self.broken = False
        """A batch failed, and with it its sequence numbers: what would follow in its partition
        the broker refuses. aiokafka does not begin anew, as other clients do."""

    async def put(self, record: Outgoing) -> RecordMetadata:
        """Write one record; returns when all replicas in sync have it. Raises KafkaError, and
        UnknownTopicOrPartitionError for a topic that does not exist."""
        if self._metadata.partitions_for_topic(record.topic) is None:
            if await self.client.missing([record.topic]):
                raise UnknownTopicOrPartitionError(record.topic)
            await self.client._wait_on_metadata(record.topic)
        number = self._partition(record.topic, None, None, None, record.key, record.value)
        try:
            # Not ``send``, which refuses a record that has neither key nor value.
            future = await self._message_accumulator.add_message(
                TopicPartition(record.topic, number),
                record.key,
                record.value,
                _REQUEST_MS / 1000,
                timestamp_ms=record.timestamp,
                headers=list(record.headers),
            )
            return await future
        except KafkaTimeoutError:  # no room for it: nothing was given to the broker
            raise
        except KafkaError:
            self.broken = True
            raise

    async def close(self) -> None:
        """Write what is under way, within a few seconds, and close every connection. Raises
        nothing but CancelledError."""
        stopping = asyncio.create_task(self.stop())
        try:
            await asyncio.wait([stopping], timeout=_FLUSH_WITHIN)
        finally:
            # ``stop`` waits without end for brokers that are away.
            self._message_accumulator.fail_all(ProducerClosed())
            await _ended(stopping)
            await _ended(asyncio.ensure_future(self.client.close()))
            sender = self._sender.sender_task
            if sender is not None:
                sender.cancel()
                await _ended(sender)


async def _ended(work: Awaitable[None]) -> None:
    """Wait for its end, for some seconds; how it ends is only logged."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([task], timeout=_CLOSE_WITHIN)
    task.cancel()
    await asyncio.wait([task], timeout=_CLOSE_WITHIN)
    with suppress(asyncio.CancelledError, asyncio.InvalidStateError):
        if (error := task.exception()) is not None:
            log.debug("kafka.close_failed error=%r", error)
