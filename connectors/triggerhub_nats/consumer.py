"""The durable consumer: found or created, never changed, never deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from triggerhub.connector import Subscription
from triggerhub.nats.client import Client, Refusal
from triggerhub.nats.problems import Problem
from triggerhub_nats.source import NATSSource, Start

ACK_WAIT = 15.0
"""Seconds after which the server takes a message that it hears nothing of for lost. Of one that is
under way it hears three times as often."""
_CONSUMER_NOT_FOUND = 10014
_NAME_TAKEN = (10013, 10148)
_LEAST_ACK_PENDING = 1000
_POLICIES = {"All": "all", "New": "new", "Last": "last"}


class Unusable(Exception):  # noqa: N818 - a fact about the consumer
    """The consumer, or the server, is not what the trigger needs."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Consumer:
    """One durable consumer as it was found."""

    stream: str
    name: str
    stream_born: datetime
    """When the stream was created: another time, another stream."""
    born: datetime
    """When the consumer was."""
    ack_wait: float
    """Seconds."""
    floor: int
    """Sequence up to which everything is settled."""
    waiting: int
    """Messages that are not settled yet."""
    made: bool = False
    """It was created just now."""

    def of_one_stream(self, other: Consumer) -> bool:
        """Both are consumers of the very same stream."""
        return _at_once(self.stream_born, other.stream_born)

    def is_same(self, other: Consumer) -> bool:
        """Both are the very same consumer."""
        return self.of_one_stream(other) and _at_once(self.born, other.born)


def _at_once(one: datetime, other: datetime) -> bool:
    # The server tells a slightly later time when it has read its files again.
    return abs((one - other).total_seconds()) < 0.1


def durable_of(subscription: Subscription[NATSSource]) -> str:
    """The durable's name: no dots are allowed in one, and none is taken for another's."""
    if subscription.source.durable is not None:
        return subscription.source.durable
    return "triggerhub_" + "_".join(
        part.replace(".", "%")
        for part in (subscription.namespace, subscription.trigger, subscription.function)
    )


async def bind(
    client: Client,
    subscription: Subscription[NATSSource],
    before: Consumer | None,
    *,
    awaited: bool,
) -> Consumer:
    """Find the consumer, or create it: at ``startFrom``, or, where it was there ``before`` in this
    very stream, after what was settled then. A stream that came into being since, as one that was
    ``awaited``, is read from its first message.

    Raises Unusable where it differs from what the trigger says, and what ``Client.ask`` does.
    """
    source = subscription.source
    assert source.stream is not None
    stream, name = source.stream, durable_of(subscription)
    born = _time((await client.ask(f"STREAM.INFO.{stream}"))["created"])
    found = await _find(client, stream, name)
    made = False
    if found is None:
        if len(source.subject_names) > 1 and not _filters_several(client):
            raise Unusable(_too_old(client))
        config = _wanted(subscription, name) | _start(source, born, before, awaited)
        request = {"stream_name": stream, "config": config}
        try:
            found = await client.ask(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", request)
            made = True
        except Refusal as refusal:
            # Another process was faster, and began elsewhere.
            found = await _find(client, stream, name) if refusal.number in _NAME_TAKEN else None
            if found is None:
                raise
    config = found["config"]
    if differences := _differences(config, source):
        raise Unusable(Problem(
            "ConsumerDiffers",
            f"consumer {name} of stream {stream} is not as the trigger says: "
            f"{'; '.join(differences)}. Name another durable, or delete this one: a new one "
            "begins at startFrom",
        ))  # fmt: skip
    return _read(found, stream, name, born, made)


async def look(client: Client, consumer: Consumer) -> Consumer | None:
    """How it stands now. None: it is not there. Raises what ``Client.ask`` does."""
    found = await _find(client, consumer.stream, consumer.name)
    if found is None:
        return None
    return _read(found, consumer.stream, consumer.name, consumer.stream_born, False)


async def _find(client: Client, stream: str, name: str) -> Any:
    try:
        return await client.ask(f"CONSUMER.INFO.{stream}.{name}")
    except Refusal as refusal:
        if refusal.number == _CONSUMER_NOT_FOUND:
            return None
        raise


def _read(found: Mapping[str, Any], stream: str, name: str, born: datetime, made: bool) -> Consumer:
    config = found["config"]
    waits = [config.get("ack_wait") or 30_000_000_000, *(config.get("backoff") or ())]
    return Consumer(
        stream=stream,
        name=name,
        stream_born=born,
        born=_time(found["created"]),
        ack_wait=min(waits) / 1e9,
        floor=found["ack_floor"]["stream_seq"],
        waiting=found["num_pending"] + found["num_ack_pending"],
        made=made,
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _wanted(subscription: Subscription[NATSSource], name: str) -> dict[str, Any]:
    source = subscription.source
    names = source.subject_names
    config: dict[str, Any] = {
        "durable_name": name,
        "description": f"triggerhub: {subscription.name}",
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT * 1e9),
        "max_deliver": -1,
        "max_ack_pending": source.max_ack_pending
        or max(_LEAST_ACK_PENDING, 32 * subscription.in_flight),
        "replay_policy": "instant",
    }
    if len(names) == 1:
        config["filter_subject"] = names[0]
    elif names:
        config["filter_subjects"] = list(names)
    return config


def _start(
    source: NATSSource, born: datetime, before: Consumer | None, awaited: bool
) -> dict[str, Any]:
    if awaited or (before is not None and not _at_once(before.stream_born, born)):
        return {"deliver_policy": "all"}
    if before is not None:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": before.floor + 1}
    start = source.start_from or "New"
    if not isinstance(start, Start):
        return {"deliver_policy": _POLICIES[start]}
    if start.sequence is not None:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": start.sequence}
    return {"deliver_policy": "by_start_time", "opt_start_time": (start.time or "").upper()}


def _differences(config: Mapping[str, Any], source: NATSSource) -> list[str]:
    """What keeps the trigger from its promises. All else is left as an administrator made it."""
    filters = config.get("filter_subjects") or [config.get("filter_subject") or ">"]
    pairs = {
        "subjects": (sorted(filters), sorted(source.subject_names or (">",))),
        "deliver_subject": (config.get("deliver_subject") or "", ""),
        "ack_policy": (config.get("ack_policy"), "explicit"),
        "max_deliver": (config.get("max_deliver") or -1, -1),
        "headers_only": (bool(config.get("headers_only")), False),
    }
    if source.max_ack_pending is not None:
        pairs["max_ack_pending"] = (config.get("max_ack_pending"), source.max_ack_pending)
    return [
        f"{name}: found {_shown(found)}, expected {_shown(expected)}"
        for name, (found, expected) in pairs.items()
        if found != expected
    ]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value) or "none"


def _filters_several(client: Client) -> bool:
    version = client.connected_server_version
    return (version.major, version.minor) >= (2, 10)


def _too_old(client: Client) -> Problem:
    return Problem(
        "ServerTooOld",
        "several subjects of a stream need nats-server 2.10, this is "
        f"{str(client.connected_server_version).removeprefix('<nats server v').rstrip('>')}: "
        "give one subject with wildcards, or make a trigger for each",
    )
