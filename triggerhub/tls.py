"""TLS of a client, from certificates and a key in PEM form: part of the seam."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary


class Unfit(ValueError):  # noqa: N818 - a fact about what was given
    """What was given is not what TLS wants: ``part`` (``ca``, ``certificate`` or ``key``), and
    ``wanted``, a noun phrase. Shows nothing of it."""

    def __init__(self, part: str, wanted: str) -> None:
        super().__init__(f"{part}: expected {wanted}")
        self.part = part
        self.wanted = wanted


class Contexts:
    """Makes TLS contexts. One that trusts the system's authorities takes 1 MB and 25 ms: those
    with the same certificates share one, as long as any of them lives."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[bytes | None, ...], ssl.SSLContext] = (
            WeakValueDictionary()
        )

    def of(self, ca: bytes | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
        """``ca``: the certificates to trust; None: those that the system trusts. ``certificate``
        and ``key``: the client's own, or None. The server's host name is checked. Raises Unfit."""
        context = self._known.get((ca, certificate, key))
        if context is None:
            context = _new_context()
            if ca is None:
                context.load_default_certs()
            elif not _trust(context, ca):
                raise Unfit("ca", "certificates in PEM form")
            if certificate is not None and key is not None:
                _present(context, certificate, key)
            self._known[ca, certificate, key] = context
        return context


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # What the user trusts ends a chain, be it a root or not.
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


def _present(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Show this certificate to servers that want one."""

    def ask() -> bytes:
        raise _Encrypted

    with _file(certificate) as certificate_file, _file(key) as key_file:
        try:
            context.load_cert_chain(certificate_file, key_file, ask)
        except _Encrypted:
            raise Unfit("key", "a private key that is not encrypted") from None
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise Unfit("key", "the key of the certificate") from None
            if not _trust(_new_context(), certificate):
                raise Unfit("certificate", "a certificate in PEM form") from None
            raise Unfit("key", "a private key in PEM form") from None


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
