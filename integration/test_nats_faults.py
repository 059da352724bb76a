"""Servers, consumers and the network between fail under load: JetStream loses nothing, core NATS
what it says, and the hub tells what it sees."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration import nats_tools as tools
from integration.function import ACCEPT, Answer, Call, Function, Script, answering, hang, reply
from integration.hub import Account, Hub, function, running
from integration.nats_cluster import NatsCluster
from integration.nats_flow import Flow, Served
from integration.nats_servers import Nats
from integration.proxy import Proxy, proxy
from integration.servers import eventually
from integration.story import scraping
from integration.streams import accepted_at_least, firsts, in_order

RETRY = {"initial": "10ms", "max": "100ms"}
_IN_FLIGHT = 16
_BINDING = "default.orders.f"
_BUGS = ("listener.failed", "Task exception was never retrieved", "Traceback")


@pytest.fixture(scope="module")
def network(nats: Nats) -> Iterator[Proxy]:
    """Between the hub and the server."""
    with proxy() as between:
        between.to(nats.server)
        yield between


@pytest.fixture
def frail(network: Proxy) -> Iterator[Proxy]:
    """It is well when a test begins."""
    yield network
    network.heal()


def slow(_: Call) -> Answer:
    """So that there always is something in flight, and something that waits."""
    return reply(200, after=0.02)


class Story:
    """A hub that carries a stream's messages to a function."""

    def __init__(self, flow: Flow, target: Function, hub: Hub, scrapes: list[Account]) -> None:
        self.flow = flow
        self.target = target
        self.hub = hub
        self.scrapes = scrapes

    def flows(self, more: int = 50, within: float = 60.0) -> None:
        """Wait until so many more messages have been accepted."""
        number = len(firsts(self.target.accepted)) + more
        self.hub.wait(lambda: accepted_at_least(self.target, number), f"{more} more", within)

    def says(self, condition: str, within: float = 60.0) -> None:
        """Wait until Ready is ``status reason``."""
        self.hub.wait(lambda: self.hub.condition("orders") == condition, condition, within)

    def ends_well(self, within: float = 90.0) -> None:
        """Nothing is lost, all is settled, the hub's figures add up, and it says that all is
        well."""
        hub, target, flow = self.hub, self.target, self.flow
        hub.wait(lambda: flow.arrived(target), "delivery of every message", within)
        hub.wait(lambda: flow.unsettled() == 0, "the last ack", 60)
        self.says("True Ready")
        hub.wait(lambda: hub.accounts()[_BINDING].in_flight == 0, "end of deliveries", 10)
        account = hub.accounts()[_BINDING]
        calls = target.accepted
        assert account.settled["accepted"] == len(calls)
        assert hub.letters() == []
        assert not [what for what in _BUGS if what in hub.said()]
        assert self.scrapes
        for one in [*self.scrapes, account]:
            assert one.received == sum(one.settled.values()) + one.in_flight
            assert 0 <= one.in_flight <= _IN_FLIGHT
        again = len(calls) - len({call.body for call in calls})
        print(f"{len(flow.sent)} messages, 0 lost, {again} accepted twice")
        assert again == 0


