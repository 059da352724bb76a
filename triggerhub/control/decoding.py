"""From a manifest to the value it stands for, or to all that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from triggerhub.connector import Placed
from triggerhub.control.faults import Fault, dotted, faults_of, nearest, shown
from triggerhub.control.kinds import spec_rules, trigger_spec
from triggerhub.control.places import FieldPath, aliases
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import API_VERSION, FUNCTION, Function, Manifest, Trigger
from triggerhub.control.retouching import as_stored, without_strangers
from triggerhub.control.scalars import AnnotationKey, LabelKey, LabelValue, Name
from triggerhub.control.specs import DeliverySpec, FunctionSpec
from triggerhub.fields import Checked

M = TypeVar("M", bound=BaseModel)


class Metadata(BaseModel):
    """What a user writes; what an API server adds is dropped before."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)

    name: Name
    namespace: Name = "default"
    labels: Mapping[LabelKey, LabelValue] = {}
    annotations: Mapping[AnnotationKey, str] = {}


_FROM_SERVER = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")


_deliveries: WeakValueDictionary[DeliverySpec, DeliverySpec] = WeakValueDictionary()


def decode(manifest: Manifest, kinds: Mapping[str, Kind]) -> Function | Trigger | tuple[Fault, ...]:
    """The value that a manifest stands for, or all that is wrong with it."""
    api = manifest.body.get("apiVersion")
    if api != API_VERSION:
        fault = wrong_api(manifest, api)
        if not fault.hint:
            return (fault,)  # something else altogether: what follows would be noise
        faults = [fault]
    else:
        faults = []
    faults += [
        manifest.fault((key,), found="unknown field", hint=nearest(key, _TOP))
        for key in manifest.body
        if key not in _TOP
    ]
    faults += _wrong_kind(manifest, kinds)
    metadata = metadata_of(manifest, Metadata, faults)
    spec = manifest.body.get("spec")
    if not isinstance(spec, Mapping):
        faults.append(_not_a_mapping(manifest, ("spec",), spec, "spec" in manifest.body))
        return tuple(faults)
    value: Function | Trigger | None = None
    # A misspelt kind is judged as what it was meant to be: all faults at once.
    meant = _meant(manifest.kind, kinds)
    if meant == FUNCTION:
        value = _function(manifest, spec, faults)
    elif meant is not None:
        value = _trigger(manifest, spec, kinds[meant], faults)
    if faults or value is None or metadata is None:
        return tuple(faults)
    return value


def metadata_of(manifest: Manifest, model: type[M], faults: list[Fault]) -> M | None:
    """A manifest's metadata, without what an API server adds; None and its faults."""
    raw = manifest.body.get("metadata")
    if not isinstance(raw, Mapping):
        there = "metadata" in manifest.body
        faults.append(_not_a_mapping(manifest, ("metadata",), raw, there))
        return None
    own = {key: value for key, value in raw.items() if key not in _FROM_SERVER}
    return _validated(model, own, manifest, ("metadata",), faults)


def wrong_api(manifest: Manifest, api: object, expected: str = API_VERSION) -> Fault:
    """A manifest's ``apiVersion`` is another than expected. With a hint, that one was meant."""
    near = isinstance(api, str) and nearest(api, [expected]).startswith("did")
    return manifest.fault(
        ("apiVersion",),
        found="" if api is None else shown(api),
        expected=expected,
        hint=f"did you mean {expected}?" if near or api is None else "",
    )


def _wrong_kind(manifest: Manifest, kinds: Mapping[str, Kind]) -> list[Fault]:
    kind = manifest.body.get("kind")
    known = [FUNCTION, *sorted(kinds)]
    if isinstance(kind, str) and kind in known:
        return []
    hint = nearest(kind, known) if isinstance(kind, str) else ""
    return [
        manifest.fault(
            ("kind",),
            found="" if kind is None else shown(kind),
            expected=" or ".join(known),
            hint="" if hint.startswith("known") else hint,
        )
    ]


def _meant(kind: str, kinds: Mapping[str, Kind]) -> str | None:
    if kind == FUNCTION or kind in kinds:
        return kind
    near = get_close_matches(kind, [FUNCTION, *kinds], n=1)
    return near[0] if near else None


def _not_a_mapping(manifest: Manifest, path: FieldPath, value: object, there: bool) -> Fault:
    return manifest.fault(path, found=shown(value) if there else "", expected="a mapping")


