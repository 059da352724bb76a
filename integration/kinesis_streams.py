"""A Kinesis stream that records flow through, and a hub that carries them to a function."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from integration import kinesis_tools as tools
from integration.function import Call, Function, Script, answering
from integration.hub import Hub, function, running, trigger
from integration.kinesis_servers import KEY_ID, REGION, SECRET
from integration.streams import firsts, in_order, meanwhile

NAME = "orders"
"""The trigger's."""
IN_FLIGHT = 16
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""The AWS chain of a hub."""
_BUGS = ("listener.failed", "Task exception was never retrieved")


class KinesisStream:
    """A stream, and what was put into it: each record is ``<key>:<n>``, n counting per key."""

    def __init__(self, endpoint: str, shards: int = 1, keys: int = 16) -> None:
        self.endpoint = endpoint
        self.name = f"story-{uuid4().hex[:8]}"
        self.sent: dict[str, bytes] = {}
        """Data of each event by its id."""
        self._keys = itertools.cycle([f"k{n}" for n in range(keys)])
        self._next: defaultdict[str, int] = defaultdict(int)
        asyncio.run(tools.create_stream(endpoint, self.name, shards))

    def send(self, number: int) -> None:
        """Put so many records in, the keys taking turns."""
        asyncio.run(self._send(number))

    @contextmanager
    def flowing(self, per_second: int) -> Iterator[None]:
        """Records keep coming while the block runs."""
        with meanwhile(partial(self._flow, per_second)):
            yield

    def open_shards(self) -> list[str]:
        """By their ranges, lowest first: neighbours stand side by side."""
        found = asyncio.run(tools.shards(self.endpoint, self.name))
        found = [shard for shard in found if tools.is_open(shard)]
        return [
            str(shard["ShardId"])
            for shard in sorted(found, key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))
        ]

    def split(self, shard: str) -> list[str]:
        """In two; their names."""
        return asyncio.run(tools.split(self.endpoint, self.name, shard))

    def merge(self, shard: str, adjacent: str) -> str:
        """Into one; its name."""
        return asyncio.run(tools.merge(self.endpoint, self.name, shard, adjacent))

    async def _send(self, number: int) -> None:
        async with tools.client(self.endpoint) as client:
            await self._put(client, number)

    async def _put(self, client: Any, number: int) -> None:
        records = []
        for _ in range(number):
            key = next(self._keys)
            records.append((key, f"{key}:{self._next[key]}".encode()))
            self._next[key] += 1
        ids = await tools.put_by(client, self.name, records)
        self.sent |= {one: data for one, (_, data) in zip(ids, records, strict=True)}

    async def _flow(self, per_second: int, done: threading.Event) -> None:
        async with tools.client(self.endpoint) as client:
            while not done.is_set():
                await self._put(client, per_second // 10)
                await asyncio.sleep(0.1)


class KinesisStory:
    """A hub that carries a stream's records to a function."""

    def __init__(self, stream: KinesisStream, target: Function, hub: Hub) -> None:
        self.stream = stream
        self.target = target
        self.hub = hub
        self._kills: list[float] = []

    def flows(self, more: int = 50, within: float = 60.0) -> None:
        """Wait until so many more records have been accepted."""
        number = len(firsts(self.target.accepted)) + more
        self.hub.wait(lambda: len(firsts(self.target.accepted)) >= number, f"{more} more", within)

    def says(self, condition: str, within: float = 60.0) -> None:
        """Wait until Ready is ``status reason``."""
        self.hub.wait(lambda: self.hub.condition(NAME) == condition, condition, within)

    def killed(self) -> None:
        """The hub, or a process of it, is killed just now: what it had in hand comes again."""
        self._kills.append(time.monotonic())

    def kill9(self) -> None:
        """The hub is killed, and starts again."""
        self.killed()
        self.hub.kill9()
        self.hub.start()

    def ends_well(self, window: float = 0.0, within: float = 90.0) -> None:
        """Nothing is lost, each key is in order, and all is whole; nothing comes twice but what
        was accepted within ``window`` seconds before something was killed, or later."""
        hub, target = self.hub, self.target
        due = dict(self.stream.sent)
        hub.wait(
            lambda: {call.id for call in target.accepted} >= due.keys(),
            "delivery of every record",
            within,
        )
        self.says("True Ready")
        hub.wait(lambda: hub.metric("triggerhub_in_flight") == 0, "end of deliveries")
        calls = target.accepted
        assert {call.id: call.body for call in firsts(calls)} == due
        assert in_order(firsts(calls))
        again = repeats(calls)
        print(f"{len(due)} records, {len(again)} came again")
        early = [call for call in again if not self._excused(call, window)]
        assert not early, f"{len(early)} came again without reason, e.g. {early[0]}"
        assert hub.letters() == []
        assert not [what for what in _BUGS if what in hub.said()]

    def _excused(self, first: Call, window: float) -> bool:
        """Whether it was accepted so late before a kill that no checkpoint may know of it."""
        assert first.ended is not None
        return any(kill - window <= first.ended <= kill + 1.0 for kill in self._kills)


def repeats(calls: list[Call]) -> list[Call]:
    """The first call of each event that came more than once."""
    first: dict[str, Call] = {}
    found: dict[str, Call] = {}
    for call in calls:
        if first.setdefault(call.id, call) is not call:
            found[call.id] = first[call.id]
    return list(found.values())


def kinesis_trigger(
    stream: str, endpoint: str, name: str, to: str, **delivery: Any
) -> dict[str, Any]:
    """From the oldest record on."""
    source = {
        "stream": stream, "endpoint": endpoint, "region": REGION, "startFrom": "TrimHorizon",
    }  # fmt: skip
    return trigger("KinesisTrigger", name, to, source, **delivery)


@contextmanager
def kinesis_story(
    folder: Path,
    endpoint: str,
    script: Script | None = None,
    *options: str,
    at: str | None = None,
    shards: int = 2,
    keys: int = 16,
    **delivery: Any,
) -> Iterator[KinesisStory]:
    """A hub, ready, with one trigger. ``at``: the endpoint that it has."""
    stream = KinesisStream(endpoint, shards, keys)
    retry = {"attempts": 50, "initial": "10ms", "max": "100ms"}
    delivery = {"inFlight": IN_FLIGHT, "retry": retry, **delivery}
    with (
        answering(script) as target,
        running(folder, *options, start=False, env=ENVIRONMENT) as hub,
    ):
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kinesis_trigger(stream.name, at or endpoint, NAME, "f", **delivery))
        hub.start()
        yield KinesisStory(stream, target, hub)
