"""The store in NATS JetStream keeps what every store promises, and what only it can break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from integration import nats_tools as tools
from integration.servers import Nats
from tests.store.test_store_contract import (  # noqa: F401 - the one suite of all stores
    OpenStore,
    TestClaims,
    TestDeadLetters,
    TestInbox,
    TestJournal,
    TestPositions,
    other,
    store,
)
from triggerhub.store.jetstream.store import JetStreamStore


@pytest.fixture
def url(nats: Nats) -> Iterator[str]:
    """A store of the test's own."""
    prefix = f"t{uuid4().hex[:8]}"
    yield f"nats://{nats.server}?prefix={prefix}&deadLetters=64Mi&inbox=64Mi"
    asyncio.run(_forget(nats.server, prefix))


async def _forget(server: str, prefix: str) -> None:
    async with tools.jetstream(server) as context:
        for info in await context.streams_info():
            if info.config.name and f"{prefix}-" in info.config.name:
                await context.delete_stream(info.config.name)


@pytest.fixture
def open_store(url: str) -> OpenStore:
    return lambda **options: JetStreamStore(url, **options)
