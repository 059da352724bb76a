"""What an API server takes with our kinds' definitions, `triggerhub validate` takes, and nothing
else: a table, and manifests made at random."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from integration.kubernetes import ApiServer
from tests.control.manifests import (
    CODE,
    TIME,
    Body,
    at,
    differences,
    function,
    rows,
    trigger,
)
from tests.plugins import triggerhub_echo
from triggerhub.control.crds import crd
from triggerhub.control.decoding import decode
from triggerhub.control.faults import Fault
from triggerhub.control.plugins import Kind, installed_kinds
from triggerhub.control.resources import Function, Manifest, Trigger, Where

KINDS = installed_kinds()
NOW = datetime.now(UTC)


class Verdict(NamedTuple):
    takes: bool
    said: str
    made: Body
    """By an API server: the object, its defaults filled in."""


def decoded(body: Body) -> Trigger | Function | tuple[Fault, ...]:
    """As `triggerhub validate` reads it from a folder."""
    where = Where("a.yaml", Path())
    return decode(Manifest.read(body, where=where, created=NOW), KINDS)


def of_hub(body: Body) -> Verdict:
    value = decoded(body)
    faults = value if isinstance(value, tuple) else ()
    return Verdict(not faults, "; ".join(map(str, faults)), {})


def of_server(apiserver: ApiServer, body: Body) -> Verdict:
    """As `kubectl apply` sends it: what is unknown is an error."""
    path = f"/apis/triggerhub.dev/v1alpha1/namespaces/default/{body['kind'].lower()}s"
    try:
        made = apiserver.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code not in (400, 422):
                raise
            return Verdict(False, json.loads(refused.read())["message"], {})
    return Verdict(True, "", made)


def test_the_table_knows_each_kind_well() -> None:
    table = rows()
    assert len({row.name for row in table}) == len(table)
    for kind in ("Function", *KINDS):
        of_kind = [row.good for row in table if row.body["kind"] == kind]
        assert min(of_kind.count(True), of_kind.count(False)) >= 10, kind


def test_both_take_and_refuse_the_same(apiserver: ApiServer) -> None:
    wrong = []
    for name, body, good in rows():
        hub, server = of_hub(body), of_server(apiserver, body)
        if not (hub.takes == server.takes == good):
            wrong.append(f"{name}: expected {good}, hub {hub[:2]}, API server {server[:2]}")
    assert not wrong, "\n".join(wrong)


def test_the_known_differences_are_still_there(apiserver: ApiServer) -> None:
    for told, body, hub, server in differences():
        found = of_hub(body).takes, of_server(apiserver, body).takes
        assert found == (hub, server), (told, body)


def test_what_the_api_server_stores_means_the_same(apiserver: ApiServer) -> None:
    """Its defaults are the models', and what it drops or rewrites makes no difference."""
    for name, body, good in rows():
        if not good:
            continue
        own, stored = decoded(body), decoded(of_server(apiserver, body).made)
        assert not isinstance(own, tuple), name
        assert not isinstance(stored, tuple), (name, stored)
        assert own.spec == stored.spec, name
        if isinstance(own, Trigger) and isinstance(stored, Trigger):
            assert own.source == stored.source, name
            if own.kind == "CronTrigger":
                assert own.source.payload() == stored.source.payload(), name  # type: ignore[union-attr]


