"""The Kinesis connector keeps the contract of a source, against a real endpoint."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from integration import kinesis_tools as tools
from integration.kinesis_servers import KEY_ID, REGION, SECRET, Kinesis
from integration.servers import free_port
from triggerhub.connector import Connector, Installation
from triggerhub.testing import Feature, Harness, Sample, check_connector
from triggerhub_kinesis import KinesisConnector, KinesisSource

_BURIED = "a dead letter comes back as it was"
_TOLD = "who sent an event that was not settled is told"


class KinesisHarness(Harness[KinesisSource]):
    """A stream for each promise, of so many shards."""

    features = frozenset(Feature) - {Feature.ANSWERS}
    # The client that puts it would warn of a body beyond 1 MiB, in base64.
    largest = 700_000
    event_type = "dev.triggerhub.kinesis.record"
    patience = 30.0
    quiet = 1.5
    margin = 5.0

    def __init__(self, endpoint: str, shards: int) -> None:
        self._endpoint = endpoint
        self._shards = shards
        self._numbers = itertools.count()

    def connector(self) -> Connector[KinesisSource]:
        return KinesisConnector(Installation())

    async def place(self) -> KinesisSource:
        stream = f"conformance-{self._shards}-{next(self._numbers)}"
        await tools.create_stream(self._endpoint, stream, self._shards)
        return source(self._endpoint, stream)

    async def produce(self, place: KinesisSource, samples: Sequence[Sample]) -> Sequence[Sample]:
        # A record always has a partition key.
        sent = [Sample(sample.data, sample.key or "none") for sample in samples]
        for sample in sent:
            await tools.put(self._endpoint, place.name, (sample.key or "", sample.data))
        return sent

    def unreachable(self) -> tuple[Connector[KinesisSource], KinesisSource]:
        return self.connector(), source(f"http://127.0.0.1:{free_port()}", "nowhere")


def source(endpoint: str, stream: str, **fields: object) -> KinesisSource:
    body = {"stream": stream, "region": REGION, "endpoint": endpoint}
    return KinesisSource.model_validate(body | fields)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the AWS chain looks first."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


async def test_kinesis_keeps_the_contract_of_a_source(kinesis: Kinesis) -> None:
    found = await check_connector(KinesisHarness(kinesis.endpoint, shards=2))
    print(found)
    assert {result.promise for result in found.results if not result.held} == {_TOLD, _BURIED}
