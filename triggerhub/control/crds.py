"""The CustomResourceDefinitions: the hub's half of each kind and its connector's, from the
models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triggerhub.control.kinds import spec_rules, trigger_spec
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import API_VERSION, FUNCTION, GROUP, VERSION, plural_of
from triggerhub.control.schemas import Schema, structural
from triggerhub.control.specs import FunctionSpec
from triggerhub.fields import VALIDATIONS, cel_text, written

CATEGORY = "triggerhub"

_NAMES = {
    "rule": "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "message": "metadata.name: expected at most 63 of a-z 0-9 -, first and last a letter or digit",
}
_TIME: Schema = {"type": "string", "format": "date-time"}
_TEXT: Schema = {"type": "string"}
_CONDITIONS: Schema = {
    "type": "array",
    "description": "What is true of it, as conditions; Ready is the summary.",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["type"],
    "items": {
        "type": "object",
        "description": "One condition.",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": _TEXT | {"maxLength": 316, "description": "What it is about."},
            "status": _TEXT | {"enum": ["True", "False", "Unknown"], "description": "Whether so."},
            "reason": _TEXT
            | {"maxLength": 1024, "minLength": 1, "description": "Why, in one CamelCase word.",
               "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
            "message": _TEXT | {"maxLength": 32768, "description": "Why, and what to do."},
            "lastTransitionTime": _TIME | {"description": "Since when its status is what it is."},
            "observedGeneration": {
                "type": "integer", "format": "int64", "minimum": 0,
                "description": "The metadata.generation that it speaks of.",
            },
        },
    },
}  # fmt: skip
_OBSERVED: Schema = {
    "type": "integer", "format": "int64",
    "description": "The metadata.generation that the status speaks of.",
}  # fmt: skip
_TRIGGER_STATUS: Schema = {
    "type": "object",
    "description": "How it stands; written by the hub.",
    "properties": {
        "observedGeneration": _OBSERVED,
        "conditions": _CONDITIONS,
        "bindings": {
            "type": "array",
            "description": "The functions that get its events.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["function"],
            "items": {
                "type": "object",
                "description": "One function.",
                "required": ["function"],
                "properties": {
                    "function": _TEXT | {"description": "Its name."},
                    "url": _TEXT | {"description": "Where it is reached."},
                    "seek": {
                        "type": "object",
                        "description": "The last seek that was done for it.",
                        "properties": {
                            "id": _TEXT | {"description": "As spec.source.seek names it."},
                            "time": _TEXT | {"format": "date-time", "description": "When."},
                            "positions": _TEXT | {"description": "Where to."},
                        },
                    },
                },
            },
        },
        "cleanup": {
            "type": "array",
            "description": "Names under which its source keeps something that goes with it.",
            "x-kubernetes-list-type": "set",
            "items": _TEXT,
        },
    },
}  # fmt: skip
_ADDRESS: Schema = _TEXT | {
    "description": "Where requests from outside come in: IP addresses and host names, with commas.",
}
_FUNCTION_STATUS: Schema = {
    "type": "object",
    "description": "How it stands; written by the hub.",
    "properties": {
        "observedGeneration": _OBSERVED,
        "conditions": _CONDITIONS,
        "url": _TEXT | {"description": "Where it is reached."},
    },
}


def crd(kind: str, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The definition of one kind. Raises KeyError for an unknown one, and ValueError, with what to
    install, where the connector's model cannot be had."""
    if kind == FUNCTION:
        spec = structural(FunctionSpec)
        return _crd(
            kind, spec, _FUNCTION_STATUS, ["fn"], "What answers events.",
            [*_READY, _column("URL", ".status.url"), _AGE],
        )  # fmt: skip
    model = kinds[kind].source
    if model is None:
        raise ValueError(kinds[kind].missing)
    places = kinds[kind].places
    spec = structural(trigger_spec(places))
    spec["properties"]["source"] = structural(model)
    if rules := spec_rules(places):
        spec[VALIDATIONS] = [*spec.get(VALIDATIONS, ()), *map(written, rules)]
    spec["required"] = [*spec.get("required", ()), "source"]
    columns = [
        *_READY,
        *_source_column(getattr(model, "source_column", ())),
        _column("Function", ".spec.function['name','selector']"),
        *(_column(name, _condition(name, "status"), wide=True) for name in ("Bound", "Connected")),
        _column("Message", _condition("Ready", "message"), wide=True),
        _AGE,
    ]
    names = list(getattr(model, "short_names", ()))
    about = spec["properties"]["source"].get("description", "")
    status = _TRIGGER_STATUS
    if hasattr(model, "exposed"):
        status = status | {"properties": status["properties"] | {"address": _ADDRESS}}
        columns.insert(len(_READY) + 1, _column("Address", ".status.address"))
    return _crd(kind, spec, status, names, about, columns)


def _crd(
    kind: str, spec: Schema, status: Schema, short: list[str], about: str, columns: list[Any]
) -> dict[str, Any]:
    plural = plural_of(kind)
    names: dict[str, Any] = {
        "kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower(),
        "categories": [CATEGORY],
    }  # fmt: skip
    if short:
        names["shortNames"] = short
    root: Schema = {
        "type": "object",
        "description": about,
        "required": ["spec"],
        "x-kubernetes-validations": [_NAMES],
        "properties": {
            "apiVersion": _TEXT | {"description": API_VERSION},
            "kind": _TEXT | {"description": kind},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    version = {
        "name": VERSION, "served": True, "storage": True,
        "schema": {"openAPIV3Schema": root},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "triggerhub"},
        },
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def _condition(name: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{name}")].{field}'


def _source_column(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The first of these fields that is given; of a list all."""
    if not names:
        return []
    path = f".{names[0]}" if len(names) == 1 else f"[{','.join(map(cel_text, names))}]"
    return [_column("Source", f".spec.source{path}")]


def _column(name: str, path: str, *, wide: bool = False) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": "string", "jsonPath": path}
    return column | {"priority": 1} if wide else column


_READY = [
    _column("Ready", _condition("Ready", "status")),
    _column("Reason", _condition("Ready", "reason")),
]
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
