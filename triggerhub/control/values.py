"""From the manifest of a Secret or ConfigMap to what it holds, or to all that is wrong with it.

No fault shows a value, also none of a ConfigMap: who mixes them up has shown a secret.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches

from triggerhub.control.decoding import Metadata, metadata_of, wrong_api
from triggerhub.control.faults import Fault, nearest, shown
from triggerhub.control.resources import API_VERSION, CONFIG_MAP, SECRET, Manifest, Values
from triggerhub.control.scalars import ObjectName

CORE_VERSION = "v1"
MAX_DATA = 1024 * 1024
"""Bytes of all values together: what an API server takes."""
_LONGEST_KEY = 253

_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_TOP = ("apiVersion", "kind", "metadata", "immutable")
_PLAIN = {SECRET: "stringData", CONFIG_MAP: "data"}
"""Field whose values are texts."""
_ENCODED = {SECRET: "data", CONFIG_MAP: "binaryData"}
"""Field whose values are base64."""
_KINDS = {kind.lower(): kind for kind in _PLAIN}


class _Metadata(Metadata):
    name: ObjectName


def kind_meant(manifest: Manifest) -> str | None:
    """``Secret`` or ``ConfigMap``, also misspelt; None: the manifest is of another kind."""
    if manifest.kind in _PLAIN:
        return manifest.kind
    if manifest.body.get("apiVersion") != CORE_VERSION:
        return None
    # A Service is not to be taken for a Secret.
    near = get_close_matches(manifest.kind.lower(), _KINDS, n=1, cutoff=0.75)
    return _KINDS[near[0]] if near else None


def decode_values(manifest: Manifest, kind: str) -> Values | tuple[Fault, ...]:
    """What a manifest that is meant to be of that kind holds, or all that is wrong with it."""
    body = manifest.body
    faults: list[Fault] = []
    api = body.get("apiVersion")
    if api != CORE_VERSION:
        fault = wrong_api(manifest, api, CORE_VERSION)
        faults.append(fault)
        if not fault.hint and api != API_VERSION:
            return (fault,)  # somebody else's kind of that name
    if manifest.kind != kind:
        found, hint = shown(manifest.kind), f"did you mean {kind}?"
        faults.append(manifest.fault(("kind",), found=found, expected=kind, hint=hint))
    known = [*_TOP, _PLAIN[kind], _ENCODED[kind], *(["type"] if kind == SECRET else [])]
    faults += [
        manifest.fault((key,), found="unknown field", hint=nearest(key, known))
        for key in body
        if key not in known
    ]
    metadata_of(manifest, _Metadata, faults)
    if not isinstance(body.get("immutable", False), bool):
        found = _sort(body["immutable"])
        faults.append(manifest.fault(("immutable",), found=found, expected="true or false"))
    if kind == SECRET and not isinstance(body.get("type", ""), str):
        faults.append(manifest.fault(("type",), found=_sort(body["type"]), expected="a text"))
    data = _data(manifest, kind, faults)
    if faults:
        return tuple(faults)
    return Values(
        kind=kind,
        namespace=manifest.namespace,
        name=manifest.name,
        generation=manifest.generation,
        created=manifest.created,
        data=data,
        where=manifest.where,
    )


def _data(manifest: Manifest, kind: str, faults: list[Fault]) -> dict[str, bytes]:
    plain, encoded = _PLAIN[kind], _ENCODED[kind]
    binary = _entries(manifest, encoded, faults, hint=f"plain text belongs into {plain}")
    texts = _entries(manifest, plain, faults)
    if kind == CONFIG_MAP:
        faults += [
            manifest.fault((encoded, key), found="a key of data", expected="a key of its own")
            for key in binary
            if key in texts
        ]
    data = binary | texts
    size = sum(map(len, data.values()))
    if size > MAX_DATA:
        path, expected = (plain if texts else encoded,), f"at most {MAX_DATA} bytes in all"
        faults.append(manifest.fault(path, found=f"{size} bytes", expected=expected))
    return data


def _entries(
    manifest: Manifest, field: str, faults: list[Fault], *, hint: str = ""
) -> dict[str, bytes]:
    """The values of one field. ``hint``: they are base64, and it says what to do where not."""
    raw = manifest.body.get(field, {})
    if not isinstance(raw, Mapping):
        faults.append(manifest.fault((field,), found=_sort(raw), expected="a mapping"))
        return {}
    entries = {}
    for key, value in raw.items():
        wrong = _wrong_key(key)
        if wrong:
            faults.append(_key_fault(manifest, field, key, wrong, value))
        elif not isinstance(value, str):
            scalar = isinstance(value, int | float)
            faults.append(
                manifest.fault(
                    (field, key), found=_sort(value),
                    expected="base64" if hint else "a text",
                    hint="write it in quotes" if scalar else "",
                )
            )  # fmt: skip
        elif not hint:
            entries[key] = value.encode()
        else:
            try:
                # Go leaves line ends out, and wants the rest to be exact.
                entries[key] = base64.b64decode(re.sub(r"[\r\n]", "", value), validate=True)
            except ValueError:
                found = "a text that is no base64"
                faults.append(
                    manifest.fault((field, key), found=found, expected="base64", hint=hint)
                )
    return entries


def _wrong_key(key: str) -> str:
    """What is wrong with a key, as a noun phrase; empty: nothing."""
    if not key:
        return "an empty key"
    if len(key) > _LONGEST_KEY:
        return f"a key of {len(key)} characters"
    if key == "." or key.startswith(".."):
        return "a key that is a path"
    rest = _KEY.sub("", key)
    return f"a key with {json.dumps(rest[0], ensure_ascii=False)}" if rest else ""


def _key_fault(manifest: Manifest, field: str, key: str, wrong: str, value: object) -> Fault:
    """Without the key: ``{password:secret}``, which lacks a blank, is nothing but a key."""
    expected = f"keys of at most {_LONGEST_KEY} of A-Z a-z 0-9 - _ ."
    hint = "a blank is missing after the colon" if value is None and ":" in key else ""
    fault = manifest.fault((field,), found=wrong, expected=expected, hint=hint)
    return replace(fault, line=manifest.where.line((field, key)))


def _sort(value: object) -> str:
    """What sort of value something is, and nothing of the value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a number" if isinstance(value, int | float) else "a list"
