"""The HTTP connector keeps the contract of a source that answers its producer."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Sequence
from contextlib import closing

from triggerhub.connector import Connector, Installation
from triggerhub.testing import Feature, Harness, Sample, check_connector
from triggerhub_http import HTTPConnector
from triggerhub_http.source import HTTPSource


class HTTPHarness(Harness[HTTPSource]):
    """Each sample is a POST on a connection of its own."""

    features = frozenset({Feature.CARRIES_DATA, Feature.ANSWERS})
    event_type = "dev.triggerhub.http.request"
    quiet = 0.1

    def __init__(self, tasks: asyncio.TaskGroup, taken: int) -> None:
        """``taken``: a port that another program listens on."""
        self._tasks = tasks
        self._taken = taken
        self._numbers = itertools.count()
        self._connector: HTTPConnector
        self._answers: dict[Sample, asyncio.Task[bytes]] = {}

    def connector(self) -> Connector[HTTPSource]:
        self._connector = HTTPConnector(Installation(listen="127.0.0.1:0"))
        return self._connector

    async def place(self) -> HTTPSource:
        return HTTPSource(path=f"/place-{next(self._numbers)}")

    async def produce(self, place: HTTPSource, samples: Sequence[Sample]) -> Sequence[Sample]:
        for sample in samples:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._connector.port)
            writer.write(
                f"POST {place.path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n"
                f"content-length: {len(sample.data)}\r\n\r\n".encode()
                + sample.data
            )
            await writer.drain()
            self._answers[sample] = self._tasks.create_task(self._answer(reader, writer))
        return samples

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        with closing(writer):
            return (await reader.read()).partition(b"\r\n")[0]

    async def answered(self, sample: Sample) -> bool:
        return (await self._answers[sample]).startswith(b"HTTP/1.1 2")

    def unreachable(self) -> tuple[Connector[HTTPSource], HTTPSource]:
        return HTTPConnector(Installation(listen=f"127.0.0.1:{self._taken}")), HTTPSource()


async def test_the_http_connector_keeps_the_contract_of_a_source() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        async with asyncio.TaskGroup() as tasks:
            found = await check_connector(HTTPHarness(tasks, other.getsockname()[1]))
    print(found)
    assert {result.promise for result in found.results if not result.held} == {
        "a dead letter comes back as it was",
        "what was not settled comes again, under the same identity",
        "what waits when the listener stops comes again",
        "what is produced while nobody listens is there for the next listen",
        "key order holds, and a slow key delays only itself",
        "several processes share a subscription",
    }
