"""TLS and logins in ``spec.source`` of a NATSTrigger."""

from __future__ import annotations

from pydantic import Field

from triggerhub.connector import Reference, SourceModel
from triggerhub.credentials import TLS, Account
from triggerhub.fields import Rule


class User(SourceModel):
    """A name and a password."""

    name: Account = Field(description="Of the account: as text, or where it is kept.")
    password: Reference = Field(description="Of the account.")


LOGINS = ("user", "token", "nkey", "credentials")


def _logins(security: Security) -> list[str]:
    return [name for name in LOGINS if getattr(security, name) is not None]


def _empty(security: Security) -> str:
    if security.tls is None and not _logins(security):
        return f"found none of tls, {', '.join(LOGINS)}, expected at least one"
    return ""


def _several(security: Security) -> str:
    found = _logins(security)
    if len(found) < 2:
        return ""
    return f"found {' and '.join(found)}, expected at most one of {', '.join(LOGINS)}"


class Security(SourceModel):
    """TLS, a login, or both."""

    field_rules = (
        Rule(
            f"has(self.tls) || {' || '.join(f'has(self.{name})' for name in LOGINS)}",
            f"expected at least one of tls, {', '.join(LOGINS)}",
            _empty,
        ),
        Rule(
            f"[{', '.join(f'has(self.{name})' for name in LOGINS)}]"
            ".filter(given, given).size() < 2",
            f"expected at most one of {', '.join(LOGINS)}",
            _several,
        ),
    )

    tls: TLS | None = Field(
        default=None,
        description="Encrypted connections; {} trusts the system's authorities. Without it, and "
        "without tls:// before a server, the server decides.",
    )
    user: User | None = Field(default=None, description="Log in with a name and a password.")
    token: Reference | None = Field(default=None, description="Log in with a token.")
    nkey: Reference | None = Field(
        default=None, description="Log in with an NKey: its seed, which begins with SU."
    )
    credentials: Reference | None = Field(
        default=None,
        description="Log in with a JWT and the NKey that belongs to it: a credentials file, as "
        "nsc generate creds writes it.",
    )
