"""How a subscription reaches its servers: where they are, TLS, and as whom it logs in."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from triggerhub.connector import Reference, SpecError, Subscription
from triggerhub.credentials import TLS, Contexts, text, unfit
from triggerhub_nats.source import NATSSource, Security

_JWT = b"-----BEGIN NATS USER JWT-----"
_WHERE = "spec.source.security"
_SEED = b"-----BEGIN USER NKEY SEED-----"

Secret = tuple[str, ...]
"""The kind of a login and what belongs to it."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a connection is made with. Two that are equal may share one."""

    servers: tuple[str, ...]
    """``[nats://|tls://]host[:port]`` each."""
    context: ssl.SSLContext | None = field(repr=False)
    """Set: nothing is said to a server that does not encrypt."""
    login: Secret = field(repr=False)

    @property
    def options(self) -> Mapping[str, Any]:
        """The login, as nats-py's keyword arguments."""
        if not self.login:
            return {}
        kind, *parts = self.login
        if kind == "user":
            return {"user": parts[0], "password": parts[1]}
        if kind == "token":
            return {"token": parts[0]}
        if kind == "nkey":
            return {"nkeys_seed_str": parts[0]}
        jwt, seed = parts
        # nats-py reads credentials from text too, but not to an end where a line is missing.
        return {
            "user_jwt_cb": jwt.encode,
            "signature_cb": _signer(seed),
        }


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
        login: Secret = ()
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


def _login(security: Security, subscription: Subscription[NATSSource]) -> Secret:
    if security.user is not None:
        name = _text("user.name", security.user.name, subscription)
        return "user", name, _text("user.password", security.user.password, subscription)
    if security.token is not None:
        return "token", _text("token", security.token, subscription)
    if security.nkey is not None:
        seed = _text("nkey", security.nkey, subscription).strip()
        return "nkey", _checked(seed, "nkey", security.nkey, "the seed of a user's NKey")
    if security.credentials is not None:
        return _credentials(security.credentials, subscription)
    return ()


def _credentials(reference: Reference, subscription: Subscription[NATSSource]) -> Secret:
    """The JWT and the seed of a credentials file."""
    lines = [line.strip() for line in subscription.value(reference).splitlines()]
    wanted = "a credentials file with a user's JWT and NKey seed"
    try:
        jwt = lines[lines.index(_JWT) + 1].decode("ascii")
        seed = lines[lines.index(_SEED) + 1].decode("ascii")
    except (ValueError, IndexError):
        raise _unfit("credentials", reference, wanted) from None
    if jwt.count(".") != 2:
        raise _unfit("credentials", reference, wanted)
    return "credentials", jwt, _checked(seed, "credentials", reference, wanted)


def _checked(seed: str, where: str, reference: Reference, wanted: str) -> str:
    import nkeys  # with its cryptography, 10 ms that nobody else needs

    try:
        nkeys.from_seed(bytearray(seed.encode())).public_key  # noqa: B018 - it raises
    except Exception:  # noqa: BLE001 - base64, length, prefix: it raises what it meets
        # Not its cause: that may show the seed.
        raise _unfit(where, reference, wanted) from None
    return seed


def _signer(seed: str) -> Callable[[str], bytes]:
    def sign(nonce: str) -> bytes:
        import nkeys

        pair = nkeys.from_seed(bytearray(seed.encode()))
        try:
            return base64.b64encode(pair.sign(nonce.encode()))
        finally:
            pair.wipe()

    return sign


def _text(where: str, value: str | Reference, subscription: Subscription[NATSSource]) -> str:
    return text(f"{_WHERE}.{where}", value, subscription)


def _unfit(where: str, reference: Reference, wanted: str) -> SpecError:
    return unfit(f"{_WHERE}.{where}", reference, wanted)
