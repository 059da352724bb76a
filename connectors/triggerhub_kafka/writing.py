"""Records that the hub writes: one producer for all bindings that reach the same brokers alike."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass
from types import TracebackType

from aiokafka import errors
from aiokafka.structs import RecordMetadata

from triggerhub.connector import NotTaken
from triggerhub_kafka.access import Access
from triggerhub_kafka.client import Client
from triggerhub_kafka.producer import Producer
from triggerhub_kafka.records import Outgoing
from triggerhub_kafka.untaken import explain, told, why_not_yet

_ANSWER_WITHIN = 10.0
_START_WITHIN = 20.0
_KEPT = 600.0
"""Seconds that the fate of a record is kept for whoever asked for it, and was not there."""
_TIDY_EVERY = 5.0

Token = tuple[Hashable, ...]


@dataclass(slots=True)
class _Open:
    producer: Producer
    used: float
    """Loop time."""
    busy: int = 0


@dataclass(slots=True)
class _UnderWay:
    task: asyncio.Task[RecordMetadata | NotTaken]
    asked: float
    """Loop time."""


class Writing:
    """An async context manager; leaving it closes every producer.

    What was handed to a producer is never taken back: the broker may have it already. Who asks
    for the same record again, by its token, waits for the one that is under way.
    """

    def __init__(self, *, idle: float = 60.0) -> None:
        """``idle``: seconds without use after which a producer is closed."""
        self._idle = idle
        self._tasks = asyncio.TaskGroup()
        self._producers: dict[Hashable, asyncio.Task[_Open | NotTaken]] = {}
        self._under_way: dict[Token, _UnderWay] = {}
        self._closed = False

    async def __aenter__(self) -> Writing:
        await self._tasks.__aenter__()
        self._tidying = self._tasks.create_task(self._tidy_now_and_then())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._tidying.cancel()
        for key in list(self._producers):
            self._retire(key)
        await self._tasks.__aexit__(kind, error, trace)

    async def write(self, access: Access, token: Token, record: Outgoing) -> RecordMetadata:
        """Where the record lies, once all replicas in sync have it. Raises NotTaken, within some
        seconds."""
        self._check_open()
        key = _key(access)
        token = (key, record.topic, *token)
        now = asyncio.get_running_loop().time()
        known = self._under_way.get(token)
        if known is None:
            task = self._tasks.create_task(self._deliver(key, access, record))
            known = self._under_way[token] = _UnderWay(task, now)
        known.asked = now
        await asyncio.wait([known.task], timeout=_ANSWER_WITHIN)
        if not known.task.done():
            raise await self._not_yet(access, record)
        if self._under_way.get(token) is known:
            del self._under_way[token]
        fate = known.task.result()
        if isinstance(fate, NotTaken):
            raise NotTaken(str(fate), refused=fate.refused)
        return fate

    async def client(self, access: Access) -> Client:
        """The client of the producer, to read with. Raises NotTaken."""
        self._check_open()
        slot = await self._open(_key(access), access)
        slot.used = asyncio.get_running_loop().time()
        return slot.producer.client

    def _check_open(self) -> None:
        if self._closed:
            raise NotTaken("the hub is stopping")

    async def _deliver(
        self, key: Hashable, access: Access, record: Outgoing
    ) -> RecordMetadata | NotTaken:
        try:
            slot = await self._open(key, access)
        except NotTaken as trouble:
            return trouble
        slot.busy += 1
        try:
            return await slot.producer.put(record)
        except (errors.KafkaError, OSError) as error:
            return await explain(error, slot.producer.client, access, record)
        finally:
            slot.busy -= 1
            slot.used = asyncio.get_running_loop().time()
            if slot.producer.broken:
                self._retire(key, slot)

    async def _open(self, key: Hashable, access: Access) -> _Open:
        """The producer for it, opened where there is none; all who want it wait for one opening.
        Raises NotTaken."""
        task = self._producers.get(key)
        if task is None:
            task = self._producers[key] = self._tasks.create_task(self._start(access))
        if not task.done():
            await asyncio.wait([task])
        found = task.result()
        if isinstance(found, NotTaken):
            if self._producers.get(key) is task:
                del self._producers[key]
            raise NotTaken(str(found), refused=found.refused)
        return found

    async def _start(self, access: Access) -> _Open | NotTaken:
        producer = Producer(access)
        try:
            async with asyncio.timeout(_START_WITHIN):
                await producer.start()
        except (errors.KafkaError, OSError) as error:
            await producer.close()
            return told(error, access)
        except BaseException:
            await producer.close()
            raise
        return _Open(producer, asyncio.get_running_loop().time())

    async def _not_yet(self, access: Access, record: Outgoing) -> NotTaken:
        """Why a record is still under way."""
        task = self._producers.get(_key(access))
        opened = task.result() if task is not None and task.done() else None
        client = opened.producer.client if isinstance(opened, _Open) else None
        return await why_not_yet(client, access, record, _ANSWER_WITHIN)

    def _retire(self, key: Hashable, slot: _Open | None = None) -> None:
        """The next record opens another producer; this one ends what it has under way."""
        task = self._producers.get(key)
        if task is None:
            return
        opened = task.result() if task.done() else None
        if slot is None or opened is slot:
            del self._producers[key]
            if isinstance(opened, _Open):
                self._tasks.create_task(opened.producer.close())
            elif not task.done():
                task.cancel()

    async def _tidy_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(min(_TIDY_EVERY, self._idle))
            now = asyncio.get_running_loop().time()
            for token, known in list(self._under_way.items()):
                if known.task.done() and now - known.asked > _KEPT:
                    del self._under_way[token]
            for key, task in list(self._producers.items()):
                opened = task.result() if task.done() else None
                if isinstance(opened, _Open) and not opened.busy and now - opened.used > self._idle:
                    self._retire(key, opened)


def _key(access: Access) -> Hashable:
    """Equal for those that reach the same brokers in the same way."""
    options = {name: value for name, value in access.options.items() if name != "client_id"}
    options["bootstrap_servers"] = tuple(access.brokers)
    return frozenset(options.items())
