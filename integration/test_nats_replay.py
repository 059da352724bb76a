"""A past window of a stream is sent once more, against a real server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration import nats_tools as tools
from integration.fakes import FakeEmit, FakeProgress, FakeReport, eventually
from integration.function import Call, answering
from integration.hub import function, running
from integration.nats_flow import Flow
from integration.nats_servers import Nats
from triggerhub.connector import Installation
from triggerhub.event import Event
from triggerhub.testing.fakes import subscription
from triggerhub_nats import NATSConnector, NATSSource
from triggerhub_nats.replay import ReplayError

_numbers = iter(range(1_000_000))


@pytest.fixture
async def orders(nats: Nats) -> str:
    """A stream of ten messages of two subjects: ``1`` to ``10``."""
    return await made(nats)


async def made(nats: Nats) -> str:
    name = f"replayed{next(_numbers)}"
    await tools.create_stream(nats.server, name, f"{name}.>")
    for n in range(1, 11):
        await tools.publish(nats.server, f"{name}.{'ab'[n % 2]}", b"%d" % n)
    return name


class Run:
    """One replay, made by hand."""

    def __init__(self, nats: Nats, stream: str, handle: Any = None, **rest: Any) -> None:
        source = NATSSource.model_validate({"stream": stream, "servers": [nats.server], **rest})
        self.emit, self.report, self.told = FakeEmit(handle), FakeReport(), FakeProgress()
        bound = subscription(source, name="shop.replayed.f", report=self.report, in_flight=4)
        self._subscription = replace(bound, emit=self.emit)

    async def __call__(self, since: datetime | str, until: datetime | str | None = None) -> Run:
        failed: Exception | None = None
        async with asyncio.timeout(60), NATSConnector(Installation()) as connector:
            try:
                await connector.replay(self._subscription, since, until, self.told)
            except (ValueError, ReplayError) as error:
                failed = error  # of the connector's own, not of its tasks
        if failed is not None:
            raise failed
        return self

    def ids(self) -> list[int]:
        return [int(event.id) for event in self.emit.accepted]


async def consumers(nats: Nats, stream: str) -> list[str]:
    async with tools.jetstream(nats.server) as context:
        return [info.name for info in await context.consumers_info(stream)]


@pytest.mark.parametrize(
    ("since", "until", "ids", "window"),
    [
        ("All", None, (1, 11), (10, "11", "")),
        ("4", "7", (4, 7), (3, "7", "")),
        ("9", "100", (9, 11), (2, "11", "")),
        ("11", None, (11, 11), (0, "11", "")),
        ("3", "3", (3, 3), (0, "3", "")),
    ],
)
async def test_a_window_by_sequence_is_sent_in_order_and_leaves_no_trace(
    nats: Nats, orders: str, since: str, until: str | None, ids: Any, window: Any
) -> None:
    run = await Run(nats, orders)(since, until)
    assert run.ids() == list(range(*ids))
    assert run.told.windows == [window]
    begin = int(window[1]) - window[0]
    assert run.told.marks[-1] == (window[0], str(begin + window[0]))
    assert await consumers(nats, orders) == []


async def test_a_window_by_time_holds_what_the_stream_took_then(nats: Nats, orders: str) -> None:
    times = {int(e.id): e.time for e in (await Run(nats, orders)("All")).emit.accepted}
    third, sixth = times[3], times[6]
    assert third is not None
    assert sixth is not None
    assert (await Run(nats, orders)(third, sixth)).ids() == [3, 4, 5]
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert (await Run(nats, orders)(long_ago, third)).ids() == [1, 2]
    assert (await Run(nats, orders)(datetime.now(UTC) + timedelta(days=1))).ids() == []


async def test_only_the_triggers_own_subjects_are_sent(nats: Nats, orders: str) -> None:
    run = await Run(nats, orders, subject=f"{orders}.b")("2", "10")
    assert run.ids() == [3, 5, 7, 9]
    # The end of the window is behind the last of them.
    assert (await Run(nats, orders, subject=f"{orders}.b")("2", "11")).told.marks[-1] == (9, "11")


async def test_what_the_streams_limits_took_is_told(nats: Nats, orders: str) -> None:
    async with tools.jetstream(nats.server) as context:
        await context.purge_stream(orders, seq=6)
    run = await Run(nats, orders)("2", "9")
    assert run.ids() == [6, 7, 8]
    assert run.told.windows == [(3, "9", "not there any more, by the stream's limits: up to 4")]


@pytest.mark.parametrize("since", ["Earliest", "-1", "1:2", "x", ""])
async def test_a_text_that_is_no_position_is_refused(nats: Nats, orders: str, since: str) -> None:
    with pytest.raises(ValueError, match="expected a time, All, or a sequence such as 1520"):
        await Run(nats, orders)(since)
    with pytest.raises(ValueError, match="found 5 after 3"):
        await Run(nats, orders)("5", "3")


async def test_a_stream_that_is_not_there_and_a_core_subject_cannot_be_replayed(
    nats: Nats,
) -> None:
    with pytest.raises(ReplayError, match="stream nowhere does not exist"):
        await Run(nats, "nowhere")("All")
    source = NATSSource.model_validate({"subject": "a", "servers": [nats.server]})
    async with NATSConnector(Installation()) as connector:
        with pytest.raises(ValueError, match="core NATS keeps nothing"):
            await connector.replay(subscription(source), "All", None, FakeProgress())


async def test_a_replay_goes_on_when_the_server_is_killed_in_its_midst(own_nats: Nats) -> None:
    stream = await made(own_nats)
    await tools.publish(own_nats.server, f"{stream}.a", *[b"x"] * 1990)
    gate = asyncio.Event()

    async def slow(event: Event) -> None:
        if int(event.id) > 2:
            await gate.wait()

    run = Run(own_nats, stream, slow)
    async with asyncio.TaskGroup() as tasks:
        replaying = tasks.create_task(run("All"))
        await eventually(lambda: len(run.emit.accepted) >= 2, "its beginning")
        own_nats.kill9()
        gate.set()
        await eventually(lambda: run.report.state == "ServerUnreachable", "a word")
        own_nats.start()
    assert sorted(replaying.result().ids()) == list(range(1, 2001))
    assert run.told.marks[-1] == (2000, "2001")
    assert await consumers(own_nats, stream) == []


async def test_a_replay_of_many_messages_has_one_consumer(nats: Nats) -> None:
    stream = await made(nats)
    await tools.publish(nats.server, f"{stream}.a", *[b"x"] * 990)
    made_ = f"$JS.EVENT.ADVISORY.CONSUMER.CREATED.{stream}.*"
    async with tools.connected(nats.server) as client:
        consumers_made = await client.subscribe(made_)
        await client.flush()
        run = await Run(nats, stream)("All")
        await client.flush()
        assert consumers_made.pending_msgs == 1
    assert run.told.marks[-1] == (1000, "1001")


async def test_a_stream_that_is_deleted_ends_its_replay(nats: Nats) -> None:
    stream = f"replayed{next(_numbers)}"
    await tools.create_stream(nats.server, stream, f"{stream}.>")
    await tools.publish(nats.server, f"{stream}.a", *[b"x"] * 2000)
    gate = asyncio.Event()

    async def slow(event: Event) -> None:
        await gate.wait()

    run = Run(nats, stream, slow)
    replaying = asyncio.create_task(run("All"))
    await eventually(lambda: bool(run.emit.begun), "its beginning")
    await tools.delete_stream(nats.server, stream)
    gate.set()
    with pytest.raises(ReplayError, match=f"stream {stream} does not exist"):
        await replaying


def test_the_command_sends_a_window_beside_the_live_stream(nats: Nats, tmp_path: Path) -> None:
    flow = Flow(nats)
    flow.send(300)
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", flow.trigger("f"))
        hub.start()
        hub.wait(lambda: flow.arrived(target), "delivery of every message")
        hub.wait(lambda: flow.unsettled() == 0, "acks")
        before = asyncio.run(tools.consumer(nats.server, flow.name, "story"))
        with flow.flowing(per_second=50):
            ran = subprocess.run(
                [sys.executable, "-m", "triggerhub", "replay", "orders", "--from", "101",
                 "--to", "201", "--admin", hub.admin, "-o", "json"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        last = json.loads(ran.stdout.strip().splitlines()[-1])
        hub.wait(lambda: flow.arrived(target), "delivery of every message")
        hub.wait(lambda: flow.unsettled() == 0, "acks")
        after = asyncio.run(tools.consumer(nats.server, flow.name, "story"))
        assert asyncio.run(consumers(nats, flow.name)) == ["story"]
    assert last["events"] == {"accepted": 100}
    assert after.created == before.created

    def marked(call: Call) -> bool:
        return "ce-triggerhubreplay" in call.headers

    assert [call.id for call in target.calls if marked(call)].__len__() == 100
    assert {int(c.id) for c in target.calls if marked(c)} == set(range(101, 201))
    assert len([c for c in target.calls if not marked(c)]) == len(flow.sent)
