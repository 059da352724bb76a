"""The connectors that are in use: one of each kind, opened when it is first asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from triggerhub.connector import Connector, Installation, NotTaken
from triggerhub.control.plugins import Kind


class Connectors:
    """An async context manager; leaving it closes them."""

    def __init__(self, kinds: Mapping[str, Kind], installation: Installation) -> None:
        self._kinds = kinds
        self._installation = installation
        self._open: dict[str, asyncio.Future[Connector[Any]]] = {}
        self._closing = asyncio.Event()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Connectors:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        await self._tasks.__aexit__(kind, error, trace)

    async def of(self, kind: str) -> Connector[Any]:
        """The one of that kind. Raises ``NotTaken`` when they are closed, or about to be."""
        if self._closing.is_set():
            raise NotTaken("the hub is stopping")
        ready = self._open.get(kind)
        if ready is None:
            ready = self._open[kind] = asyncio.get_running_loop().create_future()
            self._tasks.create_task(self._keep(kind, ready), name=f"connector {kind}")
        return await asyncio.shield(ready)

    async def _keep(self, kind: str, ready: asyncio.Future[Connector[Any]]) -> None:
        """Opened and closed by one task."""
        factory = self._kinds[kind].factory
        assert factory is not None
        connector = factory(self._installation)
        if isinstance(connector, AbstractAsyncContextManager):
            async with connector:
                ready.set_result(connector)
                await self._closing.wait()
        else:
            ready.set_result(connector)
