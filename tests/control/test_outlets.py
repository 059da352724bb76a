"""Dead letters and answers that go to the source's own system, by way of its connector."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.plugins.triggerhub_cellar import CellarConnector, CellarSource, Shelves
from tests.plugins.triggerhub_echo import EchoConnector
from triggerhub.connector import Installation, NotTaken, Order, SpecError, Unreadable
from triggerhub.control.binding import Listening
from triggerhub.control.outlets import Outlet
from triggerhub.event import Event, Origin, Reply
from triggerhub.store.records import DeadLetter, Elsewhere
from triggerhub.testing.fakes import subscription

PLACE = Shelves.model_validate({"shelf": "dead"})
LISTENING = Listening(
    name="shop.orders.f", kind="CellarTrigger", namespace="shop", trigger="orders", function="f",
    source=CellarSource.model_validate({"shelf": "a", "reply": "answers"}), order=Order.KEY,
    in_flight=1, created=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
LETTER = DeadLetter(
    id="01J", namespace="shop", trigger="orders", function="f",
    event=Event(id="7", source="/cellar", type="t", data=b"data"),
    origin=Origin(coordinates={"bottle": "7"}, value=b"data"), reason="Rejected",
    detail="status 422", last_status=422, last_response=b"no", attempts=2, first_time=0.0,
    last_time=1.0,
)  # fmt: skip


class Connections:
    def __init__(self, connector: Any) -> None:
        self.connector = connector

    async def reach(self, listening: Listening) -> tuple[Any, Any]:
        return self.connector, subscription(listening.source, name=listening.name)


@pytest.fixture
def cellar() -> CellarConnector:
    return CellarConnector(Installation())


@pytest.fixture
def outlet(cellar: CellarConnector) -> Outlet:
    return Outlet(LISTENING, PLACE, Connections(cellar))


async def test_a_letter_goes_with_its_evidence_and_comes_back_whole(
    cellar: CellarConnector, outlet: Outlet
) -> None:
    elsewhere = await outlet.lay_down(LETTER)
    assert elsewhere == Elsewhere(
        kind="CellarTrigger", coordinates={"shelf": "dead", "number": "0"}, size=4
    )
    ((_, laid),) = cellar.letters
    assert (laid.id, laid.event, laid.origin) == ("01J", LETTER.event, LETTER.origin)
    assert laid.evidence == {
        "reason": "Rejected", "detail": "status 422", "trigger": "shop/orders", "function": "f",
        "last-status": "422", "attempts": "2", "first-time": "1970-01-01T00:00:00+00:00",
        "last-time": "1970-01-01T00:00:01+00:00",
    }  # fmt: skip
    bare = replace(LETTER.event, data=b"")
    entry = replace(LETTER, event=bare, origin=Origin(), elsewhere=elsewhere)
    assert await outlet.read_back(entry) == replace(LETTER, elsewhere=elsewhere)


async def test_an_answer_goes_where_the_source_says(
    cellar: CellarConnector, outlet: Outlet
) -> None:
    reply = Reply(200, (), b"done")
    await outlet.reply(LETTER.event, reply)
    assert cellar.replies == [("answers", LETTER.event, reply)]


@pytest.mark.parametrize("error", [SpecError("no such shelf"), OSError("no such shelf")])
async def test_what_a_connector_raises_is_told(
    cellar: CellarConnector, outlet: Outlet, error: Exception
) -> None:
    entry = replace(LETTER, elsewhere=await outlet.lay_down(LETTER))
    cellar.trouble = error
    with pytest.raises(NotTaken, match="no such shelf"):
        await outlet.lay_down(LETTER)
    with pytest.raises(NotTaken, match="no such shelf"):
        await outlet.reply(LETTER.event, Reply(200, (), b"done"))
    with pytest.raises(Unreadable, match="no such shelf"):
        await outlet.read_back(entry)


async def test_a_connector_that_writes_nothing_is_told_of() -> None:
    outlet = Outlet(LISTENING, PLACE, Connections(EchoConnector(Installation())))
    with pytest.raises(NotTaken, match="the connector of EchoTrigger has no reply") as refused:
        await outlet.reply(LETTER.event, Reply(200, (), b"done"))
    assert refused.value.refused


def test_outlets_to_one_place_are_equal_whoever_opens_the_connectors(
    cellar: CellarConnector, outlet: Outlet
) -> None:
    assert outlet == Outlet(LISTENING, PLACE, Connections(cellar))
    assert outlet != replace(outlet, place=Shelves.model_validate({"shelf": "other"}))
