"""JetStream as the NATS connector reads it, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.request import urlopen

import pytest

from integration import nats_tools as tools
from integration.fakes import FakeEmit, Listening, eventually, listening
from integration.nats_servers import Nats
from triggerhub.cloudevents import format_time
from triggerhub.connector import Installation
from triggerhub.event import Event, Outcome, Settled
from triggerhub_nats import NATSConnector, NATSSource

_numbers = iter(range(1_000_000))


@pytest.fixture
def stream() -> str:
    return f"orders{next(_numbers)}"


@pytest.fixture
async def orders(nats: Nats, stream: str) -> str:
    """A stream that takes ``<its name>.>``."""
    await tools.create_stream(nats.server, stream, f"{stream}.>")
    return stream


def listen(
    nats: Nats,
    stream: str,
    start_from: Any = "All",
    spec: dict[str, Any] | None = None,
    **rest: Any,
) -> AbstractAsyncContextManager[Listening]:
    return _listen(nats, {"stream": stream, "startFrom": start_from} | (spec or {}), stream, rest)


@asynccontextmanager
async def _listen(
    nats: Nats, spec: dict[str, Any], stream: str, rest: dict[str, Any]
) -> AsyncIterator[Listening]:
    source = NATSSource.model_validate({"servers": [nats.server]} | spec)
    async with (
        NATSConnector(Installation()) as connector,
        listening(connector, source, name=f"shop.{stream}.handle", **rest) as running,
    ):
        yield running


def durable(stream: str) -> str:
    return f"triggerhub_shop_{stream}_handle"


async def unsettled(nats: Nats, stream: str) -> int:
    """How many messages the consumer has that are not settled."""
    found = await tools.consumer(nats.server, stream, durable(stream))
    return (found.num_pending or 0) + (found.num_ack_pending or 0)


async def eventually_settled(nats: Nats, stream: str) -> None:
    async with asyncio.timeout(20):
        while await unsettled(nats, stream):
            await asyncio.sleep(0.05)


class TestData:
    async def test_data_subject_and_headers_arrive_whole(self, nats: Nats, orders: str) -> None:
        everything = bytes(range(256)) * 40
        await tools.publish(nats.server, f"{orders}.a", everything)
        headers = {"Nats-Msg-Id": "o-7", "X-Kind": "größe", "content-type": "text/plain"}
        await tools.publish(nats.server, f"{orders}.b.c", b"x", headers=headers)
        async with listen(nats, orders) as running:
            await running.accepted(2)
        plain, headed = sorted(running.emit.accepted, key=lambda event: event.id)
        assert (plain.source, plain.id) == (f"/nats/{orders}", "1")
        assert (plain.data, plain.subject, plain.key) == (everything, f"{orders}.a", f"{orders}.a")
        assert plain.time is not None
        assert headed.datacontenttype == "text/plain"
        assert headed.extensions == {"natsheadernatsmsgid": "o-7", "natsheaderxkind": "größe"}
        assert headed.origin is not None
        assert headed.time is not None
        assert headed.origin().coordinates == {
            "subject": f"{orders}.b.c", "stream": orders, "sequence": "2", "delivered": "1",
            "time": format_time(headed.time),
        }  # fmt: skip

    async def test_a_subject_with_wildcards_chooses_among_a_streams_messages(
        self, nats: Nats, orders: str
    ) -> None:
        for subject in ("new.1", "old.1", "new.2"):
            await tools.publish(nats.server, f"{orders}.{subject}", subject.encode())
        async with listen(nats, orders, spec={"subject": f"{orders}.new.*"}) as running:
            await running.accepted(2)
            await eventually_settled(nats, orders)
        assert running.emit.data() == [b"new.1", b"new.2"]

    async def test_several_subjects_are_read_in_order(self, nats: Nats, orders: str) -> None:
        for subject in "bcab":
            await tools.publish(nats.server, f"{orders}.{subject}", subject.encode())
        spec = {"subjects": [f"{orders}.a", f"{orders}.b"]}
        async with listen(nats, orders, spec=spec) as running:
            await running.accepted(3)
            await eventually_settled(nats, orders)
        assert running.emit.data() == [b"b", b"a", b"b"]

    async def test_requests_that_are_answered_whole_are_followed_by_others_at_once(
        self, nats: Nats, orders: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Servers since 2.10 say that such a request is over, with the number of a conflict."""
        await tools.publish(nats.server, f"{orders}.a", *[b"x"] * 600)
        with caplog.at_level("INFO", "triggerhub.nats"):
            async with listen(nats, orders) as running:
                await running.accepted(600)
                await eventually_settled(nats, orders)
        assert "pull_forgotten" not in caplog.text


