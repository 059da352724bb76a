"""Every reason that a condition can have is explained, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from tests.markdown import (
    ROOT,
    pages,
    rows,
    table_after,
)

_API = "apiVersion: triggerhub.dev/"
_NAMED = re.compile(r"`([^`]+)`")
_CAMEL = re.compile(r"[A-Z]+[a-z]+([A-Z]+[a-z]+)*")


# Where conditions and states get their reasons.
_REASON_GIVERS = (
    "triggerhub/nats/*.py",
    "triggerhub/cluster/exposures.py",
    "triggerhub/cluster/keeping.py",
    "triggerhub/cluster/watched.py",
    "triggerhub/control/edge.py",
    "triggerhub/control/listeners.py",
    "triggerhub/control/report.py",
    "triggerhub/control/services.py",
    "triggerhub/control/status.py",
    "triggerhub/delivery/course.py",
    "triggerhub/delivery/problems.py",
    "triggerhub/functions/absent.py",
    "triggerhub/functions/version.py",
    "connectors/triggerhub_*/connector.py",
    "connectors/triggerhub_*/listener.py",
    "connectors/triggerhub_cron/ticker.py",
    "connectors/triggerhub_kafka/*.py",
    "connectors/triggerhub_kinesis/*.py",
    "connectors/triggerhub_nats/*.py",
)
_GIVING = frozenset(
    {
        "Condition",
        "FunctionState",
        "Health",
        "Problem",
        "Reach",
        "RegistryFault",
        "SourceState",
        "Trouble",
        "_begin",
        "_false",
        "_say",
        "connected",
        "disconnected",
        "note",
    }
)
_LETTERS = frozenset({"Undecodable", "Rejected", "AttemptsExhausted", "Expired", "Redelivered"})


def reasons_in(path: Path) -> set[str]:
    """CamelCase texts that a module gives as a reason."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        given: Iterable[ast.AST] = ()
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else ""
            name = function.id if isinstance(function, ast.Name) else name
            given = node.args if name in _GIVING else ()
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            words = {ast.unparse(target).rpartition(".")[2].strip("()") for target in targets}
            if words & {"_PROBLEMS", "_REASONS", "reason"} or "self.reason" in str(words):
                given = [node.value]
        elif isinstance(node, ast.Return):
            given = [node.value] if isinstance(node.value, ast.Tuple | ast.IfExp) else ()
        for part in given:
            found |= {
                child.value
                for child in ast.walk(part)
                if isinstance(child, ast.Constant)
                and isinstance(child.value, str)
                and _CAMEL.fullmatch(child.value)
            }
    return found - _LETTERS - {"Latest", "Earliest", "All", "New", "Last", "Infinity"}


def test_every_reason_is_explained() -> None:
    told = {
        name for row in table_after("docs/operating.md", "reasons") for name in
        _NAMED.findall(row[0])
    }  # fmt: skip
    given: set[str] = set()
    for pattern in _REASON_GIVERS:
        for path in ROOT.glob(pattern):
            given |= reasons_in(path)
    assert not given - told, f"not explained: {sorted(given - told)}"
    assert not told - given, f"explained, and never given: {sorted(told - given)}"


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    text = pages()["docs/delivery.md"].partition("## Dead letters")[2]
    table = re.search(r"\| Reason \|.*\n(?:\|.*\n)+", text)
    assert table
    assert {_NAMED.findall(row[0])[0] for row in rows(table[0])} == _LETTERS
