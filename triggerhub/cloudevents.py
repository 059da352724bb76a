"""CloudEvents 1.0.2 as they come in: the JSON format, and the HTTP binding's three modes.

JSON data stays as it is written, byte for byte: the event object is scanned member by member and
``data`` cut out of the text, so that ``1.50``, ``1e400`` and every space in it survive.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

from triggerhub.event import Event, Headers

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
# The name "data" is the payload's own (CloudEvents, section 3.1).
ATTRIBUTE_NAME = re.compile(r"(?!data\Z)[a-z0-9]+")

_SIGN = re.compile(r"[ \t\n\r]*([][{}:,])[ \t\n\r]*")
_INTEGER = re.compile(r"-?[0-9]+")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
# RFC 3339, section 5.6, whose note also admits a space for the T.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:[0-5]\d:\d\d(\.\d+)?(Z|[+-]\d\d:[0-5]\d)", re.ASCII | re.IGNORECASE
)


Members = dict[str, tuple[Any, str]]
"""A JSON object's: each value as Python has it, and as it is written."""


class CloudEventError(ValueError):
    """What arrived is no CloudEvent: says what was found and what was expected."""


def decode(headers: Headers, body: bytes) -> list[Event]:
    """The events in an HTTP request, in whichever of the three content modes it is.

    ``headers`` have lower-case names. Raises ``CloudEventError``; a request that bears no sign of
    CloudEvents (neither the media type nor ``ce-specversion``) is one as well.
    """
    fields = dict(headers)
    content_type = fields.get(b"content-type", b"").decode("latin-1")
    media = media_type(content_type)
    if media == STRUCTURED:
        return [from_json(body)]
    if media == BATCH:
        return [_event(each, f"[{index}].") for index, each in enumerate(_batch(_text(body)))]
    if b"ce-specversion" not in fields:
        raise CloudEventError("no CloudEvent: neither its media type nor ce-specversion was found")
    attributes = {
        name[3:].decode("latin-1"): _header_text(name, value)
        for name, value in fields.items()
        if name.startswith(b"ce-")
    }
    return [from_attributes(attributes, body, content_type or None, "ce-")]


def media_type(content_type: str) -> str:
    """``STRUCTURED``, ``BATCH`` or that of what is no CloudEvent by its media type, in lower case
    without parameters. Raises ``CloudEventError`` for events in another format than JSON."""
    media = content_type.partition(";")[0].strip().lower()
    if media.startswith("application/cloudevents") and media not in (STRUCTURED, BATCH):
        raise CloudEventError(f"content-type: found {_cut(media)}, expected {STRUCTURED}")
    return media


def is_json(content_type: str) -> bool:
    """True for ``application/json`` and every ``+json`` type, whatever the parameters."""
    return content_type.partition(";")[0].strip().lower().endswith(("/json", "+json"))


def guessed_type(data: bytes) -> str:
    """The content type of data that came without one: JSON where it begins and ends as an object
    or an array does. Nothing is parsed."""
    if data and ((data[0] == 0x7B and data[-1] == 0x7D) or (data[0] == 0x5B and data[-1] == 0x5D)):
        return "application/json"
    return "application/octet-stream"


def from_json(body: bytes) -> Event:
    """An event from its JSON format, in UTF-8 with or without a byte order mark.

    ``data`` of no stated content type is JSON (JSON format, section 3.1.2). Raises
    ``CloudEventError``.
    """
    text = _text(body)
    members, end = _members(text, 0)
    _expect_end(text, end)
    return _event(members, "")


def from_attributes(
    attributes: Mapping[str, str], data: bytes, datacontenttype: str | None, where: str = ""
) -> Event:
    """An event in binary mode: its context attributes (``specversion`` among them; a
    ``datacontenttype`` among them does not count) and its data.

    ``where`` stands before an attribute's name in the error's text. Raises ``CloudEventError``.
    """
    extensions = dict(attributes)
    for name, text in extensions.items():
        if not ATTRIBUTE_NAME.fullmatch(name):
            found = _cut(where + name)
            raise CloudEventError(f"attribute name: found {found}, expected a-z, 0-9; not data")
        _encode(text, where + name)
    version = extensions.pop("specversion", None)
    if version != "1.0":
        found = "nothing" if version is None else _cut(version)
        raise CloudEventError(f"{where}specversion: found {found}, expected '1.0'")
    required = ("id", "source", "type")
    if missing := [where + name for name in required if not extensions.get(name)]:
        raise CloudEventError(f"{', '.join(missing)}: found nothing, expected a text")
    extensions.pop("datacontenttype", None)
    moment = extensions.pop("time", None)
    return Event(
        id=extensions.pop("id"),
        source=extensions.pop("source"),
        type=extensions.pop("type"),
        data=data,
        datacontenttype=datacontenttype,
        subject=extensions.pop("subject", None),
        time=None if moment is None else _time(moment, where),
        key=extensions.pop("partitionkey", None),
        extensions=extensions,
    )


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


