"""A hub that is killed every few seconds while records flow: none is lost, each key stays in order,
and each that comes twice is explained. ``make soak RECORDS=200000`` says how many they are."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from integration.function import Call, Function, answering, unreliable
from integration.hub import Hub, function, running
from integration.servers import Kafka
from integration.story import RETRY, twice
from integration.streams import (
    FROM_THE_START,
    Stream,
    end_of_prefix,
    firsts,
    in_order,
    kafka_trigger,
    place,
)

RECORDS = int(os.environ.get("SOAK", "10000"))
SEED = 1


class Ledger:
    """What may come twice, brought forward from one life of the hub to the next."""

    def __init__(self) -> None:
        self.kills = 0
        self.known: set[str] = set()
        """What was accepted."""
        self.may_repeat: set[str] = set()
        self._seen = 0
        self._open: set[str] = set()
        self._ends = dict(FROM_THE_START)
        self._committed = dict(FROM_THE_START)

    def __str__(self) -> str:
        known, may_repeat = len(self.known), len(self.may_repeat)
        return f"kill {self.kills}: {known} accepted, {may_repeat} may come again so far"

    def killed(self, moment: float, calls: Sequence[Call], offsets: dict[int, int]) -> None:
        """The hub was killed at ``moment``, after these calls; the group stands at ``offsets``."""
        self.kills += 1
        fresh = [call for call in calls[self._seen :] if call.accepted]
        under_way = {call.id for call in calls[self._seen :] if call.status is None}
        self._seen = len(calls)
        ids = {call.id for call in fresh}
        self.known |= ids
        self._ends = end_of_prefix(self.known, self._ends)
        assert all(offsets[n] <= self._ends[n] for n in offsets), "committed, not accepted"
        old = {call.id for call in fresh if call.ended and call.ended < moment - 3.0}
        ends = end_of_prefix(old, self._committed)
        assert all(offsets[n] >= ends[n] for n in offsets), "committed too late"
        self._committed = offsets
        self._open = {event for event in self._open | ids if not before(offsets, event)}
        self.may_repeat |= self._open | under_way


def flows(hub: Hub, target: Function) -> None:
    number = len(target.accepted) + 50
    hub.wait(lambda: len(target.accepted) > number, "flow", 60)


def before(offsets: Mapping[int, int], event: str) -> bool:
    """Whether it is committed."""
    partition, offset = place(event)
    return offset < offsets[partition]


def test_a_hub_that_is_killed_again_and_again_loses_nothing_and_keeps_the_order_of_keys(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, keys=32)
    chance = random.Random(SEED)
    ledger = Ledger()
    with answering(unreliable(SEED)) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(
            stream, "orders", "f", inFlight=16, retry={"attempts": 50} | RETRY
        ))  # fmt: skip
        hub.start()
        with stream.flowing(per_second=1000, total=RECORDS):
            while len(ledger.known) < RECORDS - 2000:
                flows(hub, target)
                time.sleep(chance.uniform(0.0, 5.0))  # a random moment is what this is about
                hub.kill9()
                moment = time.monotonic()
                ledger.killed(moment, target.calls, stream.committed("orders"))
                print(ledger, flush=True)
                hub.start(ready=False)
        ends = stream.ends()
        hub.wait(
            lambda: stream.committed("orders") == ends, "commit to the end", 60 + RECORDS / 100
        )
        assert hub.stop() == 0

    calls = target.accepted
    repeated = twice(calls)
    print(f"{len(stream.sent)} records, {ledger.kills} kills, {sum(repeated.values())} accepted "
          f"again, {len(ledger.may_repeat)} might have been")  # fmt: skip
    assert in_order(firsts(calls))
    assert {call.id: call.body for call in firsts(calls)} == stream.sent
    assert set(repeated) <= ledger.may_repeat
    assert max(repeated.values(), default=0) <= ledger.kills
