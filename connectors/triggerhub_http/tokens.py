"""Tokens and keys that callers hold: kept as hashes, a line each."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from typing import Any

from triggerhub.connector import Reference, SpecError, Subscription
from triggerhub.credentials import text

_LINE = re.compile(r"(?P<name>[!-~]{1,128})[ \t]+sha256:(?P<hash>[0-9A-Fa-f]{64})")
MOST = 10_000


def lines(
    where: str, reference: Reference, subscription: Subscription[Any]
) -> Iterator[tuple[int, str]]:
    """What stands in the lines of a value, and their numbers; neither blanks around it, nor empty
    lines, nor those that begin with ``#``. Raises SpecError where there are none, or too many."""
    found = text(where, reference, subscription)
    number = 0
    for at, line in enumerate(found.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            number += 1
            yield at, line
    if not 0 < number <= MOST:
        raise SpecError(f"{where}: found {number} lines in {reference}, expected 1 to {MOST}")


class Tokens:
    """Who holds which token. A look-up takes as long for any: what is compared is keyed with a
    secret of this process, so nobody learns from its time how near a guess was."""

    def __init__(self, where: str, reference: Reference, subscription: Subscription[Any]) -> None:
        """``where``: the place of ``reference`` in the manifest. Raises SpecError, with a sentence
        that shows no line."""
        self._key = secrets.token_bytes(32)
        self._names: dict[bytes, str] = {}
        for at, line in lines(where, reference, subscription):
            found = _LINE.fullmatch(line)
            if found is None:
                raise SpecError(
                    f"{where}: line {at} of {reference}: expected a name and sha256: with 64 "
                    "hexadecimal digits, found something else"
                )
            self._names[self._mark(bytes.fromhex(found["hash"]))] = found["name"]

    def holder(self, token: bytes) -> str | None:
        """The name beside its hash; None: nobody's."""
        return self._names.get(self._mark(hashlib.sha256(token).digest()))

    def _mark(self, hashed: bytes) -> bytes:
        return hmac.digest(self._key, hashed, "sha256")
