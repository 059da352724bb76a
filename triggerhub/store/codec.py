"""Dead letters and deliveries as rows, and back. Bytes stay bytes; text that is not valid
Unicode survives too (it is kept as JSON with ASCII escapes)."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import asdict, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from triggerhub.event import Event, Origin, Request, Settled
from triggerhub.store.records import Attempt, DeadLetter, Delivery, Elsewhere, Entry, StoreError

LETTER_COLUMNS = (
    "id, namespace, trigger, function, reason, evidence, last_response, origin_key, data, elsewhere"
)

LetterRow = tuple[str, str, str, str, str, str, bytes, bytes | None, bytes, str | None]

_REQUIRED = ("id", "source", "type")
_ATTRIBUTES = (*_REQUIRED, "datacontenttype", "subject", "key", "fault")
_attributes = attrgetter(*_ATTRIBUTES)
_to_json = json.JSONEncoder(default=str).encode


def searchable(text: str) -> str:
    """Text that a column can hold: lone surrogates, which UTF-8 has no form for, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def letter_row(letter: DeadLetter) -> LetterRow:
    """The values of ``LETTER_COLUMNS``."""
    event, origin = letter.event, letter.origin
    evidence = {
        **_event_fields(event),
        **_origin_fields(origin),
        "detail": letter.detail,
        "lastStatus": letter.last_status,
        "attempts": letter.attempts,
        "firstTime": letter.first_time,
        "lastTime": letter.last_time,
    }
    if origin.value != event.data:  # else it is kept but once
        evidence["value"] = _base64(origin.value)
    return (
        searchable(letter.id),
        searchable(letter.namespace),
        searchable(letter.trigger),
        searchable(letter.function),
        searchable(letter.reason),
        _to_json(evidence),
        letter.last_response,
        origin.key,
        event.data,
        None if letter.elsewhere is None else json.dumps(asdict(letter.elsewhere)),
    )


def letter_of(row: LetterRow) -> DeadLetter:
    """Raises ``StoreError`` when the row makes no sense."""
    letter_id, namespace, trigger, function, reason, evidence = row[:6]
    last_response, key, data, elsewhere = row[6:]
    try:
        kept = json.loads(evidence)
        return DeadLetter(
            id=letter_id,
            namespace=namespace,
            trigger=trigger,
            function=function,
            event=_event(kept, data),
            origin=_origin(kept, key, data),
            reason=reason,
            detail=kept["detail"],
            last_status=kept["lastStatus"],
            last_response=last_response,
            attempts=kept["attempts"],
            first_time=kept["firstTime"],
            last_time=kept["lastTime"],
            elsewhere=None if elsewhere is None else Elsewhere(**json.loads(elsewhere)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"dead letter {letter_id} is damaged: {error!r}") from error


def entry_text(event: Event) -> str:
    """An event of an inbox as JSON, without its data."""
    kept = _event_fields(event)
    if event.origin is not None:
        origin = event.origin()
        kept |= _origin_fields(origin)
        kept["key"] = _base64(origin.key)
        if origin.value != event.data:
            kept["value"] = _base64(origin.value)
    return _to_json(kept)


def entry_of(number: int, text: bytes, data: bytes) -> Entry:
    """Where the text makes no sense, ``damaged``: what comes behind it must not wait for it."""
    try:
        kept = json.loads(text.decode())
        event = _event(kept, data)
        _check(event)
        if "coordinates" in kept:
            origin = _origin(kept, _bytes(kept["key"]), data)
            event = replace(event, origin=lambda: origin)
        return Entry(number, event)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        return damaged(number, text, data, repr(error))


def damaged(number: int, text: bytes, data: bytes, why: str) -> Entry:
    """An entry that is no event any more: as one that becomes a dead letter, with all its bytes
    (``origin.value``: the text, a line feed, the data)."""
    origin = Origin(coordinates={"entry": str(number)}, value=text + b"\n" + data)
    event = Event(
        id=str(number),
        source="/triggerhub/inbox",
        type="dev.triggerhub.inbox.damaged",
        data=data,
        origin=lambda: origin,
        fault=f"entry {number} of the inbox is damaged: {why}",
    )
    return Entry(number, event)


def _check(event: Event) -> None:
    """Raises ``TypeError`` for an attribute that nobody puts."""
    for name in _ATTRIBUTES:
        value = getattr(event, name)
        if not isinstance(value, str) and (value is not None or name in _REQUIRED):
            raise TypeError(f"{name} is {type(value).__name__}, expected str")
    for name, value in event.extensions.items():
        if not isinstance(value, str):
            raise TypeError(f"extension {name} is {type(value).__name__}, expected str")
    request = event.request
    if request is not None and not all(
        isinstance(text, str) for text in (request.method, request.path, request.query)
    ):
        raise TypeError("the request's method, path and query are to be str")


def _event_fields(event: Event) -> dict[str, Any]:
    attributes = zip(_ATTRIBUTES, _attributes(event), strict=True)
    kept: dict[str, Any] = {
        "event": {name: value for name, value in attributes if value is not None},
        "time": None if event.time is None else event.time.isoformat(),
        "extensions": dict(event.extensions) if event.extensions else {},
    }
    request = event.request
    if request is not None and request.deferred:  # else it belongs to the process
        headers = [[n.decode("latin-1"), v.decode("latin-1")] for n, v in request.headers]
        kept["request"] = [request.method, request.path, request.query, headers]
    return kept


def _event(kept: dict[str, Any], data: bytes) -> Event:
    time, request = kept["time"], kept.get("request")
    return Event(
        **kept["event"],
        data=data,
        time=None if time is None else datetime.fromisoformat(time),
        extensions=kept["extensions"],
        request=None if request is None else _request(*request),
    )


def _request(method: str, path: str, query: str, headers: list[list[str]]) -> Request:
    fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
    return Request(method=method, path=path, query=query, headers=fields, deferred=True)


def _origin_fields(origin: Origin) -> dict[str, Any]:
    return {
        "coordinates": dict(origin.coordinates),
        "headers": [[name, _base64(value)] for name, value in origin.headers],
    }


def _origin(kept: dict[str, Any], key: bytes | None, data: bytes) -> Origin:
    return Origin(
        coordinates=kept["coordinates"],
        key=key,
        headers=tuple((name, _bytes(value)) for name, value in kept["headers"]),
        value=_value(kept, data),
    )


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode("ascii")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def _value(kept: dict[str, Any], data: bytes) -> bytes | None:
    value = kept.get("value", data)
    return b64decode(value) if isinstance(value, str) else value


def delivery_text(delivery: Delivery) -> str:
    """One delivery as JSON."""
    return _to_json(
        {
            "binding": delivery.binding,
            "source": delivery.source,
            "id": delivery.id,
            "type": delivery.type,
            "received": delivery.received,
            "ended": delivery.ended,
            "settled": delivery.settled,
            "detail": delivery.detail,
            "attempts": [
                [tried.number, tried.time, tried.seconds, tried.status, tried.error]
                for tried in delivery.attempts
            ],
            "dead_letter": delivery.dead_letter,
        }
    )


def delivery_of(text: str) -> Delivery:
    """Raises ``StoreError`` when the text makes no sense."""
    try:
        kept: dict[str, Any] = json.loads(text)
        settled = kept.pop("settled")
        return Delivery(
            settled=None if settled is None else Settled(settled),
            attempts=tuple(
                Attempt(number=number, time=time, seconds=seconds, status=status, error=error)
                for number, time, seconds, status, error in kept.pop("attempts")
            ),
            **kept,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"a delivery in the journal is damaged: {error!r}") from error
