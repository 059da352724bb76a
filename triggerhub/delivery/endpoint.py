"""Where a binding's requests go: a URL, taken apart."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._~-]+")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to send: a URL, taken apart once per binding by ``parse_endpoint``."""

    url: str
    scheme: str
    host: str
    """As the resolver and TLS want it: ASCII (IDNA), IPv6 without brackets."""
    port: int
    path: str
    """Path and query as they go into the request line, ASCII; at least ``/``."""
    host_header: bytes
    origin: str = field(compare=False)
    """``scheme://host:port``: what shares connections."""


def parse_endpoint(url: str) -> Endpoint:
    """Take an ``http`` or ``https`` URL apart. Raises ValueError that says what is wrong with it.

    User info and fragments are refused (RFC 9110, sections 4.2.4 and 7.1). What is not ASCII is
    encoded: the host by IDNA, path and query as percent-encoded UTF-8.
    """
    if any(char <= " " or char == "\x7f" for char in url):
        raise ValueError(f"URL with white space or control characters: {url!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {url!r}: {error}") from None
    if "@" in parts.netloc:
        raise ValueError("URL with user or password; send credentials in a header instead")
    scheme = parts.scheme
    if scheme not in _PORTS:
        raise ValueError(f"expected a URL with http or https, found {url!r}")
    if "#" in url:
        raise ValueError(f"URL with a fragment (#…), which is never sent: {url!r}")
    if port == 0 or (port is None and parts.netloc.endswith(":")):
        raise ValueError(f"expected a port from 1 to 65535: {url!r}")
    host, shown = _host(parts.hostname or "", url)
    port = port or _PORTS[scheme]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(
        url=url,
        scheme=scheme,
        host=host,
        port=port,
        path=quote(target, safe=_PRINTABLE),
        host_header=(shown if port == _PORTS[scheme] else f"{shown}:{port}").encode("ascii"),
        origin=f"{scheme}://{shown}:{port}",
    )


def _host(host: str, url: str) -> tuple[str, str]:
    """The host for the resolver, and for the ``Host`` field (RFC 9110, section 7.2)."""
    if not host:
        raise ValueError(f"URL without a host: {url!r}")
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            address = None
        if address is None or address.scope_id is not None:
            raise ValueError(f"not an IPv6 address: {host!r} in {url!r}")
        return host, f"[{host}]"
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"not a host name: {host!r} in {url!r}: {error}") from None
    if not _HOST.fullmatch(name):
        raise ValueError(f"not a host name: {host!r} in {url!r}")
    return name, name
