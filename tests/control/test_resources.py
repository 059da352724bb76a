from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from triggerhub.connector import Order, SourceModel
from triggerhub.control.decoding import decode
from triggerhub.control.plugins import Kind
from triggerhub.control.resources import (
    DeliverySpec,
    Function,
    FunctionSpec,
    LabelSelector,
    Manifest,
    RetryPolicy,
    Trigger,
    TriggerSpec,
    Where,
)
from triggerhub.delivery.target import Format, OnExhausted
from triggerhub.durations import go_duration, seconds


class Source(SourceModel):
    topics: tuple[str, ...]
    order: Order = Order.KEY
    start_from: datetime | None = Field(default=None, alias="startFrom")


class Connector:
    kind = "TestTrigger"
    source = Source


def broken() -> object:
    raise ModuleNotFoundError("No module named 'client'", name="client")


KINDS = {
    "TestTrigger": Kind("TestTrigger", lambda: Connector),
    "LostTrigger": Kind("LostTrigger", broken, distribution="hub", extra="lost"),
}

NOWHERE = Where()


def decoded(body: dict[str, Any], where: Where = NOWHERE) -> Any:
    created = datetime(2026, 1, 1, tzinfo=UTC)
    return decode(Manifest.read(body, where=where, created=created), KINDS)


def document(kind: str, spec: Any, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "triggerhub.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "orders", "namespace": "shop", **metadata},
        "spec": spec,
    }


def trigger(**spec: Any) -> dict[str, Any]:
    return document("TestTrigger", {"function": {"name": "f"}, "source": {"topics": ["a"]}, **spec})


def said(body: dict[str, Any], where: Where = NOWHERE) -> list[str]:
    faults = decoded(body, where)
    assert isinstance(faults, tuple), faults
    return [str(fault).removeprefix(f"{faults[0].object}: ") for fault in faults]


def test_a_trigger_has_the_documented_defaults() -> None:
    value = decoded(trigger())
    assert isinstance(value, Trigger)
    assert value.key == ("shop", "orders")
    assert str(value) == "TestTrigger shop/orders"
    assert value.source == Source(topics=("a",))
    delivery = value.spec.delivery
    assert (delivery.order, delivery.in_flight, delivery.timeout) == (Order.KEY, 64, 30.0)
    assert (delivery.format, delivery.on_exhausted) == (Format.BINARY, OnExhausted.DEAD_LETTER)
    assert delivery.retry == RetryPolicy(attempts=10, initial=0.2, max=30.0, max_age=86400.0)
    assert delivery.dead_letter.url is None
    assert not value.spec.paused


def test_setting_one_field_of_delivery_never_unsets_another() -> None:
    value = decoded(trigger(delivery={"retry": {"maxAge": "1h"}, "order": "Partition"}))
    assert value.spec.delivery.retry == RetryPolicy(max_age=3600.0)
    assert value.spec.delivery.order is Order.PARTITION
    assert value.spec.delivery.timeout == 30.0


def test_a_source_model_gets_its_types_from_json() -> None:
    value = decoded(
        trigger(source={"topics": ["a", "b"], "order": "None", "startFrom": "2026-01-01T00:00:00Z"})
    )
    assert value.source == Source(
        topics=("a", "b"), order=Order.NONE, startFrom=datetime(2026, 1, 1, tzinfo=UTC)
    )


def test_every_fault_is_told_at_once_with_its_path() -> None:
    body = trigger(
        function={"nam": "f"},
        source={"topics": "a", "x": 1},
        delivery={"inflight": 3, "timeout": 30, "retry": {"attempts": 0}},
        filter=[],
    )
    body["metadata"]["lables"] = {}
    assert sorted(said(body)) == [
        "metadata.lables: unknown field (did you mean labels?)",
        "spec.delivery.inflight: unknown field (did you mean inFlight?)",
        "spec.delivery.retry.attempts: found 0 (a number), expected at least 1",
        "spec.delivery.timeout: found 30 (a number), expected a duration such as 250ms, 30s, 5m",
        (
            "spec.filter: unknown field "
            "(known here: function, delivery, paused, onFunctionDelete, source)"
        ),
        "spec.function.nam: unknown field (did you mean name?)",
        'spec.source.topics: found "a" (a text), expected a list',
        "spec.source.x: unknown field (known here: topics, order, startFrom)",
    ]


