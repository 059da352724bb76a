"""Where a Service of the cluster is reached, and what stands against it."""

from __future__ import annotations

from typing import Any

import pytest

from triggerhub.control.services import Endpoints, Reach, Service, ServicePort, reach
from triggerhub.control.specs import ServiceSpec

ONE = Endpoints(ready=1)


def service(*ports: int | tuple[int, str], endpoints: Endpoints = ONE, **changes: Any) -> Service:
    listed = [
        ServicePort(*port) if isinstance(port, tuple) else ServicePort(port) for port in ports
    ]
    return Service(ports=tuple(listed), endpoints=endpoints, **changes)


@pytest.mark.parametrize(
    ("port", "found", "url"),
    [
        (None, service(80), "http://orders.shop.svc/"),
        (None, service(8080), "http://orders.shop.svc:8080/"),
        (None, service((8080, "http")), "http://orders.shop.svc:8080/"),
        (8080, service(80, 8080), "http://orders.shop.svc:8080/"),
        ("web", service((80, "admin"), (8080, "web")), "http://orders.shop.svc:8080/"),
        ("admin", service((80, "admin"), (8080, "web")), "http://orders.shop.svc/"),
        # DNS gives the pods' own addresses: the Service's port means nothing there.
        (None, service(80, headless=True, endpoints=Endpoints(1, (("", 8080),))),
         "http://orders.shop.svc:8080/"),
        ("web", service((80, "web"), (81, "x"), headless=True,
                        endpoints=Endpoints(1, (("web", 8080), ("x", 9090)))),
         "http://orders.shop.svc:8080/"),
        (81, service((80, "web"), (81, "x"), headless=True,
                     endpoints=Endpoints(1, (("web", 8080), ("x", 80)))),
         "http://orders.shop.svc/"),
        (80, service(80, endpoints=Endpoints(1, (("", 8080),))), "http://orders.shop.svc/"),
        (None, service(80, external_name="api.example.com", endpoints=Endpoints()),
         "http://api.example.com/"),
        (8443, service(external_name="api.example.com", endpoints=Endpoints()),
         "http://api.example.com:8443/"),
        ("web", service((8080, "web"), external_name="a.test", endpoints=Endpoints()),
         "http://a.test:8080/"),
    ],
)  # fmt: skip
def test_a_service_has_its_url(port: int | str | None, found: Service, url: str) -> None:
    spec = ServiceSpec(name="orders", port=port)
    assert reach(spec, "shop", found) == Reach(url)
    path = ServiceSpec(name="orders", port=port, path="/in/v1")
    assert reach(path, "shop", found).url == url + "in/v1"


@pytest.mark.parametrize(
    ("port", "found", "reason", "message"),
    [
        (None, None, "ServiceNotFound", "does not exist"),
        (None, service(), "PortNotFound",
         "has the ports none: expected spec.service.port to name one"),
        (None, service(80, (81, "x")), "PortNotFound",
         "has the ports 80, 81 (x): expected spec.service.port to name one"),
        (90, service(80, (81, "x")), "PortNotFound", "has no port 90: found 80, 81 (x)"),
        ("web", service(80, (81, "x")), "PortNotFound", "has no port web: found 80, 81 (x)"),
        ("web", service(external_name="a.test"), "PortNotFound", "has no port web: found none"),
        (None, service(external_name="a.test"), "PortNotFound",
         "has the ports none: expected spec.service.port to name one"),
    ],
)  # fmt: skip
def test_one_that_cannot_be_reached_says_why(
    port: int | str | None, found: Service | None, reason: str, message: str
) -> None:
    reached = reach(ServiceSpec(name="orders", port=port), "shop", found)
    assert reached == Reach(None, reason, f"Service shop/orders {message}")
    assert reached.troubled


@pytest.mark.parametrize("headless", [False, True])
def test_one_without_endpoints_stays_bound_and_says_so(headless: bool) -> None:
    found = service(8080, headless=headless, endpoints=Endpoints())
    reached = reach(ServiceSpec(name="orders"), "shop", found)
    assert (reached.url, reached.reason) == ("http://orders.shop.svc:8080/", "NoEndpoints")
    assert reached.message == "Service shop/orders has no ready endpoint; events wait for one"
    assert reached.troubled


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        ({"clusterIP": "10.0.0.7", "ports": [{"port": 80}, {"port": 81, "name": "x"}]},
         service(80, (81, "x"))),
        ({"clusterIP": "None", "ports": [{"port": 80, "name": None}]}, service(80, headless=True)),
        ({"type": "ExternalName", "externalName": "a.test"}, service(external_name="a.test")),
        ({"type": "ExternalName", "externalName": "a.test", "ports": None},
         service(external_name="a.test")),
        # Left behind by a change of type.
        ({"type": "ClusterIP", "externalName": "a.test", "ports": [{"port": 80}]}, service(80)),
        ({}, service()),
        (None, service()),
    ],
)  # fmt: skip
def test_a_service_is_read_as_the_api_server_has_it(spec: object, read: Service) -> None:
    assert Service.read({"spec": spec}, ONE) == read
