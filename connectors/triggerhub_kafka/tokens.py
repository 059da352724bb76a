"""Tokens to log in with (SASL OAUTHBEARER): kept in a Secret, fetched, or a plugin's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from aiokafka.abc import AbstractTokenProvider

from triggerhub.connector import SpecError, Subscription
from triggerhub_kafka.certificates import Contexts
from triggerhub_kafka.kept import is_token, text, token
from triggerhub_kafka.oauth import client_credentials
from triggerhub_kafka.refusal import TokenUnavailable
from triggerhub_kafka.security import SASL, Provider
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
"""Is given the ``options`` of the manifest, each time that a listener starts. Raises ValueError for
those that cannot be."""


def token_provider(
    sasl: SASL, where: str, subscription: Subscription[KafkaSource], contexts: Contexts
) -> AbstractTokenProvider:
    """Of a login without user name and password. ``where``: its place in the manifest. Raises
    SpecError, with a sentence that shows no secret; ExtraMissingError."""
    if sasl.token is not None:
        return _Kept(token(f"{where}.token", sasl.token, subscription))
    if sasl.oauth is not None:
        return client_credentials(sasl.oauth, f"{where}.oauth", subscription, contexts)
    assert sasl.provider is not None
    return _Plugged(sasl.provider, f"{where}.provider", subscription)


class _Kept(AbstractTokenProvider):  # type: ignore[misc]
    def __init__(self, kept: str) -> None:
        self._token = kept

    async def token(self) -> str:
        return self._token


class _Plugged(AbstractTokenProvider):  # type: ignore[misc]
    """Keeps a plugin's tokens within bounds: in time, and in what they may be."""

    def __init__(
        self, provider: Provider, where: str, subscription: Subscription[KafkaSource]
    ) -> None:
        self._name = provider.name
        options = {
            name: text(f"{where}.options.{name}", value, subscription)
            for name, value in provider.options.items()
        }
        try:
            self._source = _plugin(provider.name, where)(options)
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
