"""The keys of an issuer: given, or fetched and kept fresh."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from importlib import import_module
from typing import Any

from triggerhub.connector import SpecError, Subscription
from triggerhub.credentials import TLS, Contexts, unfit
from triggerhub_http.jwts import Keys
from triggerhub_http.security import JWT

FRESH = 300.0
"""Seconds after which keys are fetched anew though nobody misses one."""
RARELY = 10.0
"""Callers can make up names of keys."""
_FIRST, _LONGEST = 1.0, 60.0
_WITHIN = 10.0
_PATIENCE = 5.0
_LARGEST = 1024 * 1024


class NoKeys(Exception):  # noqa: N818 - a fact about the issuer
    """There is no key yet; says why."""


class GivenKeys:
    """Those of a Secret."""

    trouble = ""

    def __init__(self, where: str, spec: JWT, subscription: Subscription[Any]) -> None:
        """Raises SpecError, with a sentence that shows none of it."""
        assert spec.jwks is not None
        try:
            self._keys = Keys(subscription.value(spec.jwks), spec.algorithms)
        except ValueError as error:
            raise unfit(f"{where}.jwks", spec.jwks, str(error)) from None

    async def now(self) -> Keys:
        """Raises nothing."""
        return self._keys

    async def newer(self) -> Keys | None:
        """None: there are no others."""
        return None

    async def keep(self) -> None:
        """Until cancelled."""
        await asyncio.get_running_loop().create_future()


class FetchedKeys:
    """Those that an issuer shows. While it is away, the last ones are good."""

    def __init__(
        self,
        where: str,
        spec: JWT,
        subscription: Subscription[Any],
        changed: Callable[[], None],
        rarely: float = RARELY,
    ) -> None:
        """``changed`` is called when ``trouble`` is another; ``rarely``: seconds between two
        fetches because of a key that is not known. Raises SpecError."""
        assert spec.jwks_url is not None
        try:
            import_module("aiohttp")
        except ModuleNotFoundError:
            raise SpecError(f"{where} needs: pip install 'triggerhub[http-auth]'") from None
        self._url = spec.jwks_url
        self._algorithms = spec.algorithms
        self._context = Contexts().of(TLS(ca=spec.ca), where, subscription)
        self._changed = changed
        self._keys: Keys | None = None
        self._rarely = rarely
        self._fetched = -rarely
        self._missed = asyncio.Event()
        self._round: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.trouble = ""
        """Why they could not be fetched, in a sentence; empty: they could."""

    async def now(self) -> Keys:
        """Raises NoKeys when none have come in some seconds."""
        if self._keys is None and not self.trouble:
            await self._next()
        if self._keys is None:
            raise NoKeys(self.trouble or f"no keys from {self._url} yet")
        return self._keys

    async def newer(self) -> Keys | None:
        """Those that are there after another fetch; None: there was one just now, or none came."""
        known, loop = self._keys, asyncio.get_running_loop()
        if loop.time() - self._fetched < self._rarely:
            return None
        self._missed.set()
        await self._next()
        return None if self._keys is known else self._keys

    async def _next(self) -> None:
        """Wait for the end of a fetch, but not long."""
        await asyncio.wait([self._round], timeout=_PATIENCE)

    async def keep(self) -> None:
        """Fetch them, again and again, until cancelled."""
        wait = _FIRST
        loop = asyncio.get_running_loop()
        while True:
            self._missed.clear()
            before = self.trouble
            try:
                self._keys = await self._fetch()
                self.trouble, wait, pause = "", _FIRST, FRESH
            except NoKeys as error:
                self.trouble, pause, wait = str(error), wait, min(2 * wait, _LONGEST)
            self._fetched = loop.time()
            self._round.set_result(None)
            self._round = loop.create_future()
            if self.trouble != before:
                self._changed()
            try:
                async with asyncio.timeout(pause):
                    await self._missed.wait()
            except TimeoutError:
                pass

    async def _fetch(self) -> Keys:
        try:
            return Keys(await _get(self._url, self._context), self._algorithms)
        except ValueError as error:
            raise NoKeys(f"expected {error} at {self._url}, found something else") from None


async def _get(url: str, context: ssl.SSLContext) -> bytes:
    """Redirects are not followed. Raises NoKeys."""
    import aiohttp  # not by hubs that ask for nothing

    try:
        async with (
            asyncio.timeout(_WITHIN),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(
                url, headers={"accept": "application/json"}, allow_redirects=False
            ) as answer,
        ):
            if answer.status != 200:
                raise NoKeys(f"no keys from {url}: it answered {answer.status}")
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > _LARGEST:
                    raise NoKeys(f"no keys from {url}: its answer is over {_LARGEST} bytes")
            return bytes(body)
    except TimeoutError:
        raise NoKeys(f"no keys from {url}: no answer within {_WITHIN:.0f} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NoKeys(f"no keys from {url}: {str(error) or type(error).__name__}") from None
