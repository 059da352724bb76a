"""Tokens of an authorization server, by OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

from aiokafka.abc import AbstractTokenProvider

from triggerhub.connector import Subscription
from triggerhub.credentials import TLS, Contexts, text
from triggerhub_kafka.bearer import is_token
from triggerhub_kafka.refusal import LoginFailed, TokenUnavailable
from triggerhub_kafka.security import ClientCredentials
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.web import Answer, Unreachable, Web

_UNKNOWN_LIFE = 300.0
_RENEW_AFTER = 0.8
"""Of its life: so that no connection is opened with a token about to end."""
_WRONG = frozenset({"invalid_client", "unauthorized_client", "invalid_scope", "invalid_grant"})


@dataclass(frozen=True, slots=True)
class Account:
    """As whom, and over what connections, tokens are asked for."""

    login: str = field(repr=False)
    """Value of ``Authorization``."""
    context: ssl.SSLContext


def client_account(
    spec: ClientCredentials,
    where: str,
    subscription: Subscription[KafkaSource],
    contexts: Contexts,
) -> Account:
    """``where``: the place of ``spec`` in the manifest. Raises SpecError."""
    name = text(f"{where}.clientId", spec.client_id, subscription)
    secret = text(f"{where}.clientSecret", spec.client_secret, subscription)
    # RFC 6749, section 2.3.1: form-encoded before they are joined.
    login = b64encode(f"{quote_plus(name)}:{quote_plus(secret)}".encode()).decode()
    return Account(f"Basic {login}", contexts.of(TLS(ca=spec.ca), where, subscription))


@dataclass(frozen=True, slots=True)
class _Grant:
    token: str = field(repr=False)
    renew: float
    """When it is to be replaced, by the event loop's clock."""
    end: float


class Granted(AbstractTokenProvider):  # type: ignore[misc]
    """Keeps a token, and asks for another in time."""

    def __init__(self, spec: ClientCredentials, where: str, account: Account) -> None:
        """Raises ExtraMissingError."""
        self._endpoint = spec.token_endpoint
        self._scope = spec.scope
        self._where = where
        self._web = Web(where, "kafka-oauth", account.context, {"authorization": account.login})
        self._grant: _Grant | None = None
        self._turn = asyncio.Lock()

    async def token(self) -> str:
        """One that is good for the moment: while the server is away, the last one as long as it
        lives. Raises LoginFailed, TokenUnavailable."""
        async with self._turn:
            grant, now = self._grant, asyncio.get_running_loop().time()
            if grant is None or now >= grant.renew:
                try:
                    grant = self._grant = await self._ask()
                except TokenUnavailable:
                    if grant is None or now >= grant.end:
                        raise
            return grant.token

    def refused(self) -> None:
        """The brokers do not take the last one: it is not used again."""
        self._grant = None

    async def _ask(self) -> _Grant:
        form = {"grant_type": "client_credentials"}
        if self._scope is not None:
            form["scope"] = self._scope
        asked = asyncio.get_running_loop().time()
        try:
            answer = await self._web.ask("POST", self._endpoint, urlencode(form).encode())
        except Unreachable as error:
            raise TokenUnavailable(f"no token from {self._endpoint}: {error}") from error
        if answer.status != 200:
            raise self._refused(answer)
        try:
            found = json.loads(answer.body)
            token, life = found["access_token"], float(found.get("expires_in", _UNKNOWN_LIFE))
            if found["token_type"].lower() != "bearer" or not is_token(token):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TokenUnavailable(
                f"{self._endpoint} answered 200 without a bearer token: is it the right URL?"
            ) from None
        return _Grant(token, asked + life * _RENEW_AFTER, asked + life)

    def _refused(self, answer: Answer) -> LoginFailed | TokenUnavailable:
        told = answer.text("error", "error_description") or "it does not say why"
        where = f"{self._endpoint} gives no token: {answer.status}, {told}"
        if answer.status == 401 or told.partition(":")[0] in _WRONG:
            return LoginFailed(f"{where}: check clientId, clientSecret and scope of {self._where}")
        return TokenUnavailable(where)
