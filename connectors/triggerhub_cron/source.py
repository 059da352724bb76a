"""``spec.source`` of a CronTrigger."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

from pydantic import Field, JsonValue, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from triggerhub.connector import SourceModel
from triggerhub.durations import Duration
from triggerhub.fields import Rule, Text, Time, parse_time
from triggerhub_cron.faults import ScheduleError
from triggerhub_cron.plan import Plan, make_plan, read_excluded
from triggerhub_cron.schedule import check_schedule, read_zone

_BLANK = "[ \\t\\r\\n]"
_FIELD = "[0-9A-Za-z*?,/#-]+"
_EVERY = f"@[Ee][Vv][Ee][Rr][Yy]{_BLANK}+[0-9.]+[0-9.a-zµμ]*"
_FORM = Text(
    f"{_BLANK}*(@[A-Za-z]+|{_EVERY}|{_FIELD}({_BLANK}+{_FIELD}){{4,5}}){_BLANK}*",
    "five fields, six with seconds first, or a word such as @hourly or @every 90s",
    256,
)
# The connector's own check knows better what is wrong.
Schedule = Annotated[str, WithJsonSchema(_FORM.schema())]
Schedules = Annotated[list[Schedule], Field(min_length=1, max_length=100)]

_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_DATES = Text(
    f"{_DATE}(/{_DATE})?|[0-9]{{2}}-[0-9]{{2}}",
    "a date such as 2026-12-24, 12-25 of every year, or 2026-12-27/2026-12-31",
    21,
)
Dates = Annotated[str, WithJsonSchema(_DATES.schema())]


class MissedRuns(StrEnum):
    """What becomes of ticks that could not be sent when they were due."""

    SKIP = "Skip"
    LAST = "Last"
    ALL = "All"


class Concurrency(StrEnum):
    """What a tick does while the one before is under way, retries included."""

    ALLOW = "Allow"
    FORBID = "Forbid"
    REPLACE = "Replace"


def _until_before_from(source: CronSource) -> str:
    if source.begin is None or source.until is None:
        return ""
    if parse_time(source.begin) < parse_time(source.until):
        return ""
    return f"from is {source.begin} and until {source.until}, expected until later than from"


def _all_replaced(source: CronSource) -> str:
    if source.missed_runs is MissedRuns.ALL and source.concurrency is Concurrency.REPLACE:
        return "each missed tick would replace the one before, expected missedRuns: Last"
    return ""


class CronSource(SourceModel):
    """When a cron trigger ticks, and what each tick carries."""

    short_names = ("ct",)
    source_column = ("schedule",)
    field_rules = (
        Rule(
            "!has(self.from) || !has(self.until) || timestamp(self.from) < timestamp(self.until)",
            "expected until later than from",
            _until_before_from,
        ),
        Rule(
            "self.missedRuns != 'All' || self.concurrency != 'Replace'",
            "each missed tick would replace the one before, expected missedRuns: Last",
            _all_replaced,
        ),
    )

    schedule: Schedule | Schedules = Field(
        description="Five fields (minute, hour, day of month, month, day of week), six with "
        "seconds first, a word such as @hourly, or @every with a duration; or a list of these. "
        "When both day of month and day of week are restricted, either one suffices."
    )
    time_zone: Annotated[
        str, Text("[A-Za-z0-9][A-Za-z0-9_+/-]*", "an IANA name such as Europe/Berlin", 64)
    ] = Field(
        default="UTC",
        alias="timeZone",
        description="IANA name. A time of day that a clock change skips is due once right after "
        "the gap, one that it repeats is due once; a schedule of every hour is about intervals "
        "and goes on as time passes.",
    )
    begin: Time | None = Field(
        default=None,
        alias="from",
        description="Nothing earlier is due; @every counts from here, else from "
        "1970-01-01T00:00:00Z.",
        json_schema_extra={"format": "date-time"},
    )
    until: Time | None = Field(
        default=None,
        description="Nothing from then on is due.",
        json_schema_extra={"format": "date-time"},
    )
    excluding: list[Dates] = Field(
        default=[],
        max_length=100,
        description="Days of the time zone on which nothing is due: a date, 12-25 of every "
        "year, or the first and last of several as 2026-12-27/2026-12-31.",
    )
    jitter: Duration | None = Field(
        default=None,
        description="Each tick is sent up to so much later, never after the next is due. How "
        "much follows from the trigger's name and the due time.",
    )
    missed_runs: Annotated[MissedRuns, Field(strict=False)] = Field(
        default=MissedRuns.SKIP,
        alias="missedRuns",
        description="Of ticks that were due more than a minute ago and not sent: none, the last, "
        "or all.",
    )
    missed_runs_max_age: Duration = Field(
        default=86400.0,
        validate_default=False,
        alias="missedRunsMaxAge",
        json_schema_extra={"default": "24h"},
        description="What was due longer ago is not made up for.",
    )
    concurrency: Annotated[Concurrency, Field(strict=False)] = Field(
        default=Concurrency.ALLOW,
        description="While a tick is under way, retries included, the next one: is sent beside "
        "it; is skipped; or takes its place.",
    )
    data: JsonValue = Field(
        default=None,
        description="Body of each event: a text as it is, any other value as JSON.",
        json_schema_extra={"nullable": True},
    )
    content_type: str | None = Field(
        default=None,
        alias="contentType",
        max_length=256,
        pattern=r"^[\x21-\x7e]+/[\x20-\x7e]+$",
        description="Default: text/plain; charset=utf-8 for a text, else application/json.",
    )

    @property
    def schedules(self) -> tuple[str, ...]:
        return (self.schedule,) if isinstance(self.schedule, str) else tuple(self.schedule)

    def plan(self, trigger: str = "") -> Plan:
        """``trigger``: namespace and name."""
        return make_plan(
            self.schedules,
            self.time_zone,
            begin=self.begin,
            end=self.until,
            excluding=self.excluding,
            jitter=self.jitter or 0.0,
            salt=trigger,
        )

    def payload(self) -> tuple[bytes, str | None]:
        """Data of each event and its content type."""
        if "data" not in self.model_fields_set:
            return b"", self.content_type
        if isinstance(self.data, str):
            return self.data.encode(), self.content_type or "text/plain; charset=utf-8"
        text = json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))
        return text.encode(), self.content_type or "application/json"

    @field_validator("schedule")
    @classmethod
    def _schedules_are_due_at_times(cls, value: str | list[str]) -> str | list[str]:
        for expression in (value,) if isinstance(value, str) else value:
            check_schedule(expression)
            _FORM.check(expression)
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        read_zone(value)
        return value

    @field_validator("excluding")
    @classmethod
    def _dates_are_dates(cls, value: list[str]) -> list[str]:
        for text in value:
            read_excluded(text)
        return value

    @field_validator("data")
    @classmethod
    def _data_is_json(cls, value: JsonValue) -> JsonValue:
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise ValueError(f"expected a value that JSON and UTF-8 can bear: {error}") from None
        return value

    @model_validator(mode="after")
    def _something_is_due(self) -> CronSource:
        if not _until_before_from(self):
            try:
                self.plan().check()
            except ScheduleError as error:
                raise PydanticCustomError("choice", "{wrong}", {"wrong": str(error)}) from None
        return self
