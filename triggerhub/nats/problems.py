"""What went wrong, in words for the person who runs the hub."""

from __future__ import annotations

import socket
import ssl

import nats.errors

from triggerhub.connector import Problem
from triggerhub.nats.client import Denied, HungUp, NotEncrypted, Refusal

_LOGIN = ("authorization violation", "authentication", "account", "user ")
_STREAM_NOT_FOUND = 10059
_NO_JETSTREAM = (10076, 10039, 10035)
"""Not enabled; not enabled for the account; no account with it."""


def explain(error: Exception, server: str) -> Problem:
    """Why a server did not take us."""
    said = str(error).removeprefix("nats: ").strip("'\"") or type(error).__name__
    if isinstance(error, NotEncrypted):
        return Problem(
            "TLSFailed",
            f"{server} speaks no TLS, so nothing was sent: name another, or leave tls out",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return Problem("TLSFailed", f"{server}: its certificate is refused: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        said = (error.reason or str(error)).replace("_", " ").lower()
        return Problem("TLSFailed", f"{server}: TLS failed: {said}")
    if isinstance(error, nats.errors.AuthorizationError) or said.lower().startswith(_LOGIN):
        return Problem("AuthenticationFailed", f"{server} refuses the login: {said}")
    if isinstance(error, HungUp) and error.encrypted:
        return Problem(
            "TLSFailed",
            f"{server} closes the connection: it does not take the hub's certificate, or lack of "
            "one",
        )
    if isinstance(error, TimeoutError):
        said = "no answer in time"
    elif isinstance(error, socket.gaierror):
        said = "no such host"
    return Problem("ServerUnreachable", f"no NATS server answers at {server}: {said}")


def explain_jetstream(error: Exception, stream: str) -> Problem:
    """Why JetStream did not do as it was asked."""
    if isinstance(error, Denied):
        return Problem("NotAuthorized", f"the server says: {error}; grant the account that subject")
    if isinstance(error, Refusal) and error.number == _STREAM_NOT_FOUND:
        return Problem("StreamNotFound", f"stream {stream} does not exist")
    if has_no_jetstream(error):
        return Problem(
            "JetStreamUnavailable", "the servers have no JetStream for this account, now"
        )
    if isinstance(error, Refusal):
        return Problem("JetStreamRefused", f"stream {stream}: {error}")
    said = str(error).removeprefix("nats: ") or "no answer in time"
    return Problem("JetStreamUnavailable", f"JetStream does not answer: {said}")


def has_no_jetstream(error: Exception) -> bool:
    """Whether nobody answers for JetStream: there is none, or none now."""
    if isinstance(error, Refusal):
        return error.number in _NO_JETSTREAM
    return isinstance(error, nats.errors.NoRespondersError)


def explain_core(error: Exception) -> Problem:
    """Why a subject cannot be listened to."""
    if isinstance(error, Denied):
        return Problem("NotAuthorized", f"the server says: {error}; grant the account that subject")
    said = str(error).removeprefix("nats: ") or "no answer in time"
    return Problem("ServerUnreachable", f"the server does not answer: {said}")
