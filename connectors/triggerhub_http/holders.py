"""Who holds a token, a password or a key: the ways to say who one is, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from triggerhub.connector import Subscription
from triggerhub_http.clients import Clients, Identity
from triggerhub_http.jwts import Tokens as SignedTokens
from triggerhub_http.jwts import UnknownKey, Unproven
from triggerhub_http.keys import FetchedKeys, GivenKeys
from triggerhub_http.messages import Field
from triggerhub_http.passwords import Passwords
from triggerhub_http.security import Auth
from triggerhub_http.tokens import Tokens

_AUTHORIZATION = b"authorization"


class NobodyKnown(Exception):  # noqa: N818 - a fact about the request
    """Nobody known calls: a reason, and one sentence that shows nothing of what was sent."""

    def __init__(self, reason: str, message: str, error: bytes = b"") -> None:
        """``error``: of a bearer token (RFC 6750, section 3.1)."""
        super().__init__(message)
        self.reason = reason
        self.error = error


class Holders:
    """Who holds a token, a password or a key."""

    def __init__(
        self, auth: Auth, subscription: Subscription[Any], changed: Callable[[], None]
    ) -> None:
        where = "spec.source.auth"
        self._tokens = self._passwords = self._keys = self._signed = None
        self._key_field = b""
        self._realm = f"{subscription.namespace}/{subscription.trigger}".encode()
        self._pass_on = auth.pass_on
        if auth.bearer is not None:
            self._tokens = Tokens(f"{where}.bearer", auth.bearer, subscription)
        if auth.api_key is not None:
            self._keys = Tokens(f"{where}.apiKey.keys", auth.api_key.keys, subscription)
            self._key_field = auth.api_key.header.lower().encode()
        if auth.jwt is not None:
            self._signed = SignedTokens(f"{where}.jwt", auth.jwt)
            self._signers: GivenKeys | FetchedKeys = (
                GivenKeys(f"{where}.jwt", auth.jwt, subscription)
                if auth.jwt.jwks is not None
                else FetchedKeys(f"{where}.jwt", auth.jwt, subscription, changed)
            )
        if auth.basic is not None:
            self._passwords = Passwords(f"{where}.basic", auth.basic, subscription)
        self._clients = None
        if auth.client_certificate is not None:
            self._clients = Clients(auth.client_certificate)
        schemes = any((self._tokens, self._passwords, self._signed))
        self.needs = frozenset(
            {*([_AUTHORIZATION] if schemes else ()), *([self._key_field] if self._keys else ())}
        )

    @property
    def trouble(self) -> str:
        """Why keys could not be fetched; empty: they could, or are not."""
        return "" if self._signed is None else self._signers.trouble

    async def keep(self) -> None:
        """Keep fresh what is fetched, until cancelled."""
        if self._signed is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._signers.keep()

    def close(self) -> None:
        """Nobody is let in any more."""
        if self._passwords is not None:
            self._passwords.close()

    def without(self, fields: list[Field]) -> list[Field]:
        """What the function gets: a secret that was checked is nobody else's business."""
        if self._pass_on:
            return fields
        return [pair for pair in fields if pair[0] not in self.needs]

    def challenges(self, refused: NobodyKnown) -> list[bytes]:
        """What to come back with (RFC 9110, section 11.6.1)."""
        made = []
        if self._tokens is not None or self._signed is not None:
            error = b', error="%b"' % refused.error if refused.error else b""
            made.append(b'Bearer realm="%b"%b' % (self._realm, error))
        if self._passwords is not None:
            made.append(b'Basic realm="%b", charset="UTF-8"' % self._realm)
        if self._keys is not None:
            made.append(b'ApiKey realm="%b", header="%b"' % (self._realm, self._key_field))
        return made

    async def find(
        self, asked: dict[bytes, bytes], shown: Identity | None = None, now: float = 0.0
    ) -> str:
        """Who calls; empty: somebody without a name. ``shown``: by the connection; ``now``:
        seconds since the epoch. Raises NobodyKnown, Busy, NoKeys."""
        if self._clients is not None and shown is not None:
            name = self._clients.holder(shown, now)
            if name is not None:
                return name
        if self._keys is not None and self._key_field in asked:
            name = self._keys.holder(asked[self._key_field].strip())
            if name is not None:
                return name
            if self._key_field != _AUTHORIZATION:
                raise NobodyKnown("BadCredentials", "the key is nobody's")
        scheme, _, credentials = asked.get(_AUTHORIZATION, b"").strip().partition(b" ")
        scheme, credentials = scheme.lower(), credentials.strip()
        if scheme == b"bearer" and (self._tokens is not None or self._signed is not None):
            return await self._bearer(credentials)
        if scheme == b"basic" and self._passwords is not None:
            name = await self._passwords.holder(credentials)
            if name is None:
                raise NobodyKnown("BadCredentials", "name or password are not right")
            return name
        if self._clients is not None and shown is not None:
            raise NobodyKnown("BadCredentials", "the client's certificate is not one that may call")
        raise NobodyKnown("NoCredentials", "found no credentials that are taken here")

    async def _bearer(self, token: bytes) -> str:
        if self._tokens is not None:
            name = self._tokens.holder(token)
            if name is not None:
                return name
        if self._signed is None:
            raise NobodyKnown("BadCredentials", "the token is nobody's", b"invalid_token")
        try:
            return await self._subject(self._signed, token)
        except Unproven as error:
            reason = "Expired" if error.expired else "BadCredentials"
            message = f"the token is not taken: {error}"
            raise NobodyKnown(reason, message, b"invalid_token") from None

    async def _subject(self, signed: SignedTokens, token: bytes) -> str:
        keys = await self._signers.now()
        try:
            return signed.subject(token, keys)
        except UnknownKey:
            newer = await self._signers.newer()
            if newer is None:
                raise
            return signed.subject(token, newer)
