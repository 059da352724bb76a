"""The tables of the documents say what the code does."""

from __future__ import annotations

import importlib
import re
from datetime import UTC, datetime
from importlib.metadata import entry_points
from zoneinfo import ZoneInfo

import pytest
import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from integration.nats_servers import NATS
from tests.markdown import (
    field_table,
    leaves,
    pages,
    table_after,
)
from triggerhub import exposure
from triggerhub.admin.metrics import Readings, render
from triggerhub.cli import app
from triggerhub.connector import KeyRef, Reference
from triggerhub.delivery.course import Course, Failure
from triggerhub.delivery.retry import judge
from triggerhub.delivery.transport import Away, BrokenReply, NoReply
from triggerhub.event import Event
from triggerhub.functions import runtime
from triggerhub_cron.schedule import next_due
from triggerhub_http.routes import Claim, Routes

_API = "apiVersion: triggerhub.dev/"
_FIELDS = re.compile(r"<!-- fields: (\S+) (\S+):(\S+) -->\n\n?((?:\|.*\n)*)")
_NAMED = re.compile(r"`([^`]+)`")


def test_every_command_is_documented() -> None:
    documented = {row[0].split("`")[1] for row in table_after("docs/operating.md", "commands")}
    groups = ("dlq", "inbox", "cron")
    names = {" ".join(words[1:3] if words[1] in groups else words[1:2])
             for words in map(str.split, documented)}  # fmt: skip
    assert names == set(leaves(typer.main.get_command(app)))


def test_every_option_of_run_is_documented_with_its_default() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    found = {}
    for parameter in group.commands["run"].params:
        default = parameter.default
        shown = f"`{default}`" if not isinstance(default, bool) and default is not None else ""
        found[" ".join(f"`{o}`," for o in parameter.opts).rstrip(",")] = shown
    found.pop("`--help`", None)
    told = table_after("docs/operating.md", "options of run")
    assert {row[0]: row[1] if "`" in row[1] else "" for row in told} == found


def field_places() -> list[tuple[str, re.Match[str]]]:
    return [(page, match) for page, text in pages().items() for match in _FIELDS.finditer(text)]


@pytest.mark.parametrize(("page", "match"), field_places(), ids=lambda x: str(x)[:40])
def test_each_table_of_fields_is_that_of_its_model(page: str, match: re.Match[str]) -> None:
    place, module, name, told = match.groups()
    model = getattr(importlib.import_module(module), name)
    expected = field_table(model, place)
    assert told.strip() == expected, f"{page}, {place}: expected\n{expected}"


def test_every_model_of_a_manifest_has_its_table() -> None:
    told = {(match[2].partition(".")[0], match[3]) for _, match in field_places()}
    wanted: set[tuple[str, str]] = set()
    for module, name in (("triggerhub.control.specs", "TriggerSpec"),
                         ("triggerhub.control.specs", "FunctionSpec")):  # fmt: skip
        wanted |= models(getattr(importlib.import_module(module), name))
    for entry in entry_points(group="triggerhub.connectors"):
        connector = entry.load()
        wanted |= models(connector.source)
        if hasattr(connector, "dead_letter"):
            wanted |= models(connector.dead_letter)
    assert told == wanted


def models(model: type[BaseModel]) -> set[tuple[str, str]]:
    """A model and those within it: package and name. What a reference is, is told for all; how to
    be reached from outside, once."""
    inside = model.model_json_schema().get("$defs", {})
    names = {name for name, shape in inside.items() if "properties" in shape}
    names -= {Reference.__name__, KeyRef.__name__}
    own = model.__module__.partition(".")[0]
    return {
        ("triggerhub" if hasattr(exposure, name) else own, name)
        for name in {model.__name__, *names}
    }


