"""What a function is told of how a request came: nothing that its client made up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.connectors.test_http_connector import Rig, get, rig
from triggerhub_http.addresses import Places
from triggerhub_http.forwarding import forwarding
from triggerhub_http.messages import read_head
from triggerhub_http.security import Addresses

__all__ = ["rig"]

EVERYBODY = ["0.0.0.0/0", "::/0"]


def told(
    peer: str, *said: tuple[str, str], host: str = "in.example", **trusted: Any
) -> dict[str, str]:
    fields = [(name.encode(), value.encode("latin-1")) for name, value in said]
    head = read_head([(b"host", host.encode("latin-1")), *fields], "1.1")
    if trusted:
        spec = Addresses.model_validate({"allow": EVERYBODY} | trusted)
        head.believed = Places(spec).check(peer, head.forwarded)
    found = forwarding(head, (peer, 1), "http")
    assert len(dict(found)) == len(found)
    return {name.decode(): value.decode("latin-1") for name, value in found}


LIES = (
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-port", "443"),
    ("x-real-ip", "6.6.6.6"),
    ("forwarded", "for=6.6.6.6;proto=https"),
)


@pytest.mark.parametrize(
    ("peer", "host", "forwarded"),
    [
        ("192.0.2.1", "in.example", "for=192.0.2.1;host=in.example;proto=http"),
        ("192.0.2.1", "in.example:80", 'for=192.0.2.1;host="in.example:80";proto=http'),
        ("::ffff:192.0.2.1", "a", "for=192.0.2.1;host=a;proto=http"),
        ("", "a", "for=unknown;host=a;proto=http"),
        ("2001:db8::1", "a", 'for="[2001:db8::1]";host=a;proto=http'),
        ("192.0.2.1", 'a"\\b', r'for=192.0.2.1;host="a\"\\b";proto=http'),
        ("192.0.2.1", "x" * 300, f"for=192.0.2.1;host={'x' * 300};proto=http"),
    ],
)
def test_what_a_client_says_is_replaced_by_what_is_seen(
    peer: str, host: str, forwarded: str
) -> None:
    found = told(peer, *LIES, host=host)
    if peer:
        assert told(peer, *LIES, host=host, trustedProxies=["10.0.0.0/8"]) == found
    assert found == {
        "x-forwarded-for": peer.removeprefix("::ffff:") or "unknown",
        "x-forwarded-proto": "http",
        "x-forwarded-host": host,
        "forwarded": forwarded,
    }


def test_trusted_proxies_are_believed_back_to_the_client_and_no_further() -> None:
    found = told(
        "10.0.0.1",
        ("x-forwarded-for", "6.6.6.6, 2001:db8::7"),
        ("x-forwarded-for", "10.0.0.2:4711"),
        ("x-forwarded-proto", "ftp, https, http"),
        ("x-forwarded-host", "shop.example:8443"),
        ("x-forwarded-port", "8443"),
        ("forwarded", "for=6.6.6.6"),
        trustedProxies=["10.0.0.0/8"],
    )
    assert found == {
        "x-forwarded-for": "2001:db8::7, 10.0.0.2, 10.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "shop.example:8443",
        "x-forwarded-port": "8443",
        "forwarded": 'for="[2001:db8::7]";host="shop.example:8443";proto=https, '
        "for=10.0.0.2, for=10.0.0.1;host=in.example;proto=http",
    }


def test_of_two_fields_the_one_that_the_proxies_set_is_believed() -> None:
    found = told(
        "10.0.0.1",
        ("forwarded", 'for=6.6.6.6, for="203.0.113.7:80";proto=https;host="a:1"'),
        ("forwarded", "for=10.0.0.2;proto=http"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-host", "evil.example"),
        trustedProxies=["10.0.0.0/8"],
        header="Forwarded",
    )
    assert found == {
        "x-forwarded-for": "203.0.113.7, 10.0.0.2, 10.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "a:1",
        "forwarded": 'for=203.0.113.7;host="a:1";proto=https, for=10.0.0.2;proto=http, '
        "for=10.0.0.1;host=in.example;proto=http",
    }


def test_a_proxy_that_says_nothing_is_the_client() -> None:
    found = told("10.0.0.1", ("x-forwarded-proto", "https"), trustedProxies=["10.0.0.0/8"])
    assert (found["x-forwarded-for"], found["x-forwarded-proto"]) == ("10.0.0.1", "http")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30))
def test_what_a_host_field_holds_stays_within_its_quotes(host: str) -> None:
    trusted: dict[str, Any] = {"trustedProxies": ["10.0.0.0/8"], "header": "Forwarded"}
    one = told("192.0.2.1", host=host)["forwarded"]
    two = told("10.0.0.1", ("forwarded", one), **trusted)
    assert two["x-forwarded-for"] == "192.0.2.1, 10.0.0.1"
    assert two["x-forwarded-host"] == (host or "in.example")


async def test_a_function_is_told_the_truth_over_a_real_connection(rig: Rig) -> None:
    addresses = {"trustedProxies": ["127.0.0.1"]}
    direct = await rig.serve({"path": "/direct"}, name="direct")
    behind = await rig.serve({"path": "/behind", "auth": {"addresses": addresses}}, name="behind")
    client = await rig.client()
    lies = [f"{name}: {value}" for name, value in LIES]
    client.send(get("/direct", *lies), get("/behind", *lies, "via: 1.0 cache"))
    for _ in range(2):
        status, told, _ = await client.reply()
        assert (status, "via" in told) == (200, False)
    seen = []
    for function in (direct, behind):
        assert function.events[0].request is not None
        fields = dict(function.events[0].request.headers)
        names = (b"x-forwarded-for", b"x-forwarded-proto", b"via")
        seen.append(tuple(fields.get(name) for name in names))
    assert seen == [
        (b"127.0.0.1", b"http", None),
        (b"6.6.6.6, 127.0.0.1", b"https", b"1.0 cache"),
    ]
