"""What the listeners share that reach one cluster alike: connections, and looks at its topics.

Alike: the same brokers, the same TLS, the same login. Shared is what a broker answers at once.
What it may keep waiting for (a fetch, a JoinGroup) holds up all that comes after it on the same
connection: each consumer has connections of its own for these.
"""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from triggerhub_kafka.access import Access
from triggerhub_kafka.client import Client

_ANSWER_WITHIN_MS = 10_000
_ALIVE_WITHIN = 1.5
_GATHER = 0.01
_FRESH = 1.0
_WITHIN = 4.5
_CONNECTING = 32
_CLOSED_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class View:
    """How topics stand, as one look found them."""

    leaders: Mapping[str, Mapping[int, int]]
    """By topic, of those that exist: for each partition the broker that leads it; -1: none."""
    errors: Mapping[str, type[KafkaError]]
    """Of the others: why they are not there."""
    silent: Mapping[int, str]
    """Brokers that lead a partition and do not answer, and what became of the question."""

    def covers(self, topics: set[str]) -> bool:
        """It tells of all these."""
        return all(topic in self.leaders or topic in self.errors for topic in topics)

    def missing(self, topics: Iterable[str]) -> set[str]:
        """Which of them do not exist. Raises KafkaError for what may not be seen, or cannot be a
        topic."""
        for topic in topics:
            error_type = self.errors.get(topic)
            if error_type is not None and issubclass(
                error_type, TopicAuthorizationFailedError | InvalidTopicError
            ):
                raise error_type(topic)
        # LeaderNotAvailable and the like: it is being made.
        return {topic for topic in topics if topic not in self.leaders}

    def trouble(self, partition: TopicPartition) -> str:
        """Why its records cannot be had, from whom they should come; empty: they can."""
        leader = self.leaders.get(partition.topic, {}).get(partition.partition)
        if leader == -1:
            return "no broker leads it"
        if leader is not None and leader in self.silent:
            return f"its leader, broker {leader}, does not answer: {self.silent[leader]}"
        return ""


