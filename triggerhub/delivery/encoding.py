"""An event as an HTTP request: CloudEvents 1.0.2, HTTP protocol binding."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from triggerhub.cloudevents import (
    ATTRIBUTE_NAME,
    STRUCTURED,
    dump_json,
    format_time,
    is_json,
)
from triggerhub.event import Event, Request

# HTTP binding, 3.1.3.2: space, double quote, percent and all outside printable ASCII.
_MUST_ENCODE = re.compile(r"[^!#$&-~]")
_SAFE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_FIELD_BREAKING = re.compile(r"[^\x20-\x7e]")
_TRACE = f"{random.getrandbits(64):016x}"
"""The first half of every trace id that this process makes; the second is chance as well."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_OWN_FIELDS = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding"})


def head_prefix(path: str, host: bytes, agent: str) -> str:
    """The part of a POST's head that is the same for every event of a binding."""
    return f"POST {path} HTTP/1.1\r\nhost: {host.decode('latin-1')}\r\nuser-agent: {agent}\r\n"


def encode_binary(prefix: str, event: Event, attempt: int, extra: str = "") -> tuple[bytes, bytes]:
    """Head and body in binary content mode; the body is the event's data, byte for byte."""
    event_id, data = event.id, event.data
    if _MUST_ENCODE.search(event_id):
        event_id = _encode(event_id)
    source, fields = _of_many(event.source, event.type, event.datacontenttype)
    if event.key is not None:
        key = event.key
        plain = key.isascii() and key.isalnum()
        fields = f"{fields}ce-partitionkey: {key if plain else _encode(key)}\r\n"
    if event.time is not None:
        fields = f"{fields}ce-time: {_time(event.time)}\r\n"
    if event.subject is not None:
        fields = f"{fields}ce-subject: {_encode(event.subject)}\r\n"
    if event.extensions:
        fields += _extension_fields(event.extensions)
    return (
        f"{prefix}{fields}ce-id: {event_id}\r\nidempotency-key: {source}/{event_id}\r\n"
        f"triggerhub-attempt: {attempt}\r\n"
        f"traceparent: {_trace(event.extensions.get('traceparent'))}\r\n"
        f"content-length: {len(data)}\r\n{extra}\r\n"
    ).encode("latin-1"), data


def encode_structured(
    prefix: str, event: Event, attempt: int, extra: str = ""
) -> tuple[bytes, bytes]:
    """Head and body in structured content mode (``application/cloudevents+json``)."""
    body = dump_json(to_json(event))
    head = (
        f"{prefix}content-type: {STRUCTURED}; charset=utf-8\r\n"
        f"idempotency-key: {_encode(event.source)}/{_encode(event.id)}\r\n"
        f"triggerhub-attempt: {attempt}\r\n"
        f"traceparent: {_trace(event.extensions.get('traceparent'))}\r\n"
        f"content-length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode("latin-1"), body


def encode_request(path: str, host: bytes, event: Event, request: Request) -> tuple[bytes, bytes]:
    """A synchronous request passed on: its own method, sub-path, query, headers and body, with
    the event's identity beside them.

    ``path`` is the function's own path and query. Header fields are sent as they came, but for
    those of the connection and those that the hub itself sets.
    """
    base, _, own_query = path.partition("?")
    target = base.rstrip("/") + request.path if request.path else base
    query = "&".join(part for part in (own_query, request.query) if part)
    if query:
        target = f"{target}?{query}"
    parts = [
        f"{request.method} {_FIELD_BREAKING.sub('', target).replace(' ', '%20')} HTTP/1.1\r\n"
        f"host: {host.decode('latin-1')}\r\n"
        f"ce-specversion: 1.0\r\nce-id: {_encode(event.id)}\r\nce-source: {_encode(event.source)}"
        f"\r\nce-type: {_encode(event.type)}\r\n"
        f"idempotency-key: {_encode(event.id)}\r\ntriggerhub-attempt: 1\r\n".encode("latin-1")
    ]
    if event.subject is not None:
        parts.append(f"ce-subject: {_encode(event.subject)}\r\n".encode())
    if event.time is not None:
        parts.append(f"ce-time: {format_time(event.time)}\r\n".encode())
    traced = False
    for name, value in request.headers:
        if name.startswith(b"ce-") or name == b"idempotency-key" or name in _OWN_FIELDS:
            continue
        traced = traced or name == b"traceparent"
        parts.append(b"%b: %b\r\n" % (name, value))
    if not traced:
        parts.append(f"traceparent: {_trace(None)}\r\n".encode())
    if event.data or request.method not in ("GET", "HEAD", "OPTIONS", "TRACE"):
        parts.append(b"content-length: %d\r\n" % len(event.data))
    parts.append(b"\r\n")
    return b"".join(parts), event.data


def to_json(event: Event) -> dict[str, Any]:
    """The event in the CloudEvents JSON format (JSON format 1.0.2, section 3)."""
    out: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
    }
    if event.subject is not None:
        out["subject"] = event.subject
    if event.time is not None:
        out["time"] = format_time(event.time)
    if event.datacontenttype is not None:
        out["datacontenttype"] = event.datacontenttype
    if event.key is not None:
        out["partitionkey"] = event.key
    out.update((k, v) for k, v in event.extensions.items() if ATTRIBUTE_NAME.fullmatch(k))
    if event.data:
        out |= _json_data(event.data, event.datacontenttype)
    return out


def _json_data(data: bytes, content_type: str | None) -> dict[str, Any]:
    try:
        if content_type is not None and is_json(content_type):
            return {"data": json.loads(data)}
        if content_type is not None and content_type.lower().startswith("text/"):
            return {"data": data.decode()}
    except (ValueError, RecursionError):
        pass  # not what its content type says: it travels as bytes
    return {"data_base64": base64.b64encode(data).decode()}


@lru_cache(maxsize=1024)
def _of_many(source: str, kind: str, content_type: str | None) -> tuple[str, str]:
    """The encoded source, and the header fields that many events have in common."""
    source = _encode(source)
    fields = f"ce-specversion: 1.0\r\nce-source: {source}\r\nce-type: {_encode(kind)}\r\n"
    if content_type is not None:
        fields += f"content-type: {_FIELD_BREAKING.sub('', content_type)}\r\n"
    return source, fields


def _time(moment: datetime) -> str:
    """RFC 3339. A busy source gives many events the same moment, and the same object."""
    known = _times.get(id(moment))
    if known is not None and known[0] is moment:
        return known[1]
    if len(_times) >= 256:
        _times.clear()
    text = format_time(moment)
    _times[id(moment)] = moment, text
    return text


_times: dict[int, tuple[datetime, str]] = {}


def _encode(value: str) -> str:
    return quote(value, safe=_SAFE, errors="replace") if _MUST_ENCODE.search(value) else value


def _extension_fields(extensions: Mapping[str, str]) -> str:
    return "".join(
        f"ce-{name}: {_encode(value)}\r\n"
        for name, value in extensions.items()
        if name != "traceparent" and ATTRIBUTE_NAME.fullmatch(name)
    )


def _trace(given: str | None) -> str:
    """W3C trace context: the parent that came with the event, else a new root."""
    if given is not None and _TRACEPARENT.fullmatch(given):
        return given
    chance = f"{random.getrandbits(64):016x}"
    return f"00-{_TRACE}{chance}-{chance}-01"
