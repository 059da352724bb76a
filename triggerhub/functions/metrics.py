"""Fetches what functions count themselves, and merges it into one set of families."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT = 1.0
_LIMIT = 1 << 20


async def scrape(url: str) -> list[Metric]:
    """The metric families of the runtime that serves ``url``; none when it does not answer
    sensibly within a second."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(
                    f"GET /_triggerhub/metrics HTTP/1.1\r\nhost: {parts.netloc}\r\n"
                    "connection: close\r\n\r\n".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.read(_LIMIT)
                while chunk := await reader.read(_LIMIT):
                    body += chunk
                    if len(body) > _LIMIT:
                        return []
            finally:
                writer.close()
        if not head.startswith(b"HTTP/1.1 200 "):
            return []
        return list(text_string_to_metric_families(body.decode()))
    except (OSError, TimeoutError, ValueError, EOFError, asyncio.LimitOverrunError):
        return []


def merge(scrapes: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Families of one name become one; their samples differ by the function's labels."""
    families: dict[str, Metric] = {}
    for families_of_one in scrapes:
        for family in families_of_one:
            known = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            known.samples.extend(family.samples)
    return list(families.values())
