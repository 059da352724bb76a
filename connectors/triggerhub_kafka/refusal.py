"""Why a broker did not take a connection.

A broker says little: it closes on a client that wants no TLS, or no login. Where its words leave
the cause open, it is asked once more in another way, without credentials, and what it then does
tells.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import errors
from aiokafka.protocol.admin import SaslAuthenticateRequest, SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

REFUSALS = (errors.KafkaError, OSError)
"""What the making of a connection, and the first request, may raise."""

_ALERT_WITHIN = 2.0
_TLS = "spec.source.security.tls"
_SASL = "spec.source.security.sasl"
_CLOSED = (
    errors.KafkaConnectionError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError,
    ssl.SSLError,
)  # fmt: skip
# X509_V_ERR_… of OpenSSL's x509_vfy.h
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})
_OTHER_HOST = frozenset({62, 64})


class Refused(errors.KafkaError):  # type: ignore[misc]
    """Its text says where, why and what to do."""

    retriable = False

    def __str__(self) -> str:
        return str(self.args[0])


class TLSFailed(Refused):
    """The connection could not be secured."""


class LoginFailed(Refused):
    """The broker and the client do not agree on a login."""


class TokenUnavailable(Refused):
    """There is no token to log in with, now."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A connection that failed."""

    host: str
    port: int
    protocol: str
    """Kafka's security protocol."""
    context: ssl.SSLContext | None
    connect: Callable[..., Awaitable[Any]]
    """Tries it again; keyword arguments take the place of its client's own."""
    bearer: Callable[[], Awaitable[bytes]] | None = None
    """Of a client that logs in with a token: gives what it says first. Raises KafkaError."""

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"


