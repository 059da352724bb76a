"""A NATS message as an Event.

A plain message becomes ``dev.triggerhub.nats.message``: source ``/nats/<stream>`` with the stream's
sequence as id, or, from a core subject, ``/nats/<subject pattern>`` with its ``Nats-Msg-Id`` or a
fresh id. Its subject is the event's, its data comes byte for byte. The content type is the header
``content-type``; without one it is ``application/json`` where the data begins and ends as a JSON
object or array does (nothing is parsed), and otherwise ``application/octet-stream``. Headers become
extensions ``natsheader<name>``, the name in lower case with only ``[a-z0-9]`` kept; of equal names
the last one wins. ``traceparent`` and ``tracestate`` keep their own names.

A message that is a CloudEvent keeps its own attributes: structured where its content type says so
(CloudEvents NATS protocol binding 1.0.2), binary with headers ``ce-<attribute>`` (as in its
successor: values percent-encoded as in the HTTP binding, 3.1.3.2; the content type in
``content-type`` or ``ce-datacontenttype``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from nats.aio.msg import Msg

from triggerhub.cloudevents import (
    STRUCTURED,
    CloudEventError,
    format_time,
    from_attributes,
    from_json,
    guessed_type,
    media_type,
)
from triggerhub.event import EMPTY, Event, Origin
from triggerhub.nats.headers import Headers as AllHeaders
from triggerhub.nats.headers import Pairs, pairs_of

TYPE = "dev.triggerhub.nats.message"

_DROPPED = re.compile("[^a-z0-9]+")
_OWN_NAME = frozenset({"traceparent", "tracestate"})

Headers = Mapping[str, str] | None


class Place(NamedTuple):
    """Where a message lies in its source."""

    source: str
    id: str
    time: datetime | None
    coordinates: Mapping[str, str]


class Ack(NamedTuple):
    """What the subject says to which a message of a stream is acked."""

    delivered: str
    sequence: str
    stamp: int
    """When the stream took it, in ns."""
    following: str
    """How many messages the consumer has behind it."""


def ack_of(reply: str) -> Ack:
    """``$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer's>.<time>.<following>``, or
    with a domain and an account after ACK, and a token behind (ADR-15)."""
    tokens = reply.split(".")
    delivered, sequence, _, stamp, following = tokens[4:9] if len(tokens) == 9 else tokens[6:11]
    return Ack(delivered, sequence, int(stamp), following)


def stream_event(
    stream: str, ack: Ack, message: Msg, by: str | None, *, redelivered: int = 0
) -> Event:
    """The event of a stream's message; ``by``, and what is raised, as of ``event_of``."""
    return event_of(
        Place(
            f"/nats/{stream}",
            ack.sequence,
            # Down, so that what begins with this time begins with this message.
            datetime.fromtimestamp(ack.stamp // 1000 / 1e6, UTC),
            {"stream": stream, "sequence": ack.sequence, "delivered": ack.delivered},
        ),
        message.subject,
        message.headers,
        message.data,
        by=by,
        redelivered=redelivered,
    )


def event_of(
    place: Place,
    subject: str,
    headers: Headers,
    data: bytes,
    *,
    by: str | None = None,
    redelivered: int = 0,
) -> Event:
    """The event. ``by``: the header that order goes by, in lower case; None: the subject. Raises
    nothing: what it cannot make sense of becomes an event with a ``fault``."""
    if headers:
        return _with_headers(place, subject, headers, data, by, redelivered)
    return Event(
        id=place.id,
        source=place.source,
        type=TYPE,
        data=data,
        datacontenttype=guessed_type(data),
        subject=subject,
        time=place.time,
        key=subject if by is None else None,
        origin=partial(_origin, place, subject, None, data),
        redelivered=redelivered,
    )


def _origin(place: Place, subject: str, headers: Headers, data: bytes) -> Origin:
    when = {} if place.time is None else {"time": format_time(place.time)}
    return Origin(
        coordinates={"subject": subject, **place.coordinates, **when},
        headers=_pairs(headers),
        value=data,
    )


def _pairs(headers: Headers) -> Pairs:
    if isinstance(headers, AllHeaders):
        return pairs_of(headers.raw)
    return tuple((name, value.encode()) for name, value in (headers or {}).items())


def _with_headers(
    place: Place,
    subject: str,
    headers: Mapping[str, str],
    data: bytes,
    by: str | None,
    redelivered: int,
) -> Event:
    content_type = None
    key = subject if by is None else None
    own: dict[str, str] = {}
    extensions: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower == by:
            key = value
        if lower == "content-type":
            content_type = value
        elif lower.startswith("ce-"):
            own[lower[3:]] = value
        elif lower in _OWN_NAME:
            extensions[lower] = value
        elif kept := _DROPPED.sub("", lower):
            extensions["natsheader" + kept] = value
    fault = None
    try:
        event = _cloud_event(own, content_type, data)
    except CloudEventError as error:
        event, fault = None, f"not a CloudEvent: {error}"
    if event is not None:
        return replace(
            event,
            key=key if event.key is None or by is not None else event.key,
            extensions=extensions | dict(event.extensions),
            origin=partial(_origin, place, subject, headers, data),
            redelivered=redelivered,
        )
    return Event(
        id=place.id,
        source=place.source,
        type=TYPE,
        data=data,
        datacontenttype=content_type or guessed_type(data),
        subject=subject,
        time=place.time,
        key=key,
        extensions=extensions or EMPTY,
        origin=partial(_origin, place, subject, headers, data),
        fault=fault,
        redelivered=redelivered,
    )


def _cloud_event(own: Mapping[str, str], content_type: str | None, data: bytes) -> Event | None:
    """None: it is not one. Raises CloudEventError: it claims to be."""
    if content_type is not None and media_type(content_type) == STRUCTURED:
        return from_json(data)
    if "specversion" not in own:
        return None
    attributes = {name: _decoded(name, value) for name, value in own.items()}
    return from_attributes(
        attributes, data, content_type or attributes.get("datacontenttype"), "ce-"
    )


def _decoded(name: str, value: str) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise CloudEventError(f"header ce-{name}: found no UTF-8, expected a text") from None
