"""The store in NATS JetStream keeps what every store promises."""

from __future__ import annotations

import pytest

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
def open_store(url: str) -> OpenStore:
    return lambda **options: JetStreamStore(url, **options)