class TestStart:
    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            ("All", [b"1", b"2", b"3", b"4"]),
            ("Last", [b"3", b"4"]),
            ("New", [b"4"]),
            ({"sequence": 2}, [b"2", b"3", b"4"]),
            ({"time": "2020-01-01t00:00:00z"}, [b"1", b"2", b"3", b"4"]),
            ({"time": "2100-01-01T00:00:00Z"}, [b"4"]),
        ],
    )
    async def test_it_begins_where_it_is_told(
        self, nats: Nats, orders: str, start: Any, expected: list[bytes]
    ) -> None:
        await tools.publish(nats.server, f"{orders}.a", b"1", b"2", b"3")
        async with listen(nats, orders, start) as running:
            await running.connected()
            await tools.publish(nats.server, f"{orders}.a", b"4")
            await running.accepted(len(expected))
            await asyncio.sleep(0.3)  # what must not come
        assert running.emit.data() == expected

    async def test_a_restart_goes_on_after_what_was_settled(self, nats: Nats, orders: str) -> None:
        async with listen(nats, orders, "New") as running:
            await running.connected()
        await tools.publish(nats.server, f"{orders}.a", b"1")
        async with listen(nats, orders, "New") as again:
            await again.accepted(1)
        assert again.emit.data() == [b"1"]

    async def test_a_stream_that_appears_later_is_read_from_its_first_message(
        self, nats: Nats, stream: str
    ) -> None:
        async with listen(nats, stream, "New") as running:
            await running.state("StreamNotFound")
            await tools.create_stream(nats.server, stream, f"{stream}.>")
            await tools.publish(nats.server, f"{stream}.a", b"first")
            await running.accepted(1)
            await running.connected()


class TestSettling:
    async def test_a_dead_letter_terminates_its_message(self, nats: Nats, orders: str) -> None:
        emit = FakeEmit()
        emit.outcome = Outcome(Settled.DEAD)
        await tools.publish(nats.server, f"{orders}.a", b"1")
        async with tools.connected(nats.server) as client:
            name = f"$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.{orders}.{durable(orders)}"
            advisories = await client.subscribe(name)
            async with listen(nats, orders, emit=emit) as running:
                await running.accepted(1)
                told = json.loads((await advisories.next_msg(10)).data)
        assert told["stream_seq"] == 1

    async def test_what_takes_longer_than_the_ack_wait_is_not_delivered_again(
        self, nats: Nats, orders: str
    ) -> None:
        async with tools.jetstream(nats.server) as context:
            await context.add_consumer(
                orders, durable_name="mine", ack_policy="explicit", ack_wait=1.5
            )
        await tools.publish(nats.server, f"{orders}.a", b"1")
        gate = asyncio.Event()

        async def slow(event: Event) -> None:
            await gate.wait()

        async with (
            listen(nats, orders, spec={"durable": "mine"}, handle=slow) as first,
            listen(nats, orders, spec={"durable": "mine"}, handle=slow) as second,
        ):
            await eventually(lambda: bool(first.emit.begun or second.emit.begun), "a delivery")
            await asyncio.sleep(5)  # three times the ack wait
            gate.set()
            await eventually(lambda: bool(first.emit.accepted or second.emit.accepted), "its end")
        assert len(first.emit.begun) + len(second.emit.begun) == 1

    async def test_what_is_given_back_comes_again_at_once_and_says_how_often_it_came(
        self, nats: Nats, orders: str
    ) -> None:
        emit = FakeEmit()

        async def wait(event: Event) -> None:
            await emit.retry_for_ever()

        emit.handle = wait
        await tools.publish(nats.server, f"{orders}.a", b"1", b"2", b"3")
        async with listen(nats, orders, emit=emit) as running:
            await eventually(lambda: bool(emit.begun), "a delivery")
            await running.stop()
        assert emit.begun[0].redelivered == 0
        async with listen(nats, orders) as again:
            await again.accepted(3, within=10)  # else the server gives it back after 15
        assert again.emit.data() == [b"1", b"2", b"3"]
        assert [event.redelivered for event in again.emit.accepted] == [1, 1, 1]

    async def test_the_consumer_stays_when_the_listener_ends(self, nats: Nats, orders: str) -> None:
        async with listen(nats, orders) as running:
            await running.connected()
            await running.stop()
        found = await tools.consumer(nats.server, orders, durable(orders))
        assert found.config.description == f"triggerhub: shop.{orders}.handle"

    async def test_stopping_an_idle_listener_is_prompt(self, nats: Nats, orders: str) -> None:
        async with listen(nats, orders) as running:
            await running.connected()
            assert await running.stop() < 1.0

    async def test_cancelling_at_any_moment_ends_it_and_leaves_nothing(
        self, nats: Nats, orders: str
    ) -> None:
        for milliseconds in (*range(0, 20, 2), 25, 40, 60, 100):
            async with listen(nats, orders) as running:
                await asyncio.sleep(milliseconds / 1000)
                assert await running.stop() < 3.0
            await eventually(lambda: len(asyncio.all_tasks()) == 1, "no task left")

    async def test_a_window_that_is_full_asks_for_no_more(self, nats: Nats, orders: str) -> None:
        await tools.publish(nats.server, f"{orders}.a", *[b"%d" % n for n in range(200)])
        gate = asyncio.Event()

        async def slow(event: Event) -> None:
            await gate.wait()

        async with listen(nats, orders, handle=slow, in_flight=2) as running:
            await eventually(lambda: bool(running.emit.begun), "a delivery")
            await asyncio.sleep(1)  # what must not come
            found = await tools.consumer(nats.server, orders, durable(orders))
            assert found.num_ack_pending == 17 * 2
            gate.set()
            await running.accepted(200)