@pytest.mark.parametrize(
    ("delivery", "wrong"),
    [
        ({"inFlight": 0}, "inFlight: found 0 (a number), expected at least 1"),
        ({"inFlight": 10001}, "inFlight: found 10001 (a number), expected at most 10000"),
        ({"inFlight": "64"}, 'inFlight: found "64" (a text), expected a whole number'),
        ({"inFlight": True}, "inFlight: found true (a boolean), expected a whole number"),
        ({"inFlight": 1.5}, "inFlight: found 1.5 (a number), expected a whole number"),
        ({"in_flight": 3}, "in_flight: unknown field (did you mean inFlight?)"),
        ({"timeout": "0s"}, 'timeout: found "0s" (a text), expected a duration longer than 0s'),
        (
            {"timeout": "-1s"},
            'timeout: found "-1s" (a text), expected a duration such as 250ms, 30s, 5m',
        ),
        (
            {"format": "Batch"},
            'format: found "Batch" (a text), expected Binary or Structured',
        ),
        ({"deadLetter": {"topic": "x"}}, "deadLetter.topic: unknown field (known here: url)"),
        ({"onFunctionDelete": "Keep"}, "onFunctionDelete: unknown field"),
        (
            {"retry": {"initial": "1m"}},
            "retry: initial is 1m and max 30s: expected initial to be no longer than max",
        ),
        (
            {"deadLetter": {"url": "http://u:p@h/"}},
            (
                'deadLetter.url: found "http://u:p@h/" (a text), '
                "expected a URL without user and password"
            ),
        ),
    ],
)
def test_delivery_refuses(delivery: dict[str, Any], wrong: str) -> None:
    lines = said(trigger(delivery=delivery))
    assert len(lines) == 1
    assert lines[0].startswith(f"spec.delivery.{wrong}")


@pytest.mark.parametrize(
    ("reference", "wrong"),
    [
        ({}, "spec.function: found none of name, selector, expected exactly one of name, selector"),
        (
            {"name": "f", "selector": {"matchLabels": {"a": "b"}}},
            "spec.function: found both name and selector, expected exactly one of name, selector",
        ),
        (
            {"selector": {}},
            (
                "spec.function.selector: found an empty selector, "
                "expected matchLabels or matchExpressions"
            ),
        ),
        (
            {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            (
                "spec.function.selector.matchExpressions[0]: found 0 values, "
                "expected at least one value for In"
            ),
        ),
        (
            {"selector": {"matchLabels": {"a": 1}}},
            "spec.function.selector.matchLabels.a: found 1 (a number), expected a text",
        ),
        (
            {"name": "Not.Good"},
            (
                'spec.function.name: found "Not.Good" (a text), '
                "expected at most 63 of a-z 0-9 -, first and last a letter or digit"
            ),
        ),
    ],
)
def test_a_function_reference_refuses(reference: dict[str, Any], wrong: str) -> None:
    assert said(trigger(function=reference)) == [wrong]


def test_a_missing_half_is_told() -> None:
    assert said(document("TestTrigger", {})) == [
        "spec.function: missing, expected a mapping with name, selector",
        "spec.source: missing, expected a mapping",
    ]
    assert said(document("TestTrigger", None)) == ["spec: found null (nothing), expected a mapping"]


def test_a_trigger_whose_connector_is_not_installed_has_no_source() -> None:
    body = trigger()
    body["kind"] = "LostTrigger"
    value = decoded(body)
    assert isinstance(value, Trigger)
    assert value.source is None
    assert KINDS["LostTrigger"].missing == "LostTrigger needs: pip install 'hub[lost]'"


@pytest.mark.parametrize("name", ["a.b", "A", "-a", "a-", "a" * 64, "", "a_b", "ä", "a\n"])
def test_a_name_that_would_make_a_binding_ambiguous_is_refused(name: str) -> None:
    body = trigger()
    body["metadata"]["name"] = name
    assert len(said(body)) == 1


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63])
def test_a_dns_label_is_a_name(name: str) -> None:
    body = trigger()
    body["metadata"]["name"] = name
    assert isinstance(decoded(body), Trigger)


