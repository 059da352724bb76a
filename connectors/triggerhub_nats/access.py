"""How a subscription reaches its servers: where they are, TLS, and as whom it logs in."""

from __future__ import annotations

import ssl

from triggerhub.connector import Reference, SpecError, Subscription
from triggerhub.credentials import TLS, Contexts, text, unfit
from triggerhub.nats.access import Access, Login, credentials_login, nkey_login
from triggerhub_nats.security import Security
from triggerhub_nats.source import NATSSource

_WHERE = "spec.source.security"


class Accesses:
    """Makes them."""

    def __init__(self) -> None:
        self._contexts = Contexts()

    def of(self, subscription: Subscription[NATSSource], servers: list[str]) -> Access:
        """Raises SpecError, with a sentence that shows no secret, for what its references stand
        for and no server could take."""
        security = subscription.source.security
        encrypted = any(server.startswith("tls://") for server in servers)
        context: ssl.SSLContext | None = None
        login: Login = ()
        if security is not None:
            login = _login(security, subscription)
        if encrypted or (security is not None and security.tls is not None):
            context = self._context(security, subscription)
        return Access(tuple(servers), context, login)

    def _context(
        self, security: Security | None, subscription: Subscription[NATSSource]
    ) -> ssl.SSLContext:
        tls = None if security is None else security.tls
        return self._contexts.of(tls or TLS(), f"{_WHERE}.tls", subscription)


def _login(security: Security, subscription: Subscription[NATSSource]) -> Login:
    if security.user is not None:
        name = _text("user.name", security.user.name, subscription)
        return "user", name, _text("user.password", security.user.password, subscription)
    if security.token is not None:
        return "token", _text("token", security.token, subscription)
    if security.nkey is not None:
        seed = _text("nkey", security.nkey, subscription)
        try:
            return nkey_login(seed)
        except ValueError:
            raise _unfit("nkey", security.nkey, "the seed of a user's NKey") from None
    if security.credentials is not None:
        try:
            return credentials_login(subscription.value(security.credentials))
        except ValueError:
            wanted = "a credentials file with a user's JWT and NKey seed"
            raise _unfit("credentials", security.credentials, wanted) from None
    return ()


def _text(where: str, value: str | Reference, subscription: Subscription[NATSSource]) -> str:
    return text(f"{_WHERE}.{where}", value, subscription)


def _unfit(where: str, reference: Reference, wanted: str) -> SpecError:
    return unfit(f"{_WHERE}.{where}", reference, wanted)
