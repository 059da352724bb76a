"""From where a request comes, as far as the proxies in front are believed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple

from triggerhub_http.security import Addresses

Address = IPv4Address | IPv6Address

# One element of a Forwarded field (RFC 7239, section 4): pairs of a token and a token or a
# quoted string.
_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^;,"\s]+)\s*')
_MOST = 64


class Hop(NamedTuple):
    """Where a request was before it came to the next one."""

    address: Address
    protocol: str = ""
    """By which it came from there; empty: not told."""
    host: str = ""
    """Whom it was sent to; empty: not told."""


class Elsewhere(Exception):  # noqa: N818 - a fact about the request
    """A request from an address that may not call, or that cannot be told: one sentence."""


class Places:
    """Which addresses may call."""

    def __init__(self, spec: Addresses) -> None:
        self._allowed = None if spec.allow is None else _Networks(spec.allow)
        self._trusted = _Networks(spec.trusted_proxies)
        self._forwarded = spec.header == "Forwarded"
        self._field = spec.header.lower().encode()

    def check(self, peer: str, forwarded: Mapping[bytes, bytes]) -> list[Hop]:
        """``peer``: who is connected; ``forwarded``: what the request says of how it came, by
        field. Returns what of that is believed, the client first; empty: the peer is the client.
        Raises Elsewhere."""
        address = read_address(peer)
        if address is None:
            raise Elsewhere("the connection has no address")
        hops = []
        if address in self._trusted:
            hops = self._believed(forwarded.get(self._field, b"").decode("latin-1"))
            if hops and not self._forwarded:
                hops[0] = hops[0]._replace(
                    protocol=_as_of(hops, forwarded.get(b"x-forwarded-proto", b"")),
                    host=_as_of(hops, forwarded.get(b"x-forwarded-host", b"")),
                )
        client = hops[0].address if hops else address
        if self._allowed is not None and client not in self._allowed:
            raise Elsewhere(f"{client} may not call")
        return hops

    def _believed(self, said: str) -> list[Hop]:
        """Back to the first address, seen from here, that is no trusted proxy's: what stands before
        it is what a client may have made up."""
        hops: list[Hop] = []
        if not said:
            return hops
        for one in reversed(_elements(said) if self._forwarded else _listed(said)):
            address = read_address(one.get("for", ""))
            if address is None:
                raise Elsewhere("a trusted proxy does not tell the client's address")
            hops.append(Hop(address, one.get("proto", ""), one.get("host", "")))
            if address not in self._trusted:
                break
        hops.reverse()
        return hops


class _Networks:
    def __init__(self, written: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(one, strict=False) for one in written
        ]

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def read_address(text: str) -> Address | None:
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


def _as_of(hops: list[Hop], said: bytes) -> str:
    """What the proxy nearest to the client said: the field may be a list, and begin with what a
    client made up."""
    return said.decode("latin-1").split(",")[-len(hops) :][0].strip()


def _listed(text: str) -> list[dict[str, str]]:
    return [{"for": one} for one in text.split(",")[-_MOST:]]


def _elements(text: str) -> list[dict[str, str]]:
    """The elements of a Forwarded field, by the names of their pairs. Raises Elsewhere for what is
    no such field: an element must not hide behind a broken quote."""
    found: list[dict[str, str]] = [{}]
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            raise Elsewhere("a trusted proxy sent a malformed Forwarded field")
        value = pair[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        found[-1][pair[1].lower()] = value
        at = pair.end()
        if at < len(text):
            if text[at] == ",":
                found.append({})
            elif text[at] != ";":
                raise Elsewhere("a trusted proxy sent a malformed Forwarded field")
            at += 1
    return found[-_MOST:]