def test_what_an_api_server_adds_is_ignored() -> None:
    body = trigger()
    body["metadata"] |= {"uid": "1", "managedFields": [{}], "creationTimestamp": None}
    body["status"] = {"anything": 1}
    assert isinstance(decoded(body), Trigger)


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        ({"delivery": None, "paused": None}, {}),
        ({"delivery": {"inFlight": None, "timeout": None, "retry": {"max": None}}}, {}),
        ({"function": {"name": "f", "selector": None}}, {}),
        ({"source": {"topics": ["a"], "order": None, "startFrom": None}}, {}),
        ({"delivery": {"inFlight": 3.0}}, {"delivery": {"inFlight": 3}}),
        (
            {"function": {"selector": {"matchLabels": {"a": "b", "c": None}}}},
            {"function": {"selector": {"matchLabels": {"a": "b"}}}},
        ),
    ],
)
def test_null_is_nothing_and_1_0_is_whole_as_for_an_api_server(
    spec: dict[str, Any], plain: dict[str, Any]
) -> None:
    value = decoded(trigger(**spec))
    assert isinstance(value, Trigger), value
    assert value == decoded(trigger(**plain))


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"function": None}, ["function: found null (nothing), expected a mapping"]),
        ({"source": {"topics": None}}, ["source.topics: found null (nothing), expected a list"]),
        ({"source": {"topics": [None]}}, ["source.topics[0]: found null (nothing), expected a"]),
        ({"delivery": {"inFlight": 1.5, "order": None}}, ["delivery.inFlight: found 1.5"]),
        ({"delivery": {"infligt": None}}, ["delivery.infligt: unknown field"]),
        (
            {"function": {"selector": {"matchLabels": {"a": None}}}},
            ["function.selector: found an empty selector"],
        ),
        (
            {"function": {"name": None}, "delivery": {"retry": {"attempts": 0.0}}},
            ["delivery.retry.attempts: found 0 (a number)", "function: found none of name"],
        ),
    ],
)
def test_what_null_cannot_mean_is_told(spec: dict[str, Any], wrong: list[str]) -> None:
    lines = sorted(said(trigger(**spec)))
    assert len(lines) == len(wrong), lines
    for line, start in zip(lines, wrong, strict=True):
        assert line.startswith(f"spec.{start}")


def test_the_namespace_is_default_unless_given() -> None:
    body = trigger()
    del body["metadata"]["namespace"]
    assert decoded(body).namespace == "default"


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"kind": "TestTriger"}, "(did you mean TestTrigger?)"),
        ({"kind": "Pod"}, "expected Function or LostTrigger or TestTrigger"),
        ({"kind": 3}, "kind: found 3 (a number)"),
        ({"apiVersion": "v1"}, 'apiVersion: found "v1" (a text), expected triggerhub.dev/v1alpha1'),
        ({"apiVersion": "triggerhub.dev/v1"}, "did you mean triggerhub.dev/v1alpha1?"),
        ({"metadata": None}, "metadata: found null (nothing), expected a mapping"),
        ({"sepc": {}}, "sepc: unknown field (did you mean spec?)"),
    ],
)
def test_the_frame_of_a_manifest_is_checked(change: dict[str, Any], wrong: str) -> None:
    lines = said({**trigger(), **change})
    assert len(lines) == 1
    assert wrong in lines[0]


def test_an_object_of_another_system_is_one_fault() -> None:
    body = {**document("Deployment", {"replicas": 1}), "apiVersion": "apps/v1", "data": 1}
    assert len(said(body)) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://orders.example:8080/in?x=1",
        "https://[::1]:9/",
        "http://h",
    ],
)
def test_a_function_is_a_url(url: str) -> None:
    value = decoded(document("Function", {"url": url}))
    assert isinstance(value, Function)
    assert value.spec.url == url
    assert value.code_files is None


@pytest.mark.parametrize(
    "url",
    ["ftp://h/", "http://", "h:80", "http://h:x/", "http://h:70000/", "http://h:0/", "http://h/ a",
     "http://h/#x", "http://u@h/", "http://h/\n", "http://[::1/", "", "http://ü/", "http://h\\x"],
)  # fmt: skip
def test_what_is_no_absolute_http_url_is_refused(url: str) -> None:
    assert len(said(document("Function", {"url": url}))) == 1


CODE = {"runtime": "python", "handler": "main.handle", "inline": {"main.py": "x = 1\n"}}


def test_inline_code_is_decoded_with_its_defaults() -> None:
    value = decoded(document("Function", {"code": CODE}))
    assert isinstance(value, Function)
    assert value.code_files == {"main.py": b"x = 1\n"}
    code = value.spec.code
    assert code is not None
    assert (code.timeout, code.concurrency, code.requirements, code.env) == (25.0, 32, (), {})


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"inline": None}, "spec.code: found none of inline, files"),
        ({"files": {"main.py": "./main.py"}}, "spec.code: found both inline and files"),
        ({"runtime": "ruby"}, "spec.code.runtime"),
        ({"handler": "handle"}, "spec.code.handler"),
        ({"handler": "other.handle"}, "spec.code: handler other.handle needs the file other.py"),
        ({"inline": {}}, "spec.code.inline"),
        ({"inline": {"../main.py": ""}}, 'spec.code.inline["../main.py"]: found the name'),
        ({"inline": {"/main.py": ""}}, 'spec.code.inline["/main.py"]: found the name'),
        ({"requirements": ["--index-url=x"]}, "spec.code.requirements[0]"),
        ({"requirements": "requests"}, "spec.code.requirements: found"),
        ({"concurrency": 0}, "spec.code.concurrency"),
        ({"env": {"A": 1}}, "spec.code.env.A: found 1 (a number), expected a text"),
        ({"env": {"A-B": "x"}}, "spec.code.env.A-B: found the name"),
        ({"env": {"A": "\0"}}, "spec.code.env.A"),
    ],
)
def test_code_refuses(change: dict[str, Any], wrong: str) -> None:
    lines = said(document("Function", {"code": {**CODE, **change}}))
    assert len(lines) == 1
    assert lines[0].startswith(wrong)


