"""Names and passwords by HTTP's basic scheme (RFC 7617), kept as ``htpasswd -B`` writes them."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from triggerhub.connector import Reference, SpecError, Subscription
from triggerhub_http.tokens import lines

_LINE = re.compile(
    r"(?P<name>[^:]{1,255}):(?P<hash>\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{53})"
)
_DEAREST = 14
"""Cost of a hash, as a power of two: each further step doubles what a guess costs the hub."""
_LONGEST = 72
"""Bytes of a password that bcrypt looks at."""
_AT_ONCE = 2
_WAITING = 64
_REMEMBERED = 1024
_FOR = 300.0


class Busy(Exception):  # noqa: N818 - a fact about the moment
    """No more passwords can be checked now."""


class Passwords:
    """Checks them, in threads of its own: bcrypt takes long, and is meant to. Who was right lately
    is remembered, in a form that shows neither name nor password."""

    def __init__(
        self,
        where: str,
        reference: Reference,
        subscription: Subscription[Any],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``where``: the place of ``reference`` in the manifest. Raises SpecError, with a sentence
        that shows no line."""
        try:
            self._bcrypt = import_module("bcrypt")
        except ModuleNotFoundError:
            raise SpecError(f"{where} needs: pip install 'triggerhub[http-auth]'") from None
        self._now = now
        self._hashes: dict[str, bytes] = {}
        for at, line in lines(where, reference, subscription):
            found = _LINE.fullmatch(line)
            if found is None or not 4 <= int(found["cost"]) <= _DEAREST:
                raise SpecError(
                    f"{where}: line {at} of {reference}: expected a name, a colon and a bcrypt "
                    f"hash of a cost up to {_DEAREST}, as htpasswd -B writes them, found something "
                    "else"
                )
            self._hashes[found["name"]] = found["hash"].encode()
        # Whoever is not there costs as much as one who is: no name is told from another by time.
        dearest = max(self._hashes.values(), key=lambda hashed: hashed[4:6])
        self._nobody = dearest[:7] + b"." * 53
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="passwords")
        self._waiting = 0
        self._closed = False

    def close(self) -> None:
        """What is being checked comes to its end; nothing more is checked."""
        self._closed = True
        self._threads.shutdown(wait=False)

    async def holder(self, credentials: bytes) -> str | None:
        """The name in the credentials of the basic scheme, where its password is right; else None.
        Raises Busy."""
        found = _apart(credentials)
        if found is None:
            return None
        name, password = found
        mark = hmac.digest(self._key, b"%d:%b%b" % (len(name), name.encode(), password), "sha256")
        if self._right.get(mark, 0.0) > self._now():
            return name
        known = self._hashes.get(name)
        if not await self._check(password, known or self._nobody) or known is None:
            return None
        if len(self._right) >= _REMEMBERED:
            del self._right[next(iter(self._right))]
        self._right[mark] = self._now() + _FOR
        return name

    async def _check(self, password: bytes, hashed: bytes) -> bool:
        if self._closed or self._waiting >= _WAITING:
            raise Busy
        self._waiting += 1
        try:
            right: bool = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._bcrypt.checkpw, password, hashed
            )
        finally:
            self._waiting -= 1
        return right


def _apart(credentials: bytes) -> tuple[str, bytes] | None:
    """Name and password; None for what is no such pair, or no password that could be right."""
    try:
        name, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
        if not colon or not name or len(password) > _LONGEST or b"\0" in password:
            return None
        return name.decode(), password
    except ValueError:
        return None
