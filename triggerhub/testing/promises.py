"""The contract of a source, promise by promise: what ``check_connector`` tries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from triggerhub.testing import burying, listening, settling
from triggerhub.testing.harness import Feature, Harness
from triggerhub.testing.stage import AnyStage


@dataclass(frozen=True, slots=True)
class Promise:
    """One sentence of the contract. ``unless`` says why it does not apply, or nothing."""

    says: str
    check: Callable[[AnyStage], Awaitable[None]]
    unless: Callable[[Harness[Any]], str] = lambda harness: ""


def _needs(*features: Feature) -> Callable[[Harness[Any]], str]:
    def unless(harness: Harness[Any]) -> str:
        lacking = [feature.name for feature in features if feature not in harness.features]
        return f"the harness does not name {' and '.join(lacking)}" if lacking else ""

    return unless


def _loses_what_it_gets_back(harness: Harness[Any]) -> str:
    brought = {Feature.REPLAYS, Feature.ANSWERS} & harness.features
    return "" if brought else "the harness names neither REPLAYS nor ANSWERS: the event is lost"


PROMISES = (
    Promise("report.connected() is called, before the first event", listening.connects_first),
    Promise(
        "data, key and type arrive whole, each event with its own identity", settling.arrives_whole
    ),
    Promise("what was settled does not come again", settling.settled_stays_settled),
    Promise(
        "what is produced while nobody listens is there for the next listen",
        settling.keeps_what_comes_meanwhile,
        _needs(Feature.KEEPS),
    ),
    Promise(
        "what was not settled comes again, under the same identity",
        settling.unsettled_comes_again,
        _needs(Feature.REPLAYS),
    ),
    Promise(
        "what waits when the listener stops comes again",
        settling.tail_is_given_back,
        _needs(Feature.REPLAYS, Feature.CARRIES_DATA),
    ),
    Promise(
        "who sent an event that was not settled is told",
        settling.unsettled_is_answered,
        _needs(Feature.ANSWERS),
    ),
    Promise("a second listen goes on where the first stopped", settling.goes_on),
    Promise(
        "key order holds, and a slow key delays only itself",
        listening.keeps_key_order,
        _needs(Feature.KEYED),
    ),
    Promise("no more than in_flight deliveries are under way at once", listening.bounds_in_flight),
    Promise("cancelling ends listen within the grace time", listening.ends_when_cancelled),
    Promise("what ends within the grace time is settled", listening.lets_attempts_end),
    Promise(
        "an event given back is not settled",
        settling.given_back_is_not_settled,
        _loses_what_it_gets_back,
    ),
    Promise(
        "listen raises when its source cannot be reached",
        listening.raises_when_unreachable,
        lambda harness: "" if harness.unreachable() else "the harness names no such source",
    ),
    Promise(
        "a dead letter comes back as it was",
        burying.comes_back_as_it_was,
        lambda harness: "" if harness.letters else "the harness names no place for them",
    ),
    Promise("several processes share a subscription", listening.shares, _needs(Feature.SHARES)),
)