async def why(error: Exception, tried: Tried) -> errors.KafkaError:
    """What its failure means: one of ``REFUSALS``."""
    if isinstance(error, Refused):
        return error
    place = tried.place
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TLSFailed(f"{place}: {_distrust(cause)}")
        if isinstance(cause, ssl.SSLError) and _is_alert(cause):
            return TLSFailed(f"{place}: {_alert(cause)}")
    if isinstance(error, errors.SaslAuthenticationFailed):
        told = error.args[0] if error.args else "it does not say why"
        if tried.bearer is not None:
            return _no_such_token(tried, told)
        return LoginFailed(
            f"{place} refuses the login: {told}: check user name, password and mechanism of {_SASL}"
        )
    if isinstance(error, errors.UnsupportedSaslMechanismError | errors.IllegalSaslStateError):
        return await _no_such_login(tried)
    if isinstance(error, _CLOSED):
        found = await _find(tried)
        if found is not None:
            return found
    elif isinstance(error, errors.KafkaError):
        return error
    return errors.KafkaConnectionError(f"{place}: {error or 'no answer in time'}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _distrust(error: ssl.SSLCertVerificationError) -> str:
    told = error.verify_message.rstrip(".")
    if error.verify_code in _OTHER_HOST:
        return (
            f"the broker's certificate is for another host: {told}: it must bear the name in "
            "spec.source.brokers, and the one in the broker's advertised.listeners"
        )
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return (
            f"the broker's certificate is of an unknown authority: {told}: set {_TLS}.ca to the "
            "certificate of the authority that signed it"
        )
    return f"the broker's certificate is not trusted: {told}"


def _is_alert(error: ssl.SSLError) -> bool:
    """The other side speaks TLS, and refuses."""
    return "_ALERT_" in (error.reason or "")


def _alert(error: ssl.SSLError) -> str:
    told = (error.reason or "").partition("_ALERT_")[2].lower().replace("_", " ")
    if "cert" in told or "unknown ca" in told:
        return (
            f"the broker does not take the hub's certificate, or lack of one ({told}): set "
            f"{_TLS}.certificate and key to a pair that it trusts"
        )
    return f"the broker ends the TLS handshake ({told})"


async def _no_such_login(tried: Tried) -> LoginFailed:
    offered: list[str] | None = []
    with suppress(*REFUSALS):
        offered = await _mechanisms(tried)
    if offered is None:
        return LoginFailed(
            f"{tried.place} takes no login on this port: leave {_SASL} out, or use the port that "
            "does"
        )
    more = f": it offers {', '.join(sorted(offered))}" if offered else ""
    return LoginFailed(f"{tried.place} does not offer the mechanism of {_SASL}{more}")


async def _find(tried: Tried) -> errors.KafkaError | None:
    """Why it closed the connection. None: that cannot be told."""
    place = tried.place
    if tried.bearer is not None:
        with suppress(OSError, errors.KafkaConnectionError):
            return await _challenged(tried, await tried.bearer())
    if tried.context is not None:
        if await _speaks_plainly(tried):
            return TLSFailed(
                f"{place} speaks no TLS on this port: leave {_TLS} out, or use the port that does"
            )
        if (alert := await _late_alert(tried, tried.context)) is not None:
            return TLSFailed(f"{place}: {_alert(alert)}")
    elif await _speaks_tls(tried):
        return TLSFailed(f"{place} speaks TLS on this port: set {_TLS}")
    if tried.protocol.startswith("SASL_"):
        return None
    with suppress(*REFUSALS):
        offered = await _mechanisms(tried)
        if offered is not None:
            return LoginFailed(
                f"{place} wants a login: set {_SASL}; it offers {', '.join(sorted(offered))}"
            )
    return None


async def _speaks_plainly(tried: Tried) -> bool:
    with suppress(*REFUSALS):
        (await tried.connect(security_protocol="PLAINTEXT")).close()
        return True
    return False


async def _late_alert(tried: Tried, context: ssl.SSLContext) -> ssl.SSLError | None:
    """TLS 1.3 refuses a client's certificate after the handshake, and what the client sends
    meanwhile makes its system forget the alert. So send nothing, and wait for one."""
    try:
        async with asyncio.timeout(_ALERT_WITHIN):
            reader, writer = await asyncio.open_connection(tried.host, tried.port, ssl=context)
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()
    except ssl.SSLError as error:
        return error if _is_alert(error) else None
    except OSError:  # TimeoutError too: nothing is wrong with it
        pass
    return None


async def _speaks_tls(tried: Tried) -> bool:
    # Trusts anybody, and tells nothing: it asks only for the versions of the protocol.
    curious = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    curious.check_hostname = False
    curious.verify_mode = ssl.CERT_NONE
    try:
        (await tried.connect(security_protocol="SSL", ssl_context=curious)).close()
    except REFUSALS as error:
        return any(isinstance(e, ssl.SSLError) and _is_alert(e) for e in _causes(error))
    return True


async def _challenged(tried: Tried, said: bytes) -> LoginFailed | None:
    """Whether it refuses the token; None: it takes it. It says so in a challenge (RFC 7628,
    section 3.2.3), which aiokafka takes for success, and closes the connection at the first
    request. So it does where the token has just expired. Raises ``REFUSALS``."""
    connection = await tried.connect(security_protocol=tried.protocol.removeprefix("SASL_"))
    try:
        await connection.send(SaslHandShakeRequest("OAUTHBEARER"))
        answer = await connection.send(SaslAuthenticateRequest(said))
        if not answer.error_code and answer.sasl_auth_bytes:
            answer = await connection.send(SaslAuthenticateRequest(b"\x01"))
        if answer.error_code:
            return _no_such_token(tried, _status(answer.error_message))
        try:
            await connection.send(MetadataRequest([]))
        except errors.KafkaConnectionError:
            return _no_such_token(tried, "it takes it, and closes the connection at once")
    finally:
        connection.close()
    return None


def _status(told: str) -> str:
    """Of what a broker says of a token: JSON, where it is Kafka's own."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(told)["status"])
    return told


def _no_such_token(tried: Tried, told: str) -> LoginFailed:
    return LoginFailed(
        f"{tried.place} refuses the token ({told}): it has expired, is not meant for these "
        f"brokers, or is of an issuer that they do not trust: check {_SASL}"
    )


async def _mechanisms(tried: Tried) -> list[str] | None:
    """The SASL mechanisms that it offers; None: it takes no login. Raises ``REFUSALS``."""
    connection = await tried.connect(security_protocol=tried.protocol.removeprefix("SASL_"))
    try:
        answer = await connection.send(SaslHandShakeRequest("PLAIN"))
    finally:
        connection.close()
    if answer.error_code == errors.IllegalSaslStateError.errno:
        return None
    return list(answer.enabled_mechanisms)
