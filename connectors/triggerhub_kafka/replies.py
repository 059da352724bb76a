"""A function's answer as a record.

It has the key of the record that it answers, and the answer's body as its value. Its headers:
``content-type`` as the answer says; ``traceparent`` and ``tracestate``, the answer's own or else
the record's; ``triggerhub-correlation-id``: ``<source>/<id>`` of the event, as the function got
it in ``Idempotency-Key``. An answer that is a CloudEvent in binary mode stays one: its ``ce-``
header fields become ``ce_`` headers (CloudEvents Kafka protocol binding 1.0.2, section 3.2). One
in structured mode is one by its content type and body.
"""

from __future__ import annotations

from urllib.parse import unquote

from triggerhub.event import Event, Origin, Reply
from triggerhub_kafka.records import Outgoing

CORRELATION = "triggerhub-correlation-id"
_TRACE = ("traceparent", "tracestate")


def reply_record(topic: str, event: Event, reply: Reply) -> Outgoing:
    """The record that is written to ``topic``."""
    fields = dict(reply.headers)
    headers: list[tuple[str, bytes | None]] = [
        (f"ce_{name[3:].decode('latin-1')}", _decoded(value))
        for name, value in fields.items()
        if name.startswith(b"ce-")
    ]
    if b"content-type" in fields:
        headers.append(("content-type", fields[b"content-type"]))
    for name in _TRACE:
        own, given = fields.get(name.encode()), event.extensions.get(name)
        if own is not None:
            headers.append((name, own))
        elif given is not None:
            headers.append((name, given.encode("utf-8", "replace")))
    headers.append((CORRELATION, f"{event.source}/{event.id}".encode("utf-8", "replace")))
    return Outgoing(topic=topic, key=_key(event), value=reply.body, headers=tuple(headers))


def _decoded(value: bytes) -> bytes:
    """Of the percent-encoding of the HTTP binding (section 3.1.3.2), which Kafka does without."""
    return unquote(value.decode("latin-1")).encode("utf-8", "replace")


def _key(event: Event) -> bytes | None:
    origin = Origin() if event.origin is None else event.origin()
    if origin.coordinates or event.key is None:
        return origin.key
    return event.key.encode("utf-8", "replace")
