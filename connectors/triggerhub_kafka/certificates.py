"""What connections are secured with: TLS contexts, made of certificates in Secrets."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from triggerhub.connector import Subscription
from triggerhub_kafka.kept import unfit
from triggerhub_kafka.security import TLS
from triggerhub_kafka.source import KafkaSource

Sealed = tuple[bytes | None, bytes | None, bytes | None]
"""Authorities, certificate, key: what a TLS context is made of."""


class Contexts:
    """Makes them. A context that trusts the system's authorities takes 1 MB and 25 ms: those with
    the same certificates are one, as long as anybody has it."""

    def __init__(self) -> None:
        self._made: WeakValueDictionary[Sealed, ssl.SSLContext] = WeakValueDictionary()

    def of(self, tls: TLS, where: str, subscription: Subscription[KafkaSource]) -> ssl.SSLContext:
        """``where``: the place of ``tls`` in the manifest. Raises SpecError, with a sentence that
        shows no secret, for what could not be presented or trusted."""
        ca, certificate, key = (
            None if reference is None else subscription.value(reference)
            for reference in (tls.ca, tls.certificate, tls.key)
        )
        context = self._made.get((ca, certificate, key))
        if context is None:
            context = _new_context()
            if ca is None:
                context.load_default_certs()
            elif not _trust(context, ca):
                raise unfit(f"{where}.ca", tls.ca, "certificates in PEM form")
            if certificate is not None and key is not None:
                _present(context, tls, where, certificate, key)
            self._made[ca, certificate, key] = context
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


def _present(context: ssl.SSLContext, tls: TLS, where: str, certificate: bytes, key: bytes) -> None:
    """Show this certificate to a server that wants one."""

    def ask() -> bytes:
        raise _Encrypted

    with _file(certificate) as certificate_file, _file(key) as key_file:
        try:
            context.load_cert_chain(certificate_file, key_file, ask)
        except _Encrypted:
            raise unfit(f"{where}.key", tls.key, "a private key that is not encrypted") from None
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise unfit(f"{where}.key", tls.key, f"the key of {tls.certificate}") from None
            if not _trust(_new_context(), certificate):
                raise unfit(
                    f"{where}.certificate", tls.certificate, "a certificate in PEM form"
                ) from None
            raise unfit(f"{where}.key", tls.key, "a private key in PEM form") from None


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
