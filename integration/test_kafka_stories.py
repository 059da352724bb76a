"""Kafka to a function through a whole hub, with what goes wrong in between."""

from __future__ import annotations

import json
import random
import threading
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration.function import ACCEPT, Answer, Call, answering, hang, reply
from integration.hub import Hub, function, running
from integration.servers import Kafka
from integration.streams import (
    FROM_THE_START,
    Stream,
    arrived,
    end_of_prefix,
    firsts,
    in_order,
    kafka_trigger,
    place,
)

RETRY = {"initial": "10ms", "max": "100ms"}


def test_a_function_that_is_away_costs_no_dead_letter_and_one_probe_at_a_time(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker)
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(
            stream, "orders", "f", inFlight=16,
            retry={"attempts": 3, "initial": "50ms", "max": "1s"},
        ))  # fmt: skip
        hub.start()
        with stream.flowing(per_second=100):
            hub.wait(lambda: len(target.accepted) > 100, "flow")
            target.down()
            hub.wait(lambda: hub.condition("orders") == "False FunctionAway", "FunctionAway", 10)
            assert "connection refused" in hub.conditions("orders")["Ready"]["message"]
            noted = hub.metric("triggerhub_attempts_total", status_class="none")
            since = time.monotonic()
            while time.monotonic() < since + 15.0:
                assert hub.condition("orders") == "False FunctionAway"
                time.sleep(0.5)
            probes = hub.metric("triggerhub_attempts_total", status_class="none") - noted
            before = len(target.calls)
            target.script = lambda call: reply(503, after=0.3)
            target.up()
            hub.wait(lambda: len(target.calls) >= before + 6, "probes", 15)
            target.script = lambda call: ACCEPT
        hub.wait(lambda: arrived(target, stream), "delivery of every record", 20)
        hub.wait(lambda: hub.condition("orders") == "True Ready", "readiness", 5)
        unwell = [call for call in target.calls[before:] if call.status == 503]
        assert max(call.at_once for call in unwell) == 1
        # One probe waits half a second on average; sixteen would have made some 480.
        assert 5 <= probes <= 100
        assert hub.letters() == []
        assert in_order(target.accepted)
        assert [call.id for call in firsts(target.accepted)] == [c.id for c in target.accepted]
        print(f"{probes:.0f} probes in 15 s, {len(unwell)} more until it was well")


def test_a_deleted_function_acknowledges_nothing_and_goes_on_where_it_stopped(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker)

    def failing(call: Call) -> Answer:
        number = int(call.body.partition(b":")[2])
        return ACCEPT if number < 10 else reply(500, after=0.05)

    with answering(failing) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(
            stream, "orders", "f", retry={"attempts": 1000, "initial": "100ms", "max": "1s"}
        ))  # fmt: skip
        hub.start()
        stream.send(160)
        hub.wait(lambda: len([c for c in target.calls if c.status == 500]) > 20, "failures")
        assert len(target.accepted) == 80
        hub.delete("f.yaml")
        hub.wait(
            lambda: hub.condition("orders", "Bound") == "False FunctionNotFound", "unbinding", 5
        )
        hub.wait(lambda: hub.accounts() == {} or not any(
            account.in_flight for account in hub.accounts().values()), "the end of deliveries", 5
        )  # fmt: skip
        calls = len(target.calls)
        undelivered = end_of_prefix({call.id for call in target.accepted}, FROM_THE_START)
        offsets = stream.committed("orders")
        hub.wait(
            lambda: stream.committed("orders") == undelivered, "commit of what was accepted", 10
        )
        assert all(offsets[n] <= undelivered[n] for n in offsets)
        assert hub.conditions("orders")["Ready"]["status"] == "False"
        target.script = lambda call: ACCEPT
        hub.write("f.yaml", function("f", target.url))
        hub.wait(lambda: arrived(target, stream), "delivery of the rest", 20)
        assert all(int(call.body.partition(b":")[2]) >= 10 for call in target.calls[calls:])
        assert len(target.accepted) == len(stream.sent)
        assert in_order(target.accepted)
        assert hub.letters() == []