GOOD = [row.body for row in rows() if row.good and row.name[:5] != "frame"]
JUNK: list[Any] = [
    None, True, False, 0, 1, -1, 1.0, 1.5, 10**10, "", "x", "a b", "A", ".", "..", "0s", "1h", "/",
    "a/b", "é", "x" * 300, TIME, [], ["x"], [None], ["x", 1], {}, {"x": 1}, {"a": "b"}, {"": ""},
]  # fmt: skip
CHARACTERS = " \t\n\0aZ09.-_/:@#%*?[]\\'\"é\u2028"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in it."""
    if path:
        yield path
    inside: Any = ()
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inside:
        yield from places(part, (*path, key))


@st.composite
def spoiled(draw: st.DrawFn) -> Body:
    """A good manifest in whose spec one or two things were changed: most are bad, many good."""
    body: Body = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(1, 2))):
        spots = list(places(body["spec"]))
        if not spots:
            break
        *path, last = draw(st.sampled_from(spots))
        holder = body["spec"]
        for part in path:
            holder = holder[part]
        way, old = draw(st.sampled_from(["junk", "text", "text", "gone", "more"])), holder[last]
        if way == "junk":
            holder[last] = deepcopy(draw(st.sampled_from(JUNK)))
        elif way == "text" and isinstance(old, str):
            spot, drop = draw(st.integers(0, len(old))), draw(st.integers(0, 1))
            more = draw(st.text(CHARACTERS, max_size=2))
            holder[last] = old[:spot] + more + old[spot + drop :]
        elif way == "gone":
            del holder[last]
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from(["x", f"{last}s", str(last).lower(), "a b"]))] = deepcopy(
                old
            )
    return body


def knowingly(faults: tuple[Fault, ...]) -> bool:
    """All that is wrong is what only the hub can tell."""
    known = ("spec.source.schedule", "spec.source.timeZone")
    return all(fault.field.startswith(known) for fault in faults)


@settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(body=spoiled())
def test_both_say_the_same_of_manifests_made_at_random(apiserver: ApiServer, body: Body) -> None:
    value, server = decoded(body), of_server(apiserver, body)
    if isinstance(value, tuple):
        assume(not (server.takes and knowingly(value)))
        assert not server.takes, (body, [str(fault) for fault in value])
    else:
        assert server.takes, (body, server.said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (trigger(function={}),
         'spec.function: Invalid value: "object": found none of name, selector, expected exactly'),
        (function(url="http://h/", code=CODE),
         "found url, code, expected exactly one of url, service, code"),
        (trigger("KafkaTrigger", {"topic": "a", "topics": ["b"]}),
         "found topic, topics, expected exactly one of topic, topics"),
        (trigger(function={"selector": {}}),
         "found an empty selector, expected matchLabels or matchExpressions"),
        (trigger(delivery={"retry": {"initial": "1m"}}),
         "initial is 1m and max 30s: expected initial to be no longer than max"),
        (trigger(delivery={"timeout": "0s"}), "expected a duration longer than 0s"),
        (trigger(source={"path": "/a/../b"}), "no '.' and no '..'"),
        (function(url="orders:80/in"), "expected a URL such as http://orders.example:8080/in"),
        (at(trigger(), ("metadata", "name"), "a.b"), "metadata.name: expected at most 63 of a-z"),
        (function(code=CODE | {"handler": "a.b"}), "handler a.b needs the file a.py"),
        (function(code=CODE | {"env": {"A-B": ""}}),
         "expected of each name: the name of an environment variable"),
        (trigger(function={"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
         "expected at least one value for In and NotIn"),
    ],
)  # fmt: skip
def test_a_rule_says_what_was_expected(apiserver: ApiServer, body: Body, said: str) -> None:
    assert said in of_server(apiserver, body).said


@pytest.fixture
def apply(apiserver: ApiServer, namespace: str) -> Callable[..., str]:
    """kubectl in a namespace of the test's own."""
    return lambda *arguments, **more: apiserver.kubectl("-n", namespace, *arguments, **more)


def test_kubectl_refuses_an_unknown_field(apply: Callable[..., str]) -> None:
    body = json.dumps(at(trigger(), ("spec", "delivery"), {"inflight": 3}))
    with pytest.raises(AssertionError, match=r'unknown field "spec\.delivery\.inflight"'):
        apply("apply", "-f", "-", stdin=body)


