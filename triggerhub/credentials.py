"""What sources keep in Secrets: texts, and what TLS needs. Part of the seam."""

from __future__ import annotations

import ssl
from typing import Annotated, Any

from pydantic import Field

from triggerhub import tls as secured
from triggerhub.connector import Reference, SourceModel, SpecError, Subscription
from triggerhub.fields import Rule

Account = Annotated[str, Field(min_length=1, max_length=1024)] | Reference
"""A text, or where it is kept."""


def _half_a_pair(tls: TLS) -> str:
    if (tls.certificate is None) == (tls.key is None):
        return ""
    found = "key" if tls.certificate is None else "certificate"
    return f"found only {found}, expected both certificate and key, or neither"


class TLS(SourceModel):
    """Encrypted connections. The server's certificate is always checked, its host name too."""

    field_rules = (
        Rule(
            "has(self.certificate) == has(self.key)",
            "expected both certificate and key, or neither",
            _half_a_pair,
        ),
    )

    ca: Reference | None = Field(
        default=None,
        description="Certificates to trust (PEM): the authority that signed the servers'. "
        "Default: the authorities that the system trusts.",
    )
    certificate: Reference | None = Field(
        default=None,
        description="The hub's own certificate (PEM, with those in between), where the servers "
        "want one; with key.",
    )
    key: Reference | None = Field(
        default=None, description="Its private key (PEM, not encrypted); with certificate."
    )


class Contexts:
    """Makes TLS contexts. Those with the same certificates are one, as long as anybody has it."""

    def __init__(self) -> None:
        self._contexts = secured.Contexts()

    def of(self, tls: TLS, where: str, subscription: Subscription[Any]) -> ssl.SSLContext:
        """``where``: the place of ``tls`` in the manifest. Raises SpecError, with a sentence that
        shows no secret, for what could not be presented or trusted."""
        parts = {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key}
        values = {
            part: None if reference is None else subscription.value(reference)
            for part, reference in parts.items()
        }
        try:
            return self._contexts.of(**values)
        except secured.Unfit as error:
            raise unfit(f"{where}.{error.part}", parts[error.part], error.wanted) from None


def text(where: str, value: str | Reference, subscription: Subscription[Any]) -> str:
    """Without the newline that editors and ``echo`` put at the end. ``where``: its place in the
    manifest. Raises SpecError, with a sentence that does not show it, for what is no text."""
    if isinstance(value, str):
        return value
    try:
        found = subscription.value(value).decode()
    except UnicodeDecodeError:
        # Not its cause: that shows the bytes.
        raise unfit(where, value, "UTF-8 text") from None
    found = found.removesuffix("\n").removesuffix("\r")
    if not found or "\0" in found:
        raise unfit(where, value, "text that is not empty, without NUL")
    return found


def unfit(where: str, reference: object, wanted: str) -> SpecError:
    """The error for a value that is kept elsewhere and is not what it should be."""
    return SpecError(f"{where}: expected {wanted} in {reference}, found something else")
