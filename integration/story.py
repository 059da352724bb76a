"""One stream, one function and one hub between them; and what must hold when a fault is over."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration.function import Call, Function, Script, answering
from integration.hub import Account, Hub, function, running
from integration.streams import (
    Stream,
    accepted_at_least,
    firsts,
    in_order,
    kafka_trigger,
    place,
)

RETRY = {"initial": "10ms", "max": "100ms"}
NAME = "orders"
"""The trigger's."""
_BINDING = f"default.{NAME}.f"
_IN_FLIGHT = 16
_BUGS = ("listener.failed", "Task exception was never retrieved")
"""In a hub's log: what no fault of others excuses."""


class Story:
    """A hub that carries a stream's records to a function."""

    def __init__(self, stream: Stream, target: Function, hub: Hub, scrapes: list[Account]) -> None:
        self.stream = stream
        self.target = target
        self.hub = hub
        self.scrapes = scrapes
        """The binding's account, again and again."""

    def flows(self, more: int = 50, within: float = 40.0) -> None:
        """Wait until so many more records have been accepted."""
        number = len(firsts(self.target.accepted)) + more
        self.hub.wait(lambda: accepted_at_least(self.target, number), f"{more} more", within)

    def says(self, condition: str, within: float = 60.0) -> None:
        """Wait until Ready is ``status reason``."""
        self.hub.wait(lambda: self.hub.condition(NAME) == condition, condition, within)

    def account(self) -> Account:
        """What the binding took in, and what became of it."""
        return self.hub.accounts()[_BINDING]

    def committed(self) -> dict[int, int]:
        """Where the group stands in each partition."""
        return self.stream.committed(NAME)

    def beyond(self, offsets: dict[int, int]) -> set[str]:
        """The events that were accepted up to now and lie after ``offsets``: in flight or settled
        and not committed, when these are what is committed."""
        places = {call.id: place(call.id) for call in self.target.accepted}
        return {event for event, (at, offset) in places.items() if offset >= offsets[at]}

    def ends_well(
        self, may_repeat: Set[str] = frozenset(), dead: Set[str] = frozenset(), within: float = 60.0
    ) -> None:
        """Nothing is lost, each key is in order, nothing comes twice but ``may_repeat``; all but
        ``dead`` is accepted, and all is committed; the hub says that all is well, and its figures
        add up."""
        hub, target, stream = self.hub, self.target, self.stream
        due = {event: value for event, value in stream.sent.items() if event not in dead}
        hub.wait(
            lambda: {call.id for call in target.accepted} >= due.keys(),
            "delivery of every record",
            within,
        )
        ends = stream.ends()
        hub.wait(lambda: self.committed() == ends, f"commit of {ends}", 20)
        hub.wait(lambda: hub.metric("triggerhub_source_lag", trigger=NAME) == 0, "lag 0", 20)
        self.says("True Ready")
        calls = target.accepted
        assert in_order(firsts(calls))
        assert {call.id: call.body for call in firsts(calls)} == due
        repeated = twice(calls)
        print(f"{len(stream.sent)} records, {len(repeated)} twice, {len(may_repeat)} might have")
        assert set(repeated) <= may_repeat
        assert {letter["event"]["id"] for letter in hub.letters()} == dead
        hub.wait(lambda: self.account().in_flight == 0, "end of deliveries", 10)
        settled = self.account().settled
        assert (settled["accepted"], settled["dead"]) == (len(calls), len(dead))
        assert not [what for what in _BUGS if what in hub.said()]
        assert self.scrapes
        for account in self.scrapes:
            assert account.received == sum(account.settled.values()) + account.in_flight
            assert 0 <= account.in_flight <= _IN_FLIGHT


def twice(calls: Sequence[Call]) -> dict[str, int]:
    """How often too often, by id."""
    return {event: n - 1 for event, n in Counter(call.id for call in calls).items() if n > 1}


@contextmanager
def story(
    folder: Path,
    broker: str,
    script: Script | None = None,
    *,
    at: str | None = None,
    keys: int = 8,
    partitions: int = 2,
    size: int = 0,
    **delivery: Any,
) -> Iterator[Story]:
    """A hub, ready, with one trigger. ``at``: the address that it has of the broker. ``size``: of
    a record, in bytes."""
    stream = Stream(broker, keys, partitions, size)
    delivery = {"inFlight": _IN_FLIGHT, "retry": {"attempts": 50} | RETRY} | delivery
    with answering(script) as target, running(folder, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        manifest = kafka_trigger(stream, NAME, "f", **delivery)
        manifest["spec"]["source"]["brokers"] = [at or broker]
        hub.write("t.yaml", manifest)
        hub.start()
        with scraping(hub, _BINDING) as scrapes:
            yield Story(stream, target, hub, scrapes)


@contextmanager
def scraping(hub: Hub, binding: str) -> Iterator[list[Account]]:
    """A binding's account, again and again while the block runs."""
    found: list[Account] = []
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.1):
            accounts = hub.accounts()
            if binding in accounts:
                found.append(accounts[binding])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join(10)
