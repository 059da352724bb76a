"""A dead letter as a message, and back.

The message has the data and the headers of the one that died. Before them stands its own identity,
``Nats-Msg-Id``: some servers look no further than the first place where that text is. Behind them
come
``triggerhub-dead-letter``, the letter's id, and then the evidence, each as ``triggerhub-<name>``.
A header whose name begins with ``Nats-`` would mean something to the stream that takes the letter
(``Nats-Rollup`` would empty it): it is kept as ``triggerhub-header-<name>``. A test event, which
was no message before, is written as a CloudEvent with ``ce-`` headers, percent-encoded as in HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

from triggerhub.cloudevents import format_time
from triggerhub.connector import Letter
from triggerhub.event import Event, Origin
from triggerhub.nats.headers import Headers, Pairs, block_of, pairs_of
from triggerhub_nats.decode import Place, event_of

PREFIX = "triggerhub-"
_FIRST = "triggerhub-dead-letter"
_SOURCE = "triggerhub-source-"
_SHIELDED = "triggerhub-header-"
_OWN = "nats-"
IDENTITY = "Nats-Msg-Id"
_VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class Outgoing(NamedTuple):
    """A message to be published."""

    subject: str
    headers: bytes
    """The whole block."""
    data: bytes

    @property
    def size(self) -> int:
        """Bytes, as a server counts them against ``max_payload``."""
        return len(self.headers) + len(self.data)


def letter_message(subject: str, binding: str, letter: Letter, again: str = "") -> Outgoing:
    """The message that is published to ``subject``. ``again`` makes its identity another."""
    event, origin = letter.event, letter.origin
    data = event.data if origin.value is None else origin.value
    front = origin.headers if origin.coordinates else cloud_event_headers(event)
    evidence = {
        _FIRST: letter.id,
        **{PREFIX + name: text for name, text in letter.evidence.items()},
        "triggerhub-event-id": event.id,
        "triggerhub-event-source": event.source,
        **{_SOURCE + name: text for name, text in origin.coordinates.items() if text},
    }
    pairs = (
        *((_shielded(name), value or b"") for name, value in front),
        *((name, _bytes(text)) for name, text in evidence.items()),
    )
    # A stream that was made again gives the identities of old messages to others.
    what = hashlib.sha256(origin.coordinates.get("time", "").encode() + data)
    token = what.hexdigest()[:16] + again
    named = (IDENTITY, identity("letter", binding, event, token))
    return Outgoing(subject, block_of((named, *pairs)), data)


def identity(kind: str, binding: str, event: Event, token: str = "") -> bytes:
    """``Nats-Msg-Id``: a stream takes one message with it, within its window for duplicates."""
    return _bytes(f"{binding}/{kind}{token and f':{token}'}:{event.source}/{event.id}")


def cloud_event_headers(event: Event) -> tuple[tuple[str, bytes], ...]:
    """An event's attributes as a CloudEvent's headers."""
    attributes: dict[str, str | None] = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": None if event.time is None else format_time(event.time),
        "partitionkey": event.key,
        **event.extensions,
    }
    found = tuple(
        (f"ce-{name}", quote(value, safe=_VISIBLE).encode())
        for name, value in attributes.items()
        if value is not None
    )
    if event.datacontenttype is None:
        return found
    return (*found, ("content-type", _bytes(event.datacontenttype)))


def event_that_died(raw: bytes, data: bytes, by: str | None) -> Event:
    """The event of a message that ``letter_message`` made, as it was decoded first. ``raw``: its
    headers; ``by``: as of ``event_of``. Raises ValueError for another message."""
    pairs = pairs_of(raw)
    # The last one: what died may have been a dead letter itself.
    ends = [number for number, (name, _) in enumerate(pairs) if name == _FIRST]
    if not ends:
        raise ValueError(f"found no header {_FIRST}")
    front = tuple(
        (name.removeprefix(_SHIELDED) if _is_shielded(name) else name, value)
        for name, value in pairs[1 : ends[-1]]
    )
    evidence = {name: value.decode("utf-8", "replace") for name, value in pairs[ends[-1] :]}
    place = {
        name.removeprefix(_SOURCE): value
        for name, value in evidence.items()
        if name.startswith(_SOURCE)
    }
    subject = place.pop("subject", "")
    time = place.pop("time", "")
    there = Place(
        source=evidence.get("triggerhub-event-source", ""),
        id=evidence.get("triggerhub-event-id", ""),
        time=datetime.fromisoformat(time) if time else None,
        coordinates=place,
    )
    event = event_of(there, subject, _headers(front), data, by=by)
    if subject:
        return event
    keys = (value.decode() for name, value in front if name == "ce-partitionkey")
    key = next((unquote(text) for text in keys), None)
    return replace(event, origin=Origin, key=key)


def coordinates_of(subject: str, stream: str, sequence: int) -> Mapping[str, str]:
    """Where the letter lies."""
    return {"subject": subject, "stream": stream, "sequence": str(sequence)}


def _headers(pairs: Pairs) -> Headers | None:
    if not pairs:
        return None
    texts = {name: value.decode("utf-8", "replace") for name, value in pairs}
    return Headers(texts, block_of(pairs))


def _shielded(name: str) -> str:
    # One that looks shielded is shielded again, so that it comes back as it was.
    needed = name.lower().startswith(_OWN) or _is_shielded(name)
    return _SHIELDED + name if needed else name


def _is_shielded(name: str) -> bool:
    rest = name
    while rest.startswith(_SHIELDED):
        rest = rest.removeprefix(_SHIELDED)
    return rest is not name and rest.lower().startswith(_OWN)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
