"""What a function is told of how a request came: X-Forwarded-*, and Forwarded (RFC 7239)."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address

from triggerhub_http.addresses import Address, read_address
from triggerhub_http.messages import Field, Head

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KEPT_AS_SAID = (b"x-forwarded-port", b"x-forwarded-prefix", b"x-real-ip")
_LONGEST_KEPT = 256
"""Characters; what clients make up shall not fill the memory."""


def forwarding(head: Head, client: tuple[str, int] | None, scheme: str) -> tuple[Field, ...]:
    """``client``: who is connected, and ``scheme``: by what. What the request says itself is in it
    as far as it is believed."""
    peer = client[0] if client else ""
    if not head.believed:
        tell = _direct if len(head.host) <= _LONGEST_KEPT else _direct.__wrapped__
        return tell(peer, head.host, scheme)
    first, *_ = hops = head.believed
    connected = read_address(peer)
    addresses = ", ".join(map(_named, (*(hop.address for hop in hops), connected)))
    elements = [_element(*hop) for hop in hops]
    elements.append(_element(connected, scheme, head.host))
    said = tuple((name, head.forwarded[name]) for name in _KEPT_AS_SAID if name in head.forwarded)
    return (
        *_fields(addresses, first.protocol or scheme, first.host or head.host),
        (b"forwarded", ", ".join(elements).encode("latin-1")),
        *said,
    )


@lru_cache(maxsize=1024)
def _direct(peer: str, host: str, scheme: str) -> tuple[Field, ...]:
    """Of a request that came from its client."""
    address = read_address(peer)
    return (
        *_fields(_named(address), scheme, host),
        (b"forwarded", _element(address, scheme, host).encode("latin-1")),
    )


def _fields(addresses: str, protocol: str, host: str) -> tuple[Field, ...]:
    fields = (
        (b"x-forwarded-for", addresses.encode()),
        (b"x-forwarded-proto", protocol.encode("latin-1")),
    )
    return (*fields, (b"x-forwarded-host", host.encode("latin-1"))) if host else fields


def _element(address: Address | None, protocol: str, host: str) -> str:
    """Of a Forwarded field (RFC 7239, sections 4 to 6)."""
    node = _named(address)
    pairs = [("for", f"[{node}]" if isinstance(address, IPv6Address) else node)]
    pairs += [pair for pair in (("host", host), ("proto", protocol)) if pair[1]]
    return ";".join(f"{name}={_value(value)}" for name, value in pairs)


def _named(address: Address | None) -> str:
    return "unknown" if address is None else str(address)


def _value(text: str) -> str:
    if _TOKEN.fullmatch(text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
