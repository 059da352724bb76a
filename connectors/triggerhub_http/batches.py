"""A batch of CloudEvents in one request: each is an event of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from json import dumps

from triggerhub.cloudevents import CloudEventError, decode
from triggerhub.event import Event, Reply, Request
from triggerhub_http.listener import Listener
from triggerhub_http.messages import Field, Head, Refusal

_FIELD_BREAKING = re.compile(r"[^\x20-\x7e]")
_ABOUT_THE_BODY = frozenset({b"content-type", b"content-encoding", b"idempotency-key"})


def events_of(request: Request, body: bytes) -> list[Event]:
    """Each as in binary mode, with the request's other header fields. Raises ``Refusal`` (400) for
    a batch with one that is malformed: none of it is delivered then."""
    try:
        events = decode(request.headers, body)
    except CloudEventError as error:
        raise Refusal(400, "BadCloudEvent", f"a malformed batch: {error}") from None
    others = tuple(pair for pair in request.headers if pair[0] not in _ABOUT_THE_BODY)
    return [
        replace(event, request=replace(request, headers=(*_data_field(event), *others)))
        for event in events
    ]


def _data_field(event: Event) -> list[Field]:
    kind = _FIELD_BREAKING.sub("", event.datacontenttype or "")
    return [(b"content-type", kind.encode())] if kind else []


async def serve_each(listener: Listener, head: Head, events: list[Event]) -> Reply:
    """One after the other, whatever becomes of those before. Their common status, or 200 where all
    are 2xx, else the worst; and in the body, what became of each."""
    told: list[dict[str, object]] = []
    found = set()
    for event in events:
        try:
            reply = await listener.serve(head, event)
        except Refusal as refusal:
            reply = refusal.reply
        found.add(reply.status)
        each: dict[str, object] = {"source": event.source, "id": event.id, "status": reply.status}
        where = next((value.decode() for name, value in reply.headers if name == b"location"), "")
        told.append(each | {"location": where} if where else each)
    worst = max(found, default=200)
    status = 200 if worst < 300 and (len(found) > 1 or worst in (204, 205)) else worst
    body = dumps({"events": told}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    return Reply(status, ((b"content-type", b"application/json"),), body)