class Brokers:
    """One cluster, for one login. Used from within ``Shared.of``."""

    def __init__(self, access: Access) -> None:
        options = dict(access.options) | {
            "client_id": "triggerhub",
            "request_timeout_ms": _ANSWER_WITHIN_MS,
            "metadata_max_age_ms": 60_000,
        }
        self.client = Client(**options)
        self.connecting = asyncio.Semaphore(_CONNECTING)
        """Held while a connection is made: hundreds at once would time out."""
        self._free = asyncio.Event()
        self._free.set()
        self._brokers: Any = None
        self._lost = False
        self._asked: set[str] = set()
        self._found: View | KafkaError | None = None
        self._seen = 0.0
        self._names: set[str] = set()
        self._named = -math.inf

    async def start(self) -> Any:
        """Learn which brokers there are, once for all. Returns their answer, without topics.
        Raises the KafkaError of the last that was asked when none answers."""
        await self._once(lambda: self._brokers is not None, self._start)
        return self._brokers

    async def _start(self) -> None:
        await self.client.bootstrap()
        self._brokers = _without_topics(await self.client.metadata([]))

    async def check_may_read(self, topics: Iterable[str], view: View) -> None:
        """Raises TopicAuthorizationFailedError for one that may be seen and not read."""
        for topic in topics:
            await self._check_may_read(topic, view)

    async def _check_may_read(self, topic: str, view: View) -> None:
        led = view.leaders[topic].items()
        answering = [(n, leader) for n, leader in led if leader not in {-1, *view.silent}]
        if not answering:
            return
        number, leader = answering[0]
        # An offset that cannot be: the answer says so, or that it is none of our business.
        request = FetchRequest(0, 0, 1, 0, [(topic, [(number, 2**62, 1)])])
        reply = await self.client.send(leader, request)
        codes = {code for _, partitions in reply.topics for _, code, *_ in partitions}
        if TopicAuthorizationFailedError.errno in codes:
            raise TopicAuthorizationFailedError(topic)

    async def look(self, topics: Iterable[str]) -> View:
        """How these topics stand. Who asks within a second of another gets the same answer.
        Raises KafkaError when no broker answers."""
        wanted = set(topics)
        self._asked |= wanted
        await self._once(lambda: self._covers(wanted), lambda: self._look(wanted))
        assert isinstance(self._found, View)
        return self._found

    async def topic_names(self) -> set[str]:
        """Of all topics that the account may see, without Kafka's own. Who asks within a second
        of another gets the same answer. Raises KafkaError when no broker answers."""
        await self._once(lambda: time.monotonic() - self._named < _FRESH, self._look_at_names)
        return self._names

    async def _look_at_names(self) -> None:
        self._names = await self.client.topic_names()
        self._named = time.monotonic()

    async def _once(self, done: Callable[[], bool], work: Callable[[], Awaitable[None]]) -> None:
        """Have ``work`` done by one for all who need it. Raises its KafkaError, for all."""
        while not done():
            if not self._free.is_set():
                await self._free.wait()
                continue
            if isinstance(self._found, KafkaError) and self._fresh():
                raise copy.copy(self._found)
            self._free.clear()
            try:
                async with asyncio.timeout(_WITHIN):
                    await work()
                self._lost = False
            except (KafkaError, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    error = RequestTimedOutError("no answer in time")
                self._found, self._seen, self._lost = error, time.monotonic(), True
            finally:
                self._free.set()

    def _fresh(self) -> bool:
        return time.monotonic() - self._seen < _FRESH

    def _covers(self, topics: set[str]) -> bool:
        found = self._found
        return isinstance(found, View) and self._fresh() and found.covers(topics)

    async def _look(self, wanted: set[str]) -> None:
        # Listeners look on one beat: let all of them ask.
        await asyncio.sleep(_GATHER)
        # What was asked for may be lost with one who was cancelled; who asks now is not.
        topics, self._asked = self._asked | wanted, set()
        if self._lost:
            # Those that are known may have moved; or those of the manifest, and the others live.
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(_ALIVE_WITHIN):
                    await self.client.bootstrap()
        reply = await self.client.metadata(sorted(topics))
        self.client.cluster.update_metadata(reply)
        self._brokers = _without_topics(reply)
        leaders: dict[str, dict[int, int]] = {}
        errors: dict[str, type[KafkaError]] = {}
        for code, topic, _, partitions in reply.topics:
            if code:
                errors[topic] = for_code(code)
            else:
                leaders[topic] = {number: leader for _, number, leader, *_ in partitions}
        nodes = {leader for led in leaders.values() for leader in led.values()} - {-1}
        self._found = View(leaders, errors, await self._silent(nodes))
        self._seen = time.monotonic()

    async def _silent(self, nodes: set[int]) -> dict[int, str]:
        """Which of these do not answer. One that is alone has just answered."""
        if len(nodes | {broker.nodeId for broker in self.client.cluster.brokers()}) == 1:
            return {}
        found: dict[int, str] = {}

        async def ask(node: int) -> None:
            try:
                await self.client.answer(node, MetadataRequest([]), _ALIVE_WITHIN)
            except (KafkaError, TimeoutError) as error:
                found[node] = str(error) or "no answer in time"

        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(ask(node))
        return found


def _without_topics(reply: Any) -> Any:
    bare = copy.copy(reply)
    bare.topics = []
    return bare


async def beat(seconds: float) -> None:
    """Wait for the next of the moments that all listeners of this process share: they look
    together, and their timers wake the event loop once."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(seconds - now % seconds)


class Shared:
    """The clusters that are listened to."""

    def __init__(self) -> None:
        self._users: dict[Any, tuple[Brokers, int]] = {}

    @asynccontextmanager
    async def of(self, access: Access) -> AsyncIterator[Brokers]:
        """The one for all subscriptions with this access; the last to leave closes it."""
        key = _key(access)
        brokers, users = self._users.get(key) or (Brokers(access), 0)
        self._users[key] = brokers, users + 1
        try:
            yield brokers
        finally:
            brokers, users = self._users.pop(key)
            if users > 1:
                self._users[key] = brokers, users - 1
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSED_WITHIN):
                        await brokers.client.close()


def _key(access: Access) -> Any:
    options = {name: value for name, value in access.options.items() if name != "client_id"}
    options["bootstrap_servers"] = tuple(access.brokers)
    return frozenset(options.items())
