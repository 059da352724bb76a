"""Kafka in other shapes than the session's broker: one that authorizes, and two in one cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from integration import kafka_tools as tools
from integration.servers import Kafka


class Guarded(Kafka):
    """Who logs in may do what it was allowed to do; who comes without login may do anything."""

    def _properties(self, folder: Path) -> str:
        authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        return (
            super()._properties(folder)
            + f"authorizer.class.name={authorizer}\nsuper.users=User:ANONYMOUS\n"
        )

    async def allow(self, operation: str, **resource: str) -> None:
        """Let the user do this (Read, Describe) with ``topic=…`` or ``group=…``."""
        await self._send(CreateAclsRequest, operation, resource)

    async def forbid(self, operation: str, **resource: str) -> None:
        """Take back what was allowed."""
        await self._send(DeleteAclsRequest, operation, resource)

    async def _send(self, request: Any, operation: str, resource: dict[str, str]) -> None:
        ((kind, name),) = resource.items()
        user = f"User:{self.USER}"
        numbers = {"topic": 2, "group": 3, "Read": 3, "Describe": 8}
        literal, allow = 3, 3
        async with tools.admin(self.broker) as client:
            await client._send_request(
                request(numbers[kind], name, literal, user, "*", numbers[operation], allow)
            )


class Second(Kafka):
    """A further broker of the cluster whose first is given."""

    def __init__(self, folder: Path, first: Kafka, first_folder: Path) -> None:
        lines = (first_folder / "server.properties").read_text().splitlines()
        self._voters = next(line for line in lines if line.startswith("controller.quorum.voters="))
        self._first = first
        super().__init__(folder)

    def _properties(self, folder: Path) -> str:
        changed = {
            "process.roles": "process.roles=broker",
            "node.id": "node.id=2",
            "controller.quorum.voters": self._voters,
        }
        lines = []
        for line in super()._properties(folder).splitlines():
            name, _, value = line.partition("=")
            if name == "listeners":
                changed[name] = f"listeners={value.partition(',')[2]}"
            lines.append(changed.get(name, line))
        return "\n".join(lines) + "\n"

    async def joined(self) -> None:
        """Wait until the first knows it."""
        async with tools.admin(self._first.broker) as client, asyncio.timeout(30):
            while len((await client.describe_cluster())["brokers"]) < 2:
                await asyncio.sleep(0.1)

    async def create_topic(self, name: str, brokers: list[int], **options: Any) -> None:
        """With one partition on each of these brokers, 1 or 2, which alone has it."""
        placed = {number: [broker] for number, broker in enumerate(brokers)}
        async with tools.admin(self._first.broker) as client:
            await client.create_topics([NewTopic(name, -1, -1, placed, options or None)])


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Kafka, Second]]:
    """Two brokers of one cluster, started; each record is on one of them alone."""
    for name in ("first", "second"):
        (folder / name).mkdir()
    first = Kafka(folder / "first")
    second = Second(folder / "second", first, folder / "first")
    try:
        first.start()
        second.start()
        await second.joined()
        yield first, second
    finally:
        second.stop()
        first.stop()
