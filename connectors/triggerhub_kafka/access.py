"""How a subscription reaches its brokers: where they are, TLS, and as whom it logs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from triggerhub.connector import Subscription
from triggerhub.credentials import Contexts, text
from triggerhub_kafka.security import SASL
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.tokens import Tokens

_TLS = "spec.source.security.tls"
_SASL = "spec.source.security.sasl"


@dataclass(frozen=True, slots=True)
class Access:
    """What every client of a subscription is made with."""

    brokers: list[str]
    """``host:port`` each."""
    options: Mapping[str, Any] = field(repr=False)
    """The same and all else, as aiokafka's keyword arguments."""


class Accesses:
    """Makes them."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._tokens = Tokens(contexts)

    def of(self, subscription: Subscription[KafkaSource], brokers: list[str]) -> Access:
        """Raises SpecError, with a sentence that shows no secret, for what its references stand
        for and no broker could take; ExtraMissingError."""
        options: dict[str, Any] = {
            "bootstrap_servers": brokers,
            "client_id": f"triggerhub.{subscription.name}",
        }
        security = subscription.source.security
        if security is not None:
            protocol = "PLAINTEXT"
            if security.tls is not None:
                protocol = "SSL"
                options["ssl_context"] = self._contexts.of(security.tls, _TLS, subscription)
            if security.sasl is not None:
                protocol = f"SASL_{protocol}"
                options |= self._login(security.sasl, subscription)
            options["security_protocol"] = protocol
        return Access(brokers, options)

    def _login(self, sasl: SASL, subscription: Subscription[KafkaSource]) -> dict[str, Any]:
        options: dict[str, Any] = {"sasl_mechanism": sasl.mechanism}
        if sasl.username is None or sasl.password is None:
            provider = self._tokens.of(sasl, _SASL, subscription)
            return options | {"sasl_oauth_token_provider": provider}
        return options | {
            "sasl_plain_username": text(f"{_SASL}.username", sasl.username, subscription),
            "sasl_plain_password": text(f"{_SASL}.password", sasl.password, subscription),
        }
