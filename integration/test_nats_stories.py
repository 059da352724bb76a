"""NATS to a function through a whole hub, with what goes wrong in between."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path

from integration.function import ACCEPT, Answer, Call, answering, hang, reply, unreliable
from integration.hub import function, running
from integration.nats_flow import Flow
from integration.nats_servers import Nats
from integration.streams import accepted_at_least, firsts, in_order

RETRY = {"initial": "10ms", "max": "100ms"}


def by_subject(calls: list[Call]) -> list[Call]:
    """The same, with the key that their values have."""
    for call in calls:
        call.headers["ce-partitionkey"] = call.key.rpartition(".")[2]
    return calls


def test_a_hub_that_is_killed_again_and_again_loses_nothing(nats: Nats, tmp_path: Path) -> None:
    flow = Flow(nats)
    chance = random.Random(1)
    with answering(unreliable(1)) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", inFlight=16, retry={"attempts": 50} | RETRY))
        hub.start()
        held = 0
        with flow.flowing(per_second=100):
            for _ in range(3):
                more = len(firsts(target.accepted)) + 50
                hub.wait(partial(accepted_at_least, target, more), "flow", 40)
                time.sleep(chance.uniform(0.0, 1.0))  # a random moment is what this is about
                hub.kill9()
                held += flow.unsettled()
                hub.start(ready=False)
        hub.wait(lambda: flow.arrived(target), "delivery of every message", 60)
        hub.wait(lambda: flow.unsettled() == 0, "the last ack", 30)
        assert hub.stop() == 0
    calls = target.accepted
    again = len(calls) - len(firsts(calls))
    print(f"{len(flow.sent)} messages, 3 kills, {again} accepted twice, at most {held} possible")
    assert again <= held


def test_a_server_that_is_killed_loses_nothing_and_keeps_the_order_of_keys(
    own_nats: Nats, tmp_path: Path
) -> None:
    flow = Flow(own_nats)
    with answering(unreliable(2)) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", inFlight=16, retry={"attempts": 50} | RETRY))
        hub.start()
        with flow.flowing(per_second=100):
            for _ in range(2):
                more = len(firsts(target.accepted)) + 50
                hub.wait(partial(accepted_at_least, target, more), "flow", 40)
                own_nats.kill9()
                hub.wait(
                    lambda: hub.condition("orders") == "False ServerUnreachable", "its absence", 20
                )
                own_nats.start()
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness", 20)
        hub.wait(lambda: flow.arrived(target), "delivery of every message", 60)
        hub.wait(lambda: flow.unsettled() == 0, "the last ack", 30)
        assert hub.stop() == 0
    calls = by_subject(target.accepted)
    assert in_order(firsts(calls))
    again = len(calls) - len({call.body for call in calls})
    print(f"{len(flow.sent)} messages, 2 kills of the server, {again} accepted twice")


def test_what_fails_or_hangs_becomes_a_dead_letter_and_delays_no_other_key(
    nats: Nats, tmp_path: Path
) -> None:
    flow = Flow(nats, keys=4)

    def picky(call: Call) -> Answer:
        if call.body == b"k1:3":
            return reply(500, b"no such customer")
        if call.body == b"k2:2":
            return hang
        return ACCEPT

    with answering(picky) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f", timeout="1s", retry={"attempts": 3} | RETRY))
        hub.start()
        flow.send(40)
        hub.wait(lambda: len(hub.letters()) == 2, "dead letters", 30)
        hub.wait(lambda: flow.unsettled() == 0, "the last ack", 20)
        assert {letter["reason"] for letter in hub.letters()} == {"AttemptsExhausted"}
        target.script = lambda call: ACCEPT
        status, _ = hub.request("POST", "/v1/dead-letters/redrive", {"all": True})
        assert status == 200
        hub.wait(lambda: flow.arrived(target), "redrive", 20)
    others = [c for c in by_subject(target.accepted) if c.body not in (b"k1:3", b"k2:2")]
    assert in_order(others)
    assert len(others) == 38


def test_a_core_subject_loses_what_comes_while_the_hub_is_away_and_nothing_else(
    nats: Nats, tmp_path: Path
) -> None:
    flow = Flow(nats, core=True)
    with answering(lambda call: reply(200, after=0.02)) as target:
        with running(tmp_path, start=False) as hub:
            hub.write("f.yaml", function("f", target.url))
            hub.write("t.yaml", flow.trigger("f", inFlight=4))
            hub.start()
            hub.wait(lambda: hub.condition("orders", "Connected") == "True AtMostOnce", "a word")
            flow.send(100)
            assert hub.stop() == 0  # what had come is brought to its end
            assert flow.arrived(target)
            flow.send(30)
            hub.start()
            hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness")
            flow.send(30)
            lost = set(flow.sent[100:130])
            hub.wait(
                lambda: {c.body for c in target.accepted} >= set(flow.sent) - lost, "the rest", 20
            )
        assert {call.body for call in target.accepted} == set(flow.sent) - lost
