"""Manifests, and whether they are good: for `triggerhub validate` and an API server alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any, NamedTuple

Body = dict[str, Any]

SOURCES: dict[str, Body] = {
    "CronTrigger": {"schedule": "*/5 * * * *"},
    "HTTPTrigger": {},
    "KafkaTrigger": {"topic": "orders"},
    "KinesisTrigger": {"stream": "orders"},
    "NATSTrigger": {"stream": "orders"},
}
CODE: Body = {"runtime": "python", "handler": "main.handle", "inline": {"main.py": "x = 1\n"}}
TIME = "2026-01-31T08:00:00Z"
GONE: Any = object()
"""In a change: the field is not there."""


class Row(NamedTuple):
    name: str
    body: Body
    good: bool


def trigger(kind: str = "HTTPTrigger", source: Any = None, **spec: Any) -> Body:
    """A good trigger, with these fields of its source and its spec instead."""
    own = SOURCES[kind] if source is None else source
    return _manifest(kind, _changed({"function": {"name": "f"}, "source": own}, spec))


def function(**spec: Any) -> Body:
    return _manifest("Function", spec)


def framed(metadata: Body | None = None, **frame: Any) -> Body:
    """A good trigger with these fields of its metadata and of the whole instead."""
    body = trigger()
    body["metadata"] = _changed(body["metadata"], metadata or {})
    return _changed(body, frame)


def rows() -> list[Row]:
    """All, each with a name of its own."""
    sections = (_kinds(), _functions_meant(), _deliveries(), _kafka(), _security(), _nats(),
                _kinesis(), _cron(), _http(), _exposed(), _functions(), _frames())  # fmt: skip
    return [row for section in sections for row in section]


class Difference(NamedTuple):
    """What one of the two takes and the other does not, knowingly."""

    told: str
    """In the table of docs/kubernetes.md, which says why."""
    body: Body
    hub: bool
    server: bool


def differences() -> list[Difference]:
    """All there are."""
    schedule, zone = "what the fields of a schedule say", "`timeZone`"
    null, name = "`null` as a label or annotation", "`generateName`"
    added, status = "what a server adds to `metadata`", "`status`"
    large, places = "size", "what `startFrom.offsets` names"
    unread: list[tuple[Body, list[Body]]] = [
        ({"topic": "a"}, []), ({"topics": ["a", "c"]}, []), ({"topicPattern": "a.*"}, []),
        ({"topic": "b"}, [_at(0, 2, "b")]),
    ]  # fmt: skip
    start = "NATS: `startFrom` without `stream`"
    buried = "NATS: dead letters to a subject that a `*` in `subjects` stands for"
    durable = "NATS: `durable` of the other kind, or `durable: true` with `reply: true`"
    asked = "NATS: `reply` that the trigger cannot give or would read itself, or to an inbox"
    at_noon = SOURCES["CronTrigger"]
    return [
        *(Difference(schedule, trigger("CronTrigger", {"schedule": text}), False, True)
          for text in ("0 25 * * *", "0 0 30 2 *", "@fortnightly", "0 0 * * 1-9", "@every",
                       "@every 5")),
        Difference(zone, trigger("CronTrigger", at_noon | {"timeZone": "Mars/Base"}), False, True),
        Difference(start, trigger("NATSTrigger", {"subject": "a", "startFrom": "New"}),
                   False, True),
        *(Difference(durable, trigger("NATSTrigger", source), False, True) for source in (
            {"subject": "a", "durable": "d"}, {"stream": "a", "durable": True},
            {"subject": "a", "durable": True, "reply": True})),
        Difference(asked, trigger("NATSTrigger", {"stream": "a", "reply": True}), False, True),
        Difference(buried, trigger("NATSTrigger", {"subjects": ["b", "*.b"]},
                                   delivery={"deadLetter": {"subject": "a.b"}}), False, True),
        *(Difference(asked, trigger("NATSTrigger", {"subject": "a.*", "reply": {"subject": to}}),
                     False, True) for to in ("a.b", "_INBOX.x")),
        Difference(null, framed({"labels": {"a": None}}), False, True),
        Difference(null, framed({"annotations": {"a": None}}), False, True),
        Difference(name, framed({"name": GONE, "generateName": "a-"}), False, True),
        Difference(added, framed({"ownerReferences": [{"name": "x"}]}), True, False),
        Difference(status, framed(status={"ready": 1}), True, False),
        *(Difference(places, trigger("KafkaTrigger", source | {"startFrom": {
              "offsets": [_at(0, 1, "b"), *more]}}), False, True)
          for source, more in unread),
        Difference(large, framed({"annotations": {"a": "x" * 2**18}}), True, False),
    ]  # fmt: skip


def _kinds() -> Iterator[Row]:
    """What is the same for each kind."""
    changes: list[tuple[str, tuple[str, ...], Any, bool]] = [
        ("unknown field of spec", ("spec", "filtre"), [], False),
        ("null unknown field of spec", ("spec", "filtre"), None, False),
        ("unknown field of the whole", ("sepc",), {}, False),
        ("no spec", ("spec",), GONE, False),
        ("null spec", ("spec",), None, False),
        ("empty spec", ("spec",), {}, False),
        ("spec a list", ("spec",), [], False),
        ("name with dots", ("metadata", "name"), "a.b", False),
        ("longest name", ("metadata", "name"), "a" * 63, True),
        ("name too long", ("metadata", "name"), "a" * 64, False),
    ]
    for kind in (*SOURCES, "Function"):
        good = trigger(kind) if kind in SOURCES else function(url="http://f.example/")
        yield Row(f"{kind}: least", good, True)
        for name, path, value, fine in changes:
            yield Row(f"{kind}: {name}", at(good, path, value), fine)
    sources: list[tuple[str, tuple[str, ...], Any]] = [
        ("no source", ("spec", "source"), GONE),
        ("null source", ("spec", "source"), None),
        ("source a text", ("spec", "source"), "x"),
        ("unknown field of source", ("spec", "source", "shedule"), "x"),
        ("no function", ("spec", "function"), GONE),
    ]
    for kind in SOURCES:
        for name, path, value in sources:
            yield Row(f"{kind}: {name}", at(trigger(kind), path, value), False)


def _functions_meant() -> Iterator[Row]:
    yes: list[Any] = [
        {"name": "a-1"},
        {"name": "f", "selector": None},
        {"selector": {"matchLabels": {"app": "x"}}},
        {"selector": {"matchLabels": {"example.com/app": ""}}},
        {"selector": {"matchLabels": {"a" * 253 + "/b": "c"}}},
        {"selector": {"matchLabels": {f"k{n}": "v" for n in range(50)}}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", ""]}]}},
        {"selector": {"matchExpressions": [{"key": "b.c_d", "operator": "Exists"}]}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}],
                      "matchLabels": {}}},
    ]  # fmt: skip
    no: list[Any] = [
        {},
        "f",
        {"nam": "f"},
        {"name": ""},
        {"name": "F"},
        {"name": "a_b"},
        {"name": 5},
        {"name": "f\n"},
        {"name": None},
        {"name": "f", "selector": {"matchLabels": {"a": "b"}}},
        {"selector": {}},
        {"selector": {"matchLabels": {}, "matchExpressions": []}},
        {"selector": {"matchLabels": {"a": None}}},
        {"selector": {"matchLabels": {"a": 1}}},
        {"selector": {"matchLabels": {"a b": "c"}}},
        {"selector": {"matchLabels": {"A/b": "c"}}},
        {"selector": {"matchLabels": {"a..b/c": "c"}}},
        {"selector": {"matchLabels": {"a/b/c": "c"}}},
        {"selector": {"matchLabels": {"a" * 254 + "/b": "c"}}},
        {"selector": {"matchLabels": {"a": "b c"}}},
        {"selector": {"matchLabels": {"a": "b" * 64}}},
        {"selector": {"matchLabels": {f"k{n}": "v" for n in range(51)}}},
        {"selector": {"matchLabel": {"a": "b"}}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}},
        {"selector": {"matchExpressions": [{"key": "-", "operator": "Exists"}]}},
        {"selector": {"matchExpressions": [{"operator": "Exists"}]}},
        {"selector": {"matchExpressions": [None]}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b "]}]}},
    ]
    for good, references in ((True, yes), (False, no)):
        for number, reference in enumerate(references):
            body = trigger(function=reference)
            yield Row(
                f"function {'yes' if good else 'no'} {number}: {_short(reference)}", body, good
            )


def _deliveries() -> Iterator[Row]:
    yes: list[Any] = [
        {}, None,
        {"order": "None"}, {"order": "Partition"}, {"order": None},
        {"inFlight": 1}, {"inFlight": 10_000}, {"inFlight": 2.0}, {"inFlight": None},
        *({"timeout": text} for text in (
            "1ns", "250ms", "1m30s", "1.5h", ".5s", "1.s", "100us", "1µs", "1μs", "2540400h",
            "0h0.5s", "0.0000000001h")),
        {"format": "Structured"},
        {"retry": {"attempts": 1, "initial": "1s", "max": "1s", "maxAge": "1ms"}},
        {"retry": {"initial": "30s"}}, {"retry": {"max": "200ms"}}, {"retry": {}}, {"retry": None},
        {"onExhausted": "Block"}, {"onExhausted": "Drop"},
        {"deadLetter": {}}, {"deadLetter": {"url": "https://dead.example/in?x=1"}},
    ]  # fmt: skip
    no: list[Any] = [
        [], "fast",
        {"order": "key"}, {"order": 1}, {"order": ""},
        {"inFlight": 0}, {"inFlight": 10_001}, {"inFlight": 1.5}, {"inFlight": "64"},
        {"inFlight": True}, {"inFlight": 10**20}, {"in_flight": 3}, {"inflight": 3},
        *({"timeout": text} for text in (
            "0s", "-1s", "+1s", "30", "", "s", "1d", "1 s", "1s ", "1S", "1e3s", ".s", "٣s", "0h0m",
            "0.1ns", "0.9ns", "2540401h", "9999999h", "1s\n", "1h" * 33)),
        {"timeout": 30}, {"timeout": ["30s"]},
        {"format": "Batch"},
        {"retry": {"attempts": 0}}, {"retry": {"attempts": 10**7}},
        {"retry": {"initial": "1m"}}, {"retry": {"max": "100ms"}},
        {"retry": {"initial": "2s", "max": "1999ms"}}, {"retry": {"maxage": "1h"}},
        {"onExhausted": "Deadletter"}, {"onFunctionDelete": "Keep"},
        {"deadLetter": {"topic": "x"}}, {"deadLetter": {"url": "http://u:p@h/"}},
    ]  # fmt: skip
    for good, deliveries in ((True, yes), (False, no)):
        for number, delivery in enumerate(deliveries):
            name = f"delivery {'yes' if good else 'no'} {number}: {_short(delivery)}"
            yield Row(name, trigger(delivery=delivery), good)
    for paused, good in ((True, True), (False, True), (None, True), ("true", False), (1, False)):
        yield Row(f"paused {paused!r}", trigger(paused=paused), good)
    for choice, good in (("Delete", True), (None, True), ("delete", False), (True, False)):
        yield Row(f"onFunctionDelete {choice!r}", trigger(onFunctionDelete=choice), good)


def _kafka() -> Iterator[Row]:
    yes: list[Body] = [
        {"topics": ["a", "b.c_d-E"]}, {"topic": "a" * 249}, {"topic": "..."},
        {"topic": "a", "topics": None},
        *({"topic": "a", "brokers": [broker]} for broker in (
            "kafka.example:9092", "127.0.0.1:1", "[::1]:9092", "a-b.c_d:65535",
            "[1:2:3:4:5:6:7::]:1", "[fe80::1%eth0]:9092")),
        {"topic": "a", "group": "any group"}, {"topic": "a", "brokers": None},
        *({"topic": "a", "startFrom": start} for start in (
            "Latest", "Earliest", None, {"timestamp": TIME},
            {"timestamp": "2026-02-28t23:59:59.123456789+14:00"},
            {"offsets": [_at(0, 42), _at(1, 0)]}, {"offsets": [_at(0, 2**53 - 1, "a"), _at(0, 1)]},
            {"offsets": [_at(2**31 - 1, 1.0, None)]}, {"timestamp": TIME, "offsets": None})),
        *({"topicPattern": pattern} for pattern in (
            "orders-.*", "a|b", "(?i)x{1,1000}", r"\pL\d[^-a-z]", "^a$", "ä", "a" * 1000)),
        {"topicPattern": "a.*", "startFrom": {"offsets": [_at(3, 1, "abc")]}},
        {"topicPattern": "a", "topic": None},
        *({"topic": "a", "outOfRange": policy} for policy in ("Earliest", "Latest", "Stop", None)),
        {"topic": "a", "isolation": "ReadUncommitted"}, {"topic": "a", "isolation": None},
        {"topic": "a", "cleanup": "Delete"}, {"topic": "a", "cleanup": None},
        {"topic": "a", "seek": None},
        *({"topic": "a", "seek": {"id": name, "to": "Latest"}} for name in (
            "2026-11-23-a", "a", "1.2_b:c+d", "-", "x" * 63)),
        *({"topic": "a", "seek": {"id": "a", "to": to}} for to in (
            "Earliest", {"timestamp": TIME})),
        {"topic": "a", "reply": {"topic": "b"}}, {"topic": "a", "reply": None},
        {"topicPattern": "a|b.*", "reply": {"topic": "ab"}},
        {"topics": ["a", "b"], "reply": {"topic": "c"}}, {"topic": "a", "reply": {"topic": "A"}},
    ]  # fmt: skip
    no: list[Body] = [
        {}, {"topic": "a", "topics": ["b"]}, {"topics": []}, {"topics": "a"}, {"topics": [None]},
        {"topic": ""}, {"topic": "."}, {"topic": ".."}, {"topics": ["a", ".."]}, {"topic": "a b"},
        {"topic": "a" * 250}, {"topic": "é"}, {"topic": 1}, {"topic": "a\n"},
        {"topics": ["a"] * 501},
        *({"topic": "a", "brokers": brokers} for brokers in (
            [], "a:1", ["kafka"], ["kafka:0"], ["kafka:65536"], ["kafka:70000"], ["kafka:"], [":1"],
            ["a b:1"], ["http://a:1"], ["[::1:9092"], ["[1::2::3]:1"], ["a:1,b:2"], [9092],
            ["a:09092"])),
        {"topic": "a", "group": ""}, {"topic": "a", "group": "g" * 256}, {"topic": "a", "group": 1},
        {"topic": "a", "groupId": "g"},
        *({"topic": "a", "startFrom": start} for start in (
            "Newest", "latest", "", 5, 1.5, True, False, [], ["Latest"], {}, {"timestamp": None},
            {"timestamp": TIME, "offset": 1}, {"offset": 1}, {"timestamp": "2026-01-31"},
            {"timestamp": "2026-01-31T08:00:00"}, {"timestamp": "2026-02-30T08:00:00Z"},
            {"timestamp": "2026-01-31T24:00:00Z"}, {"timestamp": "2026-01-31T08:00:60Z"},
            {"timestamp": "2026-01-31 08:00:00Z"}, {"timestamp": "2026-01-31T08:00:00+25:00"},
            {"timestamp": "0000-01-31T08:00:00Z"}, {"timestamp": 1}, {"offsets": {}},
            {"offsets": None}, {"offsets": []}, {"offsets": [42]}, {"offsets": {"0": 42}},
            {"offsets": [{}]}, {"offsets": [{"partition": 0}]}, {"offsets": [{"offset": 0}]},
            *({"offsets": [_at(0, offset)]} for offset in (-1, 2**53, 1.5, "42", None, True)),
            *({"offsets": [_at(place, 0)]} for place in (-1, 2**31, 0.5, "0", None)),
            {"offsets": [_at(0, 0, "a b")]}, {"offsets": [_at(0, 0) | {"of": "a"}]},
            {"offsets": [_at(n, 0) for n in range(1001)]},
            {"timestamp": TIME, "offsets": [_at(0, 1)]})),
        *({"topicPattern": pattern} for pattern in (
            "", "(a", "a{1001}", "[z-a]", "(?=a)", r"\1", "*", "a" * 1001, 5, ["a"])),
        {"topicPattern": "a", "topic": "b"}, {"topicPattern": "a", "topics": ["b"]},
        *({"topic": "a", "outOfRange": policy} for policy in ("earliest", "Fail", "", True)),
        *({"topic": "a", "isolation": level} for level in ("read_committed", "", 1)),
        {"topic": "a", "cleanup": "delete"}, {"topic": "a", "cleanup": True},
        {"topic": "a", "reply": {}}, {"topic": "a", "reply": "b"}, {"topic": "a", "reply": []},
        *({"topic": "a", "reply": {"topic": topic}} for topic in ("a", "", "..", "b c", None, 5)),
        {"topics": ["b", "a"], "reply": {"topic": "a"}}, {"topic": "a", "reply": {"url": "b"}},
        {"topicPattern": "a.*|b", "reply": {"topic": "ab"}},
        {"topicPattern": "a.*|b", "reply": {"topic": "b"}},
        {"topic": "a", "reply": {"topic": "b", "key": "c"}},
    ]  # fmt: skip
    names: list[Any] = ["", "a b", "a,b", "a@b", "x" * 64, "é", 1, "a\n", None]
    places: list[Any] = ["latest", 5, [], {}, {"timestamp": "2026-01-31"}, {"offset": 1}, None]
    seeks: list[Any] = [
        "Latest", {}, [], {"id": "a"}, {"to": "Latest"}, {"id": "a", "to": "Latest", "at": 1},
        {"id": "a", "timestamp": TIME},
        *({"id": name, "to": "Latest"} for name in names),
        *({"id": "a", "to": place} for place in places),
    ]  # fmt: skip
    no += [{"topic": "a", "seek": seek} for seek in seeks]
    yield from _of("KafkaTrigger", yes, no)
    yield from _letters()


def _letters() -> Iterator[Row]:
    """Dead letters to a topic: what spans both halves of the spec."""
    many = {"topics": [f"{'t' * 245}{n}" for n in range(500)]}
    one, two = {"topic": "a"}, {"topics": ["a", "b"]}
    choices: list[tuple[Body, Any, bool]] = [
        (one, {"topic": "dead"}, True),
        (one, {}, True),
        (one, None, True),
        (one, {"topic": None}, True),
        (one, {"url": "http://d.example/"}, True),
        (one, {"topic": "dead", "url": None}, True),
        (two, {"topic": "c"}, True),
        (many, {"topic": "t" * 249}, True),
        (one, {"topic": "A"}, True),
        (one | {"reply": {"topic": "b"}}, {"topic": "b"}, True),
        ({"topicPattern": "b.+"}, {"topic": "b"}, True),
        ({"topicPattern": "b.+"}, {"topic": "b1"}, False),
        (one, {"topic": "a"}, False),
        (two, {"topic": "b"}, False),
        (many, {"topic": many["topics"][-1]}, False),
        (one, {"topic": "dead", "url": "http://d.example/"}, False),
        (one, {"topic": ""}, False),
        (one, {"topic": ".."}, False),
        (one, {"topic": 5}, False),
        (one, {"topics": ["dead"]}, False),
        (one, {"subject": "dead"}, False),
    ]
    for number, (source, letters, good) in enumerate(choices):
        body = trigger("KafkaTrigger", source, delivery={"deadLetter": letters})
        yield Row(f"letters {number}: {_short(letters)}", body, good)


def _at(partition: Any, offset: Any, *topic: Any) -> Body:
    return {"partition": partition, "offset": offset, **({"topic": topic[0]} if topic else {})}


def _security() -> Iterator[Row]:
    kept = {"secretRef": {"name": "kafka", "key": "some.key"}}
    sasl = {"mechanism": "SCRAM-SHA-512", "username": "orders", "password": kept}
    granted = {"tokenEndpoint": "https://login.example:8443/oauth2/token?tenant=a%20b",
               "clientId": "hub", "clientSecret": kept}  # fmt: skip
    bearer = {"mechanism": "OAUTHBEARER"}
    good_tokens: list[Body] = [
        {"token": kept}, {"token": {"env": "TOKEN"}, "username": None, "password": None},
        {"oauth": granted}, {"oauth": granted | {"scope": "a b/.default", "ca": kept}},
        {"oauth": granted | {"clientId": kept, "scope": None}}, {"provider": {"name": "aws"}},
        {"oauth": granted | {"tokenEndpoint": "https://[::1]"}},
        {"provider": {"name": "aws", "options": {"region": "eu-1", "secret": kept}}},
    ]  # fmt: skip
    bad_tokens: list[Body] = [
        {}, {"token": "eyJ"}, {"token": None}, {"token": kept, "oauth": granted},
        {"token": kept, "provider": {"name": "aws"}}, {"oauth": granted, "provider": {"name": "a"}},
        {"token": kept, "username": "orders"}, {"token": kept, "password": kept},
        {"token": kept, "username": "orders", "password": kept}, {"oauth": {}},
        *({"oauth": granted | one} for one in (
            {"tokenEndpoint": "http://login.example/token"}, {"tokenEndpoint": "login.example"},
            {"tokenEndpoint": "https://u:p@login.example/"}, {"tokenEndpoint": "https://a b/"},
            {"tokenEndpoint": "https://a/#b"}, {"tokenEndpoint": None}, {"clientId": ""},
            {"clientId": None}, {"clientSecret": "hunter2"}, {"scope": ""}, {"scope": " a"},
            {"scope": 'a"'}, {"scope": ["a"]}, {"ca": "-----BEGIN"}, {"audience": "kafka"})),
        {"provider": "aws"}, {"provider": {}}, {"provider": {"name": ""}},
        {"provider": {"name": "aws", "options": {"a": 5}}},
        {"provider": {"name": "aws", "options": {"a": ""}}},
        {"provider": {"name": "aws", "options": ["a"]}}, {"provider": {"name": "a", "role": "b"}},
    ]  # fmt: skip
    good_logins: list[Body] = [
        {}, {"mechanism": "PLAIN"}, {"mechanism": "SCRAM-SHA-256"}, {"username": "a=b,c"},
        {"username": kept}, {"username": {"configMapRef": {"name": "a.b", "key": "U_1"}}},
        {"username": {"env": "USER"}}, {"password": {"env": "_P1"}},
    ]  # fmt: skip
    bad_logins: list[Body] = [
        {"mechanism": "OAUTHBEARER"}, {"mechanism": "plain"}, {"mechanism": None},
        {"username": None}, {"oauth": granted}, {"provider": {"name": "aws"}},
        *_each("username", ("", 5, None, [], {}, "u" * 1025)),
        {"username": {"secretref": {}}}, {"username": {"secretRef": {}}},
        {"username": kept | {"env": "X"}}, {"username": {"secretRef": {"name": "A B", "key": "c"}}},
        {"username": {"secretRef": {"name": "a", "key": "b", "kye": "c"}}},
        {"username": {"secretRef": {"name": "a", "key": "b c"}}},
        {"password": "hunter2"}, {"password": None}, {"password": {}},
        {"password": {"env": "A-B"}}, {"password": {"vault": "x"}}, {"token": kept},
    ]  # fmt: skip
    yes: list[Any] = [
        None, {"tls": {}}, {"tls": {}, "sasl": None}, {"tls": {"ca": kept}},
        {"tls": {"ca": {"env": "CA"}}}, {"tls": {"certificate": kept, "key": kept}},
        {"tls": {"ca": kept, "certificate": None, "key": None}}, {"sasl": sasl, "tls": {}},
        *({"sasl": sasl | change} for change in good_logins),
        *({"sasl": bearer | login} for login in good_tokens),
    ]  # fmt: skip
    no: list[Any] = [
        {}, {"tls": None, "sasl": None}, {"sasl": None}, "TLS", True, [], {"ssl": {}, "tls": {}},
        {"tls": True}, {"tls": "required"}, {"tls": {"insecureSkipVerify": True}},
        {"tls": {"ca": "-----BEGIN"}}, {"tls": {"ca": {}}}, {"tls": {"ca": [kept]}},
        {"tls": {"ca": kept | {"env": "X"}}}, {"tls": {"ca": {"secretRef": {"name": "a"}}}},
        {"tls": {"certificate": kept}}, {"tls": {"key": kept}},
        {"tls": {"ca": kept, "certificate": kept, "key": None}},
        {"sasl": {}}, {"sasl": {"mechanism": "PLAIN"}},
        *({"sasl": sasl | change} for change in bad_logins),
        *({"sasl": bearer | login} for login in bad_tokens),
    ]  # fmt: skip
    topic = {"topic": "a"}
    yield from _of(
        "KafkaTrigger",
        [topic | one for one in _each("security", yes)],
        [topic | one for one in _each("security", no)],
    )
    basic = {"username": "hub", "password": kept}
    at, over_tls = {"url": "http://registry:8081"}, {"url": "https://registry.example/a/b"}
    yes = [
        None, at, over_tls, at | {"basic": basic}, at | {"basic": basic | {"username": kept}},
        at | {"bearer": kept, "basic": None}, over_tls | {"tls": {}},
        over_tls | {"tls": {"ca": kept}},
        over_tls | {"tls": {"certificate": kept, "key": kept}, "bearer": {"env": "T"}},
        {"url": "http://[::1]:8081/"}, at | {"tls": None},
    ]  # fmt: skip
    no = [
        {}, True, "http://registry:8081", [], {"url": None}, {"url": ""}, {"url": "registry:8081"},
        {"url": "ftp://registry"}, {"url": "http://u:p@registry"}, {"url": "http://registry?a=b"},
        {"url": "http://registry#a"}, {"url": "http://registry:0"}, {"url": ["http://registry"]},
        {"url": "http://a b/"}, {"url": "HTTP://registry"}, at | {"tls": {}},
        at | {"basic": basic, "bearer": kept}, at | {"basic": {}},
        at | {"basic": {"username": "a"}},
        at | {"basic": basic | {"password": "hunter2"}}, at | {"bearer": "eyJ"},
        over_tls | {"tls": {"key": kept}}, over_tls | {"tls": {"insecure": True}},
        at | {"subject": "a"},
    ]  # fmt: skip
    yield from _of(
        "KafkaTrigger",
        [topic | one for one in _each("schemaRegistry", yes)],
        [topic | one for one in _each("schemaRegistry", no)],
    )


def _nats() -> Iterator[Row]:
    kept = {"secretRef": {"name": "nats", "key": "some.key"}}
    core: Body = {"subject": "a"}
    stream: Body = {"stream": "a"}
    yes: list[Body] = [
        *({"subject": subject} for subject in (
            ">", "*", "a.>", "*.b", "a.*.c.>", "a-b_c.d/e:$F", "größe.量", "a" * 255)),
        {"subjects": ["a", "b.*"]}, {"subject": "a", "subjects": None, "stream": None},
        *({"stream": name} for name in ("ORDERS", "a-b_c$", "ö", "a" * 255)),
        stream | {"subject": "a.*"}, stream | {"subjects": ["a", "b"]},
        *(core | {"servers": [server]} for server in (
            "nats.example", "nats.example:4222", "nats://a:1", "tls://[::1]:4222", "127.0.0.1")),
        *(stream | one for one in _each("startFrom", (
            "All", "New", "Last", None, {"sequence": 1}, {"time": TIME}))),
        stream | {"durable": "d-1", "maxAckPending": 1, "confirmAcks": True},
        stream | {"confirmAcks": False, "reply": False},
        core | {"durable": True, "queue": "q"}, core | {"durable": False},
        core | {"queue": "q.1", "reply": True}, core | {"key": "Subject"},
        *(one | {"reply": {"subject": "b.c"}} for one in (core, stream)),
        stream | {"cleanup": "Delete"}, core | {"cleanup": "Keep", "seek": None},
        *(stream | {"seek": {"id": "2026-11-23.a:1", "to": to}} for to in (
            "All", "New", "Last", {"sequence": 1}, {"time": TIME})),
        core | {"key": {"header": "X-Key"}},
        *(core | one for one in _each("security", (
            {"tls": {}}, {"token": kept}, {"nkey": kept, "tls": {"ca": kept}},
            {"credentials": {"env": "C"}}, {"user": {"name": "u", "password": kept}},
            {"user": {"name": kept, "password": kept}}))),
    ]  # fmt: skip
    no: list[Body] = [
        {}, {"subject": None}, {"subject": "a", "subjects": ["b"]}, {"subjects": []},
        *({"subject": subject} for subject in (
            "", ".", "a.", ".a", "a..b", ">.a", "a>", "a*", "a b", "a\n", "a" * 256, 1)),
        *({"stream": name} for name in ("", "a.b", "a b", "*", ">", "a/b", "a\\b", "a" * 256)),
        *(core | {"servers": servers} for servers in (
            [], "a:1", ["http://a:1"], ["nats://"], ["a:0"], ["a:70000"], ["u:p@a:1"], ["a:1,b"])),
        *(core | one for one in (
            {"durable": 1}, {"maxAckPending": 5}, {"confirmAcks": True},
            {"cleanup": "Delete"}, {"seek": {"id": "a", "to": "All"}})),
        stream | {"queue": "q"}, stream | {"durable": "a.b"}, stream | {"cleanup": "Drop"},
        *(core | {"reply": reply} for reply in (
            "b", 1, {}, {"subject": "b.*"}, {"subject": ""}, {"topic": "b"}, {"subject": "$JS.x"})),
        *(stream | {"seek": seek} for seek in (
            "All", {}, {"id": "a"}, {"to": "All"}, {"id": "", "to": "All"},
            {"id": "a b", "to": "All"}, {"id": "a", "to": "Earliest"}, {"id": "a", "to": {}},
            {"id": "a", "to": {"sequence": 0}}, {"id": "a", "to": {"sequence": 1, "time": TIME}})),
        stream | {"maxAckPending": 0}, stream | {"maxAckPending": "5"},
        *(stream | one for one in _each("startFrom", (
            "all", "Earliest", {}, {"sequence": 0}, {"sequence": "1"}, {"time": "today"},
            {"sequence": 1, "time": TIME}, {"time": "2026-02-30T08:00:00Z"}, 5))),
        *(core | one for one in _each("key", ("Header", {}, {"header": ""}, {"header": "a b"}))),
        *(core | one for one in _each("security", (
            {}, {"tls": None}, {"token": kept, "nkey": kept}, {"token": "t0ken"},
            {"user": {"name": "u"}}, {"user": {"name": "", "password": kept}},
            {"user": {"name": "u", "password": kept}, "credentials": kept},
            {"tls": {"certificate": kept}}, {"tls": {"insecure": True}}))),
    ]  # fmt: skip
    yield from _of("NATSTrigger", yes, no)
    places: list[tuple[Body, Body, bool]] = [
        (core, {"subject": "b"}, True),
        (stream, {"subject": "a.b.c"}, True),
        (stream | {"subject": "a.*.c"}, {"subject": "a.b.d"}, True),
        (stream | {"subject": "a.*.c"}, {"subject": "a.b.x.c"}, True),
        (stream | {"subject": "a.>"}, {"subject": "a"}, True),
        (stream | {"subject": "a.+[$]"}, {"subject": "a.b"}, True),
        (stream | {"subjects": ["b.>", "*"]}, {"subject": "a.b"}, True),
        (core, {"url": "http://dead.example/"}, True),
        (core, {"subject": "a"}, False),
        (core, {"subject": "b", "url": "http://dead.example/"}, False),
        (stream | {"subject": "a.*.c"}, {"subject": "a.b.c"}, False),
        (stream | {"subject": "a.>"}, {"subject": "a.b.c"}, False),
        (stream | {"subject": ">"}, {"subject": "b"}, False),
        (stream | {"subject": "a.+[$]"}, {"subject": "a.+[$]"}, False),
        (stream | {"subjects": ["b.>", "a.b", "c"]}, {"subject": "a.b"}, False),
        (stream | {"subjects": ["b.>", "a.>"]}, {"subject": "a.b"}, False),
        *((core, {"subject": subject}, False) for subject in (
            "", "b.*", "b.>", "$JS.API.STREAM.DELETE.x", "_INBOX.x", "b c", 5, "b" * 256)),
        (core, {"topic": "b"}, False),
    ]  # fmt: skip
    for number, (source, letters, good) in enumerate(places):
        body = trigger("NATSTrigger", source, delivery={"deadLetter": letters})
        yield Row(f"nats letters {number}: {_short(letters)}", body, good)


def _kinesis() -> Iterator[Row]:
    kept = {"secretRef": {"name": "aws", "key": "some.key"}}
    stream: Body = {"stream": "a"}
    arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/"
    role = "arn:aws:iam::123456789012:role/"
    key = {"accessKeyId": "AKIA", "secretAccessKey": kept}
    yes: list[Body] = [
        *({"stream": name} for name in ("ORDERS", "a-b_c.d", "a" * 128)),
        {"streamARN": arn + "a-b.c"}, {"streamARN": f"arn:aws-cn{arn[7:]}a", "stream": None},
        *(stream | one for one in _each("region", (None, "us-gov-west-1", "local"))),
        *(stream | one for one in _each("endpoint", (
            None, "https://kinesis.eu-central-1.amazonaws.com", "http://127.0.0.1:4568/",
            "http://[::1]:4568", "https://vpce-1.example"))),
        *(stream | one for one in _each("credentials", (
            None, key, key | {"accessKeyId": kept}, key | {"sessionToken": {"env": "T"}}))),
        *(stream | one for one in _each("assumeRole", (
            None, {"roleARN": role + "reader"},
            {"roleARN": role + "path/to/it", "externalId": "a:b/c", "sessionName": "hub@x"}))),
        *(stream | one for one in _each("startFrom", (
            "Latest", "TrimHorizon", None, {"timestamp": TIME}))),
        *(stream | one for one in _each("outOfRange", (None, "TrimHorizon", "Latest", "Stop"))),
        *(stream | one for one in _each("seek", (
            None, {"id": "2026-11-23-a", "to": "Latest"}, {"id": "1", "to": "TrimHorizon"},
            {"id": "a" * 63, "to": {"timestamp": TIME}}))),
        stream | {"cleanup": "Delete"}, stream | {"cleanup": "Keep"},
    ]  # fmt: skip
    no: list[Body] = [
        {}, {"stream": None}, {"stream": "a", "streamARN": arn + "a"},
        *({"stream": name} for name in ("", "a b", "a/b", "a*", "ö", "a\n", "a" * 129, 1)),
        *({"streamARN": name} for name in (
            "", "a", arn, arn + "a/b", arn.replace("kinesis", "dynamodb") + "a",
            arn.replace("123456789012", "1") + "a", arn + "a:b", arn + "a" * 129)),
        {"streamARN": arn + "a", "region": "eu-central-1"},
        *(stream | one for one in _each("region", ("", "eu central", "EU", 1, "a" * 64))),
        *(stream | one for one in _each("endpoint", (
            "", "127.0.0.1:4568", "ftp://a", "http://a/b", "http://u:p@a", "http://a:0",
            "http://a?b", "http://"))),
        *(stream | one for one in _each("credentials", (
            {}, {"accessKeyId": "A"}, {"secretAccessKey": kept}, key | {"secretAccessKey": "s"},
            key | {"accessKeyId": ""}, key | {"token": kept}, key | {"sessionToken": "t"}))),
        *(stream | one for one in _each("assumeRole", (
            {}, {"roleARN": "reader"}, {"roleARN": role}, {"roleARN": role + "a b"},
            {"roleARN": role + "a", "externalId": "a"},
            {"roleARN": role + "a", "sessionName": "a b"}))),
        *(stream | one for one in _each("startFrom", (
            "Earliest", "latest", {}, {"timestamp": "today"}, {"timestamp": None}, 5,
            {"timestamp": TIME, "sequence": 1}))),
        *(stream | one for one in _each("outOfRange", ("Earliest", "Stopp", ""))),
        *(stream | one for one in _each("seek", (
            {}, {"id": "a"}, {"to": "Latest"}, {"id": "", "to": "Latest"},
            {"id": "a b", "to": "Latest"}, {"id": "a", "to": "Earliest"},
            {"id": "a" * 64, "to": "Latest"}))),
        stream | {"cleanup": "delete"}, stream | {"shard": "shardId-000000000000"},
    ]  # fmt: skip
    yield from _of("KinesisTrigger", yes, no)


def _cron() -> Iterator[Row]:
    daily = {"schedule": "@daily"}
    yes: list[Body] = [
        daily, {"schedule": "0 12 * * MON-FRI"}, {"schedule": "*/10 0 12 1,15 JAN-MAR *"},
        {"schedule": ["@hourly", "0 0 L * *"]}, {"schedule": " 0 12 * * * "},
        {"schedule": "0 0 * * sat#2"}, {"schedule": "@DAILY"}, {"schedule": "0 0 ? * 1"},
        daily | {"timeZone": "Europe/Berlin"}, daily | {"timeZone": "Etc/GMT+5"},
        daily | {"timeZone": None},
        *(daily | one for one in _each("data", (
            None, "x", "", 7, 1.5, True, [], [None], {}, {"a": None, "b": [1, {"c": "d"}]}))),
        daily | {"contentType": "text/plain; charset=utf-8"},
        {"schedule": "@every 90s"}, {"schedule": " @EVERY  1h30m "}, {"schedule": "0 0 * * 5L"},
        daily | {"from": "2026-02-01T00:00:00Z", "until": "2026-03-01T00:00:00+01:00"},
        daily | {"from": None, "until": None}, daily | {"until": "2020-01-01T00:00:00Z"},
        daily | {"excluding": ["2026-12-24", "12-25", "2026-12-27/2026-12-31", "02-29"]},
        daily | {"excluding": []}, daily | {"jitter": "30s"}, daily | {"jitter": None},
        *(daily | {"missedRuns": policy, "missedRunsMaxAge": "90m"}
          for policy in ("Skip", "Last", "All")),
        *(daily | {"concurrency": policy} for policy in ("Allow", "Forbid", "Replace")),
        daily | {"missedRuns": "Last", "concurrency": "Replace"},
    ]  # fmt: skip
    no: list[Body] = [
        {}, {"schedule": ""}, {"schedule": None}, {"schedule": []}, {"schedule": [None]},
        {"schedule": ["@daily", 5]}, {"schedule": 5}, {"schedule": True}, {"schedule": {}},
        {"schedule": {"at": "@daily"}}, {"schedule": "0 12 * *"}, {"schedule": "0 0 0 12 * * *"},
        {"schedule": "TZ=UTC 0 12 * * *"}, {"schedule": "daily"}, {"schedule": "@"},
        {"schedule": "0 12 * * ä"}, {"schedule": ["@daily"] * 101}, {"schedule": "0;12 * * * *"},
        daily | {"timeZone": ""}, daily | {"timeZone": "Europe Berlin"}, daily | {"timeZone": 1},
        daily | {"timeZone": "../etc/passwd"}, daily | {"time_zone": "UTC"},
        daily | {"contentType": "json"}, daily | {"contentType": "a/b\r\nx: y"},
        daily | {"contentType": ""}, daily | {"contentType": "a/" + "b" * 255},
        {"schedule": "every 5m"},
        daily | {"jitter": "0s"}, daily | {"jitter": 5}, daily | {"jitter": "-5s"},
        daily | {"from": "2026-02-01"}, daily | {"until": "tomorrow"}, daily | {"from": 5},
        daily | {"from": "2026-02-01T01:00:00+01:00", "until": "2026-02-01T00:00:00Z"},
        daily | {"excluding": ["christmas"]}, daily | {"excluding": "12-25"},
        daily | {"excluding": ["2026-12-24/12-25"]}, daily | {"excluding": ["12-25"] * 101},
        daily | {"missedRuns": "Some"}, daily | {"missedRunsMaxAge": "1d"},
        daily | {"concurrency": "forbid"}, daily | {"missedRuns": "All", "concurrency": "Replace"},
    ]  # fmt: skip
    yield from _of("CronTrigger", yes, no)


def _http() -> Iterator[Row]:
    kept: Body = {"secretRef": {"name": "callers", "key": "tokens"}}
    issuer: Body = {"issuer": "https://login.example", "audiences": ["hub"]}
    jwt = issuer | {"jwks": kept}
    strange: list[Body] = [
        {"origins": []}, {"origins": ["a.example"]}, {"origins": ["https://a/"]},
        {"origins": ["https://*"]}, {"credentials": True}, {"maxAge": 5}, {"origins": "*"},
        {"headers": ["a b"]}, {"methods": ["GET"]}, {"origins": ["https://a:0"]},
    ]  # fmt: skip
    unfit: list[Body] = [
        {"ca": kept}, {"audiences": []}, {"audiences": "hub"}, {"audiences": [""]}, {"issuer": ""},
        {"algorithms": []}, {"algorithms": ["none"]}, {"algorithms": "ES256"}, {"clockSkew": "0s"},
        {"clockSkew": 30}, {"audience": "hub"},
    ]  # fmt: skip
    yes: list[Body] = [
        {"host": "api.example.com"}, {"host": "*.Example.COM"}, {"host": "localhost"},
        {"host": None}, {"host": "1.2.3.4"},
        *({"path": path} for path in (
            "/", "/a/b", "/a//b/", "/...", "/.a/..b", "/a%20b", "/%2f", "/a;b=c,d", "/%2", "/~x",
            "/{a}", "/a/{Order-ID}/b/{c}/", "/{" + "a" * 63 + "}", "/.../{a}", "/{a}/{b}/{ab}/a",
            "/" + "{a}/{b}/".replace("a", "a" * 30) + "/".join(f"{{x{n}}}" for n in range(150)))),
        {"pathType": "Exact"}, {"pathType": None},
        {"methods": ["GET"]}, {"methods": ["POST", "M-SEARCH", "POST"]}, {"methods": None},
        *({"maxBodySize": size} for size in (0, 10, 10.0, "10", "512Ki", "1k", "2M", "1Gi", None)),
        *({"auth": auth} for auth in (
            {"bearer": kept}, {"basic": kept}, {"apiKey": {"keys": kept}},
            {"apiKey": {"header": "X_Key-1", "keys": kept}}, {"jwt": jwt}, None,
            {"bearer": kept, "basic": kept, "jwt": jwt, "passOn": True, "addresses": None},
            {"jwt": jwt | {"algorithms": ["HS256", "EdDSA"]}},
            {"jwt": issuer | {"jwksURL": "https://[::1]:8443/keys?x=1", "ca": kept}},
            {"jwt": jwt | {"clockSkew": "1m30s"}},
            *({"addresses": {"allow": [network]}} for network in (
                "10.0.0.0/8", "10.0.0.1/8", "0.0.0.0/0", "255.255.255.255", "::/0", "2001:db8::7",
                "::ffff:102:304")),
            {"addresses": {"trustedProxies": ["::1"], "allow": None}},
            {"addresses": {"allow": ["::1"], "trustedProxies": [], "header": "Forwarded"}})),
        *({"auth": {"clientCertificate": given}} for given in (
            {}, {"names": ["DNS:a", "URI:spiffe://a/b", "CN:a b", "email:a@b"]})),
        *({"signature": kept | signed} for signed in (
            {"preset": "GitHub"}, {"preset": "Slack", "tolerance": "1m", "replayWindow": "1h"},
            {"hmac": {"header": "X-Sig"}}, {"hmac": {"header": "X-Sig", "signed": "a{body}"}},
            {"hmac": {"header": "X-Sig", "timestampHeader": "X-Time"}},
            {"hmac": {"header": "X-Sig", "timestampHeader": "T", "signed": "{timestamp}:{body}",
                      "algorithm": "SHA1", "encoding": "Base64", "prefix": "v1="}})),
        {"signature": {"env": "SECRET", "preset": "Stripe", "hmac": None, "secretRef": None}},
        *({"limits": limits} for limits in (
            {"rate": 1}, {"concurrent": 5}, {"rate": 5, "per": "1m", "burst": 1}, None)),
        *({"cors": {"origins": ["*"]} | cors} for cors in (
            {}, {"origins": ["https://a.example:8443", "http://*.b.example", "null"]},
            {"headers": ["*", "X_a"], "exposeHeaders": [], "maxAge": "1h"},
            {"origins": ["https://a"], "credentials": True})),
        *({"webhook": {"origins": [name]}} for name in ("*", "a", "Emitter.example.com")),
        *_each("mode", ("Sync", "Async", "Prefer", None)),
        *_each("idempotencyWindow", ("90s", "24h", "1m30s", None)),
    ]  # fmt: skip
    no: list[Body] = [
        *({"host": host} for host in (
            "", "api.example.com:80", "a.*.com", "*", "*.", "a..b", "-a.com", "a_b.com",
            "\u212a.com", ".a", "a" * 64 + ".com", "ä.com", "a.com.", 5, "a\n")),
        *({"path": path} for path in (
            "", "orders", "/a?b=c", "/a b", "/a#b", "/a/../b", "/.", "/..", "/./a", "/a/.",
            "/%2e%2E/b", "/.%2e", "/a/%2e", "/ü", '/"', "/a\n", 5, "/" + "a" * 1024,
            "/{", "/{}", "/a{b}", "/{a}b", "/{1}", "/{a_b}", "/{a", "/a}", "/{a}/..", "{a}",
            "/{a}{b}", "/{{a}}", "/{" + "a" * 64 + "}", "/{a}/b/{a}", "/{Id}/{iD}")),
        {"pathType": "ImplementationSpecific"}, {"pathType": "exact"},
        *({"methods": methods} for methods in (
            [], "GET", ["get"], [""], ["CONNECT"], ["GET", "CONNECT"], ["GE T"], ["A" * 33], [None],
            ["-GET"], [1], ["A"] * 33)),
        *({"auth": auth} for auth in (
            {}, {"bearer": None}, {"passOn": True}, {"bearer": "token"}, {"bearer": {}}, [], "ci",
            {"bearer": [kept]}, {"apiKey": kept}, {"apiKey": {"header": "X-Key"}}, {"tokens": kept},
            *({"apiKey": {"header": name, "keys": kept}} for name in (
                "", "X Key", "Host", "connection", "X:", "ü", "-x", "A" * 65, 5)),
            {"jwt": issuer}, {"jwt": jwt | {"jwksURL": "https://a/"}}, {"jwt": {"jwks": kept}},
            {"jwt": issuer | {"jwksURL": "http://a/"}}, {"jwt": issuer | {"jwksURL": "https://"}},
            {"jwt": issuer | {"jwksURL": "https://a/", "algorithms": ["RS256", "HS256"]}},
            *({"jwt": jwt | wrong} for wrong in unfit),
            {"addresses": {}}, {"addresses": {"allow": []}}, {"clientCertificate": []},
            *({"clientCertificate": {"names": names}} for names in (
                [], ["a"], ["DNS:"], ["IP:10.0.0.1"], "DNS:a", ["dns:a"], [5])),
            {"addresses": {"allow": ["::1"], "header": "X-Real-IP"}},
            {"addresses": {"trustedProxies": []}}, {"addresses": {"header": "Forwarded"}},
            *({"addresses": {"allow": [network]}} for network in (
                "", "localhost", "10.0.0.0/33", "10.0.0", "10.0.0.256", "010.0.0.1", "::1/129",
                "fe80::1%eth0", "10.0.0.0/8 ", "::g", "1::2::3", 5, None)))),
        *({"limits": limits} for limits in (
            {}, {"burst": 5}, {"rate": 0}, {"rate": 1.5}, {"concurrent": "5"}, {"rate": 10**7}, 5)),
        *({"cors": {"origins": ["*"]} | cors} for cors in strange),
        *_each("webhook", (
            {}, {"origins": []}, {"origins": ["*.a"]}, {"origins": ["a b"]}, {"rate": 5})),
        *({"signature": signed} for signed in (
            {}, kept, {"preset": "GitHub"}, kept | {"preset": "Gitlab"}, kept | {"preset": "slack"},
            kept | {"env": "SECRET", "preset": "GitHub"}, kept | {"preset": None}, "GitHub",
            kept | {"preset": "GitHub", "hmac": {"header": "X-Sig"}}, {"secret": kept},
            kept | {"preset": "GitHub", "tolerance": "0s"},
            kept | {"preset": "GitHub", "replayWindow": "-1s"},
            *(kept | {"hmac": hmac} for hmac in (
                {}, {"header": "X Sig"}, {"header": "X-Sig", "algorithm": "MD5"},
                {"header": "X-Sig", "encoding": "hex"}, {"header": "X-Sig", "prefix": "a b"},
                *({"header": "X-Sig", "signed": text} for text in (
                    "", "{timestamp}.{body}", "{body}.", "{id}{body}", "{body}{body}", "{", 5)),
                {"header": "X-Sig", "timestampHeader": "X-Time", "signed": "{body}"})))),
        *_each("maxBodySize", (
            -1, 1.5, "1MB", "", "-1", "1.5Mi", "Ki", True, [], {}, 2**40 + 1, "1" * 13, "1ki")),
        *_each("mode", ("async", "", "Either", True)),
        *_each("idempotencyWindow", ("0s", "-1s", "90", 90, "", True)),
    ]  # fmt: skip
    yield from _of("HTTPTrigger", yes, no)


def _exposed() -> Iterator[Row]:
    many = {f"a{number}": "" for number in range(33)}
    yes: list[Body] = [
        *_each("expose", (
            None, {}, {"host": "api.example.com"}, {"host": "*.example.com"}, {"host": None},
            {"ingressClass": "nginx"}, {"ingressClass": "team.nginx-2"},
            {"tls": {}}, {"tls": {"secretName": "a.b"}}, {"tls": None, "gateway": {"name": "g"}},
            {"ingressClass": "kong", "tls": {"secretName": None}},
            {"gateway": {"name": "g", "namespace": "infra", "sectionName": "https.1"}},
            {"annotations": {}},
            {"annotations": {"cert-manager.io/issuer": "x", "A_b": "\n{}ä", "c": ""}},
            {"annotations": {"a" * 253 + "/" + "b" * 63: "c" * 16384}})),
        *({"host": own, "expose": {"host": outside}} for own, outside in (
            ("API.example.com", "api.example.com"), ("*.example.com", "api.example.com"),
            ("*.Example.com", "*.example.com"), (None, "api.example.com"),
            ("api.example.com", None))),
    ]  # fmt: skip
    no: list[Body] = [
        *_each("expose", (
            True, "nginx", [], {"class": "nginx"}, {"ingressClass": ""}, {"ingressClass": "Nginx"},
            {"ingressClass": 5}, {"ingressClass": "a" * 254}, {"host": ""},
            {"host": "API.example.com"}, {"host": "1.2.3.4"}, {"host": "a.com:80"}, {"host": "*"},
            {"host": "a_b.com"}, {"tls": True}, {"tls": {"secretName": ""}},
            {"tls": {"secretName": "a/b"}}, {"tls": {"secret": "a"}},
            {"gateway": "g"}, {"gateway": {}}, {"gateway": {"name": ""}},
            {"gateway": {"name": "g", "namespace": "a.b"}},
            {"gateway": {"name": "g", "sectionName": ""}}, {"gateway": {"name": "g", "port": 80}},
            {"gateway": {"name": "g"}, "ingressClass": "nginx"},
            {"gateway": {"name": "g"}, "tls": {}},
            {"annotations": []}, {"annotations": {"a": 5}}, {"annotations": {"": "a"}},
            {"annotations": {"a b": "c"}}, {"annotations": {"/a": "c"}},
            {"annotations": {"triggerhub.dev/a": "c"}}, {"annotations": {"a" * 64: "c"}},
            {"annotations": {"a" * 254 + "/b": "c"}}, {"annotations": {"a": "c" * 16385}},
            {"annotations": {"a": "\0"}}, {"annotations": many})),
        *({"host": own, "expose": {"host": outside}} for own, outside in (
            ("api.example.com", "shop.example.com"), ("*.example.com", "a.b.example.com"),
            ("*.example.com", "example.com"), ("api.example.com", "*.example.com"),
            ("*.example.com", "localhost"))),
    ]  # fmt: skip
    yield from _of("HTTPTrigger", yes, no)


def _functions() -> Iterator[Row]:
    code = CODE
    yes: list[Body] = [
        *({"url": url} for url in (
            "http://orders.example:8080/in?x=1", "https://[::1]:9/", "http://h", "HTTP://H/",
            "http://h?x=1", "http://a-b.c_d./~x", "http://1.2.3.4:65535/a@b", 'http://h/"<>^`{|}')),
        {"url": "http://h/", "code": None, "service": None},
        {"service": {"name": "web"}}, {"service": {"name": "web", "port": 80, "path": "/in?x=1"}},
        *({"service": {"name": "web", "port": port}} for port in (
            1, 65535, 80.0, "http", "a", "8080-a", "1a-2", "a-1-b2-c", None)),
        {"code": code}, {"code": code | {"files": None}},
        {"code": {"runtime": "python", "handler": "a.b.c", "files": {"a/b.py": "./x.py"}}},
        {"code": code | {"handler": "pkg.handle", "inline": {"pkg/__init__.py": "", ".x": "y"}}},
        {"code": code | {"requirements": ["requests==2.32.3", " a[b]>=1 ; x", "./wheels/ä.whl"]}},
        {"code": code | {"timeout": "1m", "concurrency": 1, "env": {"A": "b\n", "_x1": ""}}},
        {"code": code | {"env": None, "requirements": None, "timeout": None}},
        {"code": code | {"env": {"A": None}}}, {"code": code | {"concurrency": 2.0}},
        {"code": code | {"inline": {"main.py": "", "...": "", "..a/b": "", "a b": "\0"}}},
    ]  # fmt: skip
    no: list[Body] = [
        *({"url": url} for url in (
            "", "ftp://h/", "http://", "h:80", "http://h:x/", "http://h:70000/", "http://h:0/",
            "http://h:/", "http://h/ a", "http://h/#x", "http://u@h/", "http://h/\n", "http://[::1/",
            "http://ü/", "http://h\\x", "http://a..b/", "http://[1::2::3]/", "http://[gg::]/",
            "http://h:65536/", "http://" + "a" * 64 + "/", "http://h/" + "a" * 2048, 5,
            "http://[::1]a/", "http:///x", "http://h:080/", "//h/")),
        {}, {"ulr": "http://h/"}, {"url": "http://h/", "service": {"name": "web"}},
        {"url": "http://h/", "code": code}, {"url": None},
        {"service": {}}, {"service": {"name": "Web"}}, {"service": "web"},
        {"service": {"name": "web", "namespace": "x"}},
        *({"service": {"name": "web", "port": port}} for port in (
            0, 65536, -1, 80.5, True, "", "80", "a--b", "-a", "a-", "A", "a" * 16, "8-0", [80])),
        *({"service": {"name": "web", "path": path}} for path in ("", "in", "/ a", "/#x", "/ü")),
        *_each("code", (code | change for change in _changes())),
        {"code": {"runtime": "python", "handler": "a.b", "files": {"c.py": "./c.py"}}},
    ]  # fmt: skip
    for good, specs in ((True, yes), (False, no)):
        for number, spec in enumerate(specs):
            name = f"Function {'yes' if good else 'no'} {number}: {_short(spec)}"
            yield Row(name, function(**spec), good)


def _changes() -> list[Body]:
    """Each makes bad code of a good one."""
    return [
        {"runtime": "ruby"}, {"runtime": None}, {"handler": "handle"}, {"handler": "a..b"},
        {"handler": "other.handle"}, {"handler": "ma\u0131n.handle"}, {"handler": "main.2"},
        {"inline": {}}, {"inline": None}, {"files": {"main.py": "./main.py"}},
        {"inline": {"main.py": "", "../x.py": ""}}, {"inline": {"main.py": "", "/x": ""}},
        {"inline": {"main.py": "", "a//b": ""}}, {"inline": {"main.py": "", "a/./b": ""}},
        {"inline": {"main.py": "", "a\\b": ""}}, {"inline": {"main.py": "", ".": ""}},
        {"inline": {"main.py": "", "": ""}}, {"inline": {"main.py": 1}},
        {"inline": {"main.py": None}}, {"inline": {"main.py": "", "x" * 513: ""}},
        {"inline": {"main.py": ""} | {f"f{n}": "" for n in range(100)}},
        {"requirements": ["--index-url=x"]}, {"requirements": [" -r x"]},
        {"requirements": [""]}, {"requirements": [" "]}, {"requirements": ["a\n-r b"]},
        {"requirements": ["a\u2028b"]}, {"requirements": "requests"}, {"requirements": [None]},
        {"concurrency": 0}, {"concurrency": "1"}, {"timeout": "0s"}, {"timeout": 5},
        {"env": {"A": 1}}, {"env": {"A-B": "x"}}, {"env": {"1": "x"}}, {"env": {"A": "\0"}},
        {"env": {"": "x"}}, {"env": ["A=b"]}, {"memory": "1Gi"},
    ]  # fmt: skip


def _frames() -> Iterator[Row]:
    yes: list[Body] = [
        framed({"labels": {"app": "x", "example.com/team": ""}, "annotations": {"A.b/c": "d e\n"}}),
        framed({"labels": None, "annotations": None}), framed({"labels": {}, "annotations": {}}),
        framed({"annotations": {"a" * 253 + "/b": ""}}), framed({"generation": 3}),
        framed(status={}), framed(status={"conditions": []}),
    ]  # fmt: skip
    no: list[Body] = [
        framed({"lables": {}}), framed({"lables": None}), framed({"labels": {"a b": "c"}}),
        framed({"labels": {"a": "b c"}}), framed({"labels": {"a": 1}}), framed({"labels": ["a"]}),
        framed({"labels": {"A/b": "c"}}), framed({"labels": {"a" * 254 + "/b": "c"}}),
        framed({"labels": {"a": "b" * 64}}), framed({"annotations": {"a b": "c"}}),
        framed({"annotations": {"a": 1}}), framed({"annotations": {"a" * 254 + "/b": ""}}),
        framed({"annotations": {"a/b/c": ""}}), framed({"name": GONE}), framed({"name": ""}),
        framed({"name": "A"}), framed({"name": "a/b"}), framed({"name": None}),
    ]  # fmt: skip
    for good, bodies in ((True, yes), (False, no)):
        for number, body in enumerate(bodies):
            yield Row(f"frame {'yes' if good else 'no'} {number}: {_short(body)}", body, good)


def at(body: Body, path: tuple[str, ...], value: Any) -> Body:
    """A copy with another value in that place."""
    first, *rest = path
    inside = at(body.get(first) or {}, tuple(rest), value) if rest else value
    return _changed(body, {first: inside})


def _each(field: str, values: Iterable[Any]) -> list[Body]:
    return [{field: value} for value in values]


def _of(kind: str, yes: list[Body], no: list[Body]) -> Iterator[Row]:
    for good, sources in ((True, yes), (False, no)):
        for number, source in enumerate(sources):
            name = f"{kind} {'yes' if good else 'no'} {number}: {_short(source)}"
            yield Row(name, trigger(kind, source), good)


def _manifest(kind: str, spec: Body) -> Body:
    return {
        "apiVersion": "triggerhub.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "a"}, "spec": deepcopy(spec),
    }  # fmt: skip


def _changed(before: Body, change: Body) -> Body:
    return {k: v for k, v in {**before, **change}.items() if v is not GONE}


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) < 70 else text[:70] + "..."
