"""``spec.source`` of a CronTrigger."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field, JsonValue, WithJsonSchema, field_validator

from triggerhub.connector import SourceModel
from triggerhub.fields import Text
from triggerhub_cron.schedule import check_schedule, read_zone

_BLANK = "[ \\t\\r\\n]"
_FIELD = "[0-9A-Za-z*?,/#-]+"
_FORM = Text(
    f"{_BLANK}*(@[A-Za-z]+|{_FIELD}({_BLANK}+{_FIELD}){{4,5}}){_BLANK}*",
    "five fields, six with seconds first, or a word such as @hourly",
    256,
)
# The connector's own check knows better what is wrong.
Schedule = Annotated[str, WithJsonSchema(_FORM.schema())]
Schedules = Annotated[list[Schedule], Field(min_length=1, max_length=100)]


class CronSource(SourceModel):
    """When a cron trigger ticks, and what each tick carries."""

    short_names = ("ct",)
    source_column = ("schedule",)

    schedule: Schedule | Schedules = Field(
        description="Five fields (minute, hour, day of month, month, day of week), six with "
        "seconds first, or a word such as @hourly; or a list of these. When both day of month "
        "and day of week are restricted, either one suffices."
    )
    time_zone: Annotated[
        str, Text("[A-Za-z0-9][A-Za-z0-9_+/-]*", "an IANA name such as Europe/Berlin", 64)
    ] = Field(
        default="UTC",
        alias="timeZone",
        description="IANA name. A local time that a clock change skips fires once right after "
        "the gap, one that it repeats fires once.",
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

    @field_validator("data")
    @classmethod
    def _data_is_json(cls, value: JsonValue) -> JsonValue:
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise ValueError(f"expected a value that JSON and UTF-8 can bear: {error}") from None
        return value
