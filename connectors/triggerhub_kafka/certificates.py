"""What connections are secured with: TLS contexts, made of certificates in Secrets."""

from __future__ import annotations

import ssl

from triggerhub import tls as secured
from triggerhub.connector import Subscription
from triggerhub_kafka.kept import unfit
from triggerhub_kafka.security import TLS
from triggerhub_kafka.source import KafkaSource


class Contexts:
    """Makes them. Those with the same certificates are one, as long as anybody has it."""

    def __init__(self) -> None:
        self._contexts = secured.Contexts()

    def of(self, tls: TLS, where: str, subscription: Subscription[KafkaSource]) -> ssl.SSLContext:
        """``where``: the place of ``tls`` in the manifest. Raises SpecError, with a sentence that
        shows no secret, for what could not be presented or trusted."""
        parts = {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key}
        values = {
            part: None if reference is None else subscription.value(reference)
            for part, reference in parts.items()
        }
        try:
            return self._contexts.of(**values)
        except secured.Unfit as error:
            raise unfit(f"{where}.{error.part}", parts[error.part], error.wanted) from None
