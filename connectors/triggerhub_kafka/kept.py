"""What references of a manifest stand for, as text."""

from __future__ import annotations

import re

from triggerhub.connector import Reference, SpecError, Subscription
from triggerhub_kafka.source import KafkaSource

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def text(where: str, value: str | Reference, subscription: Subscription[KafkaSource]) -> str:
    """Without the newline that editors and ``echo`` put at the end. ``where``: its place in the
    manifest. Raises SpecError, with a sentence that does not show it, for what is no text."""
    if isinstance(value, str):
        return value
    try:
        found = subscription.value(value).decode()
    except UnicodeDecodeError:
        # Not its cause: that shows the bytes.
        raise unfit(where, value, "UTF-8 text") from None
    found = found.removesuffix("\n").removesuffix("\r")
    if not found or "\0" in found:
        raise unfit(where, value, "text that is not empty, without NUL")
    return found


def token(where: str, reference: Reference, subscription: Subscription[KafkaSource]) -> str:
    """The same of a token, without the blanks around it."""
    found = text(where, reference, subscription).strip()
    if not is_token(found):
        raise unfit(where, reference, "a token")
    return found


def is_token(found: object) -> bool:
    """Whether it is of the form of a bearer token (RFC 6750, section 2.1): what is not would end
    the part of a request that it is put into."""
    return isinstance(found, str) and _TOKEN.fullmatch(found) is not None


def unfit(where: str, reference: object, wanted: str) -> SpecError:
    """The error for a value that is kept elsewhere and is not what it should be."""
    return SpecError(f"{where}: expected {wanted} in {reference}, found something else")
