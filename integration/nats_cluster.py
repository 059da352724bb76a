"""Three nats-servers that are one cluster, with JetStream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import nats.errors
from nats.js.errors import Error as JetStreamError

from integration import nats_tools as tools
from integration.nats_servers import Nats
from integration.servers import eventually, free_port


class NatsCluster:
    """They know each other by ``n0`` to ``n2``."""

    def __init__(self, folder: Path, *, old: bool = False) -> None:
        """``old``: of before 2.10."""
        ports = [free_port() for _ in range(3)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        self.nodes: dict[str, Nats] = {}
        for number, port in enumerate(ports):
            own = folder / f"n{number}"
            own.mkdir()
            self.nodes[f"n{number}"] = Nats(own, (
                f"server_name: n{number}\n"
                f"cluster {{ name: tests, listen: 127.0.0.1:{port}, routes: [{routes}] }}"
            ), old=old)  # fmt: skip

    @property
    def server(self) -> str:
        """``host:port`` of all, separated by commas."""
        return ",".join(node.server for node in self.nodes.values())

    def start(self) -> None:
        """Start, and wait until they have a leader for JetStream."""
        for node in self.nodes.values():
            node.start()
        eventually(self._replicates, "leader of JetStream")

    @contextmanager
    def started(self) -> Iterator[Self]:
        """They run while the block does."""
        try:
            self.start()
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        for node in self.nodes.values():
            node.stop()

    def leader(self, stream: str) -> str:
        """The node that leads a stream; empty while none does."""
        try:
            return asyncio.run(self._leader(stream))
        except (nats.errors.Error, JetStreamError, OSError):
            return ""

    async def _leader(self, stream: str) -> str:
        async with tools.jetstream(self.server) as context:
            cluster = (await context.stream_info(stream)).cluster
            return (cluster.leader or "") if cluster is not None else ""

    def _replicates(self) -> bool:
        """Whether a stream with three replicas can be made."""

        async def make() -> None:
            await tools.create_stream(self.server, "first", "first", num_replicas=3)
            await tools.delete_stream(self.server, "first")

        try:
            asyncio.run(make())
        except (nats.errors.Error, JetStreamError, OSError):
            return False
        return True
