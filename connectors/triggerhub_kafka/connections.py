"""A consumer's own connections, and what it fetches over them."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.errors import for_code
from aiokafka.protocol.fetch import FetchRequest

from triggerhub_kafka.brokers import Brokers
from triggerhub_kafka.client import Client
from triggerhub_kafka.fetching import mend

_FETCHES = 2
"""Beside aiokafka's ``ConnectionGroup``: the connections over which records come."""
_HANDLED = frozenset({0, 1, 29})
"""Codes of a fetch that aiokafka acts upon or raises: none, out of range, not authorized."""


class Connections(Client):
    """A consumer's own: one to each broker that it fetches from, one to its group's coordinator.
    What is answered at once goes over those that it shares."""

    def __init__(self, brokers: Brokers | None, **options: Any) -> None:
        super().__init__(**options)
        self._brokers = brokers
        self.refused: dict[TopicPartition, str] = {}
        """Partitions that a broker gives nothing of, and why, as of the last fetch."""
        self.mending: set[TopicPartition] = set()
        """Partitions whose batches have names that aiokafka cannot read."""

    async def bootstrap(self) -> None:
        if self._brokers is None:
            await super().bootstrap()
            return
        self.cluster.update_metadata(await self._brokers.start())
        self._synchronize()

    async def send(self, node_id: Any, request: Any, *, group: int = 0) -> Any:
        if isinstance(request, FetchRequest):
            return await self._fetch(node_id, request)
        if group == ConnectionGroup.DEFAULT and self._brokers is not None:
            return await self._brokers.client.send(node_id, request)
        return await super().send(node_id, request, group=group)

    async def _get_conn(self, node_id: int, **which: Any) -> Any:
        if self._brokers is None:
            return await super()._get_conn(node_id, **which)
        group = which.get("group", ConnectionGroup.DEFAULT)
        if group == ConnectionGroup.DEFAULT:
            return await self._brokers.client._get_conn(node_id)
        connection = self._conns.get((node_id, group))
        if connection is not None and connection.connected():
            return await super()._get_conn(node_id, **which)
        async with self._brokers.connecting:
            return await super()._get_conn(node_id, **which)

    async def _fetch(self, node: int, request: FetchRequest) -> Any:
        try:
            reply = await super().send(node, request, group=_FETCHES)
        except asyncio.CancelledError:
            self._end_fetch(node)
            raise
        refused = {
            TopicPartition(topic, number): for_code(code)
            for topic, partitions in reply.topics
            for number, code, *_ in partitions
            if code not in _HANDLED
        }
        if refused or self.refused:
            for topic, partitions in reply.topics:
                for number, *_ in partitions:
                    self.refused.pop(TopicPartition(topic, number), None)
            self.refused |= {at: f"its broker says {why.__name__}" for at, why in refused.items()}
        if refused:
            # aiokafka only logs most of them, and would ask again at once, for ever.
            self.force_metadata_update()
            await asyncio.sleep(self._retry_backoff)
        if self.mending:
            reply.topics = [
                (topic, [self._mended(topic, *partition) for partition in partitions])
                for topic, partitions in reply.topics
            ]
        return reply

    def _mended(self, topic: str, partition: int, *rest: Any) -> tuple[Any, ...]:
        *between, batches = rest
        if TopicPartition(topic, partition) in self.mending:
            batches = mend(batches)
        return (partition, *between, batches)

    def interrupt(self) -> None:
        """End the fetches that a broker holds: one of them does not ask for all that it should."""
        for node, group in list(self._conns):
            if group == _FETCHES:
                self._end_fetch(node)

    def _end_fetch(self, node: int) -> None:
        connection = self._conns.get((node, _FETCHES))
        if connection is not None and connection._requests:
            self.hang_up(connection)
