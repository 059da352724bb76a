"""Core subjects whose messages are made safe as they come, through a whole hub."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import defaultdict
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from integration import nats_tools as tools
from integration.fakes import eventually, listening
from integration.function import ACCEPT, Answer, Call, answering, reply
from integration.hub import Hub, function, running, trigger
from integration.nats_servers import Nats
from triggerhub.connector import Installation, Taken
from triggerhub.event import Event
from triggerhub.testing.fakes import MemoryIntake
from triggerhub_nats import NATSConnector, NATSSource

_numbers = count()


@pytest.fixture
def subject() -> str:
    return f"durable{next(_numbers)}"


def alarms(nats: Nats, subject: str, **source: Any) -> dict[str, Any]:
    reads = {"servers": [nats.server], "subject": f"{subject}.*", "durable": True}
    return trigger("NATSTrigger", "alarms", "handle", reads | source)


def publish(nats: Nats, subject: str, numbers: range, keys: int = 4) -> None:
    async def send() -> None:
        async with tools.connected(nats.server) as client:
            for number in numbers:
                await client.publish(f"{subject}.k{number % keys}", str(number).encode())
            await client.flush()

    asyncio.run(send())


def inbox(hub: Hub) -> int:
    with closing(sqlite3.connect(hub.data / "triggerhub.db")) as db:
        (events,) = db.execute("SELECT count(*) FROM inbox").fetchone()
    return int(events)


def test_a_restart_and_a_kill_lose_nothing_that_had_arrived(
    nats: Nats, subject: str, tmp_path: Path
) -> None:
    answers: list[Answer] = [reply(503)]
    with answering(lambda call: answers[-1]) as handle, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("handle", handle.url), alarms(nats, subject))
        hub.start()
        assert hub.condition("alarms", "Connected") == "True KeptOnArrival"
        publish(nats, subject, range(1000))
        # Its own end has to see that what has come is put into the inbox.
        assert hub.stop() == 0
        assert inbox(hub) == 1000
        hub.start()
        publish(nats, subject, range(1000, 1500))
        hub.wait(lambda: inbox(hub) == 1500, "all in the inbox")
        hub.kill9()
        answers.append(ACCEPT)
        hub.start()
        hub.wait(lambda: inbox(hub) == 0, "an empty inbox")
        accepted: defaultdict[str, list[int]] = defaultdict(list)
        for call in handle.calls:
            if call.accepted:
                accepted[call.key].append(int(call.body))
        assert dict(accepted) == {
            f"{subject}.k{key}": list(range(key, 1500, 4)) for key in range(4)
        }


def test_workers_share_the_messages_and_each_is_delivered_once(
    nats: Nats, subject: str, tmp_path: Path
) -> None:
    seen: defaultdict[str, list[int]] = defaultdict(list)

    def answer(call: Call) -> Answer:
        seen[call.key].append(int(call.body))
        return ACCEPT

    with answering(answer) as handle, running(tmp_path, "--workers", "2", start=False) as hub:
        hub.write("f.yaml", function("handle", handle.url), alarms(nats, subject))
        hub.start()
        publish(nats, subject, range(2000))
        hub.wait(lambda: len(handle.calls) >= 2000, "all deliveries", 60.0)
        # Which of the two processes puts its part first is nobody's promise: each message once.
        numbers = {key: sorted(found) for key, found in seen.items()}
        assert numbers == {f"{subject}.k{key}": list(range(key, 2000, 4)) for key in range(4)}


async def test_what_cannot_be_made_safe_waits_and_is_said(nats: Nats, subject: str) -> None:
    class Disk(MemoryIntake):
        full = True

        async def put(self, event: Event, *, window: float = 0.0) -> Taken:
            if self.full and event.data >= b"7":
                raise OSError("the disk is full")
            return await super().put(event, window=window)

    intake = Disk()
    source = NATSSource.model_validate(
        {"servers": [nats.server], "subject": subject, "durable": True}
    )
    async with (
        NATSConnector(Installation()) as connector,
        listening(connector, source, inbox=intake) as running,
        tools.connected(nats.server) as client,
    ):
        await running.connected()
        for number in range(10):
            await client.publish(subject, str(number).encode())
        await client.flush()
        await running.state("InboxUnavailable")
        assert "the disk is full" in running.report.messages[-1]
        await eventually(lambda: len(intake.store.inbox) == 7, "what came before")
        intake.full = False
        await eventually(lambda: len(intake.store.inbox) == 10, "the rest")
        await running.connected()
        assert [event.data for event in intake.store.inbox.values()] == [
            str(number).encode() for number in range(10)
        ]
        assert not running.emit.begun
