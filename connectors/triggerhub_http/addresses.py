"""From where a request comes, as far as the proxies in front are believed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from triggerhub_http.security import Addresses

Address = IPv4Address | IPv6Address

# One element of a Forwarded field (RFC 7239, section 4): pairs of a token and a token or a
# quoted string.
_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^;,"\s]+)\s*')
_MOST = 64


class Elsewhere(Exception):  # noqa: N818 - a fact about the request
    """A request from an address that may not call, or that cannot be told: one sentence."""


class Places:
    """Which addresses may call."""

    def __init__(self, spec: Addresses) -> None:
        self._allowed = _Networks(spec.allow)
        self._trusted = _Networks(spec.trusted_proxies)
        self._forwarded = spec.header == "Forwarded"
        self.needs = spec.header.lower().encode()
        """The header field that it reads."""

    def check(self, peer: str, said: bytes) -> None:
        """``peer``: who is connected; ``said``: the field's value, empty where there is none. That
        the hub has appended the peer to it changes nothing. Raises Elsewhere."""
        client = self._client(peer, said)
        if client not in self._allowed:
            raise Elsewhere(f"{client} may not call")

    def _client(self, peer: str, said: bytes) -> Address:
        """The first address, seen from here, that is no trusted proxy's: what stands before it is
        what a client may have made up."""
        client = _read(peer)
        if client is None:
            raise Elsewhere("the connection has no address")
        if client not in self._trusted or not said:
            return client
        text = said.decode("latin-1")
        for one in reversed(_elements(text) if self._forwarded else text.split(",")[-_MOST:]):
            client = _read(one)
            if client is None:
                raise Elsewhere("a trusted proxy does not tell the client's address")
            if client not in self._trusted:
                break
        return client


class _Networks:
    def __init__(self, written: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(one, strict=False) for one in written
        ]

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _read(text: str) -> Address | None:
    """An address with or without a port, IPv6 with or without brackets; one that is IPv4 within
    IPv6 is the former. None: it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _elements(text: str) -> list[str]:
    """The ``for`` of each element of a Forwarded field; empty where it is not told. Raises
    Elsewhere for what is no such field: an element must not hide behind a broken quote."""
    found, at = [""], 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            raise Elsewhere("a trusted proxy sent a malformed Forwarded field")
        if pair[1].lower() == "for":
            found[-1] = re.sub(r"\\(.)", r"\1", pair[2].strip('"'))
        at = pair.end()
        if at < len(text):
            if text[at] == ",":
                found.append("")
            elif text[at] != ";":
                raise Elsewhere("a trusted proxy sent a malformed Forwarded field")
            at += 1
    return found[-_MOST:]
