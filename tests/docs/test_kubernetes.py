"""docs/kubernetes.md knows each Event, and each right that a hub is given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import yaml

from tests.markdown import ROOT, table_after
from triggerhub.control.plugins import installed_kinds
from triggerhub.control.resources import plural_of

_PAGE = "docs/kubernetes.md"
_NAMED = re.compile(r"`(\w+)`")
_RESOURCE = re.compile(
    r"\b(?:functions|triggers|services|endpointslices|secrets|configmaps|events|leases"
    r"|ingresses|httproutes|referencegrants|gateways)\b"
)
_REFUSALS = {"InvalidSpec", "InvalidSource", "ConnectorNotInstalled"}
"""Reasons of an ``Accepted`` that turned False: they are Events as they are."""


def turns() -> set[str]:
    """What the code calls turning points."""
    found = set(_REFUSALS)
    for path in (ROOT / "triggerhub" / "cluster").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "Turn" and isinstance(node.args[0], ast.Constant):
                    found.add(str(node.args[0].value))
            elif isinstance(node, ast.Compare) and ast.unparse(node.left) == "ready.reason":
                found |= set(texts(node.comparators))
    return found


def texts(nodes: list[ast.expr]) -> Iterator[str]:
    for top in nodes:
        for node in ast.walk(top):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_each_event_is_documented_and_each_documented_one_is_told() -> None:
    told = {name for row in table_after(_PAGE, "events") for name in _NAMED.findall(row[0])}
    assert told == turns()


def test_each_right_is_explained_and_each_explained_one_is_given() -> None:
    given: set[tuple[str, str]] = set()
    for path in ("cluster-roles.yaml", "account.yaml"):
        for role in yaml.safe_load_all((ROOT / "deploy" / "base" / path).read_text()):
            for rule in role.get("rules") or ():
                for resource in rule["resources"]:
                    kinds = resource.endswith("triggers") and len(rule["resources"]) > 1
                    what = "triggers" if kinds else resource
                    given |= {(what, verb) for verb in rule["verbs"]}
    given = {(what, verb) for what, verb in given if "/" not in what}
    given |= {("functions/status", "patch"), ("triggers/status", "patch")}
    explained: set[tuple[str, str]] = set()
    for row in table_after(_PAGE, "rights"):
        what, _, verbs = row[0].partition(":")
        whats = _RESOURCE.findall(what)
        if "/status" in what:
            whats = ["functions/status", "triggers/status"]
        explained |= {(w, v) for w in whats for v in re.findall(r"\w+", verbs)}
    assert explained == given


def test_each_kind_whose_source_is_cleaned_up_may_get_its_finalizer() -> None:
    cleaned = {
        plural_of(kind.kind)
        for kind in installed_kinds().values()
        if kind.source is not None and "cleanup" in kind.source.model_fields
    }
    for path in (
        "base/cluster-roles.yaml", "overlays/namespaced/role.yaml",
        "helm/triggerhub/templates/_names.tpl",
    ):  # fmt: skip
        text = (ROOT / "deploy" / path).read_text()
        found = re.search(r"resources: \[([^/\]]*triggers)\]\n *verbs: \[patch\]", text)
        assert found is not None, path
        assert set(found[1].split(", ")) == cleaned, path
