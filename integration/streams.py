"""A topic that records flow through, and what a function should have got of them."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from integration.function import Call, Function
from integration.hub import trigger
from integration.kafka_tools import committed, create_topic, ends, ids, producer

PARTITIONS = 2


@contextmanager
def meanwhile(work: Callable[[threading.Event], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """The work is done beside the block; it is told when that ends, and ends soon after."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(work(done)))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(60)
        assert not thread.is_alive(), "what is sent is taken by nobody"


class Stream:
    """A topic, and what was put into it: each value is ``<key>:<n>``, n counting per key."""

    def __init__(
        self,
        broker: str,
        keys: int = 8,
        partitions: int = PARTITIONS,
        size: int = 0,
        settings: Mapping[str, str] | None = None,
        topic: str = "",
    ) -> None:
        """``size``: bytes that a value has at least. ``settings``: of the topic."""
        self.broker = broker
        self.topic = topic or f"story-{uuid4().hex[:8]}"
        self.partitions = partitions
        self.sent: dict[str, bytes] = {}
        """Value of each event by its id, in the order that they were sent."""
        self._keys = itertools.cycle([f"k{n}" for n in range(keys)])
        self._next: defaultdict[str, int] = defaultdict(int)
        self._size = size
        asyncio.run(create_topic(broker, self.topic, partitions, settings))

    def send(self, number: int) -> None:
        """Put so many records in, the keys taking turns."""
        asyncio.run(self._send(number))

    @contextmanager
    def flowing(self, per_second: int, total: float = math.inf) -> Iterator[None]:
        """Records keep coming while the block runs, until there are so many in all."""
        with meanwhile(partial(self._flow, per_second, total)):
            yield

    def committed(self, name: str) -> dict[int, int]:
        """Where the trigger's group stands in each partition; 0 where it has no offset."""
        group = f"{self.topic}.{name}"
        return {
            partition: asyncio.run(committed(self.broker, group, self.topic, partition)) or 0
            for partition in range(self.partitions)
        }

    def ends(self) -> dict[int, int]:
        """The offset after the last in each partition."""
        return asyncio.run(ends(self.broker, self.topic))

    def there(self) -> set[str]:
        """The ids of the records that are there now."""
        return asyncio.run(ids(self.broker, self.topic))

    async def _send(self, number: int) -> None:
        async with producer(self.broker) as client:
            await self._put(client, number)

    async def _put(self, client: Any, number: int) -> None:
        under_way = []
        for _ in range(number):
            key = next(self._keys)
            value = f"{key}:{self._next[key]}".encode().ljust(self._size)
            self._next[key] += 1
            under_way.append((value, await client.send(self.topic, value, key=key.encode())))
        for value, delivery in under_way:
            record = await delivery
            self.sent[f"{record.partition}:{record.offset}"] = value

    async def _flow(self, per_second: int, total: float, done: threading.Event) -> None:
        async with producer(self.broker) as client:
            while not done.is_set() and len(self.sent) < total:
                await self._put(client, per_second // 10)
                await asyncio.sleep(0.1)


def kafka_trigger(stream: Stream, name: str, to: str, **delivery: Any) -> dict[str, Any]:
    source = {
        "topic": stream.topic,
        "brokers": [stream.broker],
        "startFrom": "Earliest",
        # One that no hub of another story was killed in: its group would wait for it.
        "group": f"{stream.topic}.{name}",
    }
    return trigger("KafkaTrigger", name, to, source, **delivery)


def firsts(calls: Iterable[Call]) -> list[Call]:
    """The first of those that bear one id."""
    found: dict[str, Call] = {}
    for call in calls:
        found.setdefault(call.id, call)
    return list(found.values())


def in_order(calls: Iterable[Call]) -> bool:
    """Whether the values of each key count upwards."""
    numbers = defaultdict(list)
    for call in calls:
        key, _, number = call.body.decode().partition(":")
        assert call.key == key
        numbers[key].append(int(number))
    return all(found == sorted(found) for found in numbers.values())


def place(event_id: str) -> tuple[int, int]:
    """Partition and offset."""
    partition, _, offset = event_id.partition(":")
    return int(partition), int(offset)


def arrived(target: Function, stream: Stream) -> bool:
    """Whether every record was accepted."""
    return {call.id for call in target.accepted} >= set(stream.sent)


def never_two_at_once(calls: Iterable[Call]) -> bool:
    """Whether each key had at most one request under way at any time."""
    latest: dict[str, Call] = {}
    for call in calls:
        before = latest.get(call.key)
        if before is not None and (before.ended is None or before.ended > call.began):
            return False
        latest[call.key] = call
    return True


def accepted_at_least(target: Function, number: int) -> bool:
    """Whether so many different records were accepted."""
    return len(firsts(target.accepted)) >= number


def end_of_prefix(ids: Collection[str], begins: Mapping[int, int]) -> dict[int, int]:
    """In each partition the first offset from ``begins`` on that is not among ``ids``."""
    return {
        partition: next(n for n in itertools.count(begin) if f"{partition}:{n}" not in ids)
        for partition, begin in begins.items()
    }


FROM_THE_START = dict.fromkeys(range(PARTITIONS), 0)
