"""An event as an HTTP request: CloudEvents 1.0.2, HTTP protocol binding."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
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
# W3C Trace Context, sections 3.2.2 and 4.3: ids of zeros and version ff are no parent, and versions
# to come may say more.
_IDS = "(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(f"00-{_IDS}|(?!00|ff)[0-9a-f]{{2}}-{_IDS}(-[!-~]*)?")
_TRACING = frozenset({b"traceparent", b"tracestate"})
_TARGET_BREAKING = re.compile(r"[^!-~]")
_NOT_PASSED_ON = _TRACING | {
    b"host", b"connection", b"content-length", b"transfer-encoding", b"idempotency-key"
}  # fmt: skip
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def head_prefix(path: str, host: bytes, agent: str) -> str:
    """The part of a POST's head that is the same for every event of a binding."""
    return f"POST {path} HTTP/1.1\r\nhost: {host.decode('latin-1')}\r\nuser-agent: {agent}\r\n"


def encode_binary(prefix: str, event: Event, attempt: int, extra: str = "") -> tuple[bytes, bytes]:
    """Head and body in binary content mode; the body is the event's data, byte for byte."""
    event_id, key, data = event.id, event.key, event.data
    if _MUST_ENCODE.search(event_id):
        event_id = _encode(event_id)
    source, fields = _of_many(event.source, event.type, event.datacontenttype)
    more = ""
    if key is not None:
        plain = key.isascii() and key.isalnum()
        more = f"ce-partitionkey: {key if plain else _encode(key)}\r\n"
    if event.time is not None:
        more += _time(event.time)
    if event.subject is not None:
        more += f"ce-subject: {_encode(event.subject)}\r\n"
    if event.extensions:
        more += _extension_fields(event.extensions)
        trace = _trace(event.extensions.get("traceparent"))
    else:
        trace = _new_trace()
    return (
        f"{prefix}{fields}{more}ce-id: {event_id}\r\nidempotency-key: {source}/{event_id}\r\n"
        f"triggerhub-attempt: {attempt}\r\ntraceparent: {trace}\r\n"
        f"content-length: {len(data)}\r\n{extra}\r\n"
    ).encode("latin-1"), data


