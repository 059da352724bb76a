"""Manifests of Secrets and ConfigMaps: what they hold, and what is said of the wrong ones."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.control.faults import Fault
from triggerhub.control.resources import Manifest, Values, Where
from triggerhub.control.values import MAX_DATA, decode_values, kind_meant

CANARY = "hunter2"


def manifest(kind: str, **fields: Any) -> Manifest:
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "kafka.prod"}, **fields}
    return Manifest.read(body, where=Where(), created=datetime(2026, 1, 1, tzinfo=UTC))


def decoded(kind: str, **fields: Any) -> Values | tuple[Fault, ...]:
    read = manifest(kind, **fields)
    meant = kind_meant(read)
    assert meant is not None
    return decode_values(read, meant)


def data(kind: str, **fields: Any) -> dict[str, bytes]:
    value = decoded(kind, **fields)
    assert isinstance(value, Values), value
    return dict(value.data)


def said(kind: str, **fields: Any) -> list[str]:
    faults = decoded(kind, **fields)
    assert isinstance(faults, tuple), faults
    return [str(fault).removeprefix(f"{fault.object}: ") for fault in faults]


def test_a_secret_holds_its_data_and_string_data_wins() -> None:
    value = decoded(
        "Secret",
        type="Opaque",
        immutable=True,
        data={"user": "Ym9i", "old": "Ym9i", "none": ""},
        stringData={"old": "new", "tls.crt": "ä\n"},
    )
    assert isinstance(value, Values)
    assert str(value) == "Secret default/kafka.prod"
    assert value.data == {
        "user": b"bob", "old": b"new", "none": b"", "tls.crt": b"\xc3\xa4\n"
    }  # fmt: skip


def test_a_config_map_holds_texts_and_bytes() -> None:
    assert data("ConfigMap", data={"a": "x"}, binaryData={"b": "/w=="}) == {"a": b"x", "b": b"\xff"}
    assert data("ConfigMap") == {}


def test_what_kubectl_prints_of_a_secret_can_be_put_into_a_folder() -> None:
    metadata: dict[str, Any] = {
        "name": "kafka", "namespace": "shop", "uid": "1", "resourceVersion": "2",
        "creationTimestamp": None, "managedFields": [],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": CANARY},
    }  # fmt: skip
    assert data("Secret", metadata=metadata, data={"a": "Ym9i"}, type="Opaque") == {"a": b"bob"}


@pytest.mark.parametrize("text", ["aGk=", "aGk=\n", "aG\nk=\r\n", "/+8="])
def test_base64_is_what_kubernetes_takes_for_it(text: str) -> None:
    assert data("Secret", data={"a": text})


@pytest.mark.parametrize("text", ["aGk", "a Gk=", "_-8=", "aGk=aGk=", "=", "ä", CANARY])
def test_what_is_no_base64_is_told_without_showing_it(text: str) -> None:
    wrong = "found a text that is no base64, expected base64"
    assert said("Secret", data={"a": text}) == [
        f"data.a: {wrong} (plain text belongs into stringData)"
    ]
    assert said("ConfigMap", binaryData={"a": text}) == [
        f"binaryData.a: {wrong} (plain text belongs into data)"
    ]


def test_every_fault_is_told_at_once() -> None:
    faults = said(
        "Secret",
        metadata={"name": "Kafka_", "lables": {}},
        type=3,
        immutable="yes",
        dta={},
        data={"pin": 1234, "n": None},
        stringData={"pin": 1234, "on": True, "n": None, "list": [], "map": {}, "a b": "x",
                    "..": "x", "": "x", "x" * 254: "x"},
    )  # fmt: skip
    keys = "expected keys of at most 253 of A-Z a-z 0-9 - _ ."
    assert sorted(faults) == sorted(
        [
            (
                'metadata.name: found "Kafka_" (a text), expected at most 253 of a-z 0-9 - ., '
                "each part within letters or digits"
            ),
            "metadata.lables: unknown field (did you mean labels?)",
            "type: found a number, expected a text",
            "immutable: found a text, expected true or false",
            "dta: unknown field (did you mean data?)",
            "data.pin: found a number, expected base64 (write it in quotes)",
            "data.n: found nothing, expected base64",
            "stringData.pin: found a number, expected a text (write it in quotes)",
            "stringData.on: found a boolean, expected a text (write it in quotes)",
            "stringData.n: found nothing, expected a text",
            "stringData.list: found a list, expected a text",
            "stringData.map: found a mapping, expected a text",
            f'stringData: found a key with " ", {keys}',
            f"stringData: found a key that is a path, {keys}",
            f"stringData: found an empty key, {keys}",
            f"stringData: found a key of 254 characters, {keys}",
        ]
    )


@pytest.mark.parametrize(
    ("kind", "fields", "wrong"),
    [
        ("Secret", {"data": None}, "data: found nothing, expected a mapping"),
        ("Secret", {"stringData": CANARY}, "stringData: found a text, expected a mapping"),
        (
            "Secret",
            {"stringData": {f"password:{CANARY}": None}},
            (
                'stringData: found a key with ":", expected keys of at most 253 of '
                "A-Z a-z 0-9 - _ . (a blank is missing after the colon)"
            ),
        ),
        ("secret", {}, 'kind: found "secret" (a text), expected Secret (did you mean Secret?)'),
        (
            "ConfigMaps",
            {},
            'kind: found "ConfigMaps" (a text), expected ConfigMap (did you mean ConfigMap?)',
        ),
        ("Secret", {"apiVersion": None}, "apiVersion: missing, expected v1 (did you mean v1?)"),
        (
            "Secret",
            {"apiVersion": "triggerhub.dev/v1alpha1"},
            'apiVersion: found "triggerhub.dev/v1alpha1" (a text), expected v1',
        ),
        (
            "Secret",
            {"apiVersion": "else.example/v1", "spec": {}},
            'apiVersion: found "else.example/v1" (a text), expected v1',
        ),
        ("Secret", {"metadata": None}, "metadata: found null (nothing), expected a mapping"),
        (
            "ConfigMap",
            {"type": "Opaque"},
            (
                "type: unknown field (known here: apiVersion, kind, metadata, immutable, data, "
                "binaryData)"
            ),
        ),
        (
            "ConfigMap",
            {"data": {"a": "x"}, "binaryData": {"a": "aGk="}},
            "binaryData.a: found a key of data, expected a key of its own",
        ),
        (
            "Secret",
            {"stringData": {"a": "x" * MAX_DATA, "b": "x"}},
            "stringData: found 1048577 bytes, expected at most 1048576 bytes in all",
        ),
    ],
)
def test_a_wrong_one_is_told_in_one_sentence(kind: str, fields: dict[str, Any], wrong: str) -> None:
    assert said(kind, **fields) == [wrong]


def test_a_mebibyte_is_taken() -> None:
    assert len(data("Secret", stringData={"a": "x" * MAX_DATA})["a"]) == MAX_DATA


@pytest.mark.parametrize("kind", ["Service", "Function", "", "Namespace", "Pod"])
def test_other_kinds_are_not_taken_for_one(kind: str) -> None:
    assert kind_meant(manifest(kind)) is None


def test_a_kind_of_another_group_is_only_taken_for_one_by_its_exact_name() -> None:
    assert kind_meant(manifest("Secrets", apiVersion="else.example/v1")) is None
    assert kind_meant(manifest("Secret", apiVersion="else.example/v1")) == "Secret"


SECRETIVE = st.recursive(
    st.sampled_from([None, True, 7, CANARY, f"{CANARY}==", f"{CANARY}\n"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "b c", f"a:{CANARY}", "", ".."]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(["Secret", "ConfigMap", "secret"]), st.data())
def test_no_fault_and_no_picture_shows_a_value(kind: str, draw: st.DataObject) -> None:
    fields = ["data", "stringData", "binaryData", "type", "immutable", "status"]
    values = draw.draw(st.dictionaries(st.sampled_from(fields), SECRETIVE))
    found = decoded(kind, **values)
    shown = [str(found), repr(found)]
    if isinstance(found, tuple):
        shown += [str(fault) for fault in found]
        shown += [json.dumps(fault.as_dict()) for fault in found]
    assert not any(CANARY in text for text in shown)
