"""What a request prefers (RFC 7240): an answer at once, or so long a wait for its outcome."""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST_WAIT = 60.0
"""Seconds; who asks for more gets this."""

# One preference: a name, perhaps a value, perhaps parameters, which nothing here has.
_WORD = r"""(?:"((?:[^"\\]|\\.)*)"|([^\s",;=]*))"""
_ONE = re.compile(rf"""\s*([^\s",;=]+)(?:\s*=\s*{_WORD})?((?:"(?:[^"\\]|\\.)*"|[^",])*)(?:,|$)""")
_SECONDS = re.compile("[0-9]{1,9}")


class Preferences(NamedTuple):
    """Those that are honoured."""

    respond_async: bool = False
    wait: float | None = None
    """Seconds, at most ``LONGEST_WAIT``."""

    def applied(self) -> bytes:
        """The value of ``preference-applied``; empty where nothing was asked for."""
        applied = ["respond-async"] if self.respond_async else []
        if self.wait is not None:
            applied.append(f"wait={self.wait:g}")
        return ", ".join(applied).encode()


_NONE = Preferences()


def read_preferences(text: str) -> Preferences:
    """Of several of one name the first counts; what is not known, or makes no sense, is passed
    over (RFC 7240, section 2)."""
    if not text:
        return _NONE
    found: dict[str, str] = {}
    for name, quoted, plain, _ in _ONE.findall(text):
        found.setdefault(name.lower(), quoted or plain)
    wait = found.get("wait", "")
    return Preferences(
        respond_async=found.get("respond-async") == "",
        wait=min(float(wait), LONGEST_WAIT) if _SECONDS.fullmatch(wait) else None,
    )
