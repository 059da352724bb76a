"""Requests of a listener to servers other than its brokers: few, and answered briefly."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from triggerhub_kafka.problems import ExtraMissingError

if TYPE_CHECKING:
    import aiohttp

_WITHIN = 10.0
_LONGEST = 8 * 1024 * 1024
_LONGEST_TOLD = 200


class Unreachable(Exception):  # noqa: N818 - a fact about the server
    """No answer; says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a server, whatever its status."""

    status: int
    body: bytes

    def text(self, *names: str) -> str:
        """What it says under these names, where it is a JSON object: for a message, so bounded."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return ""
        if not isinstance(found, dict):
            return ""
        told = ": ".join(str(found[name]) for name in names if found.get(name))
        return " ".join(told.split())[:_LONGEST_TOLD]


class Web:
    """Asks servers. A connection lives as long as one request: there are few."""

    def __init__(
        self, where: str, extra: str, context: ssl.SSLContext | None, headers: Mapping[str, str]
    ) -> None:
        """``where``: the place in the manifest of what is asked for; ``extra``: what is to be
        installed for it; ``context`` None: no https. Raises ExtraMissingError."""
        try:
            import_module("aiohttp")
        except ModuleNotFoundError:
            raise ExtraMissingError(where, extra) from None
        self._context = context
        self._headers = headers

    async def ask(self, method: str, url: str, form: bytes | None = None) -> Answer:
        """Redirects are not followed. Raises Unreachable."""
        import aiohttp  # not by hubs that ask for nothing

        headers = {"accept": "application/json", **self._headers}
        if form is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        connector = aiohttp.TCPConnector(ssl=self._context or True)
        try:
            async with (
                asyncio.timeout(_WITHIN),
                aiohttp.ClientSession(connector=connector, headers=headers) as session,
                session.request(method, url, data=form, allow_redirects=False) as answer,
            ):
                return Answer(answer.status, await _whole(answer))
        except TimeoutError:
            raise Unreachable(f"no answer within {_WITHIN:.0f} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            why = f"its certificate is not trusted: {error.certificate_error}"
            raise Unreachable(why) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > _LONGEST:
            raise Unreachable(f"its answer is longer than {_LONGEST} bytes")
    return bytes(body)
