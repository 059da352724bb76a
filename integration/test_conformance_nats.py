"""The NATS connector keeps the contract of a source, against a real server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from integration import nats_tools as tools
from integration.nats_servers import Nats
from integration.servers import free_port
from triggerhub.connector import Connector, Installation
from triggerhub.testing import Feature, Harness, Sample, check_connector
from triggerhub_nats import NATSConnector, NATSSource, SubjectForLetters

_BURIED = "a dead letter comes back as it was"
TOLD = "who sent an event that was not settled is told"
_KEPT = {
    "what is produced while nobody listens is there for the next listen",
    "what was not settled comes again, under the same identity",
    "what waits when the listener stops comes again",
}


class JetStreamHarness(Harness[NATSSource]):
    """A stream for each promise; a key is a header."""

    features = frozenset(Feature) - {Feature.ANSWERS}
    event_type = "dev.triggerhub.nats.message"
    patience = 20.0
    quiet = 0.5
    margin = 5.0
    letters: SubjectForLetters | None = SubjectForLetters(subject="conformance-dead")

    def __init__(self, server: str, **fields: object) -> None:
        self._server = server
        self._fields = fields
        self._numbers = itertools.count()

    def connector(self) -> Connector[NATSSource]:
        return NATSConnector(Installation())

    async def place(self) -> NATSSource:
        stream = f"conformance-{next(self._numbers)}-{'-'.join(self._fields)}"
        await tools.create_stream(self._server, stream, f"{stream}.>")
        return self._source(stream=stream)

    async def produce(self, place: NATSSource, samples: Sequence[Sample]) -> Sequence[Sample]:
        async with tools.jetstream(self._server) as stream:
            for sample in samples:
                headers = None if sample.key is None else {"Key": sample.key}
                await stream.publish(f"{place.stream}.x", sample.data, headers=headers)
        return samples

    def unreachable(self) -> tuple[Connector[NATSSource], NATSSource]:
        nowhere = f"127.0.0.1:{free_port()}"
        return self.connector(), NATSSource(subject="conformance", servers=[nowhere])

    def _source(self, **fields: object) -> NATSSource:
        return NATSSource.model_validate(
            {"servers": [self._server], "key": {"header": "key"}} | self._fields | fields
        )


class CoreHarness(JetStreamHarness):
    """A subject for each promise."""

    features = frozenset({Feature.CARRIES_DATA, Feature.KEYED, Feature.SHARES})

    async def place(self) -> NATSSource:
        return self._source(subject=f"core.{next(self._numbers)}.*")

    async def produce(self, place: NATSSource, samples: Sequence[Sample]) -> Sequence[Sample]:
        async with tools.connected(self._server) as client:
            for sample in samples:
                assert place.subject is not None
                await self._send(client, place.subject.replace("*", "x"), sample)
            await client.flush()
        return samples

    async def _send(self, client: Client, subject: str, sample: Sample) -> None:
        headers = None if sample.key is None else {"Key": sample.key}
        await client.publish(subject, sample.data, headers=headers)


class AskingHarness(CoreHarness):
    """Who sends waits for an answer."""

    features = CoreHarness.features | {Feature.ANSWERS}
    letters = None  # who asks is answered: there is none

    def __init__(self, server: str) -> None:
        super().__init__(server, reply=True)
        self._answers: dict[bytes, asyncio.Task[Msg]] = {}
        self._client: Client | None = None

    async def produce(self, place: NATSSource, samples: Sequence[Sample]) -> Sequence[Sample]:
        assert place.subject is not None
        if self._client is None:
            self._client = Client()
            await self._client.connect(f"nats://{self._server}")
        for sample in samples:
            headers = None if sample.key is None else {"Key": sample.key}
            asking = self._client.request(
                place.subject.replace("*", "x"), sample.data, timeout=20, headers=headers
            )
            self._answers[sample.data] = asyncio.ensure_future(asking)
            await asyncio.sleep(0)
        await self._client.flush()
        return samples

    async def answered(self, sample: Sample) -> bool:
        answer = await self._answers[sample.data]
        return "Nats-Service-Error" not in (answer.headers or {})

    async def close(self) -> None:
        for asking in self._answers.values():
            asking.cancel()
        if self._client is not None:
            await self._client.close()


@pytest.fixture(scope="module", autouse=True)
def cemetery(nats: Nats) -> None:
    """A stream for dead letters."""
    asyncio.run(tools.create_stream(nats.server, "dead", "conformance-dead"))


async def test_jetstream_keeps_the_contract_of_a_source(nats: Nats) -> None:
    found = await check_connector(JetStreamHarness(nats.server))
    print(found)
    assert {result.promise for result in found.results if not result.held} == {TOLD}


async def test_jetstream_keeps_it_where_every_ack_is_confirmed(nats: Nats) -> None:
    found = await check_connector(JetStreamHarness(nats.server, confirmAcks=True))
    assert {result.promise for result in found.results if not result.held} == {TOLD}


async def test_core_subjects_keep_what_they_can_of_it(nats: Nats) -> None:
    found = await check_connector(CoreHarness(nats.server))
    print(found)
    left = {result.promise for result in found.results if not result.held}
    assert left == _KEPT | {TOLD, "an event given back is not settled"}


async def test_who_asks_over_a_core_subject_is_told(nats: Nats) -> None:
    harness = AskingHarness(nats.server)
    try:
        found = await check_connector(harness)
    finally:
        await harness.close()
    print(found)
    assert {result.promise for result in found.results if not result.held} == _KEPT | {_BURIED}
