"""The admin API's JSON shapes: values of the hub to plain data, and requests back to values."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from triggerhub.admin.states import BindingView, FunctionView
from triggerhub.control.status import TriggerStatus
from triggerhub.durations import seconds
from triggerhub.event import Event
from triggerhub.store.records import DeadLetter, Delivery, Selection

Json = dict[str, Any]

_SELECTION = ("ids", "trigger", "function", "reason", "olderThan")


class BadRequest(ValueError):  # noqa: N818 - a fact about the request
    """What was asked makes no sense: one sentence, found and expected."""


def moment(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339, UTC, milliseconds."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def binding_json(binding: BindingView) -> Json:
    """All fields, in camelCase."""
    return {_camel(field.name): getattr(binding, field.name) for field in fields(binding)}


def function_json(function: FunctionView) -> Json:
    """All fields."""
    return {field.name: getattr(function, field.name) for field in fields(function)}


def trigger_json(status: TriggerStatus) -> Json:
    """A trigger's status as its manifest would bear it."""
    return {
        "kind": status.kind,
        "namespace": status.namespace,
        "name": status.name,
        "observedGeneration": status.observed_generation,
        "conditions": [
            {
                "type": condition.type,
                "status": condition.status.value,
                "reason": condition.reason,
                "message": condition.message,
            }
            for condition in status.conditions
        ],
        "bindings": list(status.bindings),
    }


def letter_json(letter: DeadLetter, *, whole: bool, unread: str = "") -> Json:
    """A dead letter; ``whole`` adds its bytes, in base64: data, last response, origin. ``unread``:
    why those that lie elsewhere are not there."""
    shape: Json = {
        "id": letter.id,
        "binding": letter.binding,
        "namespace": letter.namespace,
        "trigger": letter.trigger,
        "function": letter.function,
        "reason": letter.reason,
        "detail": letter.detail,
        "lastStatus": letter.last_status,
        "attempts": letter.attempts,
        "firstTime": moment(letter.first_time),
        "lastTime": moment(letter.last_time),
        "event": _event_json(letter.event),
    }
    if letter.elsewhere is not None:
        lies = letter.elsewhere
        shape["event"]["size"] = lies.size
        shape["elsewhere"] = {"kind": lies.kind, "coordinates": dict(lies.coordinates)}
        if unread:
            shape["elsewhere"]["unread"] = unread
    if whole:
        shape["event"]["data_base64"] = _base64(letter.event.data)
        shape["lastResponse_base64"] = _base64(letter.last_response)
        key = letter.origin.key
        shape["origin"] = {
            "coordinates": dict(letter.origin.coordinates),
            "key_base64": None if key is None else _base64(key),
            "headers": [
                {"name": name, "value_base64": None if value is None else _base64(value)}
                for name, value in letter.origin.headers
            ],
        }
    return shape


def delivery_json(delivery: Delivery) -> Json:
    """What became of one event on one binding."""
    return {
        "binding": delivery.binding,
        "source": delivery.source,
        "id": delivery.id,
        "type": delivery.type,
        "received": moment(delivery.received),
        "ended": None if delivery.ended is None else moment(delivery.ended),
        "settled": None if delivery.settled is None else delivery.settled.value,
        "detail": delivery.detail,
        "attempts": [
            {
                "number": attempt.number,
                "time": moment(attempt.time),
                "seconds": round(attempt.seconds, 6),
                "status": attempt.status,
                "error": attempt.error,
            }
            for attempt in delivery.attempts
        ],
        "deadLetter": delivery.dead_letter,
    }


def selection_of(shape: Mapping[str, object]) -> Selection:
    """Which dead letters a request means: ``ids`` (list), ``trigger``, ``function``, ``reason``,
    ``olderThan`` (a Go duration, or seconds). Raises ``BadRequest``."""
    for name in shape:
        if name not in _SELECTION:
            raise BadRequest(f"unknown field {name!r}, expected {', '.join(_SELECTION)} or all")
    ids = shape.get("ids", [])
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise BadRequest(f"ids: found {_shown(ids)}, expected a list of dead letters' ids")
    if "ids" in shape and not ids:
        raise BadRequest("ids: found an empty list, expected at least one dead letter's id")
    texts = {}
    for name in ("trigger", "function", "reason"):
        value = shape.get(name, "")
        if not isinstance(value, str) or (name in shape and not value):
            raise BadRequest(f"{name}: found {_shown(value)}, expected a text")
        texts[name] = value
    return Selection(ids=tuple(ids), older_than=_age(shape.get("olderThan")), **texts)


def duration_of(name: str, value: object, default: float) -> float:
    """Seconds of a field that is a Go duration or a number. Raises ``BadRequest``."""
    if value is None:
        return default
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    if isinstance(value, str):
        try:
            return seconds(value)
        except ValueError:
            pass
    raise BadRequest(f"{name}: found {_shown(value)}, expected a duration such as 30s, 5m, 24h")


def _age(value: object) -> float | None:
    return None if value is None else duration_of("olderThan", value, 0.0)


def _event_json(event: Event) -> Json:
    shape: Json = {"id": event.id, "source": event.source, "type": event.type}
    optional = {
        "subject": event.subject,
        "time": None if event.time is None else event.time.isoformat(),
        "datacontenttype": event.datacontenttype,
        "key": event.key,
        "fault": event.fault,
    }
    shape.update({name: value for name, value in optional.items() if value is not None})
    if event.extensions:
        shape["extensions"] = dict(event.extensions)
    shape["size"] = len(event.data)
    return shape


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else text[:60] + "…"
