"""Signed tokens of an issuer (RFC 7519): is this one good, and whose is it."""

from __future__ import annotations

import hmac
import secrets
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from triggerhub.connector import SpecError
from triggerhub_http.security import JWT

if TYPE_CHECKING:
    import jwt

_LONGEST = 16 * 1024
_MOST_KEYS = 100
_REMEMBERED = 1024
"""Tokens that were good: to look at one anew costs as much as two deliveries."""
_TRIED = 8
_FITS: Mapping[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("oct", None): ("HS256", "HS384", "HS512"),
}
"""What a key may sign, by its type and curve (RFC 7518, section 6; RFC 8037)."""


class Unproven(Exception):  # noqa: N818 - a fact about the token
    """A token that is not taken: one sentence that shows nothing of it. ``expired`` where that is
    all that is wrong with it."""

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired = expired


class UnknownKey(Unproven):
    """It says that a key signed it which is not known (yet)."""


class Keys:
    """Those of a JSON Web Key Set (RFC 7517) that may sign."""

    def __init__(self, jwks: bytes, algorithms: Sequence[str]) -> None:
        """Keys of another kind, use or algorithm are passed over. Raises ValueError for what is no
        key set, and for one without a key that fits."""
        api = _library("the keys")
        self.proven: dict[bytes, tuple[str, float]] = {}
        """Whose a token is that one of them signed, and until when (seconds since the epoch), by
        a mark that shows nothing of it: ``Tokens`` looks at a token once."""
        self._by_id: dict[tuple[str | None, str], list[jwt.PyJWK]] = {}
        for one in _written(jwks):
            for name in _usable(one, algorithms):
                try:
                    key = api.PyJWK(one, name)
                    short = key.Algorithm.check_key_length(key.key)
                # It raises what it meets in a broken one.
                except (api.PyJWTError, ValueError, TypeError, KeyError):
                    continue
                if not short:
                    self._by_id.setdefault((one.get("kid"), name), []).append(key)
        if not self._by_id:
            raise ValueError("a JSON Web Key Set with a key for " + ", ".join(algorithms))

    def of(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """Those that may have signed. Raises UnknownKey."""
        if kid is None:
            found = [
                key for (_, name), keys in self._by_id.items() if name == algorithm for key in keys
            ]
        else:
            found = self._by_id.get((kid, algorithm), [])
        if not found:
            raise UnknownKey("no known key signed it")
        return found[:_TRIED]


class Tokens:
    """What an issuer must have said."""

    def __init__(self, where: str, spec: JWT, now: Callable[[], float] = time.time) -> None:
        """``now``: seconds since the epoch, for tokens that were good before. Raises SpecError."""
        self._api = _library(where)
        self._spec = spec
        self._decoder = self._api.PyJWT(options={"enforce_minimum_key_length": True})
        self._algorithms = frozenset(spec.algorithms)
        self._mark = secrets.token_bytes(32)
        self._now = now

    def subject(self, token: bytes, keys: Keys) -> str:
        """Whose it is: its claim ``sub``, else ``client_id`` or ``azp``, else empty. Raises
        Unproven."""
        if len(token) > _LONGEST:
            raise Unproven(f"it is longer than {_LONGEST} bytes")
        mark = hmac.digest(self._mark, token, "sha256")
        name, until = keys.proven.get(mark, ("", 0.0))
        if self._now() < until:
            return name
        claims = self._guarded(lambda: self._claims(token, keys))
        named = (claims.get(claim) for claim in ("sub", "client_id", "azp"))
        name = next((name for name in named if isinstance(name, str) and name), "")
        if len(keys.proven) >= _REMEMBERED:
            del keys.proven[next(iter(keys.proven))]
        keys.proven[mark] = name, int(claims["exp"]) + self._spec.clock_skew
        return name

    def _claims(self, token: bytes, keys: Keys) -> dict[str, Any]:
        head = self._api.get_unverified_header(token)
        algorithm, kid = head.get("alg"), head.get("kid")
        if algorithm not in self._algorithms:
            raise Unproven("it is signed by an algorithm that is not taken")
        candidates = keys.of(kid, algorithm)
        for key in candidates:
            try:
                claims: dict[str, Any] = self._decoder.decode(
                    token, key, [algorithm], {"require": ["exp", "iss", "aud"]},
                    audience=self._spec.audiences, issuer=self._spec.issuer,
                    leeway=self._spec.clock_skew,
                )  # fmt: skip
                return claims
            except self._api.InvalidSignatureError:
                continue
        raise Unproven("its signature is not right")

    def _guarded(self, decode: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        api = self._api
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return decode()
        except api.ExpiredSignatureError:
            raise Unproven("it has expired", expired=True) from None
        except api.ImmatureSignatureError:
            raise Unproven("it is not valid yet") from None
        except api.InvalidAudienceError:
            raise Unproven("it is not for this audience") from None
        except api.InvalidIssuerError:
            raise Unproven("it is another issuer's") from None
        except api.MissingRequiredClaimError as error:
            raise Unproven(f"it has no claim {error.claim}") from None
        # What a token of any bytes makes the library raise is a bad token.
        except (api.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Unproven("it is no token that can be read") from None


def _library(where: str) -> Any:
    try:
        import_module("cryptography")
        return import_module("jwt")
    except ModuleNotFoundError:
        raise SpecError(f"{where} needs: pip install 'triggerhub[http-auth]'") from None


def _written(jwks: bytes) -> list[dict[str, Any]]:
    import json

    try:
        keys = json.loads(jwks)["keys"]
        if not isinstance(keys, list) or not all(isinstance(one, dict) for one in keys):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("a JSON Web Key Set") from None
    return keys[:_MOST_KEYS]


def _usable(key: dict[str, Any], algorithms: Sequence[str]) -> list[str]:
    """Which of the algorithms this key may sign by."""
    kty, curve = key.get("kty"), key.get("crv")
    if not isinstance(key.get("kid"), str | None) or key.get("use") not in (None, "sig"):
        return []
    if not isinstance(kty, str) or not isinstance(curve, str | None):
        return []
    fits = _FITS.get((kty, curve if kty in ("EC", "OKP") else None), ())
    own = key.get("alg")
    return [name for name in algorithms if name in fits and own in (None, name)]
