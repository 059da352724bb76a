"""What a bearer token looks like."""

from __future__ import annotations

import re

from triggerhub.connector import Reference, Subscription
from triggerhub.credentials import text, unfit
from triggerhub_kafka.source import KafkaSource

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def token(where: str, reference: Reference, subscription: Subscription[KafkaSource]) -> str:
    """One that is kept elsewhere, without the blanks around it. ``where``: its place in the
    manifest. Raises SpecError, with a sentence that does not show it, for what is no token."""
    found = text(where, reference, subscription).strip()
    if not is_token(found):
        raise unfit(where, reference, "a token")
    return found


def is_token(found: object) -> bool:
    """Whether it is of the form of a bearer token (RFC 6750, section 2.1): what is not would end
    the part of a request that it is put into."""
    return isinstance(found, str) and _TOKEN.fullmatch(found) is not None
