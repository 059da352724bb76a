"""Hubs that share a store in NATS JetStream share what they listen to: one is killed, one comes
back, one stops, the store itself is killed; nothing is lost, and each key stays in order."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from integration.function import answering
from integration.hub import Hub, function, trigger
from integration.kinesis_servers import Kinesis
from integration.kinesis_streams import (
    ENVIRONMENT,
    IN_FLIGHT,
    NAME,
    KinesisStory,
    KinesisStream,
    kinesis_trigger,
)
from integration.nats_servers import Nats
from integration.servers import Kafka, eventually
from integration.streams import Stream, arrived, firsts, in_order, kafka_trigger
from integration.test_kinesis_faults import LATE, hurry, leisurely
from integration.test_store_hubs import SECONDLY, hubs, post, url_of

RETRY = {"attempts": 50, "initial": "10ms", "max": "100ms"}


@pytest.fixture
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """A server of the test's own, started, that it may kill."""
    with Nats(tmp_path_factory.mktemp("nats")).started() as server:
        yield server


def shards(hub: Hub) -> set[str]:
    """Those that this hub reads."""
    found: set[str] = set()
    for binding in hub.get("/v1/bindings")["bindings"]:
        found |= binding["lagByPartition"].keys()
    return found


def divided(one: Hub, two: Hub, number: int) -> bool:
    """Whether each has half of so many shards."""
    mine, theirs = shards(one), shards(two)
    return len(mine) == len(theirs) == number // 2 and not mine & theirs


def test_shards_are_taken_over_from_a_killed_hub_and_handed_over_by_one_that_stops(
    kinesis: Kinesis, nats: Nats, tmp_path: Path
) -> None:
    stream = KinesisStream(kinesis.endpoint, shards=4)
    with (
        answering(leisurely) as target,
        hubs(
            tmp_path,
            url_of(nats),
            function("f", target.url),
            kinesis_trigger(
                stream.name, kinesis.endpoint, NAME, "f", inFlight=IN_FLIGHT, retry=RETRY
            ),
            env=ENVIRONMENT,
        ) as (one, two),
    ):
        told = KinesisStory(stream, target, two)
        stream.send(1000)
        with stream.flowing(per_second=200):
            eventually(lambda: divided(one, two, 4), "half of the shards each", within=60)
            told.flows(200)
            told.killed()
            one.kill9()
            began = time.monotonic()
            eventually(lambda: len(shards(two)) == 4, "those of the killed one", within=60)
            print(f"taken over after {time.monotonic() - began:.1f} s")
            told.flows(200)
            one.start()
            eventually(lambda: divided(one, two, 4), "half of the shards each", within=60)
            told.flows(200)
            # In order: what it had in hand ends, and nothing of it comes again.
            assert one.stop() == 0
            eventually(lambda: len(shards(two)) == 4, "those of the stopped one", within=60)
            told.flows(200)
        hurry(told)
        told.ends_well(2 * LATE)  # a checkpoint's way is longer here
        assert two.stop() == 0


def test_all_sources_at_once_outlast_a_killed_hub_and_a_killed_store(
    kafka: Kafka, broken: Nats, tmp_path: Path
) -> None:
    stream = Stream(kafka.broker, partitions=4)
    taken: list[str] = []

    def ask(hub: Hub) -> None:
        """What is not answered 202 is sent again, under the same key."""
        number = str(len(taken))

        def took() -> bool:
            try:
                return post(hub, number, f"key {number}") == 202
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                return False

        eventually(took, "a request that is taken", within=60)
        taken.append(number)

    with (
        answering() as records,
        answering() as requests,
        answering() as ticks,
        hubs(
            tmp_path,
            url_of(broken),
            function("records", records.url),
            function("requests", requests.url),
            function("ticks", ticks.url),
            kafka_trigger(stream, "orders", "records", inFlight=IN_FLIGHT, retry=RETRY),
            trigger("HTTPTrigger", "in", "requests", {"path": "/in", "mode": "Async"}, retry=RETRY),
            trigger("CronTrigger", "tick", "ticks", SECONDLY | {"missedRuns": "All"}, retry=RETRY),
        ) as (one, two),
    ):

        def goes_on(*asked: Hub) -> None:
            """Each of them brings more."""
            before = len(firsts(records.accepted)), len(firsts(ticks.accepted))
            for hub in asked * 3:
                ask(hub)
            eventually(lambda: len(firsts(records.accepted)) > before[0] + 50, "records", within=90)
            eventually(lambda: len(firsts(ticks.accepted)) > before[1] + 1, "ticks", within=90)

        with stream.flowing(per_second=100):
            goes_on(one, two)
            one.kill9()
            goes_on(two)
            broken.kill9()
            eventually(lambda: two.metric("triggerhub_store_available") == 0, "that it is away")
            before = len(firsts(records.accepted))
            eventually(lambda: len(firsts(records.accepted)) > before + 50, "records without it")
            broken.start()
            goes_on(two)
            one.start()
            assert two.metric("triggerhub_store_available") == 1
            goes_on(one, two)
            assert two.stop() == 0
            goes_on(one)
        stopped = time.time()
        eventually(lambda: arrived(records, stream), "every record", within=90)
        calls = firsts(records.accepted)
        assert in_order(calls)
        assert {call.id: call.body for call in calls} == stream.sent
        eventually(
            lambda: {call.body.decode() for call in requests.accepted} == set(taken),
            "every request", within=90,
        )  # fmt: skip

        def due() -> list[float]:
            return sorted(datetime.fromisoformat(call.id).timestamp() for call in ticks.accepted)

        eventually(lambda: due()[-1] > stopped, "ticks until now", within=60)
        found = sorted(set(due()))
        assert found == [found[0] + n for n in range(len(found))]
        assert one.letters() == []
        assert one.stop() == 0
