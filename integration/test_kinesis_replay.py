"""A past window of a stream is sent once more, against a real endpoint."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from integration.fakes import FakeEmit, FakeProgress, FakeReport, eventually
from integration.kinesis_proxy import error, faults, hollow
from integration.kinesis_servers import KEY_ID, REGION, SECRET, Kinesis
from integration.kinesis_streams import NAME, kinesis_story
from integration.kinesis_tools import (
    create_stream,
    put,
    split,
)
from tests.kpl import aggregate
from triggerhub.connector import Installation, Reference, Replayer
from triggerhub.event import Event
from triggerhub.testing.fakes import MemoryPositions, subscription
from triggerhub_kinesis import KinesisConnector, KinesisSource
from triggerhub_kinesis.replay import ReplayError

REPLAYER: Replayer[KinesisSource] = KinesisConnector(Installation())
FIRST = "shardId-000000000000"
KEYS = 5


class Run:
    """One replay, made by hand."""

    def __init__(self, endpoint: str, stream: str, handle: Any = None) -> None:
        secret = Reference.model_validate({"secretRef": {"name": "aws", "key": "secret"}})
        source = KinesisSource.model_validate(
            {
                "stream": stream, "endpoint": endpoint, "region": REGION,
                "credentials": {
                    "accessKeyId": KEY_ID,
                    "secretAccessKey": {"secretRef": {"name": "aws", "key": "secret"}},
                },
            }
        )  # fmt: skip
        self.positions = MemoryPositions()
        self.emit, self.report, self.told = FakeEmit(handle), FakeReport(), FakeProgress()
        made = subscription(
            source, name="shop.replayed.f", report=self.report, in_flight=4,
            positions=self.positions, values={secret: SECRET.encode()},
        )  # fmt: skip
        self._subscription = replace(made, emit=self.emit)

    async def __call__(self, since: datetime | str, until: datetime | str | None = None) -> Run:
        async with asyncio.timeout(60):
            await REPLAYER.replay(self._subscription, since, until, self.told)
        return self

    def ids(self) -> list[str]:
        return [event.id for event in self.emit.accepted]


def in_order(events: list[Event]) -> bool:
    """Whether the numbers of each key count upwards."""
    numbers: dict[str | None, list[int]] = {}
    for event in events:
        numbers.setdefault(event.key, []).append(int(event.data))
    return all(found == sorted(found) for found in numbers.values())


class Past:
    """A stream whose only shard was split after a half of its records."""

    def __init__(self, name: str, before: list[str], after: list[str], between: datetime) -> None:
        self.name = name
        self.before = before
        self.after = after
        self.between = between


@pytest.fixture
async def past(kinesis: Kinesis) -> Past:
    name = f"past-{uuid4().hex[:8]}"
    await create_stream(kinesis.endpoint, name)
    records = [(f"k{n % KEYS}", b"%d" % n) for n in range(200)]
    before = await put(kinesis.endpoint, name, *records[:100])
    await split(kinesis.endpoint, name, FIRST)
    await asyncio.sleep(0.05)
    between = datetime.now(UTC)
    after = await put(kinesis.endpoint, name, *records[100:])
    return Past(name, before, after, between)


async def test_the_past_is_sent_in_order_through_a_split_and_leaves_no_trace(
    kinesis: Kinesis, past: Past
) -> None:
    async def slow(_: Event) -> None:
        await asyncio.sleep(0.002)

    run = await Run(kinesis.endpoint, past.name, slow)("TrimHorizon")
    assert sorted(run.ids()) == sorted(past.before + past.after)
    assert in_order(run.emit.accepted)
    assert await run.positions.load() == {}
    [(size, until, note)] = run.told.windows
    assert note == ""
    assert run.told.marks[-1] == (size, until)
    assert [mark for mark, _ in run.told.marks] == sorted(mark for mark, _ in run.told.marks)


async def test_times_are_a_window_that_has_its_begin_and_not_its_end(
    kinesis: Kinesis, past: Past
) -> None:
    run = await Run(kinesis.endpoint, past.name)(past.between)
    assert sorted(run.ids()) == sorted(past.after)
    run = await Run(kinesis.endpoint, past.name)("TrimHorizon", past.between)
    assert sorted(run.ids()) == sorted(past.before)
    run = await Run(kinesis.endpoint, past.name)(past.between - timedelta(days=3), past.between)
    assert sorted(run.ids()) == sorted(past.before)
    [(_, _, note)] = run.told.windows
    assert note.startswith("not there any more, by the stream's retention: what came before 20")


async def test_positions_are_those_of_the_named_shards(kinesis: Kinesis, past: Past) -> None:
    run = await Run(kinesis.endpoint, past.name)(f"0:{past.before[30]}", f"0:{past.before[60]}")
    assert run.ids() == past.before[30:60]
    run = await Run(kinesis.endpoint, past.name)(f"{FIRST}:{past.before[30]}+")
    assert run.ids() == past.before[31:]
    run = await Run(kinesis.endpoint, past.name)("1,2")
    assert sorted(run.ids()) == sorted(past.after)


@pytest.mark.parametrize("stopped_at", [37, 150])
async def test_one_that_ends_in_the_middle_says_where_another_goes_on(
    kinesis: Kinesis, past: Past, stopped_at: int
) -> None:
    async def stop(_: Event) -> None:
        if len(run.emit.accepted) >= stopped_at:
            await run.emit.retry_for_ever()

    run = Run(kinesis.endpoint, past.name, stop)
    task = asyncio.create_task(run("TrimHorizon"))
    await eventually(lambda: len(run.emit.accepted) >= stopped_at, "some of it")
    task.cancel()
    await asyncio.wait([task])
    size, since = run.told.marks[-1]
    assert size <= run.told.windows[0][0]
    rest = await Run(kinesis.endpoint, past.name)(since)
    assert set(run.ids()) | set(rest.ids()) == {*past.before, *past.after}
    assert len(rest.ids()) < 200 - stopped_at + 8  # what was begun out of order


async def test_it_holds_out_while_aws_is_moody(kinesis: Kinesis, past: Past) -> None:
    with faults(kinesis.endpoint) as aws:
        aws.inject(hollow(), "GetRecords", times=2)
        aws.inject(error("ExpiredIteratorException"), "GetRecords", times=2)
        aws.inject(error("ProvisionedThroughputExceededException"), "GetRecords", times=2)
        aws.inject(error("InternalFailure", status=500), "GetRecords", times=2)
        run = await Run(aws.endpoint, past.name)("TrimHorizon")
        assert aws.injected["GetRecords"] == 8
    assert sorted(run.ids()) == sorted(past.before + past.after)
    assert in_order(run.emit.accepted)


async def test_what_comes_meanwhile_is_not_past(kinesis: Kinesis, past: Past) -> None:
    async def more(_: Event) -> None:
        if len(run.emit.begun) == 1:
            await asyncio.sleep(1.1)  # so that what comes now is of another second
            await put(kinesis.endpoint, past.name, ("k0", b"999"))

    run = Run(kinesis.endpoint, past.name, more)
    await run("TrimHorizon")
    assert sorted(run.ids()) == sorted(past.before + past.after)


async def test_parts_of_an_aggregated_record_are_sent_each(kinesis: Kinesis) -> None:
    stream = f"past-{uuid4().hex[:8]}"
    await create_stream(kinesis.endpoint, stream)
    [one] = await put(
        kinesis.endpoint, stream, ("whole", aggregate([("a", None, b"1"), ("b", None, b"2")]))
    )
    run = await Run(kinesis.endpoint, stream)("TrimHorizon")
    assert sorted(run.ids()) == [f"{one}:0", f"{one}:1"]


@pytest.mark.parametrize(
    ("since", "until", "says"),
    [
        ("Latest", None, "from: found 'Latest', expected a time, TrimHorizon, or SHARD:SEQUENCE"),
        ("0:x", None, "from: found '0:x', expected"),
        ("0:1,", None, "from: found '', expected"),
        ("7:1", None, "from: there is no shard 7 in the stream"),
        ("0:1,0:2", None, "from: found shard 0 twice"),
        ("TrimHorizon", "0", "to: found shard 0 alone"),
        ("TrimHorizon", "now", "to: found 'now', expected a time"),
    ],
)
async def test_what_is_no_position_is_refused(
    kinesis: Kinesis, past: Past, since: str, until: str | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        await Run(kinesis.endpoint, past.name)(since, until)


async def test_what_cannot_be_read_is_said_in_a_sentence(kinesis: Kinesis, past: Past) -> None:
    with pytest.raises(ReplayError, match="stream gone does not exist in us-east-1"):
        await Run(kinesis.endpoint, "gone")("TrimHorizon")
    with pytest.raises(ReplayError, match=f"shard {FIRST}.*: record 12 is not there any more"):
        await Run(kinesis.endpoint, past.name)("0:12")
    with pytest.raises(ReplayError, match=r"no answer from http://127\.0\.0\.1:9"):
        await Run("http://127.0.0.1:9", past.name)("TrimHorizon")


def test_a_command_replays_beside_the_live_stream(kinesis: Kinesis, tmp_path: Path) -> None:
    with kinesis_story(tmp_path, kinesis.endpoint) as told:
        told.stream.send(300)
        told.flows(300)
        again = subprocess.run(
            [sys.executable, "-m", "triggerhub", "replay", NAME, "--from", "TrimHorizon",
             "--admin", told.hub.admin, "-o", "json"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert json.loads(again.stdout.splitlines()[-1])["events"] == {"accepted": 300}
        calls = told.target.accepted
        marked = [call for call in calls if "ce-triggerhubreplay" in call.headers]
        assert {call.id for call in marked} == told.stream.sent.keys()
        assert (len(marked), len(calls)) == (300, 600)
        told.stream.send(10)
        told.flows(10)
