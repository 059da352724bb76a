"""A dead letter as a person reads it."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from triggerhub.cli.output import ago, plain

_HEAD = 256
"""Bytes shown of data that is no text."""
_LINES = 40
_WIDTH = 13


def evidence(letter: dict[str, Any]) -> Iterator[str]:
    """The lines to print of a dead letter as the API shows it whole."""
    event, origin = letter["event"], letter["origin"]
    yield _field("Dead letter", letter["id"])
    yield _field("Trigger", f"{letter['namespace']}/{letter['trigger']}")
    yield _field("Function", letter["function"])
    yield _field("Reason", f"{letter['reason']}: {letter['detail']}")
    tries = letter["attempts"]
    yield _field("Attempts", f"{tries}, the last {ago(letter['lastTime'])} ago")
    yield _field("First, last", f"{letter['firstTime']}, {letter['lastTime']}")
    answer = b64decode(letter["lastResponse_base64"])
    if letter["lastStatus"] is not None:
        yield _field("Last answer", f"status {letter['lastStatus']}, {_size(len(answer))}")
        yield from _data(answer)
    yield ""
    for title, name in (("Event", "id"), ("Source", "source"), ("Type", "type"),
                        ("Subject", "subject"), ("Time", "time"), ("Key", "key"),
                        ("Content type", "datacontenttype")):  # fmt: skip
        if event.get(name):
            yield _field(title, event[name])
    for name, value in event.get("extensions", {}).items():
        yield _field("Extension", f"{name} = {value}")
    yield from _origin(origin)
    yield from _elsewhere(letter)
    if "unread" in letter.get("elsewhere", ()):
        yield _field("Data", f"{_size(event['size'])}, not shown: {letter['elsewhere']['unread']}")
    else:
        data = b64decode(event["data_base64"])
        yield _field("Data", _size(len(data)))
        yield from _data(data)
    yield ""
    yield f"Send it again:  triggerhub dlq redrive {letter['id']}"
    yield f"All its bytes:  triggerhub dlq show {letter['id']} -o json"


def _elsewhere(letter: dict[str, Any]) -> Iterator[str]:
    if "elsewhere" in letter:
        yield _field("It lies in", _pairs(letter["elsewhere"]["coordinates"]))


def _pairs(coordinates: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in coordinates.items())


def _origin(origin: dict[str, Any]) -> Iterator[str]:
    if origin["coordinates"]:
        yield _field("From", _pairs(origin["coordinates"]))
    if origin["key_base64"] is not None:
        yield _field("Source key", _short(b64decode(origin["key_base64"])))
    for header in origin["headers"]:
        value = header["value_base64"]
        shown = "(none)" if value is None else _short(b64decode(value))
        yield _field("Header", f"{header['name']} = {shown}")


def _field(title: str, value: object) -> str:
    return f"{title:{_WIDTH}} {plain(value)}"


def _size(number: int) -> str:
    return "1 byte" if number == 1 else f"{number} bytes"


def _short(data: bytes) -> str:
    text = _text(data)
    return text if text is not None else data.hex(" ")


def _text(data: bytes) -> str | None:
    """The bytes as text, None where they are none."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c in "\n\r\t" for c in text) else None


def _data(data: bytes) -> Iterator[str]:
    """Text as text (JSON laid out), else the head of a hexdump."""
    text = _text(data)
    if text is None:
        for offset in range(0, min(len(data), _HEAD), 16):
            row = data[offset : offset + 16]
            seen = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
            yield f"  {offset:06x}  {row.hex(' '):47}  {seen}"
        if len(data) > _HEAD:
            yield f"  … {_size(len(data) - _HEAD)} more"
        return
    lines = _laid_out(text).splitlines()
    for line in lines[:_LINES]:
        shown = plain(line.replace("\t", "    "))
        yield f"  {shown[:1000]}{'…' if len(shown) > 1000 else ''}"
    if len(lines) > _LINES:
        yield f"  … {len(lines) - _LINES} more lines"


def _laid_out(text: str) -> str:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return text