def _header_text(name: bytes, value: bytes) -> str:
    """HTTP binding, section 3.1.3.2: quoted strings, then a single round of percent-decoding."""
    value = value.strip()
    if quoted := _QUOTED.fullmatch(value):
        value = _ESCAPED.sub(rb"\1", quoted[1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        where, found = name.decode("latin-1"), _cut(value.decode("latin-1"))
        raise CloudEventError(f"{where}: found {found}, expected percent-encoded UTF-8") from None


def _time(text: str, where: str) -> datetime:
    try:
        if _RFC3339.fullmatch(text):
            # A leap second, which datetime does not have, is the second before it.
            return datetime.fromisoformat(text.upper().replace(":60", ":59"))
    except ValueError:
        pass  # a date or an offset that does not exist
    raise CloudEventError(f"{where}time: found {_cut(text)}, expected an RFC 3339 time")


def _event(members: Members, where: str) -> Event:
    data, written = members.pop("data", (None, ""))
    encoded, _ = members.pop("data_base64", (None, ""))
    attributes = {
        name: _attribute(found, text, where + name)
        for name, (found, text) in members.items()
        if found is not None  # null is the same as unset (JSON format, section 2.2)
    }
    content_type = attributes.get("datacontenttype") or None
    if encoded is not None:
        if data is not None:
            raise CloudEventError(f"{where}data: found both data and data_base64, expected one")
        try:
            body = base64.b64decode(encoded, validate=True)
        except (ValueError, TypeError) as error:
            found = f"found no valid base64 ({error})"
            raise CloudEventError(f"{where}data_base64: {found}, expected a string of it") from None
    elif content_type and not is_json(content_type) and isinstance(data, str | None):
        body = _encode(data or "", f"{where}data")
    else:
        body = written.encode()
        content_type = content_type or ("application/json" if body else None)
    return from_attributes(attributes, body, content_type, where)


def _attribute(found: Any, written: str, where: str) -> str:
    if isinstance(found, str):
        return found
    if isinstance(found, bool) or _INTEGER.fullmatch(written):
        return written
    raise CloudEventError(f"attribute {_cut(where)}: found {_cut(written)}, expected a string")


def _no_constant(name: str) -> NoReturn:
    raise CloudEventError(f"its JSON: found {name}, expected a number or null")


# As floats, numbers of any length are read; what counts is how they are written.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_int=float)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CloudEventError(f"its JSON is not UTF-8 at byte {error.start}") from None


def _members(text: str, at: int) -> tuple[Members, int]:
    """An object's members (of equal names the last one wins), and where what follows it begins."""
    members: Members = {}
    sign, at = _sign(text, at, "{", "an event object")
    if text.startswith("}", at):
        sign, at = _sign(text, at, "}", "'}'")
    while sign != "}":
        if not text.startswith('"', at):
            raise _broken(text, at, "a name in double quotes")
        name, at = _value(text, at)
        _, start = _sign(text, at, ":", "':'")
        value, at = _value(text, start)
        members[name] = value, text[start:at]
        sign, at = _sign(text, at, ",}", "',' or '}'")
    return members, at


def _batch(text: str) -> list[Members]:
    batch: list[Members] = []
    sign, at = _sign(text, 0, "[", "a list of events")
    if text.startswith("]", at):
        sign, at = _sign(text, at, "]", "']'")
    while sign != "]":
        members, at = _members(text, at)
        batch.append(members)
        sign, at = _sign(text, at, ",]", "',' or ']'")
    _expect_end(text, at)
    return batch


def _sign(text: str, at: int, signs: str, expected: str) -> tuple[str, int]:
    """Which of the signs comes next, and where what follows it begins; both after white space."""
    found = _SIGN.match(text, at)
    if found is None or found[1] not in signs:
        raise _broken(text, at, expected)
    return found[1], found.end()


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise CloudEventError(f"its JSON is broken: {error}") from None
    except RecursionError:
        raise CloudEventError(f"its JSON, character {at}: nested too deeply") from None


def _expect_end(text: str, at: int) -> None:
    if at != len(text):
        raise _broken(text, at, "nothing more")


def _broken(text: str, at: int, expected: str) -> CloudEventError:
    at = len(text) - len(text[at:].lstrip(" \t\n\r"))
    # One character, not more: what follows may be data.
    found = repr(text[at]) if at < len(text) else "the end"
    return CloudEventError(f"its JSON, character {at}: found {found}, expected {expected}")


def _encode(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise CloudEventError(f"{where}: found half of a surrogate pair, expected text") from None


def _cut(text: str) -> str:
    """Quoted, escaped and not longer than an error's text bears."""
    return repr(text if len(text) <= 80 else text[:79] + "…")
