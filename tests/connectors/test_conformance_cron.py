"""The cron connector keeps the contract of a source, under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from triggerhub.connector import Connector, Installation
from triggerhub.testing import Feature, Harness, Sample, check_connector
from triggerhub_cron import CronConnector
from triggerhub_cron.source import CronSource

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


def clock() -> float:
    return NOON + asyncio.get_running_loop().time()


class CronHarness(Harness[CronSource]):
    """Ticks every second."""

    features = frozenset({Feature.REPLAYS, Feature.SHARES})
    event_type = "dev.triggerhub.cron.tick"
    patience = 60.0
    quiet = 2.5

    def connector(self) -> Connector[CronSource]:
        return CronConnector(Installation(), clock=clock)

    async def place(self) -> CronSource:
        return CronSource.model_validate({"schedule": "* * * * * *", "data": "tick"})

    async def produce(self, place: CronSource, samples: Sequence[Sample]) -> Sequence[Sample]:
        return [Sample(b"tick") for _ in samples]


@pytest.mark.looptime
async def test_the_cron_connector_keeps_the_contract_of_a_source() -> None:
    found = await check_connector(CronHarness())
    print(found)
    assert {result.promise for result in found.results if not result.held} == {
        "a dead letter comes back as it was",
        "what waits when the listener stops comes again",
        "who sent an event that was not settled is told",
        "what is produced while nobody listens is there for the next listen",
        "key order holds, and a slow key delays only itself",
        "listen raises when its source cannot be reached",
    }