class TestTrouble:
    async def test_a_consumer_that_differs_is_told_and_not_touched(
        self, nats: Nats, orders: str
    ) -> None:
        async with tools.jetstream(nats.server) as context:
            await context.add_consumer(
                orders, durable_name="mine", ack_policy="none", filter_subject=f"{orders}.b"
            )
            spec = {"durable": "mine", "subject": f"{orders}.a"}
            async with listen(nats, orders, spec=spec) as running:
                await running.state("ConsumerDiffers")
                said = running.report.messages[-1]
                assert f"subjects: found {orders}.b, expected {orders}.a" in said
                assert "ack_policy: found none, expected explicit" in said
                found = await context.consumer_info(orders, "mine")
                assert found.config.filter_subject == f"{orders}.b"
                await context.delete_consumer(orders, "mine")
                await running.connected()

    async def test_a_consumer_that_is_deleted_is_made_again_and_nothing_comes_twice(
        self, nats: Nats, orders: str
    ) -> None:
        gate = asyncio.Event()

        async def slow(event: Event) -> None:
            if event.data == b"2":
                await gate.wait()

        async with listen(nats, orders, "New", handle=slow) as running:
            await running.connected()
            await tools.publish(nats.server, f"{orders}.a", b"1")
            await tools.publish(nats.server, f"{orders}.b", b"2")
            await tools.publish(nats.server, f"{orders}.c", b"3")
            await running.accepted(2)
            async with tools.jetstream(nats.server) as context:
                await context.delete_consumer(orders, durable(orders))
                # Before it is made again: a new one that began with what is new would miss it.
                await context.publish(f"{orders}.c", b"4")
            await running.accepted(3)
            gate.set()
            await running.accepted(4)
            await eventually_settled(nats, orders)
        assert sorted(running.emit.data()) == [b"1", b"2", b"3", b"4"]

    async def test_a_stream_that_is_made_again_is_read_from_its_first_message(
        self, nats: Nats, orders: str
    ) -> None:
        await tools.publish(nats.server, f"{orders}.a", b"old 1", b"old 2")
        async with listen(nats, orders, "New") as running:
            await running.connected()
            async with tools.jetstream(nats.server) as context:
                await context.delete_stream(orders)
            await running.state("StreamNotFound")
            await tools.create_stream(nats.server, orders, f"{orders}.>")
            await tools.publish(nats.server, f"{orders}.a", b"new 1")
            await running.accepted(1)
            await running.connected()
        assert running.emit.data() == [b"new 1"]

    async def test_a_server_that_is_killed_loses_nothing_and_brings_nothing_twice(
        self, own_nats: Nats, stream: str
    ) -> None:
        await tools.create_stream(own_nats.server, stream, f"{stream}.>")
        gate = asyncio.Event()

        async def slow(event: Event) -> None:
            if event.data == b"0":
                await gate.wait()

        for n in range(20):
            await tools.publish(own_nats.server, f"{stream}.{n}", b"%d" % n)
        async with listen(own_nats, stream, handle=slow) as running:
            await running.accepted(19)
            own_nats.kill9()
            await running.state("ServerUnreachable")
            gate.set()
            await running.accepted(20)
            own_nats.start()
            await running.connected()
            await tools.publish(own_nats.server, f"{stream}.x", b"after")
            await running.accepted(21)
            await eventually_settled(own_nats, stream)
        assert len(running.emit.begun) == 21

    async def test_a_server_that_answers_nothing_is_noticed(
        self, own_nats: Nats, stream: str
    ) -> None:
        await tools.create_stream(own_nats.server, stream, f"{stream}.>")
        async with listen(own_nats, stream) as running:
            await running.connected()
            own_nats.pause()
            await running.state("ServerUnreachable", within=15)
            own_nats.resume()
            await running.connected()
            await tools.publish(own_nats.server, f"{stream}.x", b"after")
            await running.accepted(1)

    async def test_a_server_without_jetstream_is_told(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        with Nats(tmp_path_factory.mktemp("nats"), jetstream=False).started() as server:
            async with listen(server, "orders") as running:
                await running.state("JetStreamUnavailable")

    async def test_subscriptions_share_a_connection(self, own_nats: Nats, stream: str) -> None:
        await tools.create_stream(own_nats.server, stream, f"{stream}.>")
        source = NATSSource.model_validate({"servers": [own_nats.server], "stream": stream})

        def connections() -> int:
            with urlopen(f"http://127.0.0.1:{own_nats.monitor}/connz", timeout=5) as answer:
                found: int = json.load(answer)["num_connections"]
                return found

        async with NATSConnector(Installation()) as connector:
            async with (
                listening(connector, source, name="shop.a.f") as one,
                listening(connector, source, name="shop.b.f") as other,
            ):
                await one.connected()
                await other.connected()
                assert connections() == 1
                await one.stop()
                assert connections() == 1
            await eventually(lambda: connections() == 0, "the end of the connection", 5)
