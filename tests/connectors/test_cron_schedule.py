"""When schedules are due: tables for clock changes, and what holds for every schedule."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerhub_cron.schedule import ScheduleError, check_schedule, next_due, read_zone


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def dues(schedule: str | list[str], zone: str, after: str, count: int) -> list[str]:
    """The next due times in UTC, as ``MM-DD HH:MM`` with seconds where there are any."""
    schedules = [schedule] if isinstance(schedule, str) else schedule
    found = []
    now = at(after)
    for _ in range(count):
        due = next_due(schedules, read_zone(zone), now)
        assert due is not None
        moment = datetime.fromtimestamp(due, UTC)
        found.append(f"{moment:%m-%d %H:%M:%S}".removesuffix(":00"))
        now = due
    return found


# 2026: Berlin goes forward on 03-29 at 01:00Z (02:00 -> 03:00) and back on 10-25 at 01:00Z
# (03:00 -> 02:00); New York forward on 03-08 at 07:00Z, back on 11-01 at 06:00Z; Lord Howe by
# half an hour, back on 04-04 at 15:00Z (02:00 -> 01:30), forward on 10-03 at 15:30Z
# (02:00 -> 02:30).
@pytest.mark.parametrize(
    ("schedule", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00Z", ["03-28 01:30", "03-29 01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T00:59Z", ["03-29 01:00", "03-30 00:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00Z", ["03-30 00:30"]),
        ("0 3 * * *", "Europe/Berlin", "2026-03-29T00:00Z", ["03-29 01:00", "03-30 01:00"]),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-29T00:00Z", ["03-29 01:00", "03-30 00:15"]),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-03-29T00:00Z",
            ["03-29 00:30", "03-29 01:00", "03-29 01:30"],
        ),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:00Z", ["10-25 00:30", "10-26 01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10Z", ["10-26 01:30"]),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-10-25T00:00Z",
            ["10-25 00:30", "10-25 02:00", "10-25 02:30"],
        ),
        ("0 3 * * *", "Europe/Berlin", "2026-10-25T01:30Z", ["10-25 02:00"]),
        ("0 0 3 * * *", "Europe/Berlin", "2026-10-25T01:59:59Z", ["10-25 02:00"]),
        (
            "*/20 * * * * *",
            "Europe/Berlin",
            "2026-10-25T00:59:30Z",
            ["10-25 00:59:40", "10-25 02:00", "10-25 02:00:20"],
        ),
        ("30 2 * * *", "America/New_York", "2026-03-08T00:00Z", ["03-08 07:00", "03-09 06:30"]),
        ("30 1 * * *", "America/New_York", "2026-11-01T00:00Z", ["11-01 05:30", "11-02 06:30"]),
        ("30 1 * * *", "America/New_York", "2026-11-01T06:10Z", ["11-02 06:30"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:00Z", ["04-04 14:45", "04-05 15:15"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T15:05Z", ["04-05 15:15"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", ["10-03 15:30", "10-04 15:15"]),
        ("30 2 * * *", "Asia/Kolkata", "2026-03-28T00:00Z", ["03-28 21:00", "03-29 21:00"]),
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T23:00Z", ["12-30 10:00", "12-30 22:00"]),
        ("@hourly", "UTC", "2026-03-29T00:30Z", ["03-29 01:00", "03-29 02:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00Z", ["02-29 00:00"]),
        ("5-5 * * * *", "UTC", "2026-01-01T00:00Z", ["01-01 00:05", "01-01 01:05"]),
        (["0 * * * *", "*/30 * * * *"], "UTC", "2026-01-01T00:00Z", ["01-01 00:30", "01-01 01:00"]),
    ],
)
def test_a_skipped_time_is_due_right_after_the_gap_and_a_repeated_one_once(
    schedule: str | list[str], zone: str, after: str, expected: list[str]
) -> None:
    assert dues(schedule, zone, after, len(expected)) == expected


def test_a_moment_just_before_a_due_time_does_not_pass_over_it() -> None:
    noon = int(at("2026-11-23T12:00:00Z"))
    assert next_due(["0 12 * * *"], UTC, math.nextafter(noon, 0)) == noon


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("61 * * * *", "minute (field 1) is '61', expected 0-59"),
        ("* 24 * * *", "hour (field 2) is '24', expected 0-23"),
        ("* * 0 * *", "day of month (field 3) is '0', expected 1-31"),
        ("* * * foo *", "month (field 4) is 'foo', expected 1-12"),
        ("* * * * 8", "day of week (field 5) is '8', expected 0-7"),
        ("60 * * * * *", "second (field 1) is '60', expected 0-59"),
        ("* * * * *  mon,", "day of week (field 6) is 'mon,'"),
        ("*/90 * * * *", "minute (field 1) is '*/90'"),
        ("*/0 * * * *", "minute (field 1) is '*/0'"),
        ("R * * * *", "minute (field 1) is 'R'"),
        ("H(0-5) * * * *", "minute (field 1) is 'H(0-5)'"),
        ("٣ * * * *", "minute (field 1) is '٣'"),
        ("* * *", "has 3 fields, expected 5"),
        ("", "has 0 fields, expected 5"),
        ("0 0 1 1 * 0 2027", "has 7 fields, expected 5"),
        ("@reboot", "expected one of @yearly"),
        ("@every 5m", "expected one of @yearly"),
        ("CRON_TZ=UTC 0 * * * *", "names a time zone: expected it in the field timeZone"),
        ("0 0 30 2 *", "never due: no date has day of month '30' in month '2'"),
        ("0 0 31 4,6 *", "never due"),
        ("* * * * 1#6", "day of week (field 5) is '1#6'"),
        ("* * * * 1,2#1", "day of week (field 5) is '1,2#1'"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused_with_the_field_and_what_is_expected(
    schedule: str, expected: str
) -> None:
    with pytest.raises(ScheduleError) as caught:
        check_schedule(schedule)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "schedule",
    ["@Hourly", " @daily ", "0 9-17/2 * JAN-MAR mon,wed", "0 22-2 * * *", "0 0 L * ?", "0 0 * * 7"],
)
def test_the_usual_spellings_are_read(schedule: str) -> None:
    check_schedule(schedule)
    assert next_due([schedule], UTC, 0.0) is not None


def test_an_unknown_time_zone_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ScheduleError, match="did you mean 'Europe/Berlin'"):
        read_zone("europe/berln")
    with pytest.raises(ScheduleError, match="unknown time zone"):
        read_zone("../../etc/passwd")


fields = st.tuples(
    st.sampled_from(["*", "0", "*/7", "5-20/5", "13,59"]),
    st.sampled_from(["*", "2", "*/3", "1-3", "0,23"]),
    st.sampled_from(["*", "1", "13", "28-31", "L"]),
    st.sampled_from(["*", "2", "3,10", "*/4"]),
    st.sampled_from(["*", "0", "1-5", "7"]),
)
schedules = st.one_of(fields.map(" ".join), fields.map(lambda f: " ".join(["*/25", *f])))
moments = st.datetimes(datetime.fromisoformat("2015-01-01"), datetime.fromisoformat("2035-01-01"))
zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]
)


@settings(max_examples=150, deadline=None)
@given(schedules, moments, zones)
def test_due_times_strictly_ascend_in_every_zone(schedule: str, start: datetime, zone: str) -> None:
    now = start.replace(tzinfo=UTC).timestamp()
    for _ in range(10):
        due = next_due([schedule], read_zone(zone), now)
        assert due is not None
        assert due > now
        now = due


@settings(max_examples=150, deadline=None)
@given(schedules, moments)
def test_in_utc_due_times_are_those_of_plain_cron(schedule: str, start: datetime) -> None:
    now = start.replace(tzinfo=UTC).timestamp()
    plain = croniter(schedule, start, second_at_beginning=True)
    for _ in range(5):
        due = next_due([schedule], UTC, now)
        assert due is not None
        assert due == plain.get_next(float)
        now = due
