"""TLS, from certificates and a key in PEM form: part of the seam."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

_LARGEST = 1024 * 1024
"""Bytes of a file that are read."""


class Unfit(ValueError):  # noqa: N818 - a fact about what was given
    """What was given is not what TLS wants: ``part`` (``ca``, ``certificate`` or ``key``), and
    ``wanted``, a noun phrase. Shows nothing of it."""

    def __init__(self, part: str, wanted: str) -> None:
        super().__init__(f"{part}: expected {wanted}")
        self.part = part
        self.wanted = wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a server's certificate lies, in PEM form."""

    certificate: Path
    """With those in between."""
    key: Path
    """Not encrypted."""
    client_ca: Path | None = None
    """The authorities of clients that show a certificate; None: nobody is asked for one."""

    def read(self) -> Pems:
        """Raises ``OSError`` with a sentence."""
        ca = None if self.client_ca is None else _content(self.client_ca)
        return _content(self.certificate), _content(self.key), ca

    def context(self, pems: Pems) -> ssl.SSLContext:
        """Of a server, from what ``read`` returned. Raises ``OSError`` with a sentence that shows
        nothing of it."""
        certificate, key, ca = pems
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _harden(context)
        context.set_alpn_protocols(["http/1.1"])
        try:
            _present(context, certificate, key)
            if ca is not None:
                if not _trust(context, ca):
                    raise Unfit("client_ca", "certificates in PEM form")
                # Who shows none may call triggers that want none.
                context.verify_mode = ssl.CERT_OPTIONAL
        except Unfit as error:
            path = getattr(self, error.part)
            raise OSError(f"{path}: expected {error.wanted}, found something else") from None
        return context


Pems = tuple[bytes, bytes, bytes | None]
"""Certificate, key, and the authorities of clients."""


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}") from None


class Contexts:
    """Makes TLS contexts of clients. One that trusts the system's authorities takes 1 MB and 25 ms:
    those with the same certificates share one, as long as any of them lives."""

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
    _harden(context)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # What the user trusts ends a chain, be it a root or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


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
    """Show this certificate."""

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
