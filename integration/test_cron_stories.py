"""The clock and a hub that is killed, stopped, and away: every slot is accounted for."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from integration.function import Call, answering, reply
from integration.hub import Hub, function, running, trigger
from integration.test_stories import EVERY_SECOND


def cron(name: str, **source: Any) -> dict[str, Any]:
    return trigger("CronTrigger", name, "f", {"schedule": EVERY_SECOND, **source})


def of(calls: list[Call], name: str) -> list[str]:
    """Ids of a trigger's ticks, as they came."""
    return [call.id for call in calls if call.headers["ce-source"].endswith(f"/{name}")]


def every_second(first: str, last: str) -> list[str]:
    begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    count = round((end - begin).total_seconds())
    moments = (begin + timedelta(seconds=n) for n in range(count + 1))
    return [f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in moments]


def test_a_hub_that_is_killed_again_and_again_sends_each_slot_and_repeats_only_what_was_under_way(
    tmp_path: Path,
) -> None:
    with (
        answering(lambda call: reply(200, after=0.7)) as target,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", cron("all", missedRuns="All"), cron("one", concurrency="Forbid"))
        under_way: set[str] = set()
        for _ in range(4):
            hub.start()
            before = len(target.calls)
            hub.wait(lambda before=before: len(target.calls) > before + 4, "ticks")  # type: ignore[misc]
            hub.kill9()
            under_way |= on_record(hub)
            time.sleep(1.5)  # the machine is away
        hub.start()
        before = len(target.calls)
        hub.wait(lambda: len(target.calls) > before + 4, "some ticks more")
        assert hub.stop() == 0
        assert not on_record(hub)
        ids = of(target.calls, "all")
        assert sorted(set(ids)) == every_second(min(ids), max(ids))
        for name in ("all", "one"):
            repeated = {one for one, n in Counter(of(target.calls, name)).items() if n > 1}
            assert repeated <= under_way
        assert set(ids) - set(of(target.calls, "one")), "nothing was skipped"


def on_record(hub: Hub) -> set[str]:
    """Ids of the ticks that the store of a dead hub has as under way."""
    with closing(sqlite3.connect(hub.data / "triggerhub.db")) as store:
        rows = store.execute("SELECT value FROM positions WHERE key = 'ticks'").fetchall()
    return {one for (text,) in rows for one in json.loads(text).get("open", ())}


def test_what_is_replaced_is_told_and_counted_as_given_back(tmp_path: Path) -> None:
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", cron("slow", concurrency="Replace"))
        target.script = lambda call: reply(200, after=2.5)
        hub.start()
        hub.wait(lambda: hub.condition("slow", "Connected") == "True TicksReplaced", "a report")
        said = hub.conditions("slow")["Connected"]["message"]
        assert "replaced by the next one" in said
        hub.wait(lambda: replaced(hub) >= 2, "what was replaced is counted as given back")
        target.script = lambda call: reply(200)
        hub.wait(lambda: hub.settled() >= 1, "one that ends before the next")
        assert hub.stop() == 0


def replaced(hub: Hub) -> float:
    return hub.settled("given_back")
