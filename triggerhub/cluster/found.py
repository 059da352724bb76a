"""What the API server has of the objects at the edge, and what it says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from triggerhub.cluster.answers import Object
from triggerhub.cluster.edge import EXPOSES, INGRESSES, Place
from triggerhub.control.resources import GROUP


@dataclass(frozen=True, slots=True)
class Found:
    """One of the objects as the API server has it."""

    uid: str
    version: str
    owner: tuple[str, str] | None
    """Kind and name of the trigger that owns it; None: none does."""
    owner_uid: str
    exposes: str
    deleting: bool
    digest: str
    """Of all that somebody may have changed but its status."""
    status: Mapping[str, Any] = field(default_factory=dict)


def read_found(body: Object, _before: object = None) -> Found:
    """What is kept of an object."""
    metadata = body.get("metadata") or {}
    owners = metadata.get("ownerReferences") or ()
    ours = next((o for o in owners if o["apiVersion"].partition("/")[0] == GROUP), None)
    told = [metadata.get(part) for part in ("labels", "annotations", "ownerReferences")]
    text = json.dumps([*told, body.get("spec")], sort_keys=True)
    return Found(
        uid=str(metadata.get("uid") or ""),
        version=str(metadata.get("resourceVersion") or ""),
        owner=(ours["kind"], ours["name"]) if ours else None,
        owner_uid=ours["uid"] if ours else "",
        exposes=str((metadata.get("labels") or {}).get(EXPOSES, "")),
        deleting="deletionTimestamp" in metadata,
        digest=sha256(text.encode()).hexdigest(),
        status=body.get("status") or {},
    )


def address_of(place: Place, found: Found) -> str:
    """Where an Ingress or a Gateway is reached; empty: nowhere yet."""
    status = found.status
    if place.resource == INGRESSES:
        entries = (status.get("loadBalancer") or {}).get("ingress") or ()
        texts = [str(entry.get("hostname") or entry.get("ip") or "") for entry in entries]
    else:
        texts = [str(entry.get("value") or "") for entry in status.get("addresses") or ()]
    return ", ".join(text for text in texts if text)


def refusal_of(route: Found) -> str | None:
    """What stands against a route, in its Gateway's words; empty: nothing. None: no controller has
    looked at it yet."""
    said = [
        condition
        for parent in route.status.get("parents") or ()
        for condition in parent.get("conditions") or ()
    ]
    for condition in said:
        told = condition.get("type"), condition.get("status")
        if told in (("Accepted", "False"), ("ResolvedRefs", "False")):
            return f"{condition.get('reason')}: {condition.get('message') or 'it says no more'}"
    accepted = any((c.get("type"), c.get("status")) == ("Accepted", "True") for c in said)
    return "" if accepted else None