def test_the_settle_table_is_what_the_hub_judges() -> None:
    table = table_after("docs/delivery.md", "settle table")
    exact = {int(code): row[1] for row in table for code in re.findall(r"\b\d{3}\b", row[0])
             if row[0][0].isdigit()}  # fmt: skip
    classes = {
        digit: row[1]
        for row in table
        for digit in re.findall(r"\b([1-5])xx", row[0])
        if row[0][0].isdigit()
    }
    other = next(row[1] for row in table if row[0] == "any other")
    for status in range(100, 600):
        told = exact.get(status) or classes.get(str(status)[0]) or other
        assert judge(status).value == told, status


@pytest.mark.parametrize(
    ("begins", "failure"),
    [
        ("no connection", Away("refused")),
        ("no whole reply", NoReply("timeout")),
        ("a broken reply", BrokenReply("cut off")),
    ],
)
def test_the_settle_table_knows_what_no_answer_means(begins: str, failure: Failure) -> None:
    table = table_after("docs/delivery.md", "settle table")
    (told,) = [row[1] for row in table if row[0].startswith(begins)]
    course = Course(Event(id="1", source="/s", type="t"), 0.0)
    assert course.note(0.0, 0.0, None, failure).value == told


def test_the_metrics_are_those_of_the_table() -> None:
    told = {_NAMED.findall(row[0])[0] for row in table_after("docs/operating.md", "metrics")}
    functions = runtime.Metrics("default", "f")
    functions.count("POST", 0.1, failed=False)
    empty = Readings(links=[], sources=[], letters=[], inboxes=[], states=[], store=True)
    text = render(empty).decode()
    types = re.findall(r"^# TYPE (\S+)", text + functions.render(), re.MULTILINE)
    assert {name for name in types if not name.startswith(("process_", "python_"))} == told


def test_the_routes_of_the_api_are_those_of_the_table() -> None:
    from triggerhub.admin.api import Api

    told = {_NAMED.findall(row[0])[0] for row in table_after("docs/operating.md", "routes")}
    found = set()
    for route in Api(None, None, None).routes():  # type: ignore[arg-type]
        path = route.path.replace("{rest:path}", "{source}/{id}").replace(":path", "")
        if path.startswith("/v1"):
            found |= {f"{method} {path}" for method in (route.methods or ()) if method != "HEAD"}
    assert found == told


@pytest.mark.parametrize(
    "row", table_after("docs/cron.md", "clock changes"), ids=lambda row: " ".join(row[:3])
)
def test_the_table_of_clock_changes_is_what_schedules_do(row: list[str]) -> None:
    schedule, zone, after, due, _ = row
    found = next_due(
        [schedule.strip("`")], ZoneInfo(zone.strip("`")), datetime.fromisoformat(after).timestamp()
    )
    assert found is not None
    assert datetime.fromtimestamp(found, UTC).isoformat() == due.replace("Z", "+00:00")


@pytest.mark.parametrize(
    "row", table_after("docs/http.md", "routes: requests"), ids=lambda row: " ".join(row[:2])
)
def test_the_table_of_routes_is_what_requests_get(row: list[str]) -> None:
    routes: Routes[str] = Routes()
    for name, host, path, kind, methods in table_after("docs/http.md", "routes: triggers"):
        routes.add(
            Claim(
                host=host.strip("`"),
                path=path.strip("`"),
                exact=kind == "`Exact`",
                methods=frozenset([methods.strip("`")]) if methods else None,
                created=datetime(2026, 1, 1, tzinfo=UTC),
                name=name,
                owner=name,
            )
        )
    method, path = row[0].strip("`").split()
    claim, _, _ = routes.find(row[1].strip("`"), path, method)
    assert claim is not None
    assert claim.owner == row[2]


@pytest.mark.parametrize(
    ("mark", "value"), [("event", runtime.Event), ("context", runtime.Context)]
)
def test_what_a_handler_is_given_is_documented(mark: str, value: type) -> None:
    told = {n for row in table_after("docs/functions.md", mark) for n in _NAMED.findall(row[0])}
    assert told == set(value.__dataclass_fields__)  # type: ignore[attr-defined]


def test_the_page_on_nats_names_the_server_that_the_tests_run_against() -> None:
    assert f"tests run against {NATS}," in pages()["docs/nats.md"]
