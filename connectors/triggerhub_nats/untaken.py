"""Why a message was not taken, in words."""

from __future__ import annotations

import nats.errors

from triggerhub.connector import NotTaken
from triggerhub.nats.client import Denied, Refusal
from triggerhub.nats.connection import Connection
from triggerhub.nats.problems import explain_jetstream, has_no_jetstream
from triggerhub_nats.letters import Outgoing

_NOT_NOW = (10008, 10009)
"""JetStream has no leader; is short of what it needs for a while."""
_REFUSING = ("AuthenticationFailed", "TLSFailed")


def no_server(connection: Connection) -> NotTaken:
    """There is no connection."""
    problem = connection.problem
    if problem is None:
        return NotTaken(f"no NATS server answers at {', '.join(connection.access.servers)}")
    return NotTaken(problem.text, refused=problem.reason in _REFUSING)


class NoStream(NotTaken):
    """No stream takes the subject. ``certain``: JetStream says so; else there seems to be none."""

    def __init__(self, text: str, *, certain: bool) -> None:
        super().__init__(text, refused=certain)
        self.certain = certain


def no_stream(subject: str) -> NoStream:
    """Nobody would keep it."""
    return NoStream(
        f"no stream takes subject {subject}: create one that does, the hub creates none",
        certain=True,
    )


def in_itself(subject: str, stream: str) -> NotTaken:
    """The trigger would read it."""
    text = f"subject {subject} lies in stream {stream}, which the trigger itself reads"
    return NotTaken(f"{text}: name another, or give it a subject of its own", refused=True)


def too_large(message: Outgoing, most: int) -> NotTaken:
    """For the server: it would end the connection."""
    return NotTaken(
        f"subject {message.subject}: the message has {message.size} bytes, the server takes "
        f"{most}: raise its max_payload",
        refused=True,
    )


def told(error: Exception, subject: str, stream: str) -> NotTaken:
    """An error of the client's, or the server's. ``stream``: the one that takes the subject; empty
    where that was asked."""
    if isinstance(error, Denied):
        return NotTaken(explain_jetstream(error, stream).text, refused=True)
    if isinstance(error, Refusal) and stream:
        return NotTaken(
            f"stream {stream} refuses subject {subject}: {error}",
            refused=error.number not in _NOT_NOW,
        )
    if isinstance(error, nats.errors.NoRespondersError) and stream:
        return NotTaken(f"stream {stream}, which takes subject {subject}, has no leader now")
    if isinstance(error, TimeoutError | nats.errors.TimeoutError) and stream:
        return NotTaken(f"stream {stream} did not confirm subject {subject} in time")
    problem = explain_jetstream(error, stream)
    if has_no_jetstream(error):
        return NoStream(f"no stream takes subject {subject}: {problem.text}", certain=False)
    return NotTaken(problem.text)
