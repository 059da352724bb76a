"""The Kinesis connector: how AWS is reached, and a listener for each subscription."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

import aiobotocore  # noqa: F401 - so that a missing extra is told; its rooms are imported when used

from triggerhub.connector import Installation, Progress, Subscription
from triggerhub_kinesis.client import ENDPOINT, Access, Client, Clients, access_of
from triggerhub_kinesis.listener import Listener, ListenError
from triggerhub_kinesis.pace import Paces
from triggerhub_kinesis.problems import explain
from triggerhub_kinesis.reader import PROBLEMS
from triggerhub_kinesis.replay import Replay
from triggerhub_kinesis.source import KinesisSource
from triggerhub_kinesis.starts import nobody_reads


class KinesisConnector:
    """Listens to Kinesis streams."""

    kind = "KinesisTrigger"
    source = KinesisSource

    def __init__(self, installation: Installation) -> None:
        self._default_endpoint = installation.environ.get(ENDPOINT, "")
        self._clients = Clients()
        self._paces = Paces()

    async def listen(self, subscription: Subscription[KinesisSource]) -> None:
        """Emit the records of the stream until cancelled.

        Raises ``ListenError``, with a sentence, when Kinesis cannot be reached or refuses;
        ``OSError`` when the store cannot be; and ``SpecError`` for an endpoint or a secret that
        cannot be one.
        """
        async with self._reaching(subscription) as (access, client):
            await Listener(subscription, client, access, self._paces).run()

    async def clean_up(self, subscription: Subscription[KinesisSource]) -> None:
        """See to it that nobody reads any more: the checkpoints, which the hub forgets, would be
        written again. Raises ``StillRead``, ``OSError``."""
        await nobody_reads(subscription.positions)

    async def seek(self, subscription: Subscription[KinesisSource]) -> None:
        """Move the checkpoints of a trigger that nobody listens to, where the manifest says so and
        it is not done yet.

        Raises ``StillRead`` while another process reads, and what ``listen`` raises.
        """
        async with self._reaching(subscription) as (access, client):
            await Listener(subscription, client, access, self._paces).seek()

    async def replay(
        self,
        subscription: Subscription[KinesisSource],
        since: datetime | str,
        until: datetime | str | None,
        progress: Progress,
    ) -> None:
        """Emit what lies between, beside the checkpoints. Positions are ``TrimHorizon`` and
        ``SHARD:SEQUENCE,…``.

        Raises ``ReplayError``, with a sentence, and ``ValueError`` for what is no position.
        """
        async with self._reaching(subscription) as (access, client):
            replay = Replay(subscription, client, access, self._paces, progress)
            await replay.run(since, until)

    @asynccontextmanager
    async def _reaching(
        self, subscription: Subscription[KinesisSource]
    ) -> AsyncIterator[tuple[Access, Client]]:
        access = access_of(subscription, self._default_endpoint)
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(self._clients.of(access))
            except PROBLEMS as error:
                problem = explain(
                    error,
                    stream=subscription.source.name,
                    region=access.region or "",
                    endpoint=access.endpoint or "",
                )
                subscription.report.disconnected(problem.reason, problem.text)
                raise ListenError(problem.text) from error
            yield access, client
