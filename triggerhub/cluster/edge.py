"""The objects that let requests from outside of the cluster reach a trigger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from triggerhub.cluster.answers import Object, Resource
from triggerhub.cluster.referred import SERVICES
from triggerhub.control.resources import API_VERSION, GROUP, ResourceKey, Trigger
from triggerhub.exposure import Exposed

GATEWAY_API = "gateway.networking.k8s.io"
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses")
ROUTES = Resource(GATEWAY_API, "v1", "httproutes")
GRANTS = Resource(GATEWAY_API, "v1beta1", "referencegrants")
GATEWAYS = Resource(GATEWAY_API, "v1", "gateways")

EXPOSES = f"{GROUP}/exposes"
"""Label of each such object; its value is the trigger's name, of a ReferenceGrant the namespace."""
_LONGEST = 63
"""Characters of a Service's name."""
_SERVICE = re.compile(r"([a-z]([-a-z0-9]{0,61}[a-z0-9])?)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Front:
    """The Service that brings requests to every replica of the hub."""

    name: str
    namespace: str
    port: int = 80
    domain: str = "cluster.local"

    @classmethod
    def read(cls, text: str, namespace: str) -> Front:
        """``name`` or ``name:port``, of the hub's namespace. Raises OSError."""
        parts = _SERVICE.fullmatch(text)
        port = int(parts[3] or 80) if parts else 0
        if parts is None or not 0 < port < 65536:
            raise OSError(
                f"TRIGGERHUB_SERVICE: found {text!r}, expected the name of the hub's Service, "
                "or name:port"
            )
        return cls(parts[1], namespace, port, _domain())


class Place(NamedTuple):
    """Where an object is."""

    resource: Resource
    namespace: str
    name: str

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{_KINDS[self.resource]} {self.namespace}/{self.name}"


_KINDS = {INGRESSES: "Ingress", ROUTES: "HTTPRoute", GRANTS: "ReferenceGrant",
          GATEWAYS: "Gateway", SERVICES: "Service"}  # fmt: skip


def objects_of(
    trigger: Trigger, uid: str, exposed: Exposed, front: Front
) -> Iterator[tuple[Place, Object]]:
    """What is to be there for a trigger, what is exposed first. An Ingress can only name a Service
    of its own namespace: there one that is a name for the hub's. An HTTPRoute may name any that
    has a ReferenceGrant for it; most controllers take no other."""
    away = trigger.namespace != front.namespace
    if exposed.expose.gateway is not None:
        backend: Object = {"name": front.name, "port": front.port}
        if away:
            backend["namespace"] = front.namespace
        place = Place(ROUTES, trigger.namespace, trigger.name)
        yield place, _owned(place, trigger, uid, exposed, _route(trigger, exposed, backend))
        if away:
            yield _grant(trigger.namespace, front)
        return
    name = service_name(trigger.name) if away else front.name
    place = Place(INGRESSES, trigger.namespace, trigger.name)
    service = {"service": {"name": name, "port": {"number": front.port}}}
    yield place, _owned(place, trigger, uid, exposed, _ingress(trigger, exposed, service))
    if away:
        place = Place(SERVICES, trigger.namespace, name)
        host = f"{front.name}.{front.namespace}.svc.{front.domain}"
        port = {"name": "http", "port": front.port, "protocol": "TCP"}
        spec = {"type": "ExternalName", "externalName": host, "ports": [port]}
        yield place, _owned(place, trigger, uid, None, spec)


def service_name(trigger: str) -> str:
    """Of the Service beside a trigger's Ingress: a trigger is often named like a Service that is
    there already, and may begin with a digit, which a Service may not."""
    name = f"triggerhub-{trigger}"
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 9].rstrip('-')}-{sha256(trigger.encode()).hexdigest()[:8]}"


def grant_name(namespace: str, front: Front) -> str:
    """Of the ReferenceGrant, in the hub's namespace, for the routes of another."""
    return f"{front.name}-{namespace}"


def gateway_of(trigger: Trigger, exposed: Exposed) -> Place | None:
    """The Gateway that is named; None: an Ingress is wanted."""
    gateway = exposed.expose.gateway
    if gateway is None:
        return None
    return Place(GATEWAYS, gateway.namespace or trigger.namespace, gateway.name)


def _ingress(trigger: Trigger, exposed: Exposed, backend: Object) -> Object:
    kind = "Exact" if exposed.exact else "Prefix"
    rule: Object = {
        "http": {"paths": [{"path": exposed.path, "pathType": kind, "backend": backend}]}
    }
    spec: Object = {"rules": [rule]}
    if exposed.host:
        rule["host"] = exposed.host
    if exposed.expose.ingress_class is not None:
        spec["ingressClassName"] = exposed.expose.ingress_class
    if exposed.expose.tls is not None:
        tls: Object = {"secretName": exposed.expose.tls.secret_name or f"{trigger.name}-tls"}
        if exposed.host:
            tls["hosts"] = [exposed.host]
        spec["tls"] = [tls]
    return spec


def _route(trigger: Trigger, exposed: Exposed, backend: Object) -> Object:
    gateway = exposed.expose.gateway
    assert gateway is not None
    parent = {"name": gateway.name, "namespace": gateway.namespace or trigger.namespace}
    if gateway.section_name is not None:
        parent["sectionName"] = gateway.section_name
    kind = "Exact" if exposed.exact else "PathPrefix"
    rule = {
        "matches": [{"path": {"type": kind, "value": exposed.path}}], "backendRefs": [backend],
    }  # fmt: skip
    spec: Object = {"parentRefs": [parent], "rules": [rule]}
    if exposed.host:
        spec["hostnames"] = [exposed.host]
    return spec


def _grant(namespace: str, front: Front) -> tuple[Place, Object]:
    """One for all triggers of a namespace: no owner of another namespace can be named."""
    place = Place(GRANTS, front.namespace, grant_name(namespace, front))
    spec = {
        "from": [{"group": GATEWAY_API, "kind": "HTTPRoute", "namespace": namespace}],
        "to": [{"group": "", "kind": "Service", "name": front.name}],
    }
    return place, _object(place, {"labels": {EXPOSES: namespace}}, spec)


def _owned(
    place: Place, trigger: Trigger, uid: str, exposed: Exposed | None, spec: Object
) -> Object:
    owner = {
        "apiVersion": API_VERSION, "kind": trigger.kind, "name": trigger.name, "uid": uid,
        "controller": True,
    }  # fmt: skip
    metadata: Object = {"labels": {EXPOSES: trigger.name}, "ownerReferences": [owner]}
    if exposed is not None and exposed.expose.annotations:
        metadata["annotations"] = dict(exposed.expose.annotations)
    return _object(place, metadata, spec)


def _object(place: Place, metadata: Object, spec: Object) -> Object:
    group, version, _ = place.resource.group, place.resource.version, place.resource.plural
    return {
        "apiVersion": f"{group}/{version}" if group else version,
        "kind": _KINDS[place.resource],
        "metadata": {"name": place.name, "namespace": place.namespace, **metadata},
        "spec": spec,
    }


def _domain() -> str:
    """The cluster's, from what a pod resolves names with: a name that is to be valid for a
    controller, too, must be whole."""
    try:
        text = Path("/etc/resolv.conf").read_text()
    except OSError:
        text = ""
    found = re.search(r"^search\b.*\ssvc\.(\S+)", text, re.MULTILINE)
    return found[1].rstrip(".") if found else "cluster.local"
