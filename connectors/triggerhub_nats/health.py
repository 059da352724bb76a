"""How the source is, told when it changes."""

from __future__ import annotations

from triggerhub.connector import Report
from triggerhub.nats.client import Client
from triggerhub.nats.connection import Connection
from triggerhub.nats.problems import Problem


class ListenError(Exception):
    """Listening failed; its text says what was found and what to do."""


class Health:
    """Turns what one listener learns into ``Report`` calls."""

    def __init__(self, report: Report) -> None:
        self.attached = False
        """It was, once."""
        self._report = report
        self._told: Problem | None = None
        self._well = False

    def wrong(self, problem: Problem) -> None:
        """The source brings nothing, for this reason."""
        # Reasons alone are compared: texts carry details that vary with each try.
        if self._well or self._told is None or problem.reason != self._told.reason:
            self._well, self._told = False, problem
            self._report.disconnected(problem.reason, problem.text)

    def well(self, note: Problem | None = None) -> None:
        """It brings what there is. ``note``: what is to be known although it does."""
        self.attached = True
        if not self._well or note != self._told:
            self._well, self._told = True, note
            if note is None:
                self._report.connected()
            else:
                self._report.connected(note.reason, note.text)


async def reached(connection: Connection, health: Health) -> Client:
    """The client, as soon as there is one; ``health`` is told why there is none. Raises
    ListenError for a listener that was never attached."""
    while (client := connection.client) is None or client.gone:
        if (problem := connection.problem) is not None:
            health.wrong(problem)
            if not health.attached:
                raise ListenError(problem.text)
        await connection.changed()
    return client
