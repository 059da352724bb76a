"""Brokers, their disks and the network between fail under load: nothing is lost, and the hub says
what it sees."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from integration.function import ACCEPT, Answer, Call, reply
from integration.proxy import Proxy, proxy
from integration.servers import Kafka, eventually, unavailable
from integration.story import Story, story

MIB = 1024 * 1024


def slow(_: Call) -> Answer:
    """So that there always is something in flight, and something that waits."""
    return reply(200, after=0.05)


def slower(_: Call) -> Answer:
    """So that this is still so after a session."""
    return reply(200, after=0.4)


@pytest.fixture(scope="module")
def network() -> Iterator[Proxy]:
    """Between the hub and the broker."""
    with proxy() as between:
        yield between


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, network: Proxy) -> Iterator[Kafka]:
    """A broker of this module's own, for what would harm the others' tests."""
    with Kafka(tmp_path_factory.mktemp("kafka"), proxied=network.port).started() as kafka:
        network.to(kafka.at("PROXIED"))
        yield kafka


@pytest.fixture
def frail(server: Kafka, network: Proxy) -> Iterator[Kafka]:
    """It is well when a test begins."""
    yield server
    network.heal()
    server.resume()
    if not server.running():
        server.start()


@contextmanager
def under_load(told: Story) -> Iterator[None]:
    """Records wait at the broker, wait in the hub and are in flight; more come."""
    told.stream.send(2000)
    with told.stream.flowing(per_second=100):
        told.flows()
        yield
    told.target.script = lambda call: ACCEPT


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A filesystem of 64 MiB."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64m", "triggerhub-test", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode != 0:
        unavailable("only root may mount a small filesystem")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Until not a byte more goes on it."""
    with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while ballast.write(bytes(1024 * 1024)):
            pass


def test_a_broker_killed_under_load_loses_nothing(frail: Kafka, tmp_path: Path) -> None:
    with story(tmp_path, frail.broker, slow, size=4096) as told:
        with under_load(told):
            before = told.committed()
            frail.kill9()
            told.says("False BrokerUnreachable")
            frail.start()
            told.says("True Ready", within=40)
            unsure = told.beyond(before)
            told.flows()
        told.ends_well(unsure)


def test_a_broker_that_hangs_longer_than_a_session_loses_nothing(
    frail: Kafka, tmp_path: Path
) -> None:
    with story(tmp_path, frail.broker, slower, size=4096) as told:
        with under_load(told):
            before = told.committed()
            since = time.monotonic()
            frail.pause()
            told.says("False BrokerUnreachable")
            eventually(lambda: time.monotonic() > since + 20.0, "end of the pause")
            frail.resume()
            told.says("True Ready", within=40)
            unsure = told.beyond(before)
            told.flows()
        told.ends_well(unsure)


def test_a_slow_network_that_resets_connections_loses_nothing(
    frail: Kafka, network: Proxy, tmp_path: Path
) -> None:
    with story(tmp_path, frail.broker, slow, size=4096, at=network.address) as told:
        network.latency = 0.2
        with under_load(told):
            for _ in range(8):
                cut(network)
                told.flows(100)
            network.latency = 0.0
            told.flows()
        told.ends_well()


def cut(network: Proxy) -> None:
    """All connections, and wait for a new one."""
    taken = network.taken
    network.cut()
    eventually(lambda: network.taken > taken, "new connection")


def test_a_network_that_swallows_everything_for_longer_than_a_session_loses_nothing(
    frail: Kafka, network: Proxy, tmp_path: Path
) -> None:
    with story(tmp_path, frail.broker, slower, size=4096, at=network.address) as told:
        with under_load(told):
            before = told.committed()
            since = time.monotonic()
            network.hold()
            told.says("False BrokerUnreachable")
            eventually(lambda: time.monotonic() > since + 18.0, "end of the silence")
            network.release()
            told.says("True Ready", within=40)
            unsure = told.beyond(before)
            told.flows()
        told.ends_well(unsure)


def test_deliveries_of_20_seconds_keep_the_group_and_large_records_stay_at_the_broker(
    frail: Kafka, network: Proxy, tmp_path: Path
) -> None:
    turns = itertools.count()

    def very_slow(_: Call) -> Answer:
        return reply(200, after=20.0 if next(turns) < 16 else 0.0)  # a session lasts 15

    with story(tmp_path, frail.broker, very_slow, at=network.address, keys=200, size=MIB) as told:
        before, memory = network.passed, told.hub.resident()
        told.stream.send(200)
        told.hub.wait(lambda: told.target.under_way == 16, "deliveries")
        told.flows(16)
        fetched, held = network.passed - before, told.hub.resident() - memory
        print(f"{fetched / MIB:.0f} MiB fetched, {held:.0f} MB more held")
        assert fetched < 88 * MIB  # 64 at a time, 16 more since, some that are about to
        assert held < 150
        told.ends_well()


def test_disks_that_are_full_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    with (
        small_disk(tmp_path / "one") as one,
        small_disk(tmp_path / "two") as two,
        Kafka(tmp_path / "kafka", disks=[one, two]).started() as kafka,
        story(tmp_path / "hub", kafka.broker, slow, partitions=1, size=4096) as told,
    ):
        with under_load(told):
            before = told.committed()
            # Kafka puts the next partition where there are fewer: the groups' offsets and
            # the records are on different disks.
            groups, records = (one, two) if (one / "__consumer_offsets-0").exists() else (two, one)
            assert (records / f"{told.stream.topic}-0").exists()
            fill(groups)
            told.flows(500)  # which nobody can commit
            told.says("False CoordinatorUnavailable", within=30)
            fill(records)
            # It ends itself when it cannot write to the last of its disks.
            eventually(lambda: not kafka.running(), "end of the broker")
            told.says("False BrokerUnreachable")
            for disk in (groups, records):
                (disk / "ballast").unlink()
            kafka.start()
            told.says("True Ready", within=40)
            unsure = told.beyond(before)
            told.flows()
        told.ends_well(unsure)
