"""A listener waits for its connection, and says why there is none."""

from __future__ import annotations

from triggerhub.connector import Telling
from triggerhub.nats.client import Client
from triggerhub.nats.connection import Connection


class ListenError(Exception):
    """Listening failed; its text says what was found and what to do."""


async def reached(connection: Connection, telling: Telling) -> Client:
    """The client, as soon as there is one; ``telling`` is told why there is none. Raises
    ListenError for a listener that was never attached."""
    while (client := connection.client) is None or client.gone:
        if (problem := connection.problem) is not None:
            telling.wrong(problem)
            if not telling.attached:
                raise ListenError(problem.text)
        await connection.changed()
    return client
