"""How NATS servers are reached: where they are, TLS, and as whom one logs in."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_JWT = b"-----BEGIN NATS USER JWT-----"
_SEED = b"-----BEGIN USER NKEY SEED-----"

Login = tuple[str, ...]
"""Its kind and what belongs to it: ``user``, name, password; ``token``, token; ``nkey``, seed;
``credentials``, JWT, seed. Empty: none."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a connection is made with. Two that are equal may share one."""

    servers: tuple[str, ...]
    """``[nats://|tls://]host[:port]`` each."""
    context: ssl.SSLContext | None = field(repr=False)
    """Set: nothing is said to a server that does not encrypt."""
    login: Login = field(repr=False)

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


def nkey_login(seed: str) -> Login:
    """Of an NKey's seed. Raises ValueError, which does not show it."""
    return "nkey", _checked(seed.strip())


def credentials_login(data: bytes) -> Login:
    """Of a credentials file: JWT and seed of a user. Raises ValueError, which shows neither."""
    lines = [line.strip() for line in data.splitlines()]
    try:
        jwt = lines[lines.index(_JWT) + 1].decode("ascii")
        seed = lines[lines.index(_SEED) + 1].decode("ascii")
    except (ValueError, IndexError):
        raise ValueError("no JWT and seed of a user") from None
    if jwt.count(".") != 2:
        raise ValueError("no JWT of a user")
    return "credentials", jwt, _checked(seed)


def _checked(seed: str) -> str:
    import nkeys  # with its cryptography, 10 ms that nobody else needs

    try:
        nkeys.from_seed(bytearray(seed.encode())).public_key  # noqa: B018 - it raises
    except Exception:  # noqa: BLE001 - base64, length, prefix: it raises what it meets
        # Not its cause: that may show the seed.
        raise ValueError("no seed of an NKey") from None
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
