"""One subscription to a stream."""

from __future__ import annotations

from triggerhub.connector import Subscription
from triggerhub_kinesis.client import Client
from triggerhub_kinesis.source import KinesisSource


class Listener:
    """Listens once."""

    def __init__(self, subscription: Subscription[KinesisSource], client: Client) -> None:
        self._subscription = subscription
        self._client = client

    async def run(self) -> None:
        """Listen until cancelled."""
        source = self._subscription.source
        await self._client.call("list_shards", StreamName=source.name)
        raise NotImplementedError("records are not read yet")
