"""What the tests of the NATS connector do to a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from nats.js.client import JetStreamContext


@asynccontextmanager
async def connected(server: str, **options: Any) -> AsyncIterator[Client]:
    client = await nats.connect(f"nats://{server}", **options)
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
