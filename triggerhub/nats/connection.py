"""A connection that is made again for ever, shared by all who reach NATS in the same way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType

import nats.errors

from triggerhub.backoff import backoff
from triggerhub.connector import Problem
from triggerhub.nats.access import Access
from triggerhub.nats.client import Client
from triggerhub.nats.problems import explain

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 5.0
_WELL = 10.0
"""Seconds after which the end of a connection begins the backoff anew."""


class Connection:
    """Has a client, or says why not."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.client: Client | None = None
        """The one that is connected."""
        self.problem: Problem | None = None
        """Why there is none: set after each round over the servers in which none took us."""
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until there is another client, none, or another round failed."""
        await self._changed.wait()

    async def run(self) -> None:
        """Until cancelled: connect, watch, connect again."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            client = await self._connect()
            began = loop.time()
            if client is not None:
                self._tell(client, None)
                try:
                    await client.watch()
                finally:
                    where = ", ".join(self.access.servers)
                    self._tell(
                        None, Problem("ServerUnreachable", f"lost the connection to {where}")
                    )
                    await client.end()
            failures = 1 if loop.time() - began > _WELL else failures + 1
            await asyncio.sleep(backoff(failures, _FIRST_WAIT, _LONGEST_WAIT))

    async def _connect(self) -> Client | None:
        """The first server that takes us. None: none did, and ``problem`` says why."""
        problem: Problem | None = None
        for server in random.sample(self.access.servers, len(self.access.servers)):
            client = Client(self.access)
            try:
                await client.open(server)
                return client
            except (OSError, nats.errors.Error) as error:
                found = explain(error, server)
                # One that refuses says more than one that is away.
                if problem is None or problem.reason == "ServerUnreachable":
                    problem = found
                await client.end()
            except BaseException:
                await client.end()
                raise
        self._tell(None, problem)
        return None

    def _tell(self, client: Client | None, problem: Problem | None) -> None:
        self.client, self.problem = client, problem
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@dataclass(slots=True)
class _Shared:
    connection: Connection
    task: asyncio.Task[None]
    users: int = 0


class Connections:
    """One for each way to reach NATS, as long as anybody uses it. An async context manager."""

    def __init__(self) -> None:
        self._open: dict[Access, _Shared] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Connections:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for shared in self._open.values():
            shared.task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def to(self, access: Access) -> AsyncIterator[Connection]:
        """The connection of this access; it is closed when its last user leaves."""
        shared = self._open.get(access)
        if shared is None:
            connection = Connection(access)
            task = self._tasks.create_task(connection.run())
            shared = self._open[access] = _Shared(connection, task)
        shared.users += 1
        try:
            yield shared.connection
        finally:
            shared.users -= 1
            if not shared.users:
                if self._open.get(access) is shared:
                    del self._open[access]
                shared.task.cancel()
                await asyncio.wait([shared.task])
