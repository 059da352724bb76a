"""Where a Service of the cluster is reached, and what stands against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triggerhub.control.specs import ServiceSpec


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One entry of a Service's ``spec.ports``."""

    port: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the EndpointSlices of one Service say together."""

    ready: int = 0
    """Addresses that take requests."""
    ports: tuple[tuple[str, int], ...] = ()
    """The Service's port names, and the numbers that stand behind them in the pods."""


@dataclass(frozen=True, slots=True)
class Service:
    """As much of a Service as reaching it needs."""

    headless: bool = False
    external_name: str = ""
    """Set: the Service is a name for this host."""
    ports: tuple[ServicePort, ...] = ()
    endpoints: Endpoints = Endpoints()

    @classmethod
    def read(cls, body: Mapping[str, Any], endpoints: Endpoints) -> Service:
        """From the object as the API server has it."""
        spec = body.get("spec") or {}
        external = spec.get("type") == "ExternalName"
        return cls(
            headless=spec.get("clusterIP") == "None",
            external_name=str(spec.get("externalName") or "") if external else "",
            ports=tuple(
                ServicePort(int(port["port"]), str(port.get("name") or ""))
                for port in spec.get("ports") or ()
            ),
            endpoints=endpoints,
        )


@dataclass(frozen=True, slots=True)
class Reach:
    """How a function is reached."""

    url: str | None
    """None: it cannot be, for the reason given."""
    reason: str = "Ready"
    message: str = ""

    @property
    def troubled(self) -> bool:
        """Something stands against it, although it may have a URL."""
        return self.reason != "Ready"


def reach(spec: ServiceSpec, namespace: str, service: Service | None) -> Reach:
    """By the cluster's DNS name, so that the URL outlives the Service's address. What has a URL
    but no endpoint stays bound: events wait, as for any function that is away."""
    what = f"Service {namespace}/{spec.name}"
    if service is None:
        return Reach(None, "ServiceNotFound", f"{what} does not exist")
    port = _port(spec, service)
    if port is None:
        return Reach(None, "PortNotFound", f"{what} {_without_port(spec, service)}")
    if service.external_name:
        return Reach(_url(service.external_name, port.port, spec.path))
    number = port.port
    ready = service.endpoints.ready
    if service.headless:
        # DNS gives the pods' own addresses: nothing translates the Service's port.
        number = dict(service.endpoints.ports).get(port.name, port.port)
    url = _url(f"{spec.name}.{namespace}.svc", number, spec.path)
    if not ready:
        return Reach(url, "NoEndpoints", f"{what} has no ready endpoint; events wait for one")
    return Reach(url)


def _port(spec: ServiceSpec, service: Service) -> ServicePort | None:
    if spec.port is None:
        return service.ports[0] if len(service.ports) == 1 else None
    for port in service.ports:
        if spec.port in (port.port, port.name):
            return port
    if service.external_name and isinstance(spec.port, int):
        return ServicePort(spec.port)  # such a Service need not list its ports
    return None


def _without_port(spec: ServiceSpec, service: Service) -> str:
    listed = ", ".join(f"{p.port} ({p.name})" if p.name else f"{p.port}" for p in service.ports)
    if spec.port is None:
        return f"has the ports {listed or 'none'}: expected spec.service.port to name one"
    return f"has no port {spec.port}: found {listed or 'none'}"


def _url(host: str, port: int, path: str) -> str:
    return f"http://{host}{'' if port == 80 else f':{port}'}{path}"
