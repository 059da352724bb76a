"""The durable consumer: found or created; never changed, and deleted only where the manifest says
so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from triggerhub.connector import Problem, Subscription
from triggerhub.nats.client import Client, Refusal
from triggerhub_nats.notes import NOTHING, Done, Note, described, read_note
from triggerhub_nats.source import NATSSource, Seek
from triggerhub_nats.starts import filters, from_sequence, sequence_of, start_at

ACK_WAIT = 15.0
"""Seconds after which the server takes a message that it hears nothing of for lost. Of one that is
under way it hears three times as often."""
_CONSUMER_NOT_FOUND = 10014
_STREAM_NOT_FOUND = 10059
_NAME_TAKEN = (10013, 10148)
_LEAST_ACK_PENDING = 1000


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
    note: Note = NOTHING
    """Of the seeks that were done."""
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
    if subscription.source.durable_name is not None:
        return subscription.source.durable_name
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
    ``awaited``, is read from its first message. Where a seek is due, make it anew.

    Raises Unusable where it differs from what the trigger says, and what ``Client.ask`` does.
    """
    source = subscription.source
    assert source.stream is not None
    stream, name = source.stream, durable_of(subscription)
    born = _time((await client.ask(f"STREAM.INFO.{stream}"))["created"])
    found = await find(client, stream, name)
    made = False
    if found is None:
        if len(source.subject_names) > 1 and not _filters_several(client):
            raise Unusable(_too_old(client))
        start, note = await _beginning(client, source, born, before, awaited)
        try:
            found = await _create(client, stream, _wanted(subscription, name, note) | start)
            made = True
        except Refusal as refusal:
            # Another process was faster, and began elsewhere.
            found = await find(client, stream, name) if refusal.number in _NAME_TAKEN else None
            if found is None:
                raise
    if differences := _differences(found["config"], source):
        raise Unusable(Problem(
            "ConsumerDiffers",
            f"consumer {name} of stream {stream} is not as the trigger says: "
            f"{'; '.join(differences)}. Name another durable, or delete this one: a new one "
            "begins at startFrom",
        ))  # fmt: skip
    if source.seek is not None and not note_of(found).done(source.seek.id):
        found, made = await _move(client, source, source.seek, found), True
    return _read(found, stream, name, born, made)


async def _move(client: Client, source: NATSSource, seek: Seek, found: Any) -> Any:
    """Where a consumer begins cannot be changed: delete it, and create it as it was, but there.

    The seek is written in the request that creates it. What comes between the two leaves no
    consumer, and then the next ``bind`` begins where the seek says; another process that makes it
    as it was before leaves it without the seek, which is then due again.
    """
    assert source.stream is not None
    old = found["config"]
    sequence = await sequence_of(client, source, seek.to)
    note = note_of(found).sought(Done(seek.id, int(time.time()), sequence))
    starts = ("deliver_policy", "opt_start_seq", "opt_start_time")
    config = {key: value for key, value in old.items() if key not in starts}
    config |= from_sequence(sequence)
    config["description"] = described(old.get("description", ""), note)
    await delete(client, source.stream, found["name"])
    return await _create(client, source.stream, config)


async def delete(client: Client, stream: str, name: str) -> None:
    """Delete it; no error where it is not there. Raises what ``Client.ask`` does."""
    try:
        await client.ask(f"CONSUMER.DELETE.{stream}.{name}")
    except Refusal as refusal:
        if refusal.number not in (_CONSUMER_NOT_FOUND, _STREAM_NOT_FOUND):
            raise


async def _create(client: Client, stream: str, config: Mapping[str, Any]) -> Any:
    request = {"stream_name": stream, "config": config}
    return await client.ask(f"CONSUMER.DURABLE.CREATE.{stream}.{config['durable_name']}", request)


async def _beginning(
    client: Client, source: NATSSource, born: datetime, before: Consumer | None, awaited: bool
) -> tuple[dict[str, Any], Note]:
    """Where a new consumer begins, and what is known of its seeks then."""
    note = NOTHING if before is None else before.note
    if before is not None and _at_once(before.stream_born, born):
        return from_sequence(before.floor + 1), note
    new = awaited or before is not None
    seek = source.seek
    if seek is not None and not note.done(seek.id):
        sequence = 1 if new else await sequence_of(client, source, seek.to)
        return from_sequence(sequence), note.sought(Done(seek.id, int(time.time()), sequence))
    return start_at("All" if new else source.start_from or "New"), note


async def look(client: Client, consumer: Consumer) -> Consumer | None:
    """How it stands now. None: it is not there. Raises what ``Client.ask`` does."""
    found = await find(client, consumer.stream, consumer.name)
    if found is None:
        return None
    return _read(found, consumer.stream, consumer.name, consumer.stream_born, False)


async def find(client: Client, stream: str, name: str) -> Any:
    """What the server says of it. None: it is not there. Raises what ``Client.ask`` does."""
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
        note=note_of(found),
        made=made,
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def note_of(found: Mapping[str, Any]) -> Note:
    """Of the seeks that were done to a consumer, as the server shows it."""
    return read_note(found["config"].get("description", ""))


def _wanted(subscription: Subscription[NATSSource], name: str, note: Note) -> dict[str, Any]:
    source = subscription.source
    config: dict[str, Any] = {
        "durable_name": name,
        "description": described(f"triggerhub: {subscription.name}", note),
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT * 1e9),
        "max_deliver": -1,
        "max_ack_pending": source.max_ack_pending
        or max(_LEAST_ACK_PENDING, 32 * subscription.in_flight),
        "replay_policy": "instant",
    }
    return config | filters(source)


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