def test_a_poisoned_event_ends_as_its_trigger_says_and_delays_no_other_key(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, keys=4)

    def picky(call: Call) -> Answer:
        if call.body == b"k1:3":
            return reply(500, b"no such customer", after=0.5)
        return ACCEPT

    delivery = {"retry": {"attempts": 3} | RETRY}
    with (
        answering(picky) as keeps,
        answering(picky) as blocks,
        answering(picky) as drops,
        running(tmp_path, start=False) as hub,
    ):
        functions = {"keeps": keeps, "blocks": blocks, "drops": drops}
        hub.write("f.yaml", *(function(name, f.url) for name, f in functions.items()))
        hub.write(
            "t.yaml",
            kafka_trigger(stream, "keep", "keeps", **delivery),
            kafka_trigger(stream, "block", "blocks", onExhausted="Block", **delivery),
            kafka_trigger(stream, "drop", "drops", onExhausted="Drop", **delivery),
        )
        hub.start()
        stream.send(40)
        hub.wait(lambda: len(keeps.accepted) == 39, "delivery of all the others")
        hub.wait(lambda: len(drops.accepted) == 39, "delivery of all the others")
        hub.wait(lambda: hub.condition("block") == "False Blocked", "Blocked")
        hub.wait(lambda: len(blocks.accepted) == 33, "delivery of the other keys")

        for target in functions.values():
            poisoned = [call for call in target.calls if call.body == b"k1:3"]
            assert [call.attempt for call in poisoned[:3]] == [1, 2, 3]
            third = poisoned[2].began
            others = [c for c in target.accepted if c.key != "k1" or int(c.body[3:]) < 3]
            assert len(others) == 33
            assert all(c.ended is not None and c.ended < third for c in others)
            after = [c.began for c in target.calls if c.key == "k1" and int(c.body[3:]) > 3]
            assert all(began > third for began in after)

        poison = next(event for event, value in stream.sent.items() if value == b"k1:3")
        partition, offset = place(poison)
        hub.wait(lambda: len(hub.letters()) == 1, "a dead letter")
        letter = hub.letters(trigger="keep")[0]
        assert (letter["reason"], letter["attempts"], letter["lastStatus"]) == (
            "AttemptsExhausted", 3, 500,
        )  # fmt: skip
        assert b64decode(letter["lastResponse_base64"]) == b"no such customer"
        assert b64decode(letter["event"]["data_base64"]) == b"k1:3"
        assert letter["event"]["id"] == poison
        assert letter["event"]["source"] == f"/kafka/{stream.topic}"
        assert b64decode(letter["origin"]["key_base64"]) == b"k1"
        assert letter["origin"]["coordinates"] == {
            "topic": stream.topic, "partition": str(partition), "offset": str(offset),
        } | letter["origin"]["coordinates"]  # fmt: skip
        assert hub.metric("triggerhub_events_settled_total", trigger="drop", outcome="dropped") == 1
        assert stream.committed("block")[partition] <= offset
        hub.wait(lambda: stream.committed("drop")[partition] > offset, "its commit")

        for target in functions.values():
            target.script = lambda call: ACCEPT
        status, body = hub.request("POST", "/v1/dead-letters/redrive", {"ids": [letter["id"]]})
        assert (status, json.loads(body)["outcome"]) == (200, "accepted")
        assert [call.id for call in keeps.accepted].count(poison) == 1
        assert hub.letters() == []
        hub.wait(lambda: arrived(blocks, stream), "the blocked key")
        assert in_order(blocks.accepted)
        hub.wait(lambda: hub.condition("block") == "True Ready", "readiness")
        assert not arrived(drops, stream)


def test_a_stopped_hub_lets_deliveries_end_and_commits_them(kafka: Kafka, tmp_path: Path) -> None:
    stream = Stream(kafka.broker)

    def script(call: Call) -> Answer:
        if call.body.endswith((b":0", b":1")):
            return ACCEPT
        return reply(200, after=1.5) if call.key != "k0" else reply(500)

    with answering(script) as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(
            stream, "orders", "f", retry={"attempts": 1000, "initial": "30s", "max": "30s"}
        ))  # fmt: skip
        hub.start()
        stream.send(8 * 4)
        hub.wait(lambda: target.under_way == 7, "deliveries in flight")
        began = time.monotonic()
        assert hub.stop() == 0
        took = time.monotonic() - began
        assert 1.0 < took < 8.0, took
        # What had no attempt under way went back: the fourth of each key, and all of k0.
        assert len(target.accepted) == 8 * 2 + 7
        accepted = {call.id for call in target.accepted}
        assert stream.committed("orders") == end_of_prefix(accepted, FROM_THE_START)
        target.script = lambda call: ACCEPT
        hub.start()
        hub.wait(lambda: arrived(target, stream), "delivery of the rest", 20)
        assert in_order(firsts(target.accepted))


