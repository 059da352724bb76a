"""A Kafka record as an Event.

A plain record becomes ``dev.triggerhub.kafka.record``: source ``/kafka/<topic>``, id
``<partition>:<offset>``, its data byte for byte. Its data's content type is its ``content-type``
header; without one it is ``application/json`` where the data begins and ends as a JSON object or
array does (two byte comparisons; nothing is parsed), so that JSON reaches a function as JSON, and
otherwise ``application/octet-stream``. Headers become extensions ``kafkaheader<name>``, the name in
lower case with only ``[a-z0-9]`` kept; of equal names the last one wins. Values, and keys, that are
not UTF-8 are base64; for a key the extension ``keyencoding: base64`` says so. ``traceparent`` and
``tracestate`` keep their own names. A record without a value (a tombstone) has no data and the
extension ``kafkatombstone: true``.

A record that is a CloudEvent (CloudEvents Kafka protocol binding 1.0.2, sections 3.2 and 3.3) keeps
its own attributes.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from triggerhub.cloudevents import (
    STRUCTURED,
    CloudEventError,
    from_attributes,
    from_json,
    guessed_type,
    media_type,
)
from triggerhub.event import EMPTY, Event, Origin

TYPE = "dev.triggerhub.kafka.record"

_DROPPED = re.compile("[^a-z0-9]+")
_OWN_NAME = frozenset({"traceparent", "tracestate"})
_TOMBSTONE = {"kafkatombstone": "true"}


class Record(Protocol):
    """What is read of aiokafka's ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since the epoch; -1: none."""
    key: bytes | None
    value: bytes | None
    headers: Any
    """Pairs of name (text) and value (bytes or None)."""


def decoder(topic: str, partition: int) -> Callable[[Record], Event]:
    """The function that turns records of one partition into events. It raises nothing: what it
    cannot make sense of becomes an event with a ``fault``."""
    source = f"/kafka/{topic}"
    prefix = f"{partition}:"
    of_timestamp = datetime.fromtimestamp
    # Many records of a busy partition bear the same millisecond.
    known = -1
    time: datetime | None = None

    def decode(record: Record) -> Event:
        nonlocal known, time
        key = record.key
        value = record.value
        if record.headers or value is None:
            return _decode_rich(record)
        try:
            text = None if key is None else key.decode()
        except UnicodeDecodeError:
            return _decode_rich(record)
        timestamp = record.timestamp
        if timestamp != known:
            time = None if timestamp < 0 else of_timestamp(timestamp / 1000, UTC)
            known = timestamp
        return Event(
            id=prefix + str(record.offset),
            source=source,
            type=TYPE,
            data=value,
            datacontenttype=guessed_type(value),
            time=time,
            key=text,
            origin=partial(origin, record),
        )

    return decode


def origin(record: Record) -> Origin:
    """The record's coordinates, key and headers as Kafka has them."""
    return Origin(
        coordinates={
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "timestamp": str(record.timestamp),
        },
        key=record.key,
        headers=tuple((name, value) for name, value in record.headers),
        value=record.value,
    )


def is_structured(record: Record) -> bool:
    """Whether it says that it is a CloudEvent in structured mode."""
    return any(
        value is not None and media_type(_text(value)) == STRUCTURED
        for name, value in record.headers
        if name.lower() == "content-type"
    )


def undecodable(record: Record, fault: str) -> Event:
    """Of a record that nobody can make sense of: its bytes as they are."""
    key, extensions = _key(record.key)
    return _plain(record, key, "application/octet-stream", extensions, fault)


def _decode_rich(record: Record) -> Event:
    """Headers, a tombstone, a key that is not text: what the fast path leaves over."""
    key, extensions = _key(record.key)
    content_type = None
    own: dict[str, bytes | None] = {}
    for name, value in record.headers:
        lower = name.lower()
        if lower.startswith("ce_"):
            own[lower[3:]] = value
        elif lower == "content-type":
            content_type = None if value is None else _text(value)
    data = record.value or b""
    try:
        if content_type is not None and media_type(content_type) == STRUCTURED:
            event = from_json(data)
        elif "specversion" in own:
            event = from_attributes(_attributes(own), data, content_type, "ce_")
        else:
            return _plain(record, key, content_type, extensions)
    except CloudEventError as error:
        return _plain(record, key, content_type, extensions, fault=f"not a CloudEvent: {error}")
    own_extensions = _headers(record.headers, cloud_event=True)
    own_extensions.update(extensions)
    own_extensions.update(event.extensions)
    return replace(
        event,
        key=event.key if key is None else key,
        extensions=own_extensions,
        origin=partial(origin, record),
    )


def _attributes(own: dict[str, bytes | None]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in own.items():
        try:
            if value is not None:
                found[name] = value.decode()
        except UnicodeDecodeError:
            raise CloudEventError(f"header ce_{name}: found no UTF-8, expected a text") from None
    return found


def _plain(
    record: Record,
    key: str | None,
    content_type: str | None,
    extensions: dict[str, str],
    fault: str | None = None,
) -> Event:
    value = record.value
    extensions = _headers(record.headers, cloud_event=False) | extensions
    if value is None:
        extensions |= _TOMBSTONE
    guess = None if value is None else guessed_type(value)
    return Event(
        id=f"{record.partition}:{record.offset}",
        source=f"/kafka/{record.topic}",
        type=TYPE,
        data=value or b"",
        datacontenttype=content_type or guess,
        time=None if record.timestamp < 0 else datetime.fromtimestamp(record.timestamp / 1000, UTC),
        key=key,
        extensions=extensions or EMPTY,
        origin=partial(origin, record),
        fault=fault,
    )


def _key(key: bytes | None) -> tuple[str | None, dict[str, str]]:
    if key is None:
        return None, {}
    try:
        return key.decode(), {}
    except UnicodeDecodeError:
        return b64encode(key).decode(), {"keyencoding": "base64"}


def _headers(headers: Iterable[tuple[str, bytes | None]], *, cloud_event: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower == "content-type" or (cloud_event and lower.startswith("ce_")):
            continue
        text = "" if value is None else _text(value)
        if lower in _OWN_NAME:
            found[lower] = text
        elif kept := _DROPPED.sub("", lower):
            found["kafkaheader" + kept] = text
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode()
