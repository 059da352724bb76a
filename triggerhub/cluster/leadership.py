"""What one process may do for all its replicas: while it leads, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from triggerhub.cluster.election import Election, Leases
from triggerhub.control.listeners import Listeners

log = structlog.get_logger()


class Leadership:
    """Of one process. What its listeners began as the leader ends with that."""

    def __init__(self, leases: Leases, *, name: str, namespace: str, identity: str) -> None:
        self._leading = asyncio.Event()
        self.listeners: Listeners | None = None
        """Whose: set before the election runs."""
        self.election = Election(
            leases, name=name, namespace=namespace, identity=identity, changed=self._elected
        )

    async def own(self) -> None:
        """See ``Subscription.own``, where replicas share their positions."""
        await self.turn()

    async def turn(self) -> float:
        """Wait to be the leader; since when what falls due is its own, seconds since the epoch."""
        while True:
            await self._leading.wait()
            if self.election.leading:
                return self.election.since
            await asyncio.sleep(0)  # its time is over: the event goes next

    @asynccontextmanager
    async def standing(self, listeners: Listeners) -> AsyncIterator[None]:
        """Stand for election while the block runs."""
        self.listeners = listeners
        async with asyncio.TaskGroup() as tasks:
            election = tasks.create_task(self.election.run(), name="election")
            try:
                yield
            finally:
                election.cancel()

    def _elected(self) -> None:
        if self.election.leading:
            log.info("leader.elected")
            self._leading.set()
        elif self._leading.is_set():
            log.info("leader.resigned")
            self._leading.clear()
            # At once: what acts for all must not go on while another replica takes over.
            if self.listeners is not None:
                self.listeners.resign()
