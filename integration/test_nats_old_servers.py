"""nats-servers of before 2.10: what is promised holds on them, too, and what cannot is said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from integration import nats_tools as tools
from integration.fakes import listening
from integration.nats_cluster import NatsCluster
from integration.nats_servers import Nats
from integration.test_conformance_nats import TOLD, JetStreamHarness
from integration.test_store_trouble import (  # noqa: F401
    test_a_save_whose_answer_was_lost_is_done_once,
)
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
from triggerhub.connector import Installation
from triggerhub.event import Event
from triggerhub.store.jetstream.store import JetStreamStore
from triggerhub.testing import check_connector
from triggerhub_nats import NATSConnector, NATSSource


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """An old one, instead of the session's."""
    with Nats(tmp_path_factory.mktemp("nats"), old=True).started() as server:
        yield server


@pytest.fixture
def open_store(url: str) -> OpenStore:
    return lambda **options: JetStreamStore(url, **options)


async def test_jetstream_keeps_the_contract_of_a_source(nats: Nats) -> None:
    await tools.create_stream(nats.server, "dead", "conformance-dead")
    found = await check_connector(JetStreamHarness(nats.server))
    assert {result.promise for result in found.results if not result.held} == {TOLD}


async def test_several_subjects_of_a_stream_are_refused_and_told(nats: Nats) -> None:
    await tools.create_stream(nats.server, "orders", "orders.>")
    source = NATSSource.model_validate(
        {"servers": [nats.server], "stream": "orders", "subjects": ["orders.a", "orders.b"]}
    )
    async with (
        NATSConnector(Installation()) as connector,
        listening(connector, source, name="shop.orders.handle") as running,
    ):
        await running.state("ServerTooOld")
    assert "need nats-server 2.10, this is 2.9." in running.report.messages[-1]


def test_a_store_with_replicas_says_that_its_servers_are_too_old(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path, old=True)
    url = f"nats://{cluster.server}?replicas=3&deadLetters=64Mi&inbox=64Mi"

    async def use() -> None:
        async with JetStreamStore(url) as opened:
            await opened.inbox("a.b.c").put(Event(id="1", source="s", type="t"))

    with cluster.started(), capture_logs() as logs:
        asyncio.run(use())
    (told,) = [entry for entry in logs if entry["event"] == "store.servers_too_old"]
    assert told["found"] == "nats-server 2.9"
