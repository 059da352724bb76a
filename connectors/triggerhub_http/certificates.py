"""The server's certificate: files that are looked at again and again."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

from triggerhub.tls import Files, Pems

_LOOK = 2.0
"""Seconds."""

_log = logging.getLogger("triggerhub.http")


class Renew(Protocol):
    """``distrust``: the authorities of clients are other ones."""

    def __call__(self, context: ssl.SSLContext, *, distrust: bool) -> Awaitable[None]: ...


class Certificates:
    """What the server shows. Not by the system's notifications: Kubernetes replaces a link two
    folders above, and the files are small."""

    def __init__(self, files: Files, changed: Callable[[], None]) -> None:
        """``changed`` is called when ``trouble`` is another."""
        self._files = files
        self._changed = changed
        self._taken: Pems | None = None
        self.trouble = ""
        """Why what lies there now is not taken; empty: it is."""

    def load(self) -> ssl.SSLContext:
        """Raises ``OSError`` with a sentence."""
        pems = self._files.read()
        context = self._files.context(pems)
        self._taken = pems
        return context

    async def keep(self, renew: Renew) -> None:
        """``renew`` with what is there, whenever it is another, until cancelled."""
        before = ""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                pems = await asyncio.to_thread(self._files.read)
                if pems != self._taken:
                    distrust = self._taken is None or self._taken[2] != pems[2]
                    await renew(self._files.context(pems), distrust=distrust)
                    self._taken = pems
                    _log.info("the certificate of --listen is a new one")
            except OSError as error:
                # At the first look somebody may be about to write the other file.
                if before == str(error):
                    self._say(f"the certificate stays the one of before: {error}")
                before = str(error)
            else:
                before = ""
                self._say("")

    def _say(self, trouble: str) -> None:
        if trouble == self.trouble:
            return
        self.trouble = trouble
        if trouble:
            _log.warning("%s", trouble)
        self._changed()
