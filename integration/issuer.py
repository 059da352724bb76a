"""An issuer of tokens: signs JWTs that a real broker checks, and gives them as an authorization
server does (RFC 6749, section 4.4; a small server of our own, over TLS)."""

from __future__ import annotations

import json
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from trustme import CA

from integration.function import Answer, Call, Function, answering, reply, server_context


class Issuer:
    """One that brokers trust, once they have its keys."""

    NAME = "https://issuer.example"
    AUDIENCE = "kafka"

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def write_keys(self, path: Path) -> None:
        """The public one, as a JSON Web Key Set (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        key = {
            "kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig",
            "n": _coded(numbers.n.to_bytes(256)), "e": _coded(numbers.e.to_bytes(3)),
        }  # fmt: skip
        path.write_text(json.dumps({"keys": [key]}))

    def token(self, life: float = 3600.0, **claims: Any) -> str:
        """A signed JWT, good for so many seconds from now."""
        now = int(time.time())
        body = {
            "iss": self.NAME, "aud": self.AUDIENCE, "sub": "orders", "scope": "kafka",
            "iat": min(now, int(now + life) - 1), "exp": int(now + life),
        } | claims  # fmt: skip
        said = ".".join(
            _coded(json.dumps(part).encode())
            for part in ({"alg": "RS256", "typ": "JWT", "kid": "one"}, body)
        )
        signed = self._key.sign(said.encode(), padding.PKCS1v15(), SHA256())
        return f"{said}.{_coded(signed)}"


def _coded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


class AuthorizationServer:
    """Gives an issuer's tokens to one client."""

    CLIENT = "hub @ example"
    SECRET = "s3cr:t%"

    def __init__(self, issuer: Issuer, server: Function) -> None:
        self.server = server
        self.life = 3600.0
        """Of a token, in seconds."""
        self.given: list[str] = []
        self._issuer = issuer
        server.script = self._answer

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.server.port}/oauth2/token"

    def _answer(self, call: Call) -> Answer:
        scheme, _, login = call.headers["authorization"].partition(" ")
        name, _, secret = b64decode(login).decode().partition(":")
        form = parse_qs(call.body.decode())
        assert (scheme, call.method, call.target) == ("Basic", "POST", "/oauth2/token")
        assert form.pop("grant_type") == ["client_credentials"]
        if (unquote_plus(name), unquote_plus(secret)) != (self.CLIENT, self.SECRET):
            return _json(401, {"error": "invalid_client", "error_description": "who is that"})
        if form != {"scope": ["kafka.read"]}:
            return _json(400, {"error": "invalid_scope"})
        token = self._issuer.token(self.life)
        self.given.append(token)
        return _json(200, {"access_token": token, "token_type": "Bearer", "expires_in": self.life})


def _json(status: int, body: dict[str, Any]) -> Answer:
    return reply(status, json.dumps(body).encode(), headers=[("content-type", "application/json")])


@contextmanager
def authorizing(issuer: Issuer, authority: CA) -> Iterator[AuthorizationServer]:
    """An authorization server whose certificate that authority has signed."""
    with answering(context=server_context(authority)) as server:
        yield AuthorizationServer(issuer, server)
