"""The consumer group of a binding, as the brokers keep it."""

from __future__ import annotations

import asyncio
import hashlib
import logging

from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, NonEmptyGroup

from triggerhub.connector import Subscription
from triggerhub_kafka.access import Access
from triggerhub_kafka.brokers import Brokers
from triggerhub_kafka.client import Client
from triggerhub_kafka.membership import is_named
from triggerhub_kafka.problems import explain
from triggerhub_kafka.source import KafkaSource

log = logging.getLogger("triggerhub.kafka")

_LONGEST = 249
"""As Kafka's own clients have it."""
_LOOK_EVERY = 3.0
_ANSWER_WITHIN_MS = 5_000
"""Short, so that a broker that is silent leaves time for the next one."""


class CleanUpError(Exception):
    """The group is still there; says why."""


def group_of(subscription: Subscription[KafkaSource]) -> str:
    """The group that the binding reads with."""
    return subscription.source.group or f"triggerhub.{subscription.name}"


def member_name(subscription: Subscription[KafkaSource], replica: str) -> str | None:
    """By which the group knows this replica again after a crash (``group.instance.id``); None:
    it does not. Of bindings that share a group each has its own."""
    if not replica:
        return None
    name = replica
    if subscription.source.group is not None:
        name = f"{replica}.{subscription.name}"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 33]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return name


async def until_free(brokers: Brokers, group: str, name: str | None) -> None:
    """Wait until no member of the group bears this name."""
    while True:
        try:
            members = await brokers.client.members(group)
        except KafkaError as error:
            log.debug("kafka.describe_failed group=%s error=%r", group, error)
        else:
            if not any(is_named(member, name) for member in members):
                return
        await asyncio.sleep(_LOOK_EVERY)


async def delete_group(subscription: Subscription[KafkaSource], access: Access) -> None:
    """Delete it, with its offsets; no error when it is not there.

    Raises ``CleanUpError``, with a sentence; SpecError for a group that cannot be one.
    """
    group = group_of(subscription)
    client = Client(**access.options, request_timeout_ms=_ANSWER_WITHIN_MS)
    try:
        await client.bootstrap()
        await client.delete_group(group)
    except NonEmptyGroup as error:
        raise CleanUpError(f"consumer group {group} still has members") from error
    except GroupAuthorizationFailedError as error:
        raise CleanUpError(
            f"the hub may not delete consumer group {group}: it needs Describe and Delete on it"
        ) from error
    except (KafkaError, TimeoutError) as error:
        text = explain(error, brokers=access.brokers, group=group).text
        raise CleanUpError(text) from error
    finally:
        await client.close()
