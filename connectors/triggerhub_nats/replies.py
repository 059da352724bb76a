"""A function's answer as a message.

Its data is the answer's body. Its headers: ``content-type`` as the answer says; ``traceparent`` and
``tracestate``, the answer's own or else the event's; ``triggerhub-correlation-id``:
``<source>/<id>`` of the event, as the function got it in ``Idempotency-Key``. An answer that is a
CloudEvent in binary mode stays one: its ``ce-`` header fields become headers of the same name and
value (percent-encoded, as HTTP has them). One in structured mode is one by its content type.
"""

from __future__ import annotations

from triggerhub.event import Event, Reply
from triggerhub.nats.headers import block_of
from triggerhub_nats.letters import IDENTITY, Outgoing, identity

CORRELATION = "triggerhub-correlation-id"
_TRACE = (b"traceparent", b"tracestate")


def reply_message(subject: str, binding: str, event: Event, reply: Reply) -> Outgoing:
    """The message that is published to ``subject``."""
    fields = dict(reply.headers)
    pairs = [
        (name.decode("latin-1"), value)
        for name, value in fields.items()
        if name.startswith(b"ce-") or name == b"content-type"
    ]
    for name in _TRACE:
        own, given = fields.get(name), event.extensions.get(name.decode())
        if own is not None:
            pairs.append((name.decode(), own))
        elif given is not None:
            pairs.append((name.decode(), given.encode("utf-8", "replace")))
    pairs.append((CORRELATION, f"{event.source}/{event.id}".encode("utf-8", "replace")))
    named = (IDENTITY, identity("reply", binding, event))
    return Outgoing(subject, block_of((named, *pairs)), reply.body)
