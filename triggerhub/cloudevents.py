"""CloudEvents 1.0.2 as they come in: the JSON format, and the HTTP binding's three modes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from triggerhub.event import Event, Headers

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
ATTRIBUTE_NAME = re.compile(r"[a-z0-9]+")


class CloudEventError(ValueError):
    """What arrived is no CloudEvent: says what was found and what was expected."""


def decode(headers: Headers, body: bytes) -> list[Event]:
    """The events in an HTTP request, in whichever of the three content modes it is.

    ``headers`` have lower-case names. Raises ``CloudEventError``; a request that bears no sign of
    CloudEvents (neither the media type nor ``ce-specversion``) is one as well.
    """
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    content_type = fields.get("content-type", "")
    media = content_type.partition(";")[0].strip().lower()
    if media == STRUCTURED:
        return [from_json(parse_json(body))]
    if media == BATCH:
        batch = parse_json(body)
        if not isinstance(batch, list):
            raise CloudEventError(f"batch: found {_json_type(batch)}, expected a list of events")
        return [from_json(item, f"[{index}]") for index, item in enumerate(batch)]
    if media.startswith("application/cloudevents"):
        raise CloudEventError(f"content-type: found {media}, expected {STRUCTURED} or {BATCH}")
    attributes: dict[str, Any] = {
        name[3:]: unquote(value.strip().strip('"'))
        for name, value in fields.items()
        if name.startswith("ce-")
    }
    if "specversion" not in attributes:
        raise CloudEventError("no CloudEvent: neither its media type nor ce-specversion was found")
    if content_type:
        attributes["datacontenttype"] = content_type
    return [from_attributes(attributes, body, "ce-")]


def from_json(item: Any, where: str = "") -> Event:
    """An event from its JSON format. ``where`` begins the error's text. Raises
    ``CloudEventError``."""
    if not isinstance(item, Mapping):
        raise CloudEventError(f"{where}: found {_json_type(item)}, expected an event object")
    attributes = {k: v for k, v in item.items() if k not in ("data", "data_base64")}
    content_type = attributes.get("datacontenttype")
    if item.get("data_base64") is not None:
        if item.get("data") is not None:
            raise CloudEventError(f"{where}: found both data and data_base64, expected one of them")
        try:
            body = base64.b64decode(item["data_base64"], validate=True)
        except (ValueError, TypeError) as error:
            raise CloudEventError(f"{where}data_base64: no valid base64 ({error})") from None
    elif item.get("data") is None:
        body = b""
    elif isinstance(item["data"], str) and content_type and not is_json(str(content_type)):
        body = item["data"].encode(errors="replace")
    else:
        # JSON format 3.1: without a datacontenttype the data is JSON.
        body = dump_json(item["data"])
        attributes.setdefault("datacontenttype", "application/json")
    return from_attributes(attributes, body, where)


def is_json(content_type: str) -> bool:
    """True for ``application/json`` and every ``+json`` type, whatever the parameters."""
    media = content_type.partition(";")[0].strip().lower()
    return media.endswith(("/json", "+json"))


def format_time(moment: datetime) -> str:
    """RFC 3339, in UTC where the moment is."""
    text = moment.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def dump_json(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair: legal in JSON as an escape only
        return json.dumps(value, separators=(",", ":")).encode()


def from_attributes(attributes: Mapping[str, Any], body: bytes, where: str = "") -> Event:
    """An event from its context attributes (``specversion`` among them) and its data. ``where``
    begins the error's text. Raises ``CloudEventError``."""
    attributes = dict(attributes)
    version = attributes.pop("specversion", None)
    if version != "1.0":
        raise CloudEventError(f"{where}specversion: found {version!r}, expected '1.0'")
    known: dict[str, Any] = {}
    for name in ("id", "source", "type"):
        value = attributes.pop(name, None)
        if not isinstance(value, str) or not value:
            raise CloudEventError(f"{where}{name}: found {value!r}, expected a non-empty string")
        known[name] = value
    for name in ("subject", "datacontenttype"):
        known[name] = _text(attributes.pop(name, None), where + name)
    known["key"] = _text(attributes.pop("partitionkey", None), where + "partitionkey")
    moment = _text(attributes.pop("time", None), where + "time")
    if moment is not None:
        known["time"] = _time(moment, where + "time")
    extensions: dict[str, str] = {}
    for name, value in attributes.items():
        if not ATTRIBUTE_NAME.fullmatch(name):
            raise CloudEventError(f"{where}{name}: attribute names consist of a-z and 0-9")
        text = _text(value, where + name)
        if text is not None:
            extensions[name] = text
    return Event(data=body, extensions=extensions, **known)


def _text(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise CloudEventError(f"{where}: found {_json_type(value)}, expected a string")


def _time(text: str, where: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CloudEventError(f"{where}: found {text!r}, expected an RFC 3339 time") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def parse_json(body: bytes) -> Any:
    """Raises ``CloudEventError``."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CloudEventError(f"the body is no JSON ({error})") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"found {name}, which JSON does not have")


def _json_type(value: Any) -> str:
    names: Iterable[tuple[type, str]] = (
        (dict, "an object"),
        (list, "a list"),
        (str, "a string"),
        (bool, "a boolean"),
        (int, "a number"),
        (float, "a number"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "null")
