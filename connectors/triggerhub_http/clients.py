"""Certificates of clients: who they are, as the authorities of ``--tls-client-ca`` attest."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from triggerhub.connector import SourceModel
from triggerhub.fields import Text

IDENTITY = "identity"
"""In a request's ASGI state."""
_ALTERNATIVE = ("URI", "DNS", "email")


class ClientCertificate(SourceModel):
    """Certificates that clients show, signed by an authority of ``--tls-client-ca``."""

    names: (
        Annotated[
            list[
                Annotated[
                    str,
                    Text(
                        "(DNS|URI|email|CN):.+",
                        "DNS:, URI:, email: or CN: and a name such as DNS:orders.example",
                        1024,
                    ),
                ]
            ],
            Field(min_length=1, max_length=256),
        ]
        | None
    ) = Field(
        default=None,
        description="Alternative names, or the common name, that may call, exactly: "
        "DNS:orders.example, URI:spiffe://…, email:a@b.example, CN:orders. Default: whoever has "
        "one.",
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is by its certificate."""

    names: tuple[str, ...]
    """As ``ClientCertificate.names``; alternative ones first."""
    until: float
    """Seconds since the epoch."""


def identity(shown: Mapping[str, Any] | None) -> Identity | None:
    """``shown``: as ``SSLSocket.getpeercert``; None: nobody said who it is."""
    if not shown:
        return None
    names = [
        _name(kind, name)
        for wanted in _ALTERNATIVE
        for kind, name in shown.get("subjectAltName", ())
        if kind == wanted
    ]
    for part in shown.get("subject", ()):
        names += [f"CN:{name}" for kind, name in part if kind == "commonName"]
    return Identity(tuple(names), ssl.cert_time_to_seconds(shown["notAfter"]))


class Clients:
    """Who may call by a certificate."""

    def __init__(self, wanted: ClientCertificate) -> None:
        self._names: frozenset[str] | None = None
        if wanted.names is not None:
            pairs = (name.partition(":") for name in wanted.names)
            self._names = frozenset(_name(kind, name) for kind, _, name in pairs)

    def holder(self, shown: Identity, now: float) -> str | None:
        """Its name, where it may call; else None. ``now``: seconds since the epoch."""
        if shown.until < now:
            return None  # it was good when the connection began
        for name in shown.names:
            if self._names is None or name in self._names:
                return name
        return "" if self._names is None else None


def _name(kind: str, name: str) -> str:
    return f"{kind}:{name.lower() if kind == 'DNS' else name}"
