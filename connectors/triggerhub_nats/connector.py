"""The NATS connector: which servers, the connections to them, and a listener for each
subscription."""

from __future__ import annotations

from types import TracebackType

from triggerhub.connector import Installation, SpecError, Subscription
from triggerhub.nats.access import Access
from triggerhub.nats.connection import Connections
from triggerhub_nats.access import Accesses
from triggerhub_nats.core import CoreListener
from triggerhub_nats.jetstream import JetStreamListener
from triggerhub_nats.source import NATSSource, check_server

SERVERS = "TRIGGERHUB_NATS_SERVERS"


class NATSConnector:
    """Listens to JetStream streams and core subjects. An async context manager."""

    kind = "NATSTrigger"
    source = NATSSource

    def __init__(self, installation: Installation) -> None:
        self._default_servers = installation.environ.get(SERVERS) or "127.0.0.1:4222"
        self._accesses = Accesses()
        self._connections = Connections()

    async def __aenter__(self) -> NATSConnector:
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connections.__aexit__(kind, error, trace)

    async def listen(self, subscription: Subscription[NATSSource]) -> None:
        """Emit the messages of the stream or the subjects until cancelled.

        Raises ``ListenError``, with a sentence, when no server can be reached at the beginning, or
        refuses; and ``SpecError`` for servers or a secret that cannot be one.
        """
        async with self._connections.to(self._access(subscription)) as connection:
            if subscription.source.stream is not None:
                await JetStreamListener(subscription, connection).run()
            else:
                await CoreListener(subscription, connection).run()

    def _access(self, subscription: Subscription[NATSSource]) -> Access:
        return self._accesses.of(subscription, self._servers(subscription.source))

    def _servers(self, source: NATSSource) -> list[str]:
        if source.servers is not None:
            return source.servers
        try:
            return [check_server(text.strip()) for text in self._default_servers.split(",")]
        except ValueError as error:
            raise SpecError(f"{SERVERS}: {error}") from None
