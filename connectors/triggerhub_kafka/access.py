"""How a subscription reaches its brokers: where they are, TLS, and as whom it logs in."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from triggerhub.connector import Reference, SpecError, Subscription
from triggerhub_kafka.source import SASL, TLS, KafkaSource

Sealed = tuple[bytes | None, bytes | None, bytes | None]
"""Authorities, certificate, key: what a TLS context is made of."""


@dataclass(frozen=True, slots=True)
class Access:
    """What every client of a subscription is made with."""

    brokers: list[str]
    """``host:port`` each."""
    options: Mapping[str, Any] = field(repr=False)
    """The same and all else, as aiokafka's keyword arguments."""


class Accesses:
    """Makes them. A TLS context that trusts the system's authorities takes 1 MB and 25 ms:
    subscriptions with the same certificates share one, as long as any of them lives."""

    def __init__(self) -> None:
        self._contexts: WeakValueDictionary[Sealed, ssl.SSLContext] = WeakValueDictionary()

    def of(self, subscription: Subscription[KafkaSource], brokers: list[str]) -> Access:
        """Raises SpecError, with a sentence that shows no secret, for what its references stand
        for and no broker could take."""
        options: dict[str, Any] = {
            "bootstrap_servers": brokers,
            "client_id": f"triggerhub.{subscription.name}",
        }
        security = subscription.source.security
        if security is not None:
            protocol = "PLAINTEXT"
            if security.tls is not None:
                protocol = "SSL"
                options["ssl_context"] = self._context(security.tls, subscription)
            if security.sasl is not None:
                protocol = f"SASL_{protocol}"
                options |= _login(security.sasl, subscription)
            options["security_protocol"] = protocol
        return Access(brokers, options)

    def _context(self, tls: TLS, subscription: Subscription[KafkaSource]) -> ssl.SSLContext:
        ca, certificate, key = (
            None if reference is None else subscription.value(reference)
            for reference in (tls.ca, tls.certificate, tls.key)
        )
        context = self._contexts.get((ca, certificate, key))
        if context is None:
            context = _new_context()
            if ca is None:
                context.load_default_certs()
            elif not _trust(context, ca):
                raise _unfit("tls.ca", tls.ca, "certificates in PEM form")
            if certificate is not None and key is not None:
                _present(context, tls, certificate, key)
            self._contexts[ca, certificate, key] = context
        return context


def _new_context() -> ssl.SSLContext:
    """The host name is checked, TLS is 1.2 at least."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # As Kafka's own clients: what the user trusts ends a chain, be it a root or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _trust(context: ssl.SSLContext, pem: bytes) -> bool:
    # Beside its certificates, a bundle may hold comments in any encoding.
    text = pem.decode("ascii", "ignore")
    try:
        # An empty text would be no argument at all.
        context.load_verify_locations(cadata=text or " ")
    except ssl.SSLError:
        return False
    return True


class _Encrypted(Exception):  # noqa: N818 - a fact about the key
    """OpenSSL asks for a password, which would be read from the terminal."""


def _present(context: ssl.SSLContext, tls: TLS, certificate: bytes, key: bytes) -> None:
    """Show this certificate to brokers that want one."""

    def ask() -> bytes:
        raise _Encrypted

    with _file(certificate) as certificate_file, _file(key) as key_file:
        try:
            context.load_cert_chain(certificate_file, key_file, ask)
        except _Encrypted:
            raise _unfit("tls.key", tls.key, "a private key that is not encrypted") from None
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise _unfit("tls.key", tls.key, f"the key of {tls.certificate}") from None
            if not _trust(_new_context(), certificate):
                raise _unfit(
                    "tls.certificate", tls.certificate, "a certificate in PEM form"
                ) from None
            raise _unfit("tls.key", tls.key, "a private key in PEM form") from None


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """The path of a file that no disk holds."""
    with open(os.memfd_create("triggerhub"), "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


@contextmanager
def _on_disk(data: bytes) -> Iterator[str]:
    """The path of a file that only this user reads, for a moment."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name


# OpenSSL reads a key from nothing but a file.
_file = _in_memory if hasattr(os, "memfd_create") else _on_disk


def _login(sasl: SASL, subscription: Subscription[KafkaSource]) -> dict[str, str]:
    username = sasl.username
    return {
        "sasl_mechanism": sasl.mechanism,
        "sasl_plain_username": username
        if isinstance(username, str)
        else _text("sasl.username", username, subscription),
        "sasl_plain_password": _text("sasl.password", sasl.password, subscription),
    }


def _text(where: str, reference: Reference, subscription: Subscription[KafkaSource]) -> str:
    """Without the newline that editors and ``echo`` put at the end."""
    try:
        text = subscription.value(reference).decode()
    except UnicodeDecodeError:
        # Not its cause: that shows the bytes.
        raise _unfit(where, reference, "UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\0" in text:
        raise _unfit(where, reference, "text that is not empty, without NUL")
    return text


def _unfit(where: str, reference: object, wanted: str) -> SpecError:
    return SpecError(
        f"spec.source.security.{where}: expected {wanted} in {reference}, found something else"
    )
