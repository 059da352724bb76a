"""The Kinesis connector: how AWS is reached, and a listener for each subscription."""

from __future__ import annotations

import aiobotocore  # noqa: F401 - so that a missing extra is told; its rooms are imported when used

from triggerhub.connector import Installation, Subscription
from triggerhub_kinesis.client import ENDPOINT, Clients, access_of
from triggerhub_kinesis.listener import Listener
from triggerhub_kinesis.source import KinesisSource


class KinesisConnector:
    """Listens to Kinesis streams."""

    kind = "KinesisTrigger"
    source = KinesisSource

    def __init__(self, installation: Installation) -> None:
        self._default_endpoint = installation.environ.get(ENDPOINT, "")
        self._clients = Clients()

    async def listen(self, subscription: Subscription[KinesisSource]) -> None:
        """Emit the records of the stream until cancelled.

        Raises ``SpecError`` for an endpoint or a secret that cannot be one.
        """
        async with self._clients.of(access_of(subscription, self._default_endpoint)) as client:
            await Listener(subscription, client).run()
