"""Positions are moved by the manifest, against a real broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration import kafka_tools as tools
from integration.fakes import FakeEmit, Listening, eventually, listening
from integration.function import Answer, Call, answering, hang, reply
from integration.hub import Hub, function, running
from integration.servers import Kafka
from integration.streams import Stream, arrived, firsts, in_order, kafka_trigger
from triggerhub.connector import Installation, Seeker
from triggerhub.event import Event
from triggerhub.testing.fakes import RecordingReport, subscription
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.seeks import SeekError

_numbers = iter(range(1_000_000))
CONNECTOR = KafkaConnector(Installation())
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    """Ten records in one partition, a minute apart: ``0`` to ``9``."""
    name = f"sought-{next(_numbers)}"
    await tools.create_topic(kafka.broker, name)
    for n in range(10):
        at = int((BEGIN + timedelta(minutes=n)).timestamp() * 1000)
        await tools.produce(kafka.broker, name, [b"%d" % n], key=b"k", timestamp_ms=at)
    return name


def source(kafka: Kafka, topic: str | list[str], seek: Any = None, **rest: Any) -> KafkaSource:
    which = {"topic": topic} if isinstance(topic, str) else {"topics": topic}
    shape = {**which, "brokers": [kafka.broker], "startFrom": "Earliest", **rest}
    return KafkaSource.model_validate(shape | ({"seek": seek} if seek else {}))


def listen(
    kafka: Kafka, topic: str, seek: Any = None, **rest: Any
) -> AbstractAsyncContextManager[Listening]:
    return listening(CONNECTOR, source(kafka, topic, seek), name=f"shop.{topic}.f", **rest)


def numbers(of: range) -> list[bytes]:
    return [b"%d" % n for n in of]


async def last_of(kafka: Kafka, topic: str, running: Listening) -> list[bytes]:
    """What came until a record that is put in now has come, too."""
    await running.connected()
    await tools.produce(kafka.broker, topic, [b"last"], key=b"k")
    # By its place: an earlier one of the same value may come again before it.
    last = f"0:{(await tools.ends(kafka.broker, topic))[0] - 1}"
    await eventually(
        lambda: any(event.id == last for event in running.emit.accepted), "the last record"
    )
    return running.emit.data()


@pytest.mark.parametrize(
    ("to", "begins"),
    [("Earliest", 0), ("Latest", 10), ({"timestamp": "2026-01-01T00:07:00Z"}, 7)],
)
async def test_a_seek_goes_back_or_forward_and_is_done_once(
    kafka: Kafka, topic: str, to: Any, begins: int
) -> None:
    async with listen(kafka, topic) as running:
        await running.accepted(5)
    seek = {"id": "2026-11-23-a", "to": to}
    async with listen(kafka, topic, seek) as running:
        assert await last_of(kafka, topic, running) == [*numbers(range(begins, 10)), b"last"]
        [done] = running.report.seeks
        assert (done.id, done.positions) == ("2026-11-23-a", f"0:{begins}")
        assert abs(done.time.timestamp() - time.time()) < 60
    async with listen(kafka, topic, seek) as again:
        assert await last_of(kafka, topic, again) == [b"last"]
        assert again.report.seeks == [done]


async def test_a_seek_by_offsets_leaves_the_partitions_that_it_does_not_name(
    kafka: Kafka, topic: str
) -> None:
    other = f"{topic}-other"
    await tools.create_topic(kafka.broker, other)
    await tools.produce(kafka.broker, other, [b"a", b"b", b"c"])
    name = f"shop.{topic}.f"
    async with listening(CONNECTOR, source(kafka, [topic, other]), name=name) as running:
        await running.accepted(13)
    seek = {"id": "a", "to": {"offsets": [{"topic": topic, "partition": 0, "offset": 7}]}}
    spec = source(kafka, [topic, other], seek)
    async with listening(CONNECTOR, spec, name=name) as running:
        assert await last_of(kafka, topic, running) == [b"7", b"8", b"9", b"last"]
        assert running.report.seeks[0].positions == f"{topic}:0:7,{other}:0:3"


@pytest.mark.parametrize(
    ("policy", "got"),
    [("Earliest", [*(b"%d" % n for n in range(4, 10)), b"last"]), ("Latest", [b"last"])],
)
async def test_a_seek_to_an_offset_that_is_gone_goes_on_by_policy(
    kafka: Kafka, topic: str, policy: str, got: list[bytes]
) -> None:
    async with listen(kafka, topic) as running:
        await running.accepted(10)
    await tools.delete_records(kafka.broker, topic, 0, 4)
    seek = {"id": "a", "to": {"offsets": [{"partition": 0, "offset": 2}]}}
    spec = source(kafka, topic, seek, outOfRange=policy)
    async with listening(CONNECTOR, spec, name=f"shop.{topic}.f") as running:
        await eventually(lambda: "OffsetOutOfRange" in running.report.states, "what is told")
        assert await last_of(kafka, topic, running) == got


async def test_a_seek_of_a_pattern_moves_every_topic_that_is_there(
    kafka: Kafka, topic: str
) -> None:
    await tools.create_topic(kafka.broker, f"{topic}-other")
    await tools.produce(kafka.broker, f"{topic}-other", [b"a", b"b", b"c"])
    shape = {"topicPattern": f"{topic}(-other)?", "brokers": [kafka.broker]}
    seek = {"id": "a", "to": "Earliest"}
    spec = KafkaSource.model_validate(shape | {"seek": seek})
    done = await sought(spec, topic)
    assert done.seeks[0].positions == f"{topic}:0:0,{topic}-other:0:0"
    async with listening(CONNECTOR, spec, name=f"shop.{topic}.f") as running:
        await running.accepted(13)


async def test_an_id_that_is_taken_out_and_put_in_again_is_done_already(
    kafka: Kafka, topic: str
) -> None:
    first, second = ({"id": name, "to": "Earliest"} for name in ("a", "b"))
    got = []
    for seek in (first, None, first, second, first):
        async with listen(kafka, topic, seek) as running:
            got.append(len(await last_of(kafka, topic, running)))
    assert got == [11, 1, 1, 14, 1]


async def test_a_paused_trigger_is_sought_and_begins_there(kafka: Kafka, topic: str) -> None:
    async with listen(kafka, topic) as running:
        await running.accepted(10)
    seek = {"id": "a", "to": {"timestamp": "2026-01-01T00:04:00Z"}}
    reports = []
    for _ in range(2):
        reports.append(await sought(source(kafka, topic, seek), topic))
        assert await tools.committed(kafka.broker, f"triggerhub.shop.{topic}.f", topic) == 4
    assert reports[0].seeks[0].positions == "0:4"
    assert reports[0].seeks == reports[1].seeks
    async with listen(kafka, topic, seek) as running:
        assert await last_of(kafka, topic, running) == [*numbers(range(4, 10)), b"last"]


async def sought(spec: KafkaSource, topic: str) -> RecordingReport:
    report = RecordingReport()
    seeker: Seeker[KafkaSource] = CONNECTOR
    await seeker.seek(subscription(spec, name=f"shop.{topic}.f", report=report))
    return report


async def test_a_group_with_members_is_not_moved_behind_their_backs(
    kafka: Kafka, topic: str
) -> None:
    seek = {"id": "a", "to": "Earliest"}
    async with listen(kafka, topic) as running:
        await running.accepted(10)
        with pytest.raises(SeekError, match=rf"group triggerhub\.shop\.{topic}\.f still has mem"):
            await sought(source(kafka, topic, seek), topic)
    assert (await sought(source(kafka, topic, seek), topic)).seeks[0].positions == "0:0"


async def test_a_topic_that_comes_while_its_seek_waits_is_read_from_its_first_record(
    kafka: Kafka, topic: str
) -> None:
    late = f"{topic}-late"
    spec = source(kafka, [topic, late], {"id": "a", "to": "Latest"})
    report = RecordingReport()
    seeking = asyncio.create_task(
        CONNECTOR.seek(subscription(spec, name=f"shop.{topic}.f", report=report))
    )
    await eventually(lambda: report.said == ["TopicNotFound"], "what it waits for")
    assert await tools.committed(kafka.broker, f"triggerhub.shop.{topic}.f", topic) == 10
    await tools.create_topic(kafka.broker, late)
    await tools.produce(kafka.broker, late, [b"first"])
    await asyncio.wait_for(seeking, 20)
    assert report.seeks[0].positions == f"{topic}:0:10,{late}:0:0"


async def test_a_partition_added_after_the_seek_is_read_from_its_first_record(
    kafka: Kafka, topic: str
) -> None:
    seek = {"id": "a", "to": "Latest"}
    async with listen(kafka, topic, seek) as running:
        await running.connected()
    await tools.add_partitions(kafka.broker, topic, 2)
    await tools.produce(kafka.broker, topic, [b"early"], partition=1)
    async with listen(kafka, topic, seek) as running:
        await running.accepted(1)
        assert running.emit.data() == [b"early"]
        assert running.report.seeks[-1].positions == "0:10,1:0"


async def test_what_was_fetched_before_a_partition_was_sought_is_not_delivered(
    kafka: Kafka,
) -> None:
    topic = f"sought-{next(_numbers)}"
    await tools.create_topic(kafka.broker, topic, 2)
    for partition in range(2):
        await tools.produce(
            kafka.broker, topic, [b"%d" % n for n in range(10)], partition=partition
        )
    old = FakeEmit()

    async def half(event: Event) -> None:
        if int(event.data) >= 5:
            await old.retry_for_ever()

    old.handle = half
    name = f"shop.{topic}.f"
    async with listening(CONNECTOR, source(kafka, topic), name=name, emit=old) as before:
        await before.accepted(10)
        spec = source(kafka, topic, {"id": "a", "to": "Earliest"})
        async with listening(CONNECTOR, spec, name=name) as after:
            await after.accepted(10)
            own = int(after.emit.begun[0].id[0])
            # It takes the other partition over while it waits for records of its own.
            async with asyncio.TaskGroup() as tasks:
                flow = tasks.create_task(trickle(kafka, topic, own))
                await before.stop()
                other = f"{1 - own}:"
                await eventually(
                    lambda: any(event.id == f"{other}9" for event in after.emit.accepted),
                    "the last record of the partition that it took over",
                )
                flow.cancel()
    got = [int(event.data) for event in after.emit.begun if event.id.startswith(other)]
    assert got == list(range(10))


async def trickle(kafka: Kafka, topic: str, partition: int) -> None:
    """A record now and then, until cancelled."""
    async with tools.producer(kafka.broker) as producer:
        while True:
            await producer.send_and_wait(topic, b"0", partition=partition)
            await asyncio.sleep(0.05)


def with_seek(stream: Stream, name: str, seek: Any, **spec: Any) -> dict[str, Any]:
    manifest = kafka_trigger(stream, "orders", name)
    manifest["spec"]["source"]["seek"] = seek
    manifest["spec"] |= spec
    return manifest


def seek_of(hub: Hub) -> dict[str, str]:
    """What `triggerhub bindings` shows."""
    [binding] = hub.get("/v1/bindings")["bindings"]
    seek: dict[str, str] = binding["seek"] or {}
    return seek


def sought_by(hub: Hub, name: str) -> bool:
    return seek_of(hub).get("id") == name


def times(calls: Iterable[Call]) -> dict[str, int]:
    """How often each event was accepted."""
    found: dict[str, int] = {}
    for call in calls:
        found[call.id] = found.get(call.id, 0) + 1
    return found


def twice(target: Any, stream: Stream) -> Callable[[], bool]:
    return lambda: all(times(target.accepted).get(name, 0) >= 2 for name in stream.sent)


def test_an_edit_of_the_manifest_seeks_while_two_hubs_of_one_group_run(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=4)
    stream.send(400)
    with (
        answering() as target,
        running(tmp_path / "one", start=False) as one,
        running(tmp_path / "two", start=False) as two,
    ):
        for hub in (one, two):
            hub.write("f.yaml", function("f", target.url))
            hub.write("t.yaml", kafka_trigger(stream, "orders", "f"))
            hub.start()
        one.wait(lambda: arrived(target, stream), "delivery of every record", 40)
        one.wait(lambda: sum(stream.committed("orders").values()) == 400, "commits")
        before = len(target.accepted)
        seek = {"id": "again", "to": "Earliest"}
        for hub in (one, two):
            hub.write("t.yaml", with_seek(stream, "f", seek))
        one.wait(twice(target, stream), "the second delivery of each", 60)
        for hub in (one, two):
            hub.wait(partial(sought_by, hub, "again"), "the seek in its status")
        assert seek_of(one) == seek_of(two)
        assert seek_of(one)["positions"] == "0:0,1:0,2:0,3:0"
        stream.send(40)
        one.wait(lambda: arrived(target, stream), "delivery of the rest", 40)
        assert (one.stop(), two.stop()) == (0, 0)
    again = times(target.accepted[before:])
    # What one had sought was never sought once more by the other.
    assert max(again.values()) <= 2
    assert in_order(firsts(target.accepted[before:]))
    assert sum(stream.committed("orders").values()) == 440


def test_a_hub_that_is_killed_after_a_seek_goes_on_and_does_not_seek_again(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, keys=4, partitions=1)
    stream.send(300)
    seek = {"id": "once", "to": {"timestamp": "2020-01-01T00:00:00Z"}}

    def slowly(call: Call) -> Answer:
        return reply(200, after=0.02)

    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, "orders", "f"))
        hub.start()
        hub.wait(lambda: stream.committed("orders")[0] == 300, "every commit", 40)
        target.script = slowly
        before = len(target.accepted)
        hub.write("t.yaml", with_seek(stream, "f", seek))
        hub.wait(lambda: 0 < stream.committed("orders")[0] < 300, "a commit on the way")
        hub.kill9()
        settled = stream.committed("orders")[0]
        killed = len(target.accepted)
        hub.start(ready=False)
        hub.wait(lambda: stream.committed("orders")[0] == 300, "every commit", 60)
        later = [int(call.id.partition(":")[2]) for call in target.accepted[killed:]]
        assert seek_of(hub)["positions"] == "0:0"
        assert hub.stop() == 0
    print(f"killed with {settled} of 300 committed")
    assert min(later) >= settled - 1
    assert set(times(target.accepted[before:])) == set(stream.sent)


def test_a_paused_trigger_says_that_its_seek_waits_and_then_that_it_is_done(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=2)
    stream.send(20)
    with (
        answering() as target,
        running(tmp_path / "one", start=False) as one,
        running(tmp_path / "two", start=False) as two,
    ):
        for hub in (one, two):
            hub.write("f.yaml", function("f", target.url))
            hub.write("t.yaml", kafka_trigger(stream, "orders", "f"))
            hub.start()
        one.wait(lambda: sum(stream.committed("orders").values()) == 20, "every commit", 40)
        paused = with_seek(stream, "f", {"id": "p", "to": "Earliest"}, paused=True)
        one.write("t.yaml", paused)

        def told() -> str:
            return str(one.conditions("orders").get("Connected", {}).get("message"))

        one.wait(lambda: "still has members" in told(), "why it waits", 40)
        assert told().startswith("spec.paused is true; its seek is not done: SourceFailed: ")
        assert sum(stream.committed("orders").values()) == 20
        two.write("t.yaml", paused)
        one.wait(partial(sought_by, one, "p"), "the seek in its status", 60)
        assert told() == "spec.paused is true"
        assert sum(stream.committed("orders").values()) == 0
        assert len(target.accepted) == 20
        one.write("t.yaml", paused | {"spec": paused["spec"] | {"paused": False}})
        one.wait(twice(target, stream), "the second delivery of each", 40)
    assert max(times(target.accepted).values()) == 2


def test_events_under_way_end_within_the_grace_time_before_a_seek(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=1)
    stream.send(1)
    with (
        answering(lambda call: hang) as target,
        running(tmp_path, "--grace", "1s", start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, "orders", "f"))
        hub.start()
        hub.wait(lambda: target.under_way == 1, "the first attempt")
        target.script = lambda call: reply(200)
        hub.write("t.yaml", with_seek(stream, "f", {"id": "x", "to": "Latest"}))
        hub.wait(lambda: seek_of(hub).get("positions") == "0:1", "the seek")
        stream.send(1)
        hub.wait(lambda: len(target.accepted) == 1, "the record after it")
        assert target.accepted[0].id == "0:1"
