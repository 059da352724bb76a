"""Streams are resharded, hubs killed, AWS throttles and goes away, all under load: nothing is
lost, and each key stays in order."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from integration.function import ACCEPT, Answer, Call, reply
from integration.kinesis_proxy import broken, cut, error, expiring, faults, hollow, slow
from integration.kinesis_servers import Kinesis
from integration.kinesis_streams import KinesisStory, kinesis_story
from integration.proxy import proxy
from integration.servers import eventually
from integration.test_workers import pids

LATE = 5.0
"""Seconds before a kill that a checkpoint may not know of yet, on a machine that is busy: one is
written each second."""


def leisurely(_: Call) -> Answer:
    """So that there always is something in flight, and something that waits."""
    return reply(200, after=0.05)


def hurry(told: KinesisStory) -> None:
    told.target.script = lambda call: ACCEPT


def test_shards_split_and_merged_under_load_by_a_hub_that_is_killed_lose_nothing(
    kinesis: Kinesis, tmp_path: Path
) -> None:
    with kinesis_story(tmp_path, kinesis.endpoint, leisurely, shards=2) as told:
        stream = told.stream
        stream.send(3000)
        with stream.flowing(per_second=200):
            told.flows()
            low, high = stream.open_shards()
            stream.split(low)
            stream.split(high)
            # Most records of the parents still wait, and their children have some, too.
            told.kill9()
            told.flows()
            first, second, third, fourth = stream.open_shards()
            merged = stream.merge(second, third)
            told.flows()
            told.kill9()
            told.flows()
        assert stream.open_shards() == [first, merged, fourth]
        hurry(told)
        told.ends_well(LATE)


def test_two_processes_of_which_one_is_killed_lose_nothing(
    kinesis: Kinesis, tmp_path: Path
) -> None:
    with kinesis_story(tmp_path, kinesis.endpoint, leisurely, "--workers", "2", shards=4) as told:
        told.stream.send(2000)
        with told.stream.flowing(per_second=200):
            told.flows(500)
            first = min(pids(told.hub).values())
            told.killed()
            os.kill(first, signal.SIGKILL)
            told.flows(500)
            told.hub.wait(lambda: first not in pids(told.hub).values(), "another process", 40)
            told.stream.split(told.stream.open_shards()[0])
            told.flows(500)
        hurry(told)
        told.ends_well(LATE)


def test_an_endpoint_that_is_gone_for_20_seconds_loses_nothing_and_repeats_nothing(
    kinesis: Kinesis, tmp_path: Path
) -> None:
    with proxy() as network:
        network.to(f"127.0.0.1:{kinesis.port}")
        at = f"http://{network.address}"
        with kinesis_story(tmp_path, kinesis.endpoint, leisurely, at=at) as told:
            told.stream.send(1000)
            with told.stream.flowing(per_second=100):
                told.flows()
                since = time.monotonic()
                network.refuse()
                network.cut()
                told.says("False EndpointUnreachable")
                eventually(lambda: time.monotonic() > since + 10.0, "half of the outage")
                network.hold()
                network.accept()
                eventually(lambda: time.monotonic() > since + 20.0, "end of the outage")
                network.release()
                told.says("True Ready")
                told.flows()
            hurry(told)
            told.ends_well()


def test_the_moods_of_aws_lose_nothing_and_repeat_nothing(kinesis: Kinesis, tmp_path: Path) -> None:
    with (
        faults(kinesis.endpoint) as aws,
        kinesis_story(tmp_path, kinesis.endpoint, leisurely, at=aws.endpoint, shards=3) as told,
    ):
        aws.limited = True
        aws.inject(error("ProvisionedThroughputExceededException"), "GetRecords", rate=0.2)
        aws.inject(expiring(0.1), "GetRecords")
        aws.inject(error("KMSThrottlingException"), "GetRecords", rate=0.05)
        aws.inject(error("LimitExceededException"), "ListShards", rate=0.3)
        aws.inject(error("InternalFailureException", status=500), "GetRecords", rate=0.05)
        aws.inject(broken(503), rate=0.05)
        aws.inject(cut(), rate=0.05)
        aws.inject(hollow(), "GetRecords", rate=0.2)
        aws.inject(slow(1.0), rate=0.05)
        with told.stream.flowing(per_second=100):
            told.flows(400)
            told.stream.split(told.stream.open_shards()[1])
            told.flows(400)
        hurry(told)
        calls, injected = aws.calls.total(), aws.injected.total()
        assert injected > calls / 10
        aws.heal()
        told.ends_well()
        print(f"{injected} of {calls} calls were answered by a fault")


def test_reads_stay_within_what_aws_allows(kinesis: Kinesis, tmp_path: Path) -> None:
    with (
        faults(kinesis.endpoint) as aws,
        kinesis_story(tmp_path, kinesis.endpoint, at=aws.endpoint, shards=2) as told,
    ):
        # Records are said to wait all the time, so that nobody rests.
        aws.inject(hollow(), "GetRecords", rate=0.8)
        with told.stream.flowing(per_second=300):
            told.flows(2000)
        assert aws.busiest() <= 5
        aws.heal()
        told.ends_well()
