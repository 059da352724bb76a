from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from tests.control.manifests import differences, rows
from tests.markdown import table_after
from tests.plugins import triggerhub_echo
from triggerhub.control.crds import crd
from triggerhub.control.decoding import decode
from triggerhub.control.plugins import Kind, installed_kinds
from triggerhub.control.resources import FUNCTION, Manifest, Where

ROOT = Path(__file__).parents[2]
INSTALLED = installed_kinds()
KINDS = {"EchoTrigger": Kind("EchoTrigger", lambda: triggerhub_echo.EchoConnector), **INSTALLED}
ALL = (FUNCTION, *KINDS)


@cache
def of(kind: str) -> dict[str, Any]:
    return crd(kind, KINDS)


def version(kind: str) -> dict[str, Any]:
    (one,) = of(kind)["spec"]["versions"]
    assert isinstance(one, dict)
    return one


def columns(kind: str, *, wide: bool = False) -> dict[str, str]:
    return {
        column["name"]: column["jsonPath"]
        for column in version(kind)["additionalPrinterColumns"]
        if ("priority" in column) == wide
    }


@pytest.mark.parametrize("folder", ["crds", "deploy/helm/triggerhub/crds"])
def test_the_files_are_what_the_code_gives(folder: str) -> None:
    """`make crds` writes them anew."""
    there = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / folder).iterdir()}
    expected = {f"{kind.lower()}s.yaml": crd(kind, INSTALLED) for kind in (FUNCTION, *INSTALLED)}
    assert there == expected


def test_a_folder_takes_the_good_and_refuses_the_bad() -> None:
    """integration/test_kubernetes_crds.py: and so does an API server."""
    assert [row.name for row in rows() if takes(row.body) is not row.good] == []


def test_where_an_api_server_differs_the_hub_is_as_the_documents_say() -> None:
    assert [one for one in differences() if takes(one.body) is not one.hub] == []


def test_the_differences_are_those_of_the_documents() -> None:
    told = [row[0] for row in table_after("docs/kubernetes.md", "differences")]
    assert told == list(dict.fromkeys(difference.told for difference in differences()))


def takes(body: dict[str, Any]) -> bool:
    where = Where("a.yaml", Path())
    value = decode(Manifest.read(body, where=where, created=datetime.now(UTC)), INSTALLED)
    return not isinstance(value, tuple)


@pytest.mark.parametrize("kind", ALL)
def test_names_are_kubernetes_own(kind: str) -> None:
    definition, lower = of(kind), kind.lower()
    names = definition["spec"]["names"]
    assert definition["metadata"]["name"] == f"{lower}s.triggerhub.dev"
    assert (names["kind"], names["plural"], names["singular"]) == (kind, f"{lower}s", lower)
    assert names["categories"] == ["triggerhub"]
    assert definition["spec"]["scope"] == "Namespaced"
    assert "null" not in yaml.safe_dump(names)


def test_no_two_kinds_share_a_short_name() -> None:
    short = [name for kind in ALL for name in of(kind)["spec"]["names"].get("shortNames", ())]
    assert sorted(short) == ["ct", "fn", "ht", "kst", "kt", "nt"]


def test_a_table_shows_what_a_trigger_listens_to_and_how_it_is() -> None:
    assert list(columns("KafkaTrigger")) == ["Ready", "Reason", "Source", "Function", "Age"]
    assert list(columns("KafkaTrigger", wide=True)) == ["Bound", "Connected", "Message"]
    assert list(columns(FUNCTION)) == ["Ready", "Reason", "URL", "Age"]
    shown = {kind: columns(kind).get("Source") for kind in KINDS}
    assert shown == {
        "CronTrigger": ".spec.source.schedule",
        "HTTPTrigger": ".spec.source.path",
        "KafkaTrigger": ".spec.source['topic','topics','topicPattern']",
        "KinesisTrigger": ".spec.source['stream','streamARN']",
        "NATSTrigger": ".spec.source['stream','subject','subjects']",
        "EchoTrigger": None,
    }
    assert columns("EchoTrigger")["Function"] == ".spec.function['name','selector']"


@pytest.mark.parametrize("kind", ALL)
def test_the_status_is_written_apart_and_its_conditions_are_told_by_type(kind: str) -> None:
    assert version(kind)["subresources"] == {"status": {}}
    status = schema(kind)["properties"]["status"]["properties"]
    conditions = status["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert status["observedGeneration"]["type"] == "integer"


@pytest.mark.parametrize("kind", ALL)
def test_each_field_is_described_without_markup(kind: str) -> None:
    for path, node in fields(schema(kind)):
        if path != "metadata":
            assert node.get("description"), path
            assert "`" not in node["description"], path


@pytest.mark.parametrize("kind", ALL)
def test_no_text_has_control_characters(kind: str) -> None:
    """An API server could publish its OpenAPI document no more, for any kind."""
    for text in texts(of(kind)):
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text), text


@pytest.mark.parametrize("kind", ALL)
def test_no_pattern_repeats_more_often_than_an_api_server_reads(kind: str) -> None:
    """RE2 takes 1000 at most; ``maxLength`` says what is more."""
    for text in texts(of(kind)):
        counts = re.findall(r"\{([0-9]+)(?:,([0-9]*))?\}", text)
        assert all(int(n) <= 1000 for count in counts for n in count if n), text


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_both_halves_of_a_trigger_are_there(kind: str) -> None:
    spec = schema(kind)["properties"]["spec"]
    assert spec["required"] == ["function", "source"]
    assert {"delivery", "paused", "source"} <= set(spec["properties"])


def test_a_plugins_source_is_its_models() -> None:
    source = schema("EchoTrigger")["properties"]["spec"]["properties"]["source"]
    assert source["required"] == ["password"]
    assert source["properties"]["also"]["type"] == "array"
    reference = source["properties"]["password"]
    assert (reference["minProperties"], reference["maxProperties"]) == (1, 1)


def test_a_model_that_knows_nothing_of_kubernetes_will_do() -> None:
    class Plain(BaseModel):
        """What comes in."""

        queue: str

    class Connector:
        source = Plain

    found = crd("PlainTrigger", {"PlainTrigger": Kind("PlainTrigger", lambda: Connector)})
    assert "shortNames" not in found["spec"]["names"]
    schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["description"] == "What comes in."


def test_what_cannot_be_had_is_an_error() -> None:
    def broken() -> object:
        raise ModuleNotFoundError("No module named 'client'", name="client")

    with pytest.raises(KeyError):
        crd("NoTrigger", KINDS)
    lost = {"LostTrigger": Kind("LostTrigger", broken, distribution="hub", extra="lost")}
    with pytest.raises(ValueError, match=r"pip install 'hub\[lost\]'"):
        crd("LostTrigger", lost)


def schema(kind: str) -> dict[str, Any]:
    found = version(kind)["schema"]["openAPIV3Schema"]
    assert isinstance(found, dict)
    return found


def fields(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of every mapping, however deep."""
    for name, part in schema.get("properties", {}).items():
        yield f"{at}{name}", part
        yield from fields(part, f"{at}{name}.")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from fields(schema[name], f"{at}{name}.")


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from texts(part)
