"""``spec.source`` of a CronTrigger."""

from __future__ import annotations

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
        ({"schedule": "@daily", "jitter": "5s"}, "jitter"),
        ({"schedule": "@daily", "time_zone": "UTC"}, "time_zone"),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CronSource.model_validate(fields)
    assert expected in str(caught.value)