@pytest.mark.parametrize("way", [[], ["--server-side"]])
def test_kubectl_applies_and_shows_what_counts(apply: Callable[..., str], way: list[str]) -> None:
    selector = {"selector": {"matchLabels": {"app": "x"}}}
    start = {"startFrom": {"timestamp": TIME}}
    bodies = [
        at(trigger("KafkaTrigger", {"topic": "orders"} | start), ("metadata", "name"), "one"),
        at(trigger("KafkaTrigger", {"topics": ["a", "b"]}, function=selector),
           ("metadata", "name"), "many"),
        trigger("CronTrigger"), trigger("HTTPTrigger", {"path": "/in"}), function(url="http://h/"),
    ]  # fmt: skip
    for body in bodies:
        apply("apply", *way, "-f", "-", stdin=json.dumps(body))

    titles, *lines = (line.split() for line in apply("get", "kt").splitlines())
    assert titles == ["NAME", "READY", "REASON", "SOURCE", "FUNCTION", "AGE"]
    assert [line[:-1] for line in lines] == [
        ["many", '["a","b"]', '{"matchLabels":{"app":"x"}}'],
        ["one", "orders", "f"],
    ]
    wide = apply("get", "ct", "-o", "wide").splitlines()
    assert wide[0].split()[3:] == [
        "SOURCE", "FUNCTION", "BOUND", "CONNECTED", "MESSAGE", "AGE",
    ]  # fmt: skip
    assert "*/5 * * * *" in wide[1]
    assert "/in" in apply("get", "ht")
    assert len(apply("get", "triggerhub", "-o", "name").split()) == len(bodies)


def test_kubectl_explains_each_field(apply: Callable[..., str]) -> None:
    told = apply("explain", "kafkatrigger.spec.delivery.retry.maxAge")
    assert "FIELD: maxAge <string>" in told
    assert "After this long since its first attempt an event is given up." in told
    assert "initial\t<string>" in apply("explain", "kt.spec.delivery.retry")
    assert "timestamp\t<string>\n" in apply("explain", "kt.spec.source.startFrom")
    assert "offset\t<integer> -required-" in apply("explain", "kt.spec.source.startFrom.offsets")
    assert "enum: None, Key, Partition" in apply("explain", "fn") + apply(
        "explain", "ht.spec.delivery"
    )


def test_no_short_name_means_two_kinds(apiserver: ApiServer) -> None:
    told = [
        line.split() for line in apiserver.kubectl("api-resources", "--no-headers").splitlines()
    ]
    # name, perhaps short names, version, namespaced, kind
    short = [name for line in told if len(line) == 5 for name in line[1].split(",")]
    names = {line[0] for line in told}
    assert {"kt", "ct", "ht", "fn"} <= set(short)
    for name in ("kt", "ct", "ht", "fn"):
        assert short.count(name) == 1
        assert name not in names


def test_a_plugins_kind_is_one_like_any_other(apiserver: ApiServer, namespace: str) -> None:
    kinds = {"EchoTrigger": Kind("EchoTrigger", lambda: triggerhub_echo.EchoConnector)}
    apiserver.apply(crd("EchoTrigger", kinds))
    name = "crd/echotriggers.triggerhub.dev"
    apiserver.kubectl("wait", "--for=condition=Established", name, "--timeout=30s")
    echo = trigger(source={"password": {"secretRef": {"name": "s", "key": "k"}}})
    echo["kind"] = "EchoTrigger"
    apiserver.apply(echo, namespace=namespace)
    (found,) = json.loads(apiserver.kubectl("get", "echotriggers", "-n", namespace, "-o", "json"))[
        "items"
    ]
    assert found["spec"]["delivery"]["retry"]["maxAge"] == "24h"
    assert found["spec"]["source"] == echo["spec"]["source"]
    both = {"env": "A", "secretRef": {"name": "s", "key": "k"}}
    bad: list[Body] = [{}, {"password": {}}, {"password": both}]
    for wrong in bad:
        body = at(echo, ("spec", "source"), wrong)
        value = decode(Manifest.read(body, where=Where(), created=NOW), kinds)
        assert isinstance(value, tuple)
        assert not of_server(apiserver, body).takes
