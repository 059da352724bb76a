"""What manifests refer to: Services with their endpoints, Secrets and ConfigMaps."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from triggerhub.cluster.answers import Object, Resource
from triggerhub.cluster.reflector import Lister, Reflector, Sync
from triggerhub.control.resources import SECRET, ResourceKey, ValueKey
from triggerhub.control.services import Endpoints, Service

SERVICES = Resource("", "v1", "services")
SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
SECRETS = Resource("", "v1", "secrets")
CONFIG_MAPS = Resource("", "v1", "configmaps")
_SERVICE_NAME = "kubernetes.io/service-name"

WATCHED = 100
"""So many Secrets and ConfigMaps are watched, a connection each; more are looked at."""
LOOKED_AT = 30.0
"""Seconds between two looks."""

Data = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Slice:
    """What an EndpointSlice says of its Service."""

    service: ResourceKey
    ready: int
    ports: tuple[tuple[str, int], ...]


class Referred:
    """Watches exactly what is referred to by name; of Services all, once there is a reference."""

    def __init__(self, api: Lister, namespace: str | None, changed: Callable[[], None]) -> None:
        self._api = api
        self._namespace = namespace
        self._changed = changed
        self._of_interest: set[ResourceKey] = set()
        self._services: Reflector[Object] | None = None
        self._slices: Reflector[_Slice] | None = None
        self._values: dict[ValueKey, tuple[Reflector[Data], asyncio.Task[None]]] = {}

    def attend(
        self, values: set[ValueKey], services: set[ResourceKey], tasks: asyncio.TaskGroup
    ) -> None:
        """These are referred to from now on, and nothing else."""
        for key in self._values.keys() - values:
            self._values.pop(key)[1].cancel()
        for key in sorted(values - self._values.keys()):
            reflector = self._reflector(key)
            task = tasks.create_task(reflector.run(), name=f"watch {key}")
            self._values[key] = (reflector, task)
        self._of_interest = services
        if services and self._services is None:
            self._services = Reflector(
                self._api, SERVICES, self._namespace, _service, self._service_changed
            )
            self._slices = Reflector(
                self._api, SLICES, self._namespace, _slice, self._slice_changed,
                selector=_SERVICE_NAME,
            )  # fmt: skip
            tasks.create_task(self._services.run(), name="watch services")
            tasks.create_task(self._slices.run(), name="watch endpointslices")

    def reflectors(self) -> Iterator[Reflector[Any]]:
        """All that run."""
        for reflector, _ in self._values.values():
            yield reflector
        for other in (self._services, self._slices):
            if other is not None:
                yield other

    def unlisted(self) -> bool:
        """Something may be known in a moment. What is in trouble is not waited for."""
        return any(r.state is Sync.PENDING and not r.problem for r in self.reflectors())

    def values(self) -> dict[ValueKey, Data]:
        """What the Secrets and ConfigMaps hold that exist."""
        return {
            key: data
            for key, (reflector, _) in self._values.items()
            if (data := reflector.items.get(ResourceKey(key.namespace, key.name))) is not None
        }

    def unread(self) -> dict[ValueKey, str]:
        """Why it is not known whether the others exist, in words."""
        return {
            key: reflector.problem or "the API server has not answered yet"
            for key, (reflector, _) in self._values.items()
            if reflector.state is not Sync.SYNCED
        }

    def services(self) -> dict[ResourceKey, Service]:
        """The Services of interest that exist."""
        if self._services is None or self._slices is None or not self._of_interest:
            return {}
        endpoints: dict[ResourceKey, Endpoints] = {}
        for part in self._slices.items.values():
            if part.service in self._of_interest:
                known = endpoints.get(part.service, Endpoints())
                endpoints[part.service] = Endpoints(
                    known.ready + part.ready, tuple(sorted({*known.ports, *part.ports}))
                )
        found = self._services.items
        return {
            key: Service.read(found[key], endpoints.get(key, Endpoints()))
            for key in sorted(self._of_interest)
            if key in found
        }

    def _reflector(self, key: ValueKey) -> Reflector[Data]:
        secret = key.kind == SECRET
        return Reflector(
            self._api,
            SECRETS if secret else CONFIG_MAPS,
            key.namespace,
            _secret if secret else _config_map,
            lambda _before, _after: self._changed(),
            field=f"metadata.name={key.name}",
            every=0.0 if len(self._values) < WATCHED else LOOKED_AT,
        )

    def _service_changed(self, before: Object | None, after: Object | None) -> None:
        either = after or before
        if either is None or either["key"] in self._of_interest:
            self._changed()

    def _slice_changed(self, before: _Slice | None, after: _Slice | None) -> None:
        parts = [part for part in (before, after) if part is not None]
        if not parts or any(part.service in self._of_interest for part in parts):
            self._changed()


def _secret(body: Object, _before: Data | None) -> Data:
    return {name: base64.b64decode(text) for name, text in (body.get("data") or {}).items()}


def _config_map(body: Object, _before: Data | None) -> Data:
    binary = (body.get("binaryData") or {}).items()
    plain = (body.get("data") or {}).items()
    return {name: base64.b64decode(text) for name, text in binary} | {
        name: text.encode() for name, text in plain
    }


def _service(body: Object, _before: Object | None) -> Object:
    """As little of it as reaching it needs."""
    metadata, spec = body.get("metadata") or {}, body.get("spec") or {}
    kept = {name: spec[name] for name in ("type", "clusterIP", "externalName") if name in spec}
    kept["ports"] = [
        {"name": port.get("name") or "", "port": port["port"]}
        for port in spec.get("ports") or ()
        if (port.get("protocol") or "TCP") == "TCP"
    ]
    key = ResourceKey(str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
    return {"key": key, "spec": kept}


def _slice(body: Object, _before: _Slice | None) -> _Slice:
    metadata = body.get("metadata") or {}
    name = (metadata.get("labels") or {}).get(_SERVICE_NAME, "")
    ready = sum(
        len(endpoint.get("addresses") or ())
        for endpoint in body.get("endpoints") or ()
        # Absent means unknown, which the API asks to take for ready.
        if (endpoint.get("conditions") or {}).get("ready") is not False
    )
    ports = {
        (str(port.get("name") or ""), int(port["port"]))
        for port in body.get("ports") or ()
        if port.get("port")
    }
    key = ResourceKey(str(metadata.get("namespace") or ""), str(name))
    return _Slice(key, ready, tuple(sorted(ports)))