def test_what_was_received_is_accounted_for_in_every_scrape(kafka: Kafka, tmp_path: Path) -> None:
    streams = [Stream(kafka.broker), Stream(kafka.broker)]
    chance = random.Random(3)

    def faulty(call: Call) -> Answer:
        drawn = chance.random()
        if drawn < 0.03:
            return hang
        if drawn < 0.10:
            return reply(500)
        return reply(200, after=chance.uniform(0, 0.01))

    delivery = {"inFlight": 8, "timeout": "300ms", "retry": {"attempts": 30} | RETRY}
    with (
        answering(faulty) as here,
        answering(faulty) as there,
        answering(faulty) as steady,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", here.url))
        hub.write("g.yaml", function("g", steady.url))
        moving = kafka_trigger(streams[0], "moving", "f", **delivery)
        hub.write("t.yaml", moving)
        hub.write("u.yaml", kafka_trigger(streams[1], "steady", "g", **delivery))
        hub.start()
        with scraping(hub) as scrapes, streams[0].flowing(100), streams[1].flowing(100):
            hub.wait(lambda: len(here.accepted) > 100, "flow")
            here.down()
            hub.wait(lambda: hub.condition("moving") == "False FunctionAway", "FunctionAway", 10)
            hub.write("f.yaml", function("f", there.url))
            hub.wait(lambda: len(there.accepted) > 50, "flow to the other port", 10)
            hub.write("t.yaml", moving | {"spec": moving["spec"] | {"paused": True}})
            hub.wait(lambda: hub.condition("moving", "Connected") == "False Paused", "pause", 5)
            hub.write("t.yaml", moving)
            count = len(there.accepted)
            hub.wait(lambda: len(there.accepted) > count + 50, "flow after the pause", 20)
            hub.delete("f.yaml")
            hub.wait(
                lambda: hub.condition("moving", "Bound") == "False FunctionNotFound", "unbinding", 5
            )
            here.up()
            hub.write("f.yaml", function("f", here.url))
            count = len(here.accepted)
            hub.wait(lambda: len(here.accepted) > count + 50, "flow after the deletion", 20)
            hub.write("f.yaml", function("f", "http://127.0.0.1:1/"))
            hub.wait(lambda: hub.condition("moving") == "False FunctionAway", "FunctionAway", 10)
            hub.write("f.yaml", function("f", here.url))

        def all_there() -> bool:
            moved = {call.id for call in (*here.accepted, *there.accepted)}
            return moved >= set(streams[0].sent) and arrived(steady, streams[1])

        hub.wait(all_there, "delivery of every record", 30)
        hub.wait(lambda: all(a.in_flight == 0 for a in hub.accounts().values()), "quiet", 5)
        at_end = hub.accounts()
        assert hub.letters() == []

    assert len(scrapes) > 50
    for accounts in scrapes:
        for name, account in accounts.items():
            assert account.received == sum(account.settled.values()) + account.in_flight, name
            assert 0 <= account.in_flight <= 8, (name, account)
    steadily = at_end["default.steady.g"]
    # A binding that nobody touched gave nothing back and brought each record once.
    assert steadily.settled["given_back"] == 0
    assert steadily.received == steadily.settled["accepted"] == len(streams[1].sent)
    assert in_order(firsts(steady.accepted))
    counted = [accounts["default.steady.g"].received for accounts in scrapes[1:]]
    assert counted == sorted(counted)


@contextmanager
def scraping(hub: Hub) -> Iterator[Sequence[Any]]:
    """Scrapes the metrics without a pause while the block runs."""
    scrapes: list[Any] = []
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.02):
            scrapes.append(hub.accounts())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield scrapes
    finally:
        done.set()
        thread.join(10)
