"""Which Secrets and ConfigMaps a source names, and what its references stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from triggerhub.connector import Reference
from triggerhub.control.resources import CONFIG_MAP, SECRET, Snapshot, ValueKey

_NAMED = 10
"""Keys that a message names at most."""


def refers(source: BaseModel | None) -> bool:
    """A source of this kind may hold a reference."""
    return source is not None and bool(_leading(type(source)))


def references(model: object) -> Iterator[Reference]:
    """Every reference in a source model, however deep."""
    if isinstance(model, Reference):
        yield model
    elif isinstance(model, BaseModel):
        for name in _leading(type(model)):
            yield from references(getattr(model, name))
    elif isinstance(model, list | tuple | set | frozenset):
        for item in model:
            yield from references(item)
    elif isinstance(model, Mapping):
        for item in model.values():
            yield from references(item)


def wanted(model: object, namespace: str) -> Iterator[ValueKey]:
    """The Secrets and ConfigMaps that a source needs."""
    for reference in references(model):
        key = _key(reference, namespace)
        if key is not None:
            yield key


def resolve(
    model: object, namespace: str, snapshot: Snapshot, environ: Mapping[str, str] | None
) -> tuple[dict[Reference, bytes], str]:
    """What the references stand for; then all that is missing, in words, empty when nothing is.
    ``environ`` None: environment variables are not for these manifests."""
    found: dict[Reference, bytes] = {}
    missing: dict[str, None] = {}
    for reference in references(model):
        value = _value(reference, namespace, snapshot, environ)
        if isinstance(value, bytes):
            found[reference] = value
        else:
            missing[value] = None
    return found, "; ".join(missing)


def _value(
    reference: Reference, namespace: str, snapshot: Snapshot, environ: Mapping[str, str] | None
) -> bytes | str:
    """What it stands for; a text: why it stands for nothing."""
    key = _key(reference, namespace)
    if key is None:
        return _variable(reference.env or "", environ)
    entry = reference.secret_ref or reference.config_map_ref
    assert entry is not None
    data = snapshot.values.get(key)
    if data is None:
        trouble = snapshot.unread.get(key)
        if trouble is not None:
            return f"{key} is not known: {trouble}"
        return f"{key} does not exist, expected it with the key {entry.key}"
    if entry.key not in data:
        there = sorted(data)
        more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
        return f"{key} has no key {entry.key}: found {', '.join(there[:_NAMED]) or 'none'}{more}"
    return data[entry.key]


def _variable(name: str, environ: Mapping[str, str] | None) -> bytes | str:
    if environ is None:
        return (
            f"found env: {name}, expected secretRef or configMapRef: in a cluster the hub's "
            "environment is not for manifests"
        )
    text = environ.get(name)
    if text is None:
        return f"the hub's environment has no variable {name}: set it and restart the hub"
    return text.encode("utf-8", "surrogateescape")


def _key(reference: Reference, namespace: str) -> ValueKey | None:
    if reference.secret_ref is not None:
        return ValueKey(SECRET, namespace, reference.secret_ref.name)
    if reference.config_map_ref is not None:
        return ValueKey(CONFIG_MAP, namespace, reference.config_map_ref.name)
    return None


@cache
def _leading(model: type[BaseModel]) -> tuple[str, ...]:
    """Its fields that may hold a reference: thousands of sources of one kind are looked at in
    every pass, and most fields hold none."""
    fields = model.model_fields.items()
    return tuple(name for name, field in fields if _leads_to_one(field.annotation, set()))


def _leads_to_one(kind: Any, seen: set[Any]) -> bool:
    """A value of this type may hold a reference."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if issubclass(kind, Reference):
            return True
        if kind in seen:
            return False
        seen.add(kind)
        fields = kind.model_fields.values()
        return any(_leads_to_one(field.annotation, seen) for field in fields)
    parts = (getattr(kind, "__value__", None), *get_args(kind))
    return any(_leads_to_one(part, seen) for part in parts if part is not None)