def encode_structured(
    prefix: str, event: Event, attempt: int, extra: str = ""
) -> tuple[bytes, bytes]:
    """Head and body in structured content mode (``application/cloudevents+json``)."""
    body = to_json(event)
    head = (
        f"{prefix}content-type: {STRUCTURED}; charset=utf-8\r\n"
        f"idempotency-key: {_encode(event.source)}/{_encode(event.id)}\r\n"
        f"triggerhub-attempt: {attempt}\r\n"
        f"traceparent: {_trace(event.extensions.get('traceparent'))}\r\n"
        f"content-length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode("latin-1"), body


def encode_request(
    path: str, host: bytes, event: Event, request: Request, attempt: int = 1
) -> tuple[bytes, bytes]:
    """A request passed on: its own method, sub-path, query, headers and body (or as much of it as
    is there, framed), with the event's attributes beside them.

    ``path`` is the function's own path and query. Header fields are sent as they came, but for
    those of the connection and those that the hub itself sets.
    """
    event_id, data, subject = event.id, event.data, event.subject or ""
    if request.path or request.query or "?" in path:
        path = _target(path, request)
    if _MUST_ENCODE.search(event_id + subject) or _TARGET_BREAKING.search(path):
        event_id, subject = _encode(event_id), _encode(subject)
        path = _FIELD_BREAKING.sub("", path).replace(" ", "%20")
    source, kind = event.source, event.type
    # A client that makes up long ones does not fill the cache with them.
    of_many = _of_many if len(source) + len(kind) < 512 else _of_many.__wrapped__
    fields = of_many(source, kind, None)[1]
    if subject:
        fields = f"{fields}ce-subject: {subject}\r\n"
    if event.time is not None:
        fields += _time(event.time)
    if event.key is not None:
        fields = f"{fields}ce-partitionkey: {_encode(event.key)}\r\n"
    if event.extensions:
        fields += _extension_fields(event.extensions)
    if request.rest is not None:
        framing, data = _unfinished(data, request.length)
        fields += framing
    elif data or request.method not in _WITHOUT_BODY:
        fields = f"{fields}content-length: {len(data)}\r\n"
    parts = [b""]
    trace: list[tuple[bytes, bytes]] = []
    for name, value in request.headers:
        if name not in _NOT_PASSED_ON and name[:3] != b"ce-":
            parts += name, b": ", value, b"\r\n"
        elif name in _TRACING:
            trace.append((name, value))
    fields += _trace_fields(trace, event.extensions.get("traceparent"))
    parts.append(b"\r\n")
    parts[0] = (
        f"{request.method} {path} HTTP/1.1\r\nhost: {host.decode('latin-1')}\r\n{fields}"
        f"ce-id: {event_id}\r\nidempotency-key: {event_id}\r\n"
        f"triggerhub-attempt: {attempt}\r\n"
    ).encode("latin-1")
    return b"".join(parts), data


def _unfinished(data: bytes, length: int | None) -> tuple[str, bytes]:
    """How a body is framed whose rest follows, and its begin."""
    if length is not None:
        return f"content-length: {length}\r\n", data
    return "transfer-encoding: chunked\r\n", b"%x\r\n%b\r\n" % (len(data), data)


def _target(path: str, request: Request) -> str:
    """The function's own path and query with those of a request joined to them."""
    base, _, own_query = path.partition("?")
    if request.path:
        base = base.rstrip("/") + request.path
    query = "&".join(part for part in (own_query, request.query) if part)
    return f"{base}?{query}" if query else base


def to_json(event: Event) -> bytes:
    """The event in the CloudEvents JSON format (JSON format 1.0.2, section 3). Data that is JSON
    stands in it as it came, byte for byte."""
    out: dict[str, str] = {
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
    data, content_type = event.data, event.datacontenttype
    if data:
        if content_type is not None and is_json(content_type) and _well_formed(data):
            return b'%b,"data":%b}' % (dump_json(out)[:-1], data)
        text = _text(data) if content_type and content_type.lower().startswith("text/") else None
        if text is not None:
            out["data"] = text
        else:
            out["data_base64"] = base64.b64encode(data).decode()
    return dump_json(out)


def _well_formed(data: bytes) -> bool:
    """Whether it is JSON, and UTF-8 as the format wants it."""
    try:
        json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


@lru_cache(maxsize=1024)
def _of_many(source: str, kind: str, content_type: str | None) -> tuple[str, str]:
    """The encoded source, and the header fields that many events have in common."""
    source = _encode(source)
    fields = f"ce-specversion: 1.0\r\nce-source: {source}\r\nce-type: {_encode(kind)}\r\n"
    if content_type is not None:
        fields += f"content-type: {_FIELD_BREAKING.sub('', content_type)}\r\n"
    return source, fields


def _time(moment: datetime) -> str:
    """The header field. A busy source gives many events the same moment, and the same object."""
    known = _times.get(id(moment))
    if known is not None and known[0] is moment:
        return known[1]
    if len(_times) >= 256:
        _times.clear()
    text = f"ce-time: {format_time(moment)}\r\n"
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


def _trace_fields(came: list[tuple[bytes, bytes]], given: str | None) -> str:
    """A request's own, where they are well-formed; the state belongs to its parent."""
    parents = [value.decode("latin-1") for name, value in came if name == b"traceparent"]
    if len(parents) == 1 and _TRACEPARENT.fullmatch(parents[0]):
        return "".join(
            f"{name.decode('latin-1')}: {value.decode('latin-1')}\r\n" for name, value in came
        )
    return f"traceparent: {_trace(given)}\r\n"


def _trace(given: str | None) -> str:
    """W3C trace context: the parent that came with the event, else a new root."""
    if given is not None and _TRACEPARENT.fullmatch(given):
        return given
    return _new_trace()


def _new_trace() -> str:
    chance = f"{random.getrandbits(64):016x}"
    return f"00-{_TRACE}{chance}-{chance}-01"
