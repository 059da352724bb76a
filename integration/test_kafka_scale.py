"""Processes that share a group come and go under load."""

from __future__ import annotations

from pathlib import Path

from integration.function import Answer, Call, Function, answering, reply
from integration.hub import Hub, function, running
from integration.servers import Kafka
from integration.story import twice
from integration.streams import (
    Stream,
    arrived,
    firsts,
    in_order,
    kafka_trigger,
    never_two_at_once,
    place,
)


def busy(_: Call) -> Answer:
    return reply(200, after=0.05)


def of(name: str, calls: list[Call]) -> list[Call]:
    """Those that this hub made."""
    return [call for call in calls if call.target.endswith(f"/{name}")]


def test_from_one_process_to_three_and_back_nothing_is_lost_and_keys_stay_in_order(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, keys=24, partitions=6)
    with (
        answering(busy) as target,
        running(tmp_path / "a", start=False) as a,
        running(tmp_path / "b", start=False) as b,
        running(tmp_path / "c", start=False) as c,
    ):
        for name, hub in {"a": a, "b": b, "c": c}.items():
            hub.write("f.yaml", function("f", f"{target.url}/{name}"))
            hub.write("t.yaml", kafka_trigger(stream, "orders", "f", inFlight=16))
        a.start()
        stream.send(1000)  # more than one can hold, so that each has some to give back
        with stream.flowing(per_second=200):
            flows(a, target, "a")
            b.start(ready=False)
            c.start(ready=False)
            for name in ("a", "b", "c"):
                flows(a, target, name)
            assert b.stop() == 0
            for name in ("a", "c"):
                flows(a, target, name)
            c.kill9()
            offsets = stream.committed("orders")
            cut_off = {id(call) for call in of("c", target.calls) if not call.accepted}
            beyond = {
                call.id for call in of("c", target.calls)
                if place(call.id)[1] >= offsets[place(call.id)[0]]
            }  # fmt: skip
            flows(a, target, "a", 500)
        a.wait(lambda: arrived(target, stream), "delivery of every record", 60)
        a.wait(lambda: stream.committed("orders") == stream.ends(), "commit to the end", 10)
        a.wait(lambda: a.condition("orders") == "True Ready", "readiness")
        assert a.stop() == 0

    calls = target.accepted
    assert {call.id: call.body for call in firsts(calls)} == stream.sent
    assert in_order(firsts(calls))
    assert never_two_at_once(call for call in target.calls if id(call) not in cut_off)
    repeated = twice(calls)
    print(f"{len(stream.sent)} records, {len(repeated)} twice, {len(beyond)} might have")
    assert set(repeated) <= beyond


def flows(hub: Hub, target: Function, name: str, more: int = 100) -> None:
    """Wait until so many more have been accepted from that hub."""
    number = len(of(name, target.accepted)) + more
    hub.wait(lambda: len(of(name, target.accepted)) >= number, f"flow through {name}", 60)
