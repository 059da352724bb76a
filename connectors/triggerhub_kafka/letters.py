"""A dead letter as a record, and back.

The record has the key, value, headers and time of the one that died. Behind its headers come
``triggerhub-dead-letter``, the letter's id, and then the evidence, each as ``triggerhub-<name>``.
A test event, which was no record before, is written as a CloudEvent (Kafka protocol binding 1.0.2,
binary mode).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from triggerhub.cloudevents import format_time
from triggerhub.connector import Letter
from triggerhub.event import Event, Origin
from triggerhub_kafka.decode import Record
from triggerhub_kafka.records import Found, Headers, Outgoing

PREFIX = "triggerhub-"
_FIRST = "triggerhub-dead-letter"
_SOURCE = "triggerhub-source-"
_PLACE = ("topic", "partition", "offset", "timestamp")


def letter_record(topic: str, letter: Letter) -> Outgoing:
    """The record that is written to ``topic``."""
    event, origin = letter.event, letter.origin
    place = {name: origin.coordinates.get(name, "") for name in _PLACE}
    evidence = {
        _FIRST: letter.id,
        **{PREFIX + name: text for name, text in letter.evidence.items()},
        "triggerhub-event-id": event.id,
        "triggerhub-event-source": event.source,
        **{_SOURCE + name: text for name, text in place.items() if text},
    }
    behind = tuple((name, _bytes(text)) for name, text in evidence.items())
    if not origin.coordinates:
        key = None if event.key is None else _bytes(event.key)
        front = cloud_event_headers(event)
        return Outgoing(topic=topic, key=key, value=event.data, headers=front + behind)
    timestamp = int(place["timestamp"] or -1)
    return Outgoing(
        topic=topic,
        key=origin.key,
        value=origin.value,
        headers=origin.headers + behind,
        timestamp=None if timestamp < 0 else timestamp,
    )


def cloud_event_headers(event: Event) -> Headers:
    """An event's attributes as a CloudEvent's headers in binary mode (section 3.2)."""
    attributes: dict[str, str | None] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": None if event.time is None else format_time(event.time),
        **event.extensions,
    }
    found = tuple(
        (f"ce_{name}", _bytes(value)) for name, value in attributes.items() if value is not None
    )
    if event.datacontenttype is None:
        return found
    return (*found, ("content-type", _bytes(event.datacontenttype)))


def what_died(record: Record) -> Found:
    """The record that died, of one that ``letter_record`` made; for a test event, which was none,
    one without a topic. Raises ValueError for another record."""
    headers: Headers = tuple(record.headers)
    # The last one: what died may have been a dead letter itself.
    ends = [number for number, (name, _) in enumerate(headers) if name == _FIRST]
    if not ends:
        raise ValueError(f"found no header {_FIRST}")
    front, behind = headers[: ends[-1]], headers[ends[-1] :]
    place = {
        name.removeprefix(_SOURCE): (value or b"").decode()
        for name, value in behind
        if name.startswith(_SOURCE)
    }
    return Found(
        topic=place.get("topic", ""),
        partition=int(place.get("partition", 0)),
        offset=int(place.get("offset", 0)),
        timestamp=int(place.get("timestamp", record.timestamp)),
        key=record.key,
        value=record.value,
        headers=front,
    )


def event_of(died: Found, decode: Callable[[Record], Event]) -> Event:
    """Its event, as it was decoded first."""
    event = decode(died)
    return event if died.topic else replace(event, origin=partial(_nowhere, died))


def _nowhere(died: Found) -> Origin:
    return Origin(key=died.key, value=died.value)


def coordinates_of(topic: str, partition: int, offset: int) -> Mapping[str, str]:
    """Where the letter lies."""
    return {"topic": topic, "partition": str(partition), "offset": str(offset)}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
