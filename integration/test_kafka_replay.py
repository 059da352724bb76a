"""A past window of a topic is sent once more, against a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration import kafka_tools as tools
from integration.fakes import FakeEmit, FakeProgress, FakeReport, eventually
from integration.function import Call, Function, answering, reply
from integration.hub import Hub, function, running
from integration.servers import Kafka
from integration.streams import Stream, arrived, in_order, kafka_trigger
from triggerhub.connector import Installation, Replayer
from triggerhub.event import Event
from triggerhub.testing.fakes import subscription
from triggerhub_kafka import KafkaConnector, KafkaSource
from triggerhub_kafka.replay import ReplayError

_numbers = iter(range(1_000_000))
REPLAYER: Replayer[KafkaSource] = KafkaConnector(Installation())
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def minute(n: int) -> datetime:
    return BEGIN + timedelta(minutes=n)


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    """Two partitions with ten records each, a minute apart: ``0:0`` to ``1:9``."""
    name = f"replayed-{next(_numbers)}"
    await tools.create_topic(kafka.broker, name, 2)
    for partition in range(2):
        for n in range(10):
            await tools.produce(
                kafka.broker, name, [f"{partition}:{n}".encode()], key=b"k%d" % partition,
                partition=partition, timestamp_ms=int(minute(n).timestamp() * 1000),
            )  # fmt: skip
    return name


class Run:
    """One replay, made by hand."""

    def __init__(
        self, kafka: Kafka, topics: str | list[str] | dict[str, str], handle: Any = None
    ) -> None:
        which: dict[str, Any] = {"topics": topics}
        if isinstance(topics, str):
            which = {"topic": topics}
        elif isinstance(topics, dict):
            which = topics
        source = KafkaSource.model_validate({**which, "brokers": [kafka.broker]})
        self.emit, self.report, self.told = FakeEmit(handle), FakeReport(), FakeProgress()
        made = subscription(source, name="shop.replayed.f", report=self.report, in_flight=4)
        self._subscription = replace(made, emit=self.emit)

    async def __call__(self, since: datetime | str, until: datetime | str | None = None) -> Run:
        async with asyncio.timeout(60):
            await REPLAYER.replay(self._subscription, since, until, self.told)
        return self

    def ids(self) -> list[str]:
        return sorted(event.id for event in self.emit.accepted)


def span(partition: int, begin: int, end: int) -> list[str]:
    return [f"{partition}:{n}" for n in range(begin, end)]


@pytest.mark.parametrize(
    ("since", "until", "ids", "window"),
    [
        ("Earliest", None, span(0, 0, 10) + span(1, 0, 10), (20, "0:10,1:10", "")),
        (minute(3), minute(6), span(0, 3, 6) + span(1, 3, 6), (6, "0:6,1:6", "")),
        (minute(8), None, span(0, 8, 10) + span(1, 8, 10), (4, "0:10,1:10", "")),
        ("1:4", None, span(1, 4, 10), (6, "1:10", "")),
        ("0:2,1:5", "0:4,1:900", span(0, 2, 4) + span(1, 5, 10), (7, "0:4,1:10", "")),
        (minute(99), None, [], (0, "0:10,1:10", "")),
        ("0:50", None, [], (0, "0:10", "")),
        ("0:3,1:3", "0:3,1:4", span(1, 3, 4), (1, "0:3,1:4", "")),
    ],
)  # fmt: skip
async def test_a_window_by_time_or_offset_is_sent_whole_and_nothing_else(
    kafka: Kafka, topic: str, since: Any, until: Any, ids: list[str], window: Any
) -> None:
    run = await Run(kafka, topic)(since, until)
    assert run.ids() == ids
    assert run.told.windows == [window]
    if ids:
        assert run.told.marks[-1] == (window[0], window[1])
    for key in ("k0", "k1"):
        offsets = [int(e.id[2:]) for e in run.emit.accepted if e.key == key]
        assert offsets == sorted(offsets)


@pytest.mark.parametrize(
    ("since", "until", "says"),
    [
        ("Latest", None, "found 'Latest', expected a time, Earliest, or offsets such as"),
        ("17", None, "found '17', expected a time"),
        ("0:1,0:2", None, "found 0 of replayed-[0-9]+ twice"),
        ("7:1", None, "found '7:1', expected one of the trigger's partitions"),
        ("other:0:1", None, "found 'other:0:1', expected one of"),
        ("0:1,", None, "found '0:1,', expected a time"),
        ("0:5", "0:4", "found 0:5 after 0:4, expected it before"),
        ("Earliest", "now", "found 'now', expected a time"),
    ],
)
async def test_what_is_no_position_is_refused(
    kafka: Kafka, topic: str, since: str, until: str | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        await Run(kafka, topic)(since, until)


async def test_of_several_topics_positions_name_the_topic(kafka: Kafka, topic: str) -> None:
    other = f"{topic}-other"
    await tools.create_topic(kafka.broker, other)
    await tools.produce(kafka.broker, other, [b"a", b"b", b"c"])
    with pytest.raises(ValueError, match="topic:partition:offset"):
        await Run(kafka, [topic, other])("0:1")
    run = await Run(kafka, [topic, other])(f"{topic}:1:8")
    assert (run.ids(), run.told.windows) == (["1:8", "1:9"], [(2, f"{topic}:1:10", "")])
    run = await Run(kafka, [topic, other])(f"{topic}:1:8,{other}:0:1")
    assert run.ids() == ["0:1", "0:2", "1:8", "1:9"]
    assert run.told.windows == [(4, f"{topic}:1:10,{other}:0:3", "")]


@pytest.mark.parametrize(
    ("since", "until", "gone"),
    [("0:1,1:0", None, 5), (minute(2), None, 6), ("0:1", "0:3", 2), ("Earliest", None, 0)],
)
async def test_what_retention_has_removed_is_told_with_its_number(
    kafka: Kafka, topic: str, since: Any, until: Any, gone: int
) -> None:
    await tools.delete_records(kafka.broker, topic, 0, 6)
    run = await Run(kafka, topic)(since, until)
    note = run.told.windows[-1][2]
    expected = f"up to {gone} of topic {topic} partition 0" if gone else ""
    assert expected in note
    assert bool(note) == bool(gone)
    assert [i for i in run.ids() if i[0] == "0"] == ([] if until else span(0, 6, 10))


async def test_of_a_pattern_every_topic_that_is_there_is_sent(kafka: Kafka, topic: str) -> None:
    other = f"{topic}-other"
    await tools.create_topic(kafka.broker, other)
    await tools.produce(kafka.broker, other, [b"a", b"b", b"c"])
    run = await Run(kafka, {"topicPattern": f"{topic}(-other)?"})("Earliest")
    assert len(run.ids()) == 23
    assert run.told.windows[0][:2] == (23, f"{topic}:0:10,{topic}:1:10,{other}:0:3")
    with pytest.raises(ReplayError, match="there is no topic that matches"):
        await Run(kafka, {"topicPattern": f"{topic}-none"})("Earliest")


async def test_retention_that_overtakes_a_replay_is_told_and_the_rest_is_sent(
    kafka: Kafka, topic: str
) -> None:
    # More than is fetched ahead.
    await tools.produce(kafka.broker, topic, [bytes(100_000)] * 100, partition=0)
    gate = asyncio.Event()

    async def held(event: Event) -> None:
        await gate.wait()

    run = Run(kafka, topic, held)
    replaying = asyncio.create_task(run("0:0"))
    await eventually(lambda: len(run.emit.begun) > 0, "the first record")
    await tools.delete_records(kafka.broker, topic, 0, 105)
    gate.set()
    await replaying
    offsets = sorted(int(i.partition(":")[2]) for i in run.ids())
    sent_before = [offset for offset in offsets if offset < 105]
    assert sent_before == list(range(len(sent_before)))
    assert offsets[len(sent_before) :] == list(range(105, 110))
    gone = 105 - len(sent_before)
    assert gone > 0
    assert f"up to {gone} of topic {topic} partition 0" in run.told.windows[-1][2]
    assert run.told.marks[-1] == (110, "0:110")


async def test_a_window_that_ends_in_markers_of_transactions_comes_to_its_end(
    kafka: Kafka, topic: str
) -> None:
    from aiokafka import AIOKafkaProducer

    client = AIOKafkaProducer(bootstrap_servers=kafka.broker, transactional_id=topic)
    await client.start()
    try:
        async with client.transaction():
            await client.send_and_wait(topic, b"in one", key=b"k0", partition=0)
    finally:
        await client.stop()
    # The marker, which has an offset of its own, is written a little later.
    async with asyncio.timeout(20):
        while await tools.end(kafka.broker, topic) < 12:
            await asyncio.sleep(0.05)
    run = await Run(kafka, topic)("0:9")
    assert run.ids() == ["0:10", "0:9"]
    assert run.told.windows == [(3, "0:12", "")]
    assert run.told.marks[-1] == (3, "0:12")


async def test_one_that_is_ended_tells_from_where_another_goes_on(kafka: Kafka, topic: str) -> None:
    gate = asyncio.Event()

    async def stuck(event: Event) -> None:
        if event.id == "0:4":
            await gate.wait()

    run = Run(kafka, topic, stuck)
    replaying = asyncio.create_task(run("Earliest"))
    await eventually(lambda: len(run.emit.accepted) >= 14, "what the stuck one does not hold up")
    replaying.cancel()
    await asyncio.wait([replaying])
    done, since = run.told.marks[-1]
    assert (done, since) == (14, "0:4,1:10")
    again = await Run(kafka, topic)(since, run.told.windows[0][1])
    assert again.ids() == span(0, 4, 10)


async def test_a_topic_that_is_not_there_or_goes_ends_it(kafka: Kafka, topic: str) -> None:
    with pytest.raises(ReplayError, match="there is no topic never-made"):
        await Run(kafka, "never-made")("Earliest")
    gate = asyncio.Event()

    async def stuck(event: Event) -> None:
        await gate.wait()

    run = Run(kafka, topic, stuck)
    replaying = asyncio.create_task(run("Earliest"))
    await eventually(lambda: len(run.emit.begun) > 0, "the first record")
    await tools.delete_topic(kafka.broker, topic)
    with pytest.raises(ReplayError, match="there is no topic"):
        await replaying


async def test_brokers_that_are_away_are_waited_for_and_told(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Kafka(tmp_path_factory.mktemp("kafka")).started() as server:
        await tools.create_topic(server.broker, "t")
        await tools.produce(server.broker, "t", [b"%d" % n for n in range(3000)])
        gate = asyncio.Event()

        async def held(event: Event) -> None:
            await gate.wait()

        run = Run(server, "t", held)
        replaying = asyncio.create_task(run("Earliest"))
        await eventually(lambda: len(run.emit.begun) == 1, "the first record")
        server.kill9()
        await eventually(lambda: run.report.state == "BrokerUnreachable", "what it waits for")
        await asyncio.to_thread(server.start)
        await eventually(lambda: run.report.state == "Connected", "that they are back")
        gate.set()
        await asyncio.wait_for(replaying, 60)
        assert len(run.emit.accepted) == 3000
    nobody = Run(server, "t")
    with pytest.raises(ReplayError, match="no Kafka broker answers"):
        await nobody("Earliest")


def replayed(target: Function) -> list[Call]:
    return [call for call in target.accepted if "ce-triggerhubreplay" in call.headers]


def replaying(hub: Hub, *arguments: str) -> subprocess.Popen[str]:
    """`triggerhub replay`, begun."""
    return subprocess.Popen(
        [sys.executable, "-m", "triggerhub", "replay", *arguments, "--admin", hub.admin],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip


def test_a_replay_runs_beside_a_live_stream_and_leaves_the_group_alone(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, keys=8, partitions=3)
    stream.send(1000)
    with (
        answering(lambda call: reply(200, after=0.002)) as target,
        running(tmp_path, start=False) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, "orders", "f", inFlight=16))
        hub.start()
        hub.wait(lambda: sum(stream.committed("orders").values()) == 1000, "every commit", 60)
        first = set(stream.sent)
        until = ",".join(f"{p}:{offset}" for p, offset in stream.committed("orders").items())
        with stream.flowing(per_second=200):
            hub.wait(lambda: len(stream.sent) > 1100, "the live stream")
            asked = replaying(hub, "orders", "--from", "Earliest", "--to", until)
            out, err = asked.communicate(timeout=90)
        assert (asked.returncode, err) == (0, "")
        assert out.splitlines()[-1] == "1000 events: 1000 accepted"
        hub.wait(lambda: arrived(target, stream), "delivery of the live stream", 30)
        total = len(stream.sent)
        hub.wait(lambda: sum(stream.committed("orders").values()) == total, "every commit", 20)
        account = hub.accounts()["default.orders.f"]
        assert account.received == sum(account.settled.values()) + account.in_flight
        assert account.received == total + 1000
    again = replayed(target)
    assert {call.id for call in again} == first
    assert len(again) == 1000
    assert in_order(again)
    live = [call for call in target.accepted if "ce-triggerhubreplay" not in call.headers]
    assert in_order(live)
    assert len(live) == total, "the group read nothing twice"
    # It went on while the replay ran.
    begins, ends = again[0].began, again[-1].began
    assert sum(begins < call.began < ends for call in live) > 50


def test_a_hub_that_is_killed_in_the_middle_leaves_a_command_that_goes_on(
    kafka: Kafka, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, keys=4, partitions=2)
    stream.send(400)
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, "orders", "f"))
        hub.start()
        hub.wait(lambda: sum(stream.committed("orders").values()) == 400, "every commit", 40)
        asked = replaying(hub, "orders", "--from", "1h", "--rate", "100")
        hub.wait(lambda: len(replayed(target)) >= 150, "half of the replay")
        hub.kill9()
        _, err = asked.communicate(timeout=20)
        assert asked.returncode == 1
        said, _, command = err.strip().partition("; go on with: ")
        assert re.fullmatch(
            r"triggerhub: .* broke off; [0-9]+ events: [0-9]+ accepted, [0-9]+ %", said
        )
        hub.start()
        words = shlex.split(command)
        words[words.index("--rate") + 1] = "5000"
        before = len(replayed(target))
        rest = replaying(hub, *words[2 : words.index("--admin")])
        _, err = rest.communicate(timeout=60)
        assert (rest.returncode, err) == (0, "")
        assert {call.id for call in replayed(target)} == set(stream.sent)
        # What had come in its last second comes again.
        assert len(replayed(target)) - before < 400
        assert sum(stream.committed("orders").values()) == 400
        assert hub.stop() == 0


def test_a_hub_that_is_stopped_lets_a_replay_end_in_order(kafka: Kafka, tmp_path: Path) -> None:
    stream = Stream(kafka.broker, keys=4, partitions=1)
    stream.send(200)
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, "orders", "f"))
        hub.start()
        hub.wait(lambda: arrived(target, stream), "delivery of every record", 40)
        asked = replaying(hub, "orders", "--from", "Earliest", "--rate", "50", "-o", "json")
        hub.wait(lambda: len(replayed(target)) >= 20, "the replay")
        assert hub.stop() == 0
        out, err = asked.communicate(timeout=20)
        assert asked.returncode == 1
        assert err.startswith("triggerhub: the hub stops; ")
        last = json.loads(out.splitlines()[-1])
        # All that had been sent was settled, and no more was begun.
        assert last["done"] == last["events"]["accepted"] == len(replayed(target))
        assert last["from"] == f"0:{last['done']}"
