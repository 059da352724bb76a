"""What a request's head must be, beyond what the parser asks: whoever stands in front of the hub
shall see the same request, with the same end, for the same host."""

from __future__ import annotations

import re

from triggerhub_http.messages import Field

_NAME = rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(?::[0-9]{0,5})?"
_HOST_FIELD = re.compile(_NAME + b"|")
_ABSOLUTE = re.compile(b"(?i:https?)://(" + _NAME + rb")(/.*|\?.*)?")


class Malformed(ValueError):  # noqa: N818 - a fact about the request
    """Says what was found and what was expected."""


def origin_form(method: str, version: str, target: bytes, fields: list[Field]) -> bytes:
    """The target as path and query. Of an absolute one the host becomes the Host field, whatever
    that was (RFC 9112, section 3.2.2). Raises ``Malformed``."""
    if version not in ("1.1", "1.0"):
        raise Malformed(f"found HTTP/{version}, expected HTTP/1.1")
    if method == "CONNECT":
        raise Malformed("found CONNECT, and this is no such proxy")
    hosts, codings = [], []
    for name, value in fields:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if codings and (version == "1.0" or len(codings) > 1 or codings[0].lower() != b"chunked"):
        # RFC 9112, section 6.1: of another one the end might be missed.
        raise Malformed("found another transfer-encoding, expected chunked, with HTTP/1.1")
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        raise Malformed(f"found {len(hosts)} Host fields, expected one")
    if hosts and _HOST_FIELD.fullmatch(hosts[0]) is None:
        raise Malformed("found a malformed Host field, expected a name or an address, and a port")
    if b"#" in target:
        raise Malformed("found a fragment in the target, expected a path")
    if target[:1] == b"/":
        return target
    parts = _ABSOLUTE.fullmatch(target)
    if parts is None:
        raise Malformed("found a malformed target, expected a path")
    fields[:] = [(b"host", parts[1]), *(pair for pair in fields if pair[0] != b"host")]
    rest: bytes = parts[2] or b"/"
    return rest if rest[:1] == b"/" else b"/" + rest
