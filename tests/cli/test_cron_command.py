from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.admin.smallhub import SmallHub
from tests.cli.terminal import run
from tests.markdown import pages
from triggerhub.cli import app
from triggerhub.connector import Installation
from triggerhub.control.resources import FunctionReference, Snapshot, Trigger, TriggerSpec
from triggerhub_cron import CronConnector, CronSource

MANIFESTS = """
apiVersion: triggerhub.dev/v1alpha1
kind: CronTrigger
metadata: {name: nightly, namespace: shop}
spec:
  function: {name: f}
  paused: true
  source:
    schedule: ["30 2 * * *", "@every 12h"]
    timeZone: Europe/Berlin
    jitter: 10m
---
apiVersion: triggerhub.dev/v1alpha1
kind: CronTrigger
metadata: {name: wrong}
spec: {function: {name: f}, source: {schedule: "0 24 * * *"}}
---
apiVersion: triggerhub.dev/v1alpha1
kind: CronTrigger
metadata: {name: over}
spec: {function: {name: f}, source: {schedule: "@daily", until: "2020-01-01T00:00:00Z"}}
---
apiVersion: triggerhub.dev/v1alpha1
kind: HTTPTrigger
metadata: {name: web}
spec: {function: {name: f}, source: {path: /}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "a.yaml").write_text(MANIFESTS)
    return str(tmp_path)


async def test_the_next_ticks_are_told_in_both_zones_with_their_reasons(folder: str) -> None:
    after = ("--after", "2026-10-24T12:00:00Z", "-n", "2")
    ran = await run("cron", "next", "nightly", "-f", folder, *after, env={"TZ": "Asia/Kolkata"})
    lines = ran.out.splitlines()
    assert lines[0] == "shop/nightly is paused: nothing is sent until it goes on"
    assert re.match(r"DUE \(Europe/Berlin\) +SENT \(local\) .*SCHEDULE +NOTE$", lines[1])
    due = r"Sun 2026-10-25 02:00 \+02:00  Sun 2026-10-25 05:3[0-9]:[0-9]{2} \+05:30  .*@every 12h  "
    assert re.match(due + ".*m.*s of jitter$", lines[2])
    assert "30 2 * * *" in lines[3]
    assert "02:30 comes twice, sent once: this is the first time; " in lines[3]


async def test_what_is_told_is_json_too(folder: str) -> None:
    after = ("--after", "2026-03-28T12:00:00Z", "-n", "3", "-o", "json")
    ran = await run("cron", "next", "shop/nightly", "-f", folder, *after)
    told = ran.json
    assert (told["trigger"], told["kind"], told["paused"]) == ("shop/nightly", "CronTrigger", True)
    ids = ["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T12:00:00Z"]
    assert [event["id"] for event in told["upcoming"]] == ids
    gap = told["upcoming"][1]
    assert gap["due"] == "2026-03-29T03:00:00+02:00"
    assert gap["why"] == ["30 2 * * *"]
    assert gap["notes"][0] == "02:30 does not exist that day: sent when the gap ends"
    assert "2026-03-29T01:00:00" <= gap["sent"] < "2026-03-29T01:10:00"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nigtly",), "there is no trigger nigtly; did you mean nightly?"),
        (("web",), "HTTPTrigger default/web has no schedule: its source does not know"),
        (("wrong",), "(did you mean '0 0 * * *'?)"),
        (("nightly", "-n", "0"), "n: found '0', expected 1 to 1000"),
        (("nightly", "-n", "99999999999"), "expected 1 to 1000"),
        (("nightly", "--after", "noon"), "after: found 'noon', expected a time such as"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(
    folder: str, arguments: tuple[str, ...], said: str
) -> None:
    ran = CliRunner().invoke(app, ["cron", "next", *arguments, "-f", folder])
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert said in ran.stderr


def test_a_schedule_that_is_over_says_so(folder: str) -> None:
    ran = CliRunner().invoke(app, ["cron", "next", "over", "-f", folder])
    assert (ran.exit_code, ran.stdout) == (0, "nothing is due any more\n")


async def test_the_hub_tells_the_same(hub: SmallHub) -> None:
    source = CronSource.model_validate({"schedule": "@hourly", "timeZone": "Asia/Kolkata"})
    trigger = Trigger(
        kind="CronTrigger", namespace="shop", name="tick", labels={}, generation=1,
        created=datetime.now(UTC), spec=TriggerSpec(function=FunctionReference(name="f")),
        source=source,
    )  # fmt: skip
    hub.manifests.snapshot = Snapshot(triggers=(trigger,))
    hub.sources.connectors["CronTrigger"] = CronConnector(Installation())
    place = ("--admin", hub.view.address)
    ran = await run("cron", "next", "shop/tick", "-n", "2", *place, "-o", "json")
    [first, second] = ran.json["upcoming"]
    assert first["due"].endswith(":00:00+05:30")
    assert datetime.fromisoformat(first["sent"]) > datetime.now(UTC)
    assert second["why"] == ["@hourly"]
    for path, status in (("none", 404), ("tick", 200)):
        answer = await hub.ask("GET", f"/v1/triggers/shop/{path}/upcoming?n=1")
        assert answer.status == status
    assert (await hub.ask("GET", "/v1/triggers/tick/upcoming?m=1")).status == 400
    hub.sources.connectors["CronTrigger"] = object()
    assert (await hub.ask("GET", "/v1/triggers/tick/upcoming")).status == 409


def test_the_answer_in_the_documents_is_the_commands(tmp_path: Path) -> None:
    text = pages()["docs/cron.md"]
    manifest = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    shown = re.search(r"with `(-n 3 --after \S+)` and `(--after \S+)`:\n\n```text\n(.*?)```",
                      text, re.DOTALL)  # fmt: skip
    assert manifest
    assert shown
    (tmp_path / "a.yaml").write_text(manifest[1])
    found = ""
    for options in (shown[1], f"-n 3 {shown[2]}"):
        arguments = ["cron", "next", "nightly", "-f", str(tmp_path), *options.split()]
        found += CliRunner(env={"TZ": "UTC", "COLUMNS": ""}).invoke(app, arguments).stdout
    assert found == shown[3]