def test_a_choice_not_made_is_told_beside_other_faults() -> None:
    lines = said(document("Function", {"url": 1, "code": {"runtime": "python"}}))
    assert "spec: found both url and code, expected exactly one of url, service, code" in lines
    assert any(line.startswith("spec.code: found none of inline, files") for line in lines)
    assert any(line.startswith("spec.code.handler: missing") for line in lines)


def test_a_misspelt_choice_is_one_fault() -> None:
    assert said(document("Function", {"ulr": "http://h/"})) == [
        "spec.ulr: unknown field (did you mean url?)"
    ]


def test_files_need_a_folder() -> None:
    code = {"runtime": "python", "handler": "main.handle", "files": {"main.py": "./main.py"}}
    body = document("Function", {"code": code})
    assert len(said(body)) == 1
    value = decoded(body, Where("f.yaml", Path()))
    assert isinstance(value, Function)
    assert value.code_files is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("250ms", 0.25), ("1m30s", 90.0), ("1.5h", 5400.0), ("24h", 86400.0), (".5s", 0.5),
     ("100us", 1e-4), ("1h0m0.5s", 3600.5), ("1.s", 1.0)],
)  # fmt: skip
def test_durations_are_read_as_go_reads_them(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    "text", ["", "30", "s", "1d", "1 s", "1s ", "+1s", "-1s", "1S", "1e3s", ".s", "٣s", "1s2"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        seconds(text)


@given(st.integers(min_value=0, max_value=2_540_400 * 1000))
def test_a_duration_comes_back_from_its_text(milliseconds: int) -> None:
    assert seconds(go_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": ""}}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]},
         {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]},
         {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]},
         {"a": "1"}, False),
    ],
)  # fmt: skip
def test_selectors_follow_kubernetes(
    selector: dict[str, Any], labels: dict[str, str], matches: bool
) -> None:
    assert LabelSelector.model_validate_json(json.dumps(selector)).matches(labels) is matches


def test_in_python_fields_go_by_their_own_names_and_durations_are_seconds() -> None:
    assert DeliverySpec(in_flight=3, timeout=0.5).timeout == 0.5
    with pytest.raises(ValidationError):
        DeliverySpec(timeout=0.0)
    with pytest.raises(ValidationError):
        FunctionSpec()


def test_every_field_has_a_description() -> None:
    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    check(kind)

    check(TriggerSpec)
    check(FunctionSpec)


def test_the_schema_writes_durations_as_users_do() -> None:
    schema = DeliverySpec.model_json_schema()["properties"]["timeout"]
    assert schema["type"] == "string"
    assert schema["default"] == "30s"


def test_resources_are_equal_when_only_their_place_changed() -> None:
    here, there = Where("a.yaml"), Where("b.yaml")
    assert decoded(trigger(), here) == decoded(trigger(), there)
    assert decoded(trigger(), here) != decoded(trigger(paused=True), here)
    assert decoded(trigger()) != decoded({**trigger(), "metadata": {"name": "orders"}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)  # fmt: skip
field_names = st.sampled_from(
    ["function", "source", "delivery", "retry", "url", "code", "name", "selector", "matchLabels",
     "inline", "files", "env", "topics", "handler", "attempts", "timeout", "matchExpressions"]
)  # fmt: skip
specs = st.recursive(
    json_values,
    lambda children: st.dictionaries(field_names, children, max_size=4) | st.lists(children),
    max_leaves=10,
)


@given(
    st.sampled_from(["TestTrigger", "LostTrigger", "Function", "Functoin", ""]),
    specs,
    st.fixed_dictionaries({}, optional={"name": json_values, "labels": json_values}),
)
def test_no_manifest_whatever_breaks_the_decoding(
    kind: str, spec: Any, metadata: dict[str, Any]
) -> None:
    value = decoded(document(kind, spec, **metadata))
    assert isinstance(value, (Trigger, Function)) or (value and all(map(str, value)))


def test_triggers_that_are_delivered_alike_share_one_value() -> None:
    one, two, other = (
        decoded(trigger(delivery={"timeout": timeout})) for timeout in ("5s", "5s", "6s")
    )
    assert one.spec.delivery is two.spec.delivery
    assert one.spec.delivery != other.spec.delivery