def _function(manifest: Manifest, spec: Mapping[str, Any], faults: list[Fault]) -> Function | None:
    model = _validated(FunctionSpec, spec, manifest, ("spec",), faults)
    if model is None:
        return None
    files = None
    if model.code is not None and model.code.inline is not None:
        files = {name: text.encode() for name, text in model.code.inline.items()}
    elif model.code is not None and manifest.where.folder is None:
        path = ("spec", "code", "files")
        faults.append(
            manifest.fault(path, found="files, which only a folder has", expected="inline")
        )
    return Function(
        namespace=manifest.namespace,
        name=manifest.name,
        labels=manifest.labels,
        generation=manifest.generation,
        created=manifest.created,
        spec=model,
        code_files=files,
        where=manifest.where,
    )


def _trigger(
    manifest: Manifest, spec: Mapping[str, Any], kind: Kind, faults: list[Fault]
) -> Trigger | None:
    own = {key: value for key, value in spec.items() if key != "source"}
    wanted = trigger_spec(kind.places)
    model = _validated(wanted, own, manifest, ("spec",), faults, also=("source",))
    raw, path = spec.get("source"), ("spec", "source")
    source = None
    if not isinstance(raw, Mapping):
        faults.append(_not_a_mapping(manifest, path, raw, "source" in spec))
    elif kind.source is not None:
        source = _validated(kind.source, raw, manifest, path, faults)
    if model is None:
        return None
    place = model.delivery.dead_letter.place
    if place is not None and source is not None:
        both, at = Placed(source, place), ("spec", "delivery", "deadLetter")
        wrongs = [rule.wrong(both) for rule in spec_rules(kind.places)]
        faults += [manifest.fault(at, found=wrong) for wrong in wrongs if wrong]
    # Thousands of triggers want the same: one value stands for all of them.
    delivery = _deliveries.setdefault(model.delivery, model.delivery)
    model.__dict__["delivery"] = delivery  # frozen for everybody else
    return Trigger(
        kind=manifest.kind,
        namespace=manifest.namespace,
        name=manifest.name,
        labels=manifest.labels,
        generation=manifest.generation,
        created=manifest.created,
        spec=model,
        source=source,
        where=manifest.where,
    )


def _validated(
    model: type[M],
    raw: Mapping[str, Any],
    manifest: Manifest,
    at: FieldPath,
    faults: list[Fault],
    also: tuple[str, ...] = (),
) -> M | None:
    """The model, or None and its faults.

    From JSON, because there pydantic's strict mode takes lists for tuples, texts for enums and
    times, and no text for a number. Only the wire's names count.
    """
    told: dict[tuple[str, str], Fault] = {}
    nulls: set[str] = set()

    def attempt(value: Mapping[str, Any]) -> M | None:
        try:
            return model.model_validate_json(json.dumps(value), by_alias=True, by_name=False)
        except ValidationError as error:
            # Of a label's null it makes an empty text; that nobody can have meant.
            stored = as_stored(error, model, value, entries=not issubclass(model, Metadata))
            if stored is not None:
                nulls.update(dotted(at + path) for path in stored.nulls)
                return attempt(stored.value)
            line, file, name = manifest.where.line, manifest.where.file, str(manifest)
            for fault in faults_of(
                error, model, value, at=at, also=also, file=file, name=name, line=line
            ):
                if not fault.found and fault.field in nulls:
                    fault = replace(fault, found=shown(None))
                told.setdefault((fault.field, fault.found), fault)
            rest = without_strangers(error, value)
            if rest is not None and not any(f.hint.startswith("did") for f in told.values()):
                # What a model says of its fields together, it says only when each is known.
                attempt(rest)
            return None

    value = attempt(raw)
    if value is None:
        for path, wrong in _miscounted(model, raw):
            fault = manifest.fault(at + path, found=wrong)
            told.setdefault((fault.field, wrong), fault)
        faults += told.values()
    return value


def _miscounted(
    model: type[BaseModel], raw: object, at: FieldPath = ()
) -> list[tuple[FieldPath, str]]:
    """Choices not made, or made twice, in models whose own check was not reached because another
    of their fields is wrong."""
    if not isinstance(raw, Mapping) or not issubclass(model, Checked):
        return []
    found = []
    given = [name for name in model.exactly_one if raw.get(name) is not None]
    strangers = [key for key in raw if key not in aliases(model)]
    # A misspelt choice is one fault, not two.
    misspelt = any(nearest(key, model.exactly_one).startswith("did") for key in strangers)
    wrong = model.miscounted(given)
    if wrong and (given or not misspelt):
        found.append((at, wrong))
    for name, info in model.model_fields.items():
        alias = info.alias or name
        for option in _models(info.annotation):
            found += _miscounted(option, raw.get(alias), (*at, alias))
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    options = [annotation, *getattr(annotation, "__args__", ())]
    return [o for o in options if isinstance(o, type) and issubclass(o, Checked)]
