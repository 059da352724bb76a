"""Tokens to log in with (SASL OAUTHBEARER): kept in a Secret, fetched, or a plugin's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol
from weakref import WeakValueDictionary

from aiokafka.abc import AbstractTokenProvider

from triggerhub.connector import SpecError, Subscription
from triggerhub.credentials import Contexts, text
from triggerhub_kafka.bearer import is_token, token
from triggerhub_kafka.oauth import Granted, client_account
from triggerhub_kafka.refusal import TokenUnavailable
from triggerhub_kafka.security import SASL
from triggerhub_kafka.source import KafkaSource

GROUP = "triggerhub.kafka_tokens"
"""Entry points: each names a ``TokenPlugin``."""

_WITHIN = 10.0


class TokenSource(Protocol):
    """What a plugin gives tokens with; aiokafka's ``AbstractTokenProvider`` is one."""

    async def token(self) -> str:
        """A token that is good for the moment at least: asked for at each connection, so keep it
        as long as it is. Raise what fails, with a text that shows nothing secret."""


TokenPlugin = Callable[[Mapping[str, str]], TokenSource]
"""Is given the ``options`` of the manifest. Raises ValueError for those that cannot be."""


class Tokens:
    """Gives logins their providers. Those that say the same share one, as long as anybody has it:
    a token is fetched once for them all."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._made: WeakValueDictionary[Hashable, AbstractTokenProvider] = WeakValueDictionary()

    def of(
        self, sasl: SASL, where: str, subscription: Subscription[KafkaSource]
    ) -> AbstractTokenProvider:
        """Of a login without user name and password. ``where``: its place in the manifest. Raises
        SpecError, with a sentence that shows no secret; ExtraMissingError."""
        key: Hashable
        make: Callable[[], AbstractTokenProvider]
        if sasl.token is not None:
            key = kept = token(f"{where}.token", sasl.token, subscription)
            make = partial(_Kept, kept)
        elif sasl.oauth is not None:
            account = client_account(sasl.oauth, f"{where}.oauth", subscription, self._contexts)
            key = (sasl.oauth.token_endpoint, sasl.oauth.scope, account)
            make = partial(Granted, sasl.oauth, f"{where}.oauth", account)
        else:
            assert sasl.provider is not None
            place, options = f"{where}.provider", sasl.provider.options
            found = {
                name: text(f"{place}.options.{name}", value, subscription)
                for name, value in options.items()
            }
            key = (sasl.provider.name, frozenset(found.items()))
            make = partial(_Plugged, sasl.provider.name, found, place)
        provider = self._made.get(key)
        if provider is None:
            provider = self._made[key] = make()
        return provider


class _Kept(AbstractTokenProvider):  # type: ignore[misc]
    def __init__(self, kept: str) -> None:
        self._token = kept

    async def token(self) -> str:
        return self._token


class _Plugged(AbstractTokenProvider):  # type: ignore[misc]
    """Keeps a plugin's tokens within bounds: in time, and in what they may be."""

    def __init__(self, name: str, options: Mapping[str, str], where: str) -> None:
        self._name = name
        try:
            self._source = _plugin(name, where)(options)
        except ValueError as error:
            raise SpecError(f"{where}.options: {error}") from None

    async def token(self) -> str:
        try:
            async with asyncio.timeout(_WITHIN):
                found = await self._source.token()
        except TimeoutError:
            raise self._none(f"no answer within {_WITHIN:.0f} s") from None
        except Exception as error:  # a plugin may raise anything; it means one thing
            raise self._none(f"{error}" or type(error).__name__) from error
        if not is_token(found):
            raise self._none("it gave something else than a token")
        return found

    def extensions(self) -> Mapping[str, str]:
        """SASL extensions (KIP-342)."""
        found: Mapping[str, str] = getattr(self._source, "extensions", dict)()
        return found

    def _none(self, why: str) -> TokenUnavailable:
        return TokenUnavailable(f"the token provider {self._name} gives no token: {why}")


def _plugin(name: str, where: str) -> TokenPlugin:
    found: EntryPoint
    for found in entry_points(group=GROUP, name=name):
        try:
            plugin: TokenPlugin = found.load()
        except Exception as error:  # as importing a module may
            raise SpecError(f"{where}.name: {name} cannot be loaded: {error!r}") from error
        return plugin
    there = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
    raise SpecError(f"{where}.name: found {name}, expected one that is installed: {there}")
