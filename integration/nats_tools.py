"""What the tests of the NATS connector do to a server."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client
from nats.js.client import JetStreamContext

from triggerhub.nats.headers import Pairs, pairs_of


def urls(server: str) -> list[str]:
    """Of several that are separated by commas."""
    return [f"nats://{one}" for one in server.split(",")]


@asynccontextmanager
async def connected(server: str, **options: Any) -> AsyncIterator[Client]:
    """``server``: ``host:port``, or several, separated by commas."""
    client = await nats.connect(urls(server), **options)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def jetstream(server: str) -> AsyncIterator[JetStreamContext]:
    async with connected(server) as client:
        yield client.jetstream()


async def create_stream(server: str, name: str, *subjects: str, **config: Any) -> None:
    async with jetstream(server) as stream:
        await stream.add_stream(name=name, subjects=list(subjects), **config)


async def configure(server: str, stream: str, **config: Any) -> None:
    """Change a stream."""
    async with jetstream(server) as context:
        found = (await context.stream_info(stream)).config
        await context.update_stream(found, **config)


async def delete_stream(server: str, stream: str) -> None:
    async with jetstream(server) as context:
        await context.delete_stream(stream)


async def delete_message(server: str, stream: str, sequence: int) -> None:
    async with jetstream(server) as context:
        await context.delete_msg(stream, sequence)


class Found(NamedTuple):
    """A message of a stream."""

    sequence: int
    subject: str
    pairs: Pairs
    data: bytes


async def messages(server: str, stream: str) -> list[Found]:
    """All that a stream has now."""
    found = []
    async with jetstream(server) as context:
        state = (await context.stream_info(stream)).state
        for sequence in range(max(1, state.first_seq), state.last_seq + 1):
            answer = await context._nc.request(
                f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": sequence}).encode()
            )
            message = json.loads(answer.data).get("message")
            if message is not None:
                headers = b64decode(message.get("hdrs", ""))
                data = b64decode(message.get("data", ""))
                found.append(Found(sequence, message["subject"], pairs_of(headers), data))
    return found


async def publish_raw(server: str, subject: str, headers: bytes, data: bytes) -> None:
    """With headers as they are, which nats-py would mend."""
    async with connected(server) as client:
        await client._send_command(b"HPUB %b %d %d\r\n%b%b\r\n" % (
            subject.encode(), len(headers), len(headers) + len(data), headers, data
        ))  # fmt: skip
        await client.flush()


async def publish(
    server: str, subject: str, *values: bytes, headers: Mapping[str, str] | None = None
) -> list[int]:
    """Into a stream; returns the sequences."""
    async with jetstream(server) as stream:
        return [
            (await stream.publish(subject, value, headers=dict(headers or {}))).seq
            for value in values
        ]


async def consumer(server: str, stream: str, name: str) -> Any:
    """nats-py's ConsumerInfo."""
    async with jetstream(server) as context:
        return await context.consumer_info(stream, name)


async def delete_streams(server: str, part: str) -> None:
    """Those with this in their names."""
    async with jetstream(server) as context:
        for info in await context.streams_info():
            if part in (info.config.name or ""):
                await context.delete_stream(str(info.config.name))
