"""The position of a durable consumer is moved by the manifest, or goes with its trigger."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from integration import nats_tools as tools
from integration.fakes import Listening, eventually, listening
from integration.function import answering, reply
from integration.hub import Hub, function, running
from integration.nats_flow import Flow
from integration.nats_servers import Nats
from integration.servers import free_port
from triggerhub.connector import Cleaner, Installation, Seeker
from triggerhub.testing.fakes import RecordingReport, subscription
from triggerhub_nats import NATSConnector, NATSSource
from triggerhub_nats.seeks import PositionError

_numbers = iter(range(1_000_000))


@pytest.fixture
async def orders(nats: Nats) -> str:
    """A stream of ten messages of two subjects: ``1`` to ``10``."""
    name = f"sought{next(_numbers)}"
    await tools.create_stream(nats.server, name, f"{name}.>")
    for n in range(1, 11):
        await tools.publish(nats.server, f"{name}.{'ab'[n % 2]}", b"%d" % n)
    return name


@pytest.fixture
async def stack() -> Any:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def connector(stack: AsyncExitStack) -> NATSConnector:
    return await stack.enter_async_context(NATSConnector(Installation()))


def source(nats: Nats, stream: str, seek: Any = None, **rest: Any) -> NATSSource:
    shape = {"stream": stream, "servers": [nats.server], "startFrom": "All", **rest}
    return NATSSource.model_validate(shape | ({"seek": seek} if seek else {}))


def listen(
    connector: NATSConnector, nats: Nats, stream: str, seek: Any = None, **rest: Any
) -> AbstractAsyncContextManager[Listening]:
    return listening(connector, source(nats, stream, seek, **rest), name=f"shop.{stream}.f")


def numbers(begin: int, end: int = 11) -> list[bytes]:
    return [b"%d" % n for n in range(begin, end)]


async def last_of(nats: Nats, stream: str, running: Listening) -> list[bytes]:
    """What came until a message that is put in now has come, too."""
    await running.connected()
    (last,) = await tools.publish(nats.server, f"{stream}.a", b"last")
    await eventually(
        lambda: any(event.id == str(last) for event in running.emit.accepted), "the last message"
    )
    return running.emit.data()


async def sought(connector: Seeker[NATSSource], spec: NATSSource, stream: str) -> RecordingReport:
    report = RecordingReport()
    await connector.seek(subscription(spec, name=f"shop.{stream}.f", report=report))
    return report


def durable(stream: str) -> str:
    return f"triggerhub_shop_{stream}_f"


@pytest.mark.parametrize(
    ("to", "begins"), [("All", 1), ("New", 11), ("Last", 10), ({"sequence": 7}, 7), ("time", 5)]
)
async def test_a_seek_goes_back_or_forward_and_is_done_once(
    connector: NATSConnector, nats: Nats, orders: str, to: Any, begins: int
) -> None:
    async with listen(connector, nats, orders) as running:
        await running.accepted(10)
    if to == "time":
        moment = running.emit.accepted[4].time
        assert moment is not None
        to = {"time": moment.isoformat()}
    seek = {"id": "2026-11-23-a", "to": to}
    async with listen(connector, nats, orders, seek) as running:
        assert await last_of(nats, orders, running) == [*numbers(begins), b"last"]
        [done] = running.report.seeks
        assert (done.id, done.positions) == ("2026-11-23-a", str(begins))
        assert abs(done.time.timestamp() - time.time()) < 60
    async with listen(connector, nats, orders, seek) as again:
        assert await last_of(nats, orders, again) == [b"last"]
        assert again.report.seeks == [done]


async def test_a_seek_of_some_subjects_begins_with_the_first_of_them(
    connector: NATSConnector, nats: Nats, orders: str
) -> None:
    seek = {"id": "a", "to": "Last"}
    spec = {"subject": f"{orders}.b"}
    async with listen(connector, nats, orders, seek, **spec) as running:
        await running.accepted(1)
        await running.connected()
        assert running.emit.data() == [b"9"]
        assert running.report.seeks[0].positions == "9"


async def test_an_id_that_is_taken_out_and_put_in_again_is_done_already(
    connector: NATSConnector, nats: Nats, orders: str
) -> None:
    first, second = ({"id": name, "to": "All"} for name in ("a", "b"))
    got = []
    for seek in (first, None, first, second, first):
        async with listen(connector, nats, orders, seek) as running:
            got.append(len(await last_of(nats, orders, running)))
    assert got == [11, 1, 1, 14, 1]


async def test_a_consumer_of_an_administrator_stays_as_it_is_but_for_its_position(
    connector: NATSConnector, nats: Nats, orders: str
) -> None:
    async with tools.jetstream(nats.server) as context:
        await context.add_consumer(
            orders, durable_name="mine", ack_policy="explicit", ack_wait=7, max_ack_pending=55,
            description="ours [of sales]", deliver_policy="new",
        )  # fmt: skip
    seek = {"id": "a", "to": {"sequence": 9}}
    async with listen(connector, nats, orders, seek, durable="mine") as running:
        await running.accepted(2)
    found = (await tools.consumer(nats.server, orders, "mine")).config
    assert (found.ack_wait, found.max_ack_pending) == (7, 55)
    assert found.description.startswith("ours [of sales] [seek=a@")
    assert running.emit.data() == [b"9", b"10"]


async def test_a_deleted_consumer_is_made_again_without_another_seek(
    connector: NATSConnector, nats: Nats, orders: str
) -> None:
    seek = {"id": "a", "to": "All"}
    async with listen(connector, nats, orders, seek) as running:
        await running.accepted(10)
        before = await tools.consumer(nats.server, orders, durable(orders))
        async with tools.jetstream(nats.server) as context:
            await context.delete_consumer(orders, durable(orders))
        assert await last_of(nats, orders, running) == [*numbers(1), b"last"]
        after = await tools.consumer(nats.server, orders, durable(orders))
    assert after.created != before.created
    assert after.config.description == before.config.description
    async with listen(connector, nats, orders, seek) as running:
        assert await last_of(nats, orders, running) == [b"last"]


async def test_a_paused_trigger_is_sought_and_begins_there(
    connector: NATSConnector, nats: Nats, orders: str
) -> None:
    seek = {"id": "a", "to": {"sequence": 5}}
    async with listen(connector, nats, orders) as running:
        await running.accepted(10)
        with pytest.raises(PositionError, match="still has listeners"):
            await sought(connector, source(nats, orders, seek), orders)
    reports = [await sought(connector, source(nats, orders, seek), orders) for _ in range(2)]
    assert reports[0].seeks[0].positions == "5"
    assert reports[0].seeks == reports[1].seeks
    async with listen(connector, nats, orders, seek) as running:
        # Done long ago: whoever listens is no reason to wait.
        await running.accepted(6)
        assert (await sought(connector, source(nats, orders, seek), orders)).seeks
    assert running.emit.data() == numbers(5)


async def test_a_stream_that_comes_while_its_seek_waits_is_read_from_its_first_message(
    connector: NATSConnector, nats: Nats
) -> None:
    name = f"sought{next(_numbers)}"
    spec = source(nats, name, {"id": "a", "to": "New"})
    report = RecordingReport()
    made = subscription(spec, name=f"shop.{name}.f", report=report)
    seeking = asyncio.create_task(connector.seek(made))
    await eventually(lambda: report.said == ["StreamNotFound"], "what it waits for")
    await tools.create_stream(nats.server, name, f"{name}.>")
    await tools.publish(nats.server, f"{name}.a", b"first")
    await asyncio.wait_for(seeking, 20)
    assert report.seeks[0].positions == "1"
    async with listening(connector, spec, name=f"shop.{name}.f") as running:
        await running.accepted(1)


async def test_clean_up_removes_the_consumer_once_nobody_listens(
    connector: NATSConnector, nats: Nats, orders: str
) -> None:
    spec = source(nats, orders, cleanup="Delete")
    bound = subscription(spec, name=f"shop.{orders}.f")
    cleaner: Cleaner[NATSSource] = connector
    async with listen(connector, nats, orders) as running:
        await running.accepted(10)
        with pytest.raises(PositionError, match="still has listeners"):
            await cleaner.clean_up(bound)
    await cleaner.clean_up(bound)
    with pytest.raises(NotFoundError):
        await tools.consumer(nats.server, orders, durable(orders))
    await cleaner.clean_up(bound)
    await tools.delete_stream(nats.server, orders)
    await cleaner.clean_up(bound)


async def test_what_cannot_be_reached_is_neither_sought_nor_cleaned_up(
    connector: NATSConnector,
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    shape = {"stream": "a", "servers": [nowhere], "seek": {"id": "a", "to": "All"}}
    bound = subscription(NATSSource.model_validate(shape))
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        for work in (connector.seek, connector.clean_up):
            tasks.create_task(refused(work(bound), f"no NATS server answers at {nowhere}"))


async def refused(work: Coroutine[Any, Any, None], why: str) -> None:
    with pytest.raises(PositionError, match=why):
        await work


def seek_of(hub: Hub) -> dict[str, str]:
    [binding] = hub.get("/v1/bindings")["bindings"]
    seek: dict[str, str] = binding["seek"] or {}
    return seek


def test_an_edit_of_the_manifest_seeks_while_two_hubs_of_one_durable_run_and_one_is_killed(
    nats: Nats, tmp_path: Path
) -> None:
    flow = Flow(nats, ack_wait=2)
    flow.send(100)
    with (
        answering(lambda call: reply(200, after=0.01)) as target,
        running(tmp_path / "one", start=False) as one,
        running(tmp_path / "two", start=False) as two,
    ):

        def write(hub: Hub, seek: dict[str, Any]) -> None:
            hub.write("t.yaml", flow.trigger("f", seek, inFlight=4))

        for hub in (one, two):
            hub.write("f.yaml", function("f", target.url))
            write(hub, {})
            hub.start()
        one.wait(lambda: flow.arrived(target), "delivery of every message", 40)
        one.wait(lambda: flow.unsettled() == 0, "acks")
        seek = {"seek": {"id": "again", "to": "All"}}
        with flow.flowing(per_second=50):
            for hub in (one, two):
                write(hub, seek)
            two.wait(lambda: seek_of(two).get("id") == "again", "the seek in its status")
            two.kill9()
            one.wait(lambda: seek_of(one).get("id") == "again", "the seek in its status")
            two.start()

        def again(call_times: Counter[bytes]) -> bool:
            return all(call_times[value] >= 2 for value in flow.sent[:100])

        one.wait(
            lambda: again(Counter(call.body for call in target.accepted)), "each once more", 60
        )
        one.wait(lambda: flow.arrived(target), "delivery of the rest", 40)
        one.wait(lambda: flow.unsettled() == 0, "acks", 60)
        two.wait(lambda: seek_of(one) == seek_of(two), "one and the same seek")
        done = seek_of(one)
        for hub in (one, two):
            assert hub.stop() == 0
        flow.send(1)
        one.start()
        one.wait(lambda: flow.unsettled() == 0, "the last one")
        assert seek_of(one) == done
        assert done["positions"] == "1"
    assert target.accepted[-1].body == flow.sent[-1]
