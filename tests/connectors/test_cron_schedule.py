"""When schedules are due: tables for clock changes, and what holds for every schedule."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from triggerhub_cron.expression import Expression, parse
from triggerhub_cron.faults import ScheduleError
from triggerhub_cron.schedule import check_schedule, next_due, read_zone


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
            ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"],
        ),
        ("15 * * * *", "Europe/Berlin", "2026-03-29T00:15Z", ["03-29 01:15", "03-29 02:15"]),
        ("0 * 25 10 *", "Europe/Berlin", "2026-01-01T00:00Z", ["10-24 22:00", "10-24 23:00"]),
        (
            "*/30 1-3 * * *",
            "Europe/Berlin",
            "2026-10-25T00:00Z",
            ["10-25 00:30", "10-25 02:00", "10-25 02:30", "10-26 00:00"],
        ),
        ("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:30Z", ["04-04 14:45", "04-04 15:15"]),
        ("15 * * * *", "Australia/Lord_Howe", "2026-10-03T14:30Z", ["10-03 14:45", "10-03 16:15"]),
        ("@every 90m", "Europe/Berlin", "2026-10-25T00:00Z", ["10-25 01:30", "10-25 03:00"]),
        ("@every 1h", "Asia/Kolkata", "2026-10-25T00:00Z", ["10-25 01:00", "10-25 02:00"]),
        ("0 3 * * *", "Europe/Berlin", "2026-10-25T01:30Z", ["10-25 02:00"]),
        ("0 0 3 * * *", "Europe/Berlin", "2026-10-25T01:59:59Z", ["10-25 02:00"]),
        (
            "*/20 * * * * *",
            "Europe/Berlin",
            "2026-10-25T00:59:30Z",
            ["10-25 00:59:40", "10-25 01:00", "10-25 01:00:20"],
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
def test_times_of_day_are_due_once_and_intervals_go_on_when_clocks_change(
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
        ("@every 5", "found '5' after @every, expected a duration such as 90s"),
        ("@every", "found '' after @every, expected a duration"),
        ("@every 1.5s", "expected whole seconds, from 1s to a year (did you mean '@every 2s'?)"),
        ("@every 0s", "(did you mean '@every 1s'?)"),
        ("@every 9999999h", "(did you mean '@every 8784h'?)"),
        ("61 * * * *", "(did you mean '59 * * * *'?)"),
        ("0 24 * * *", "(did you mean '0 0 * * *'?)"),
        ("*/90 * * * *", "(did you mean '@every 90m'?)"),
        ("0 9 * * monday-friday", "(did you mean '0 9 * * MON-FRI'?)"),
        ("0 9 32 13 *", "day of month (field 3) is '32', expected 1-31 or L"),
        ("0 9 32 13 *", "(did you mean '0 9 31 12 *'?)"),
        ("0 0 1 1 * 0 2027", "(did you mean '0 0 1 1 * 0'?)"),
        ("0 9 * * 1-5 2027", "(did you mean '0 9 * * 1-5'?)"),
        ("daily", "(did you mean '@daily'?)"),
        ("@hourl", "(did you mean '@hourly'?)"),
        ("* * * *", "(did you mean '* * * * *'?)"),
        ("\u017fun * * * *", "minute (field 1) is"),
        ("0 0 31 2,4-4 *", "never due"),
        ("0 0 1-5-9 * *", "day of month (field 3) is '1-5-9'"),
        ("0 0 * * 1/" + "9" * 5000, "expected at most 256 characters"),
        ("CRON_TZ=UTC 0 * * * *", "names a time zone: expected it in the field timeZone: UTC"),
        ("0 0 30 2 *", "never due: no date has day of month '30' in month '2'"),
        ("0 0 31 4,6 *", "never due"),
        ("* * * * 1#6", "day of week (field 5) is '1#6'"),
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
    [
        "@Hourly",
        " @daily ",
        "0 9-17/2 * JAN-MAR mon,wed",
        "0 22-2 * * *",
        "0 0 L * ?",
        "0 0 * * 7",
        "0 0 * * 1,2#1",
        "0 0 * * 5L",
        "0 0 * * Lfri",
        "@EVERY 90s",
        "5/10 * * * *",
    ],
)
def test_the_usual_spellings_are_read(schedule: str) -> None:
    check_schedule(schedule)
    assert next_due([schedule], UTC, 0.0) is not None


def test_an_unknown_time_zone_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ScheduleError, match="did you mean 'Europe/Berlin'"):
        read_zone("europe/berln")
    with pytest.raises(ScheduleError, match="unknown time zone"):
        read_zone("../../etc/passwd")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Over the end, by steps: the spacing goes on.
        ("0 0 1 NOV-FEB/3 *", ["02-01 00:00", "11-01 00:00", "02-01 00:00"]),
        ("0 22-3/2 1 1 *", ["01-01 02:00", "01-01 22:00", "01-01 00:00"]),
        ("0 0 * 2 SAT-MON", ["02-01 00:00", "02-02 00:00", "02-07 00:00"]),
        # Of two fields of days either one suffices, counted days of week included.
        ("0 0 29 2 1#1", ["02-02 00:00", "02-01 00:00", "02-07 00:00"]),
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 * * 5L", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * 7 6L", ["07-25 00:00", "07-31 00:00", "07-29 00:00"]),
        ("0 0 * * 1#5", ["03-30 00:00", "06-29 00:00", "08-31 00:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        ("@every 36h", ["01-02 12:00", "01-04 00:00", "01-05 12:00"]),
    ],
)
def test_the_less_usual_forms_mean_what_they_say(schedule: str, expected: list[str]) -> None:
    assert dues(schedule, "UTC", "2026-01-01T00:00:01Z", 3) == expected


def test_the_rarest_date_is_found() -> None:
    # 29 February as a fifth Monday comes after 28 years, and over 2100 after forty.
    assert next_due(["0 0 * 2 1#5"], UTC, at("2072-03-01T00:00Z")) == at("2112-02-29T00:00Z")


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


pieces = st.sampled_from(
    ["*", "0", "7", "59", "60", "31", "1-5", "22-2/3", "*/15", "*/0", ",", "/", "-", "#", "L", "5L",
     "L5", "5#2", "?", "MON", "monday", "JAN-", "@", "@every", "90s", "@hourly", "TZ=UTC", "H",
     "2027", "\u0663", "\u017fun", "\x00", "9" * 40]
)  # fmt: skip
junk = st.one_of(
    st.text(max_size=300),
    st.lists(pieces, max_size=9).map(" ".join),
    st.lists(st.lists(pieces, min_size=1, max_size=3).map("".join), min_size=4, max_size=7).map(
        " ".join
    ),
)


@settings(max_examples=500, deadline=None)
@given(junk)
def test_whatever_is_written_is_read_or_refused_in_a_sentence(text: str) -> None:
    said = ""
    try:
        due = next_due([text], read_zone("Europe/Berlin"), 1_774_700_000.0)
        assert due is None or due > 1_774_700_000
    except ScheduleError as error:
        said = str(error)
    assert len(said) < 1500
    hint = re.search(r"\(did you mean '(.*)'\?\)$", said)
    if hint:
        check_schedule(hint[1])


changes = st.sampled_from(
    [("Europe/Berlin", "2026-03-29T01:00Z"), ("Europe/Berlin", "2026-10-25T01:00Z"),
     ("Australia/Lord_Howe", "2026-04-04T15:00Z"), ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
     ("America/New_York", "2026-03-08T07:00Z"), ("Africa/Casablanca", "2026-02-15T02:00Z")]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(fields.map(" ".join), changes)
def test_around_a_change_each_local_time_is_due_as_often_as_is_promised(
    schedule: str, change: tuple[str, str]
) -> None:
    zone, begin = ZoneInfo(change[0]), int(at(change[1])) - 4 * 3600
    found, now = [], float(begin)
    while (due := next_due([schedule], zone, now)) is not None and due <= begin + 8 * 3600:
        found.append(due)
        now = due
    assert found == defined(parse(schedule), zone, begin)


def defined(expression: Expression, zone: ZoneInfo, begin: int) -> list[int]:
    """By the definition: a look at each minute of eight hours, and of those that are left out."""
    found, seen, before = [], set(), datetime.fromtimestamp(begin, zone).replace(tzinfo=None)
    for moment in range(begin + 60, begin + 8 * 3600 + 1, 60):
        here = datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)
        skipped = (here - before) // timedelta(minutes=1) - 1
        owed = [before + timedelta(minutes=n) for n in range(1, skipped + 1)]
        if expression.every_hour:
            due = meant(expression, here)
        else:
            due = (meant(expression, here) and here not in seen) or any(
                meant(expression, wall) for wall in owed
            )
        if due:
            found.append(moment)
        seen.add(here)
        before = here
    return found


def meant(expression: Expression, wall: datetime) -> bool:
    return expression.after(wall - timedelta(seconds=1)) == wall


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
