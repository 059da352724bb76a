"""Where a consumer begins: as JetStream is asked for it, and which sequence that is."""

from __future__ import annotations

from typing import Any, Literal

from triggerhub.nats.client import Client
from triggerhub_nats.source import NATSSource, Start

_POLICIES = {"All": "all", "New": "new", "Last": "last"}
_FORGOTTEN_AFTER = 60.0
"""Seconds after which a server removes a consumer that nobody uses."""

Where = Literal["All", "New", "Last"] | Start


def start_at(where: Where) -> dict[str, Any]:
    """Of a consumer's configuration."""
    if not isinstance(where, Start):
        return {"deliver_policy": _POLICIES[where]}
    if where.sequence is not None:
        return from_sequence(where.sequence)
    return {"deliver_policy": "by_start_time", "opt_start_time": (where.time or "").upper()}


def from_sequence(sequence: int) -> dict[str, Any]:
    """Of a consumer's configuration."""
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}


def filters(source: NATSSource) -> dict[str, Any]:
    """Of a consumer's configuration: the messages that are meant."""
    names = source.subject_names
    if len(names) > 1:
        return {"filter_subjects": list(names)}
    return {"filter_subject": names[0]} if names else {}


async def passing_consumer(client: Client, stream: str, config: dict[str, Any]) -> Any:
    """Make a consumer that acks nothing and goes by itself; what the server says of it. Raises what
    ``Client.ask`` does."""
    own = {
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "max_deliver": -1,
        "inactive_threshold": int(_FORGOTTEN_AFTER * 1e9),
        "description": "triggerhub: looks",
    }
    request = {"stream_name": stream, "config": own | config}
    return await client.ask(f"CONSUMER.CREATE.{stream}", request)


async def sequence_of(client: Client, source: NATSSource, where: Where) -> int:
    """The first message that a consumer gets which begins there now, or the next one that comes.
    Raises what ``Client.ask`` does."""
    assert source.stream is not None
    if isinstance(where, Start) and where.sequence is not None:
        return where.sequence
    found = await passing_consumer(client, source.stream, start_at(where) | filters(source))
    await client.ask(f"CONSUMER.DELETE.{source.stream}.{found['name']}")
    return int(found["delivered"]["stream_seq"]) + 1
