"""``spec.source`` of an HTTPTrigger."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from triggerhub_http import HTTPSource


def test_an_empty_source_takes_everything() -> None:
    source = HTTPSource.model_validate({})
    assert (source.host, source.path, source.path_type) == (None, "/", "Prefix")
    assert source.methods is None
    assert source.max_body == 2**20


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0),
        (10, 10),
        ("10", 10),
        ("512Ki", 2**19),
        ("1k", 1000),
        ("2M", 2 * 10**6),
        ("1Gi", 2**30),
    ],
)
def test_a_size_is_bytes_or_a_quantity(size: int | str, expected: int) -> None:
    assert HTTPSource.model_validate({"maxBodySize": size}).max_body == expected


@pytest.mark.parametrize(
    ("mode", "expected"), [("Sync", 2**31), ("Async", 2**29), ("Prefer", 2**29)]
)
def test_what_may_have_to_be_kept_is_no_larger_than_stores_can_hold(
    mode: str, expected: int
) -> None:
    source = HTTPSource.model_validate({"maxBodySize": "2Gi", "mode": mode})
    assert source.max_body == expected


def test_a_host_is_compared_in_lower_case() -> None:
    assert HTTPSource.model_validate({"host": "*.Example.COM"}).host == "*.example.com"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "api.example.com:80"}, "expected a host name without port"),
        ({"host": "a.*.com"}, "expected a host name"),
        ({"host": ""}, "expected a host name"),
        ({"path": "orders"}, "begins with '/'"),
        ({"path": "/a?b=c"}, "no query"),
        ({"path": "/a b"}, "percent-encoded"),
        ({"path": "/a/../b"}, "no '.' and no '..'"),
        ({"path": "/a/{b}c"}, "{name} only as a whole element"),
        ({"path": "/a/{}"}, "{name} only as a whole element"),
        ({"path": "/a/{b_c}"}, "{name} only as a whole element"),
        ({"path": "/{a}/..", "pathType": "Exact"}, "no '.' and no '..'"),
        ({"path": "/{id}/{ID}"}, "each {name} once"),
        ({"pathType": "ImplementationSpecific"}, "'Prefix' or 'Exact'"),
        ({"methods": []}, "at least 1 item"),
        ({"methods": ["get"]}, "expected a method in upper case"),
        ({"maxBodySize": "1MB"}, "expected bytes or a quantity"),
        ({"maxBodySize": -1}, "expected bytes or a quantity"),
        ({"mode": "async"}, "mode"),
        ({"auth": {}}, "found none of bearer, basic, apiKey, jwt, clientCertificate, addresses"),
        ({"auth": {"bearer": {}}}, "found none, expected exactly one of secretRef"),
        (
            {"auth": {"addresses": {"allow": ["10.0.0.0/33"]}}},
            "expected an address or a network such as",
        ),
        (
            {"auth": {"addresses": {"header": "Forwarded"}}},
            "found none of allow, trustedProxies, expected at least one",
        ),
        ({"signature": {"env": "A"}}, "found none of preset, hmac, expected exactly one of"),
        ({"signature": {"preset": "GitHub"}}, "found none, expected exactly one of secretRef"),
        (
            {"signature": {"env": "A", "hmac": {"header": "X", "signed": "{timestamp}{body}"}}},
            "found {timestamp} without timestampHeader, expected both or neither",
        ),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HTTPSource.model_validate(fields)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("/a", "Exact", ("/a", True)),
        ("/a/{b}", "Exact", ("/a", False)),
        ("/{a}/b", "Prefix", ("/", False)),
    ],
)
def test_what_is_above_the_first_parameter_is_exposed(
    path: str, kind: str, expected: tuple[str, bool]
) -> None:
    source = HTTPSource.model_validate({"path": path, "pathType": kind, "expose": {}})
    assert source.exposed is not None
    assert (source.exposed.path, source.exposed.exact) == expected
