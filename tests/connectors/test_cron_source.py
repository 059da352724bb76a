"""``spec.source`` of a CronTrigger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from triggerhub_cron import CronSource


def test_the_simplest_source_is_a_schedule() -> None:
    source = CronSource.model_validate({"schedule": "0 12 * * *"})
    assert source.schedules == ("0 12 * * *",)
    assert source.time_zone == "UTC"
    assert source.payload() == (b"", None)


@pytest.mark.parametrize(
    ("fields", "payload"),
    [
        ({"data": "grüß"}, ("grüß".encode(), "text/plain; charset=utf-8")),
        ({"data": "<a/>", "contentType": "text/xml"}, (b"<a/>", "text/xml")),
        ({"data": {"n": [1, 2.5, None, True]}}, (b'{"n":[1,2.5,null,true]}', "application/json")),
        ({"data": {}, "contentType": "application/x"}, (b"{}", "application/x")),
        ({"data": None}, (b"null", "application/json")),
        ({"data": 7}, (b"7", "application/json")),
    ],
)
def test_text_is_sent_as_it_is_and_any_other_value_as_json(
    fields: dict[str, Any], payload: tuple[bytes, str]
) -> None:
    assert CronSource.model_validate({"schedule": "@daily", **fields}).payload() == payload


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "schedule"),
        ({"schedule": []}, "at least 1 item"),
        ({"schedule": ["@daily", "0 25 * * *"]}, "hour (field 2) is '25'"),
        ({"schedule": "@daily", "timeZone": "Europe/Berlim"}, "did you mean 'Europe/Berlin'"),
        ({"schedule": "@daily", "data": float("nan")}, "JSON"),
        ({"schedule": "@daily", "contentType": "a/b\r\nx: y"}, "contentType"),
        ({"schedule": "@daily", "jitter": "5"}, "jitter"),
        ({"schedule": "@daily", "jitter": "0s"}, "longer than 0s"),
        ({"schedule": "@daily", "missedRuns": "Some"}, "'Skip', 'Last' or 'All'"),
        ({"schedule": "@daily", "missedRunsMaxAge": "1d"}, "missedRunsMaxAge"),
        ({"schedule": "@daily", "concurrency": "forbid"}, "'Allow', 'Forbid' or 'Replace'"),
        ({"schedule": "@daily", "from": "tomorrow"}, "a time such as"),
        (
            {"schedule": "@daily", "from": "2026-02-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"},
            "expected until later than from",
        ),
        (
            {"schedule": "@daily", "from": "2026-02-01T00:00:01Z", "until": "2026-02-02T00:00:00Z"},
            "nothing is ever due",
        ),
        ({"schedule": "0 0 25 12 *", "excluding": ["12-25"]}, "nothing is ever due"),
        ({"schedule": "@hourly", "excluding": ["01-01/12-31"]}, "a date such as"),
        ({"schedule": "@hourly", "excluding": ["2026-02-30"]}, "a date such as"),
        ({"schedule": "@hourly", "excluding": ["2026-02-03/2026-02-01"]}, "a date such as"),
        ({"schedule": "@hourly", "excluding": ["2026-W01-1"]}, "a date such as"),
        (
            {"schedule": "@daily", "missedRuns": "All", "concurrency": "Replace"},
            "expected missedRuns: Last",
        ),
        ({"schedule": "@daily", "time_zone": "UTC"}, "time_zone"),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CronSource.model_validate(fields)
    assert expected in str(caught.value)


def due(count: int, after: str = "2026-12-23T00:00:00Z", **fields: Any) -> list[str]:
    plan = CronSource.model_validate(fields).plan("shop/t")
    now, found = datetime.fromisoformat(after).timestamp(), []
    for _ in range(count):
        slot = plan.after(now)
        if slot is None:
            break
        found.append(f"{datetime.fromtimestamp(slot.due, UTC):%m-%d %H:%M}")
        now = slot.due
    return found


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Days are those of the time zone: in Auckland the 25th begins at 11:00Z on the 24th.
        ({"schedule": "0 */12 * * *", "timeZone": "Pacific/Auckland", "excluding": ["12-25"]},
         ["12-23 11:00", "12-23 23:00", "12-25 11:00"]),
        ({"schedule": "@daily", "excluding": ["2026-12-24", "2026-12-27/2026-12-31", "01-01"]},
         ["12-25 00:00", "12-26 00:00", "01-02 00:00"]),
        ({"schedule": "@every 8h", "excluding": ["2026-12-23"]},
         ["12-24 00:00", "12-24 08:00", "12-24 16:00"]),
        ({"schedule": "@every 8h", "from": "2026-12-23T05:00:00Z"},
         ["12-23 05:00", "12-23 13:00", "12-23 21:00"]),
        ({"schedule": "@hourly", "from": "2026-12-24T00:00:00.5+01:00",
          "until": "2026-12-24T02:00:00+01:00"}, ["12-24 00:00"]),
        ({"schedule": "@hourly", "until": "2026-12-23T03:00:00Z"}, ["12-23 01:00", "12-23 02:00"]),
        ({"schedule": ["30 12 * * *", "@daily"]}, ["12-23 12:30", "12-24 00:00", "12-24 12:30"]),
    ],
)  # fmt: skip
def test_bounds_and_excluded_days_leave_out_what_they_say(
    fields: dict[str, Any], expected: list[str]
) -> None:
    assert due(3, **fields) == expected


def test_a_plan_that_has_ended_is_no_fault() -> None:
    assert due(3, schedule="@daily", until="2020-01-01T00:00:00Z") == []


def test_no_jitter_passes_the_next_slot_and_each_trigger_has_its_own() -> None:
    source = CronSource.model_validate({"schedule": ["@hourly", "1 * * * *"], "jitter": "1h"})
    plans = [source.plan(f"shop/{number}") for number in range(50)]
    firsts = []
    for plan in plans:
        now, last = 1_700_000_000.0, 0.0
        for _ in range(20):
            slot = plan.after(now)
            assert slot is not None
            assert last <= slot.at
            now, last = slot.due, slot.at
        first = plan.after(1_700_000_000.0)
        assert first is not None
        firsts.append(first.at - first.due)
        assert plan.after(1_700_000_000.0) == source.plan(plan.salt).after(1_700_000_000.0)
    assert len(set(firsts)) == 50
