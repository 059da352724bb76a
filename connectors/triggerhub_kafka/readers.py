"""Data in the form of a schema, as JSON.

Avro becomes plain JSON, not Avro's JSON encoding: a union is the value itself; bytes and fixed are
base64; a decimal is a text, so that no digit is lost; dates and times are texts (RFC 3339), a
timestamp in UTC, a local one without a zone; enums and UUIDs are texts; of the floats, ``NaN``,
``Infinity`` and ``-Infinity`` are texts. JSON is checked, and stays as it is, byte for byte.

The one module that imports fastavro and jsonschema_rs; imported where a source has a registry.
"""

from __future__ import annotations

import io
import json
import math
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import jsonschema_rs
from fastavro import _read_py as slow_and_safe

from triggerhub_kafka.registry import NoSchema, Registered, Unfit

HEAD = 5
"""Bytes before the data: a zero, and the schema's id."""

Read = Callable[[bytes], bytes]
"""From a record's value, with its head, to JSON. Raises Unfit."""

_WRAP = "_of_triggerhub"

_dumps = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=lambda value: _text(value)
).encode


def reader(schema: Registered) -> tuple[str, Read]:
    """The schema's name, empty where it has none, and what reads its data. Raises NoSchema for
    one that cannot be used."""
    if schema.kind not in ("AVRO", "JSON"):
        raise NoSchema(f"the schema is of type {schema.kind}, expected AVRO or JSON")
    try:
        return _avro(schema) if schema.kind == "AVRO" else _json(schema)
    except NoSchema:
        raise
    except Exception as error:  # of two parsers: whatever they raise means one thing
        raise NoSchema(f"the schema cannot be used: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _avro(schema: Registered) -> tuple[str, Read]:
    named: dict[str, Any] = {}
    for _, text in schema.references:
        fastavro.parse_schema(json.loads(text), named_schemas=named)
    raw = json.loads(schema.text)
    own = isinstance(raw, Mapping) and raw.get("type") in ("record", "error")
    # fastavro remembers the types that a record refers to, and no others'. In a record of its own,
    # a value of any type has the same bytes.
    whole = raw if own else {"type": "record", "name": _WRAP, "fields": [{"name": "", "type": raw}]}
    parsed: Any = fastavro.parse_schema(whole, named_schemas=named)
    shape = _Shape(named)
    shape.look(parsed)
    # fastavro's compiled reader has no bound on its depth: data that is nested deeply enough would
    # overflow the stack, and end the process. The one in Python raises RecursionError.
    decode = slow_and_safe.schemaless_reader if shape.recursive else fastavro.schemaless_reader

    def read(value: bytes) -> bytes:
        data = io.BytesIO(value)
        data.seek(HEAD)
        try:
            found: Any = decode(data, parsed, None)
            if not own:
                found = found[""]
            left = len(value) - data.tell()
            if left:
                raise Unfit(f"{left} bytes are left over")
            return _encoded(found)
        except Unfit:
            raise
        except RecursionError:
            raise Unfit("it is nested too deeply") from None
        except Exception as error:  # fastavro raises whatever its reading runs into
            raise Unfit(_said(error)) from error

    top = parsed if own else parsed["fields"][0]["type"]
    name = top.get("name") if isinstance(top, Mapping) else None
    return name or "", read


class _Shape:
    """What of an Avro schema a reader must know beforehand."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self.recursive = False
        """A type contains itself."""
        self._named = named
        self._within: list[str] = []
        self._sizes: dict[str, int] = {}

    def look(self, schema: Any) -> int:
        """The fewest bytes that a value takes: 0, or 1 for more. Raises NoSchema where an array's
        items take none: a few bytes of data could then stand for more items than memory holds."""
        if isinstance(schema, list):
            for part in schema:
                self.look(part)
            return 1
        if isinstance(schema, str):
            if schema in self._named:
                return self._type(schema, self._named[schema])
            return int(schema != "null")
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._type(schema["name"], schema)
        if kind == "array":
            if not self.look(schema["items"]):
                raise NoSchema(
                    "an array's items take no bytes, so that nothing bounds their number"
                )
            return 1
        if kind == "map":
            self.look(schema["values"])
            return 1
        if kind == "fixed":
            return int(schema["size"] > 0)
        return 1 if kind == "enum" else self.look(kind)

    def _type(self, name: str, schema: Mapping[str, Any]) -> int:
        if schema["type"] not in ("record", "error"):
            return self.look(schema)
        if name in self._within:
            self.recursive = True
            return 1
        if name not in self._sizes:
            self._within.append(name)
            # Each field is looked at, also after one that takes a byte.
            self._sizes[name] = max(
                [self.look(field["type"]) for field in schema["fields"]], default=0
            )
            self._within.pop()
        return self._sizes[name]


def _encoded(value: Any) -> bytes:
    try:
        return _dumps(value).encode()
    except ValueError:  # a float that JSON does not know
        return _dumps(_without_them(value)).encode()


def _without_them(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: _without_them(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_them(part) for part in value]
    return value


def _text(value: object) -> str:
    """What of Avro JSON has no type for."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"found {type(value).__name__}, expected a type of Avro")


def _json(schema: Registered) -> tuple[str, Read]:
    parsed = json.loads(schema.text)
    known = {name: json.loads(text) for name, text in schema.references}

    def retrieve(uri: str) -> Any:
        for name, text in known.items():
            if uri == name or uri.endswith(f"/{name}"):
                return text
        raise ValueError(f"it refers to {uri}, which is none of its references")

    # Where a schema does not say its draft, Confluent's registry takes it for draft 7.
    says = isinstance(parsed, Mapping) and "$schema" in parsed
    make = jsonschema_rs.validator_for if says else jsonschema_rs.Draft7Validator
    validator = make(parsed, retriever=retrieve, mask="the value")

    def read(value: bytes) -> bytes:
        data = value[HEAD:]
        try:
            validator.validate(json.loads(data, parse_constant=_constant))
        except jsonschema_rs.ValidationError as error:
            at = "".join(f"/{part}" for part in error.instance_path) or "the whole"
            raise Unfit(f"{at}: {' '.join(error.message.split())[:200]}") from None
        except (ValueError, RecursionError) as error:
            raise Unfit(f"no JSON: {_said(error)}") from None
        return data

    title = parsed.get("title") if isinstance(parsed, Mapping) else None
    return title if isinstance(title, str) else "", read


def _constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")
