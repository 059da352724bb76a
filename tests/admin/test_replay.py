"""A replay over the admin API."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.admin.smallhub import SmallHub, until
from triggerhub.admin.replay import wish_of
from triggerhub.admin.wire import BadRequest
from triggerhub.event import Event
from triggerhub.testing.memory import MemoryLog

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def log_of(hub: SmallHub, records: int = 10) -> MemoryLog:
    log = hub.sources.logs["orders"] = MemoryLog("orders")
    for n in range(records):
        log.append(b"%d" % n, f"k{n % 3}")
    return log


async def replay(hub: SmallHub, name: str = "orders", **body: Any) -> Any:
    return await hub.ask("POST", f"/v1/bindings/{name}/replay", body)


@pytest.mark.parametrize(
    ("body", "since", "until"),
    [
        ({"from": "2026-11-26T10:00:00+01:00"}, NOW - timedelta(hours=3), None),
        ({"from": "2h", "to": "30m"}, NOW - timedelta(hours=2), NOW - timedelta(minutes=30)),
        ({"from": "0:17,1:4", "to": "now"}, "0:17,1:4", None),
        ({"from": "Earliest", "to": "0:20"}, "Earliest", "0:20"),
        ({"from": "17", "to": None}, "17", None),
    ],
)
def test_a_window_begins_and_ends_at_times_durations_and_positions(
    body: Any, since: Any, until: Any
) -> None:
    wish = wish_of(body, NOW)
    assert (wish.since, wish.until, wish.rate) == (since, until, 0.0)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "from: found None, expected an RFC 3339 time"),
        ({"from": ""}, "from: found ''"),
        ({"from": 5}, "from: found 5"),
        ({"from": "2026-11-26"}, "from: found '2026-11-26', expected an RFC 3339 time"),
        ({"from": "2026-11-26T10:00:00"}, "expected an RFC 3339 time"),
        ({"from": "2026-13-26T10:00:00Z"}, "expected an RFC 3339 time"),
        ({"from": "2026-11-26T12:00:01Z"}, "which is yet to come"),
        ({"from": "1h", "to": "2026-11-27T00:00:00Z"}, "to: found '2026-11-27T00:00:00Z', which"),
        ({"from": "1h", "to": "2h"}, "which is not before to"),
        ({"from": "1h", "rate": 0}, "rate: found 0, expected events per second"),
        ({"from": "1h", "rate": True}, "rate: found True"),
        ({"from": "1h", "until": "x"}, "unknown field 'until', expected from, function, rate, to"),
    ],
)
def test_a_window_that_cannot_be_is_refused(body: Any, says: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        wish_of(body, NOW)
    assert says in str(refusal.value)


async def test_a_replay_tells_how_far_it_is_until_it_has_ended(hub: SmallHub) -> None:
    name = hub.bind()
    log_of(hub)
    hub.function.status["3"] = 422
    answer = await replay(hub, **{"from": "2"})
    assert answer.status == 200
    last = answer.lines[-1]
    assert last == {
        "replay": last["replay"], "binding": name, "size": 8, "done": 8,
        "events": {"accepted": 7, "dead": 1}, "from": "10", "to": "10", "note": "", "trouble": "",
        "ended": True,
    }  # fmt: skip
    assert len(hub.function.seen) == 8
    assert len(await hub.letters()) == 1


async def test_what_no_binding_can_take_is_refused_with_a_status(hub: SmallHub) -> None:
    hub.bind()
    hub.bind(function="other")
    ways: list[tuple[str, dict[str, Any], int, str]] = [
        ("nope", {}, 404, "there is no trigger nope"),
        ("orders", {}, 409, "name one of: shop.orders.handle, shop.orders.other"),
        ("orders", {"function": "nope"}, 404, "not bound to function nope, but to handle, other"),
        ("orders", {"function": 5}, 400, "function: found 5"),
        ("orders", {"rate": -1}, 400, "rate: found -1"),
    ]
    for name, body, status, says in ways:
        answer = await replay(hub, name, **{"from": "0"} | body)
        assert (answer.status, says in answer.json["message"]) == (status, True), answer.body
    log_of(hub)
    answer = await replay(hub, **{"from": "0", "function": "other"})
    assert answer.lines[-1]["binding"] == "shop.orders.other"


async def test_what_the_source_refuses_is_the_last_line(hub: SmallHub) -> None:
    hub.bind()
    log_of(hub)
    (line,) = (await replay(hub, **{"from": "yesterday"})).lines[-1:]
    assert (line["error"], "expected an offset" in line["message"]) == ("ValueError", True)
    hub.sources.logs.clear()
    (line,) = (await replay(hub, **{"from": "0"})).lines[-1:]
    assert line["error"] == "SourceFailed"
    assert "there is no log 'orders' in memory" in line["message"]


async def test_a_client_that_goes_away_ends_its_replay_and_a_second_one_waits(
    hub: SmallHub,
) -> None:
    name = hub.bind()
    log_of(hub, 200)
    hub.function.hold = asyncio.Event()
    host, _, port = hub.view.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"from": "0"})
    writer.write(
        f"POST /v1/bindings/orders/replay HTTP/1.1\r\nhost: {hub.view.address}\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}".encode()
    )
    await until(lambda: hub.dispatcher.link(name).tally.in_flight > 0)
    second = await replay(hub, **{"from": "0"})
    assert (second.status, "is under way" in second.json["message"]) == (429, True)
    writer.close()
    hub.function.hold.set()
    await until(lambda: hub.dispatcher.link(name).tally.in_flight == 0)
    assert len(hub.function.seen) < 200
    tally = hub.dispatcher.link(name).tally
    assert tally.received == tally.accepted + tally.given_back
    await hub.dispatcher.dispatch(name, Event(id="LIVE", source="/s", type="t"))
