"""Why an attempt has no reply."""

from __future__ import annotations

import os
import re
import ssl


class Away(Exception):  # noqa: N818 - a fact about the function, not a fault of the hub
    """No connection, or one that ended before any byte of a reply: refused, reset, DNS, TLS,
    connect timeout. The text is one plain line."""


class NoReply(Exception):  # noqa: N818
    """The attempt's time passed without a complete reply."""

    reason = "timeout"


class BrokenReply(Exception):  # noqa: N818
    """What came back is not one whole HTTP/1.1 reply. The text says how."""


class Interrupted(Exception):  # noqa: N818
    """The request broke off: whoever sends its body raised ``cause``."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause) or "the caller went away")
        self.cause = cause


class Stale(Exception):  # noqa: N818
    """A reused connection ended before any byte of a reply: the server closed it while idle."""


def explain(error: BaseException) -> str:
    """Why there is no connection, as one plain line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: certificate verify failed: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    number = getattr(error, "errno", None)
    if number is None:
        # asyncio puts the errors of several addresses into one text.
        found = re.findall(r"\[Errno (\d+)\]", str(error))
        number = int(found[-1]) if found else None
    if number is not None:
        return os.strerror(number).lower()
    return str(error).partition("\n")[0] or type(error).__name__