@contextmanager
def story(
    folder: Path,
    server: Served,
    script: Script = slow,
    *,
    at: str = "",
    replicas: int = 1,
    core: bool = False,
    **delivery: Any,
) -> Iterator[Story]:
    """A hub, ready, with one trigger. ``at``: the address that it has of the server."""
    flow = Flow(server, replicas=replicas, core=core, ack_wait=3)
    delivery = {"inFlight": _IN_FLIGHT, "retry": {"attempts": 50} | RETRY} | delivery
    with answering(script) as target, running(folder, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        manifest = flow.trigger("f", {"servers": [at]} if at else {}, **delivery)
        hub.write("t.yaml", manifest)
        hub.start()
        with scraping(hub, _BINDING) as scrapes:
            yield Story(flow, target, hub, scrapes)


def test_a_network_that_resets_delays_and_swallows_and_a_function_that_fails_and_hangs(
    nats: Nats, frail: Proxy, tmp_path: Path
) -> None:
    turns = itertools.count()

    def failing(call: Call) -> Answer:
        """Three of ten fail, one of a hundred hangs."""
        turn = next(turns)
        if turn % 100 == 37:
            return hang
        return reply(500) if turn % 10 in (1, 4, 7) else reply(200, after=0.02)

    with story(tmp_path, nats, failing, at=frail.address, timeout="1s") as told:
        told.flow.send(400)
        with told.flow.flowing(per_second=50):
            frail.latency = 0.1
            for _ in range(3):
                taken = frail.taken
                frail.cut()
                eventually(lambda taken=taken: frail.taken > taken, "new connection")  # type: ignore[misc]
                told.flows(20)
            frail.latency = 0.0
            # Silently dead, and nothing of what was held ever gets through.
            frail.hold()
            told.says("False ServerUnreachable")
            frail.cut()
            frail.release()
            told.says("True Ready")
            told.flows()
        told.target.script = lambda call: ACCEPT
        told.ends_well()


def in_order_by_subject(target: Function) -> bool:
    calls = firsts(target.accepted)
    for call in calls:
        call.headers["ce-partitionkey"] = call.key.rpartition(".")[2]
    return in_order(calls)


def test_a_consumer_that_is_deleted_again_and_again_under_load_loses_nothing(
    nats: Nats, tmp_path: Path
) -> None:
    with story(tmp_path, nats) as told:
        told.flow.send(200)
        with told.flow.flowing(per_second=100):
            for _ in range(3):
                told.flows(100)
                asyncio.run(delete_consumer(nats, told.flow.name))
                told.flows(100)
        told.ends_well()
        assert in_order_by_subject(told.target)


async def delete_consumer(nats: Nats, stream: str) -> None:
    async with tools.jetstream(nats.server) as context:
        await context.delete_consumer(stream, "story")


def test_a_stream_that_is_deleted_and_made_again_under_load_brings_all_that_the_new_one_took(
    nats: Nats, tmp_path: Path
) -> None:
    with story(tmp_path, nats) as told:
        flow, hub, target = told.flow, told.hub, told.target
        with flow.flowing(per_second=100):
            told.flows(100)
            asyncio.run(tools.delete_stream(nats.server, flow.name))
            hub.wait(lambda: hub.condition("orders") == "False StreamNotFound", "its absence")
            made = len(flow.sent)
            asyncio.run(tools.create_stream(nats.server, flow.name, f"{flow.name}.>"))
            told.says("True Ready")
            hub.wait(lambda: len(flow.sent) > made + 100, "flow")
        new = set(flow.sent[made:])
        hub.wait(
            lambda: {call.body for call in target.accepted} >= new, "each of the new stream", 60
        )
        hub.wait(lambda: flow.unsettled() == 0, "the last ack", 30)
        lost = set(flow.sent) - {call.body for call in target.accepted}
    # Those that the old stream had, and were deleted with it.
    print(f"{len(flow.sent)} messages, {len(lost)} deleted with their stream")
    assert not lost & new


def test_a_cluster_whose_leader_is_killed_under_load_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    cluster = NatsCluster(tmp_path_factory.mktemp("cluster"))
    with cluster.started(), story(tmp_path, cluster, replicas=3) as told:
        told.flow.send(100)
        leads = partial(cluster.leader, told.flow.name)
        with told.flow.flowing(per_second=50):
            told.flows(50)
            eventually(lambda: bool(leads()), "leader")
            leader = leads()
            cluster.nodes[leader].kill9()
            eventually(lambda: leads() not in ("", leader), "another leader")
            told.flows(100)
            cluster.nodes[leader].start()
            told.flows(50)
        told.ends_well()


def test_core_subjects_lose_what_passes_while_the_connection_is_down_and_nothing_else(
    nats: Nats, frail: Proxy, tmp_path: Path
) -> None:
    def well(hub: Hub) -> bool:
        return hub.condition("orders", "Connected") == "True AtMostOnce"

    with story(tmp_path, nats, at=frail.address, core=True) as told:
        flow, hub, target = told.flow, told.hub, told.target
        hub.wait(lambda: well(hub), "a connection")
        flow.send(50)
        # A copy of each that was sent is at the hub, or in the function, when it is accepted.
        hub.wait(lambda: flow.arrived(target), "delivery")
        frail.refuse()
        frail.cut()
        hub.wait(lambda: hub.condition("orders") == "False ServerUnreachable", "its absence")
        flow.send(40)
        frail.accept()
        hub.wait(lambda: well(hub), "a connection", 20)
        flow.send(50)
        lost = set(flow.sent[50:90])
        hub.wait(
            lambda: {call.body for call in target.accepted} >= set(flow.sent) - lost, "the rest"
        )
        # Silently dead: what the server writes into the dead connection is lost, too.
        before = len(flow.sent)
        frail.hold()
        hub.wait(lambda: hub.condition("orders") == "False ServerUnreachable", "its absence")
        flow.send(10)
        frail.cut()
        frail.release()
        hub.wait(lambda: well(hub), "a connection", 20)
        flow.send(10)
        hub.wait(
            lambda: {call.body for call in target.accepted} >= set(flow.sent[before + 10 :]),
            "the rest",
        )
        account = hub.accounts()[_BINDING]
    got = {call.body for call in target.accepted}
    assert set(flow.sent) - got == lost | set(flow.sent[before : before + 10])
    assert Counter(call.body for call in target.accepted).most_common(1)[0][1] == 1
    assert account.received == len(got)
    print(f"{len(flow.sent)} messages, {len(flow.sent) - len(got)} lost, {len(got)} delivered once")
