"""Why a record was not taken, in words."""

from __future__ import annotations

import asyncio

from aiokafka import errors

from triggerhub.connector import NotTaken
from triggerhub_kafka.access import Access
from triggerhub_kafka.client import Client
from triggerhub_kafka.records import Outgoing

_LOOK_WITHIN = 5.0

_REFUSED: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        errors.TopicAuthorizationFailedError,
        "the hub may not write to topic {topic}: it needs Describe and Write on the topic",
    ),
    (
        errors.ClusterAuthorizationFailedError,
        "the brokers take no idempotent producer of the hub: it needs Write on a topic of theirs",
    ),
    (
        (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError),
        "topic {topic} takes no record of {size} bytes: raise its max.message.bytes",
    ),
    (errors.InvalidTopicError, "the brokers refuse {topic} as a topic name"),
    (
        errors.InvalidTimestampError,
        "topic {topic} does not take the record's time: see message.timestamp.before.max.ms",
    ),
    (
        (errors.PolicyViolationError, errors.UnknownError, errors.CorruptRecordException),
        "topic {topic} refuses the record ({error}): a compacted topic takes none without a key",
    ),
)
_GONE = (
    errors.UnknownTopicOrPartitionError,
    errors.NotLeaderForPartitionError,
    errors.LeaderNotAvailableError,
)


async def why_not_yet(
    client: Client | None, access: Access, record: Outgoing, seconds: float
) -> NotTaken:
    """Of a record that has been under way for so long. ``client`` None: nobody has answered."""
    if client is None:
        return NotTaken(f"no Kafka broker answers at {', '.join(access.brokers)}")
    found = await _trouble(client, access, record)
    return found or NotTaken(
        f"topic {record.topic} has not taken it for {seconds:g} s: it has no leader, or too few "
        "replicas in sync"
    )


async def explain(error: Exception, client: Client, access: Access, record: Outgoing) -> NotTaken:
    """Of a record that failed."""
    found = None
    if isinstance(error, _GONE):  # a topic that was deleted looks like one without a leader
        found = await _trouble(client, access, record)
    return found or told(error, access, record)


def told(error: Exception, access: Access, record: Outgoing | None = None) -> NotTaken:
    """An error of the client's as it is; ``record`` None: it was not about one."""
    detail = str(error) or type(error).__name__
    for kinds, text in _REFUSED:
        if isinstance(error, kinds):
            topic, size = ("", 0) if record is None else (record.topic, record.size)
            return NotTaken(text.format(topic=topic, size=size, error=detail), refused=True)
    brokers = ", ".join(access.brokers)
    if isinstance(error, OSError | errors.KafkaTimeoutError) or getattr(error, "retriable", False):
        return NotTaken(f"no Kafka broker answers at {brokers}: {detail}")
    return NotTaken(f"{brokers}: {type(error).__name__}: {detail}")


async def _trouble(client: Client, access: Access, record: Outgoing) -> NotTaken | None:
    """Ask the brokers for the topic. None: it is there."""
    try:
        async with asyncio.timeout(_LOOK_WITHIN):
            missing = await client.missing([record.topic])
    except (errors.KafkaError, OSError) as error:
        return told(error, access, record)
    if not missing:
        return None
    where = f"topic {record.topic} does not exist on {', '.join(access.brokers)}"
    return NotTaken(f"{where}: create it, the hub creates none", refused=True)
