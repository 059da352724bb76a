"""The Kafka connector: which brokers, one listener for each subscription, and what it writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from triggerhub.connector import (
    Installation,
    Letter,
    NotTaken,
    Progress,
    SpecError,
    Subscription,
    Unreadable,
)
from triggerhub.credentials import Contexts
from triggerhub.event import Event, Reply
from triggerhub_kafka.access import Access, Accesses
from triggerhub_kafka.brokers import Shared
from triggerhub_kafka.decode import Record, decoder
from triggerhub_kafka.groups import delete_group
from triggerhub_kafka.letters import coordinates_of, event_of, letter_record, what_died
from triggerhub_kafka.listener import Listener
from triggerhub_kafka.problems import ExtraMissingError
from triggerhub_kafka.reading import fetch
from triggerhub_kafka.registry import RegistryFault
from triggerhub_kafka.replay import Replay
from triggerhub_kafka.replies import reply_record
from triggerhub_kafka.schemas import Registries, translate
from triggerhub_kafka.seeks import seek
from triggerhub_kafka.source import BROKER, KafkaSource, TopicForLetters
from triggerhub_kafka.writing import Writing

_READ_WITHIN = 10.0
BROKERS = "TRIGGERHUB_KAFKA_BROKERS"


class KafkaConnector:
    """Listens to Kafka topics, one consumer group for each binding."""

    kind = "KafkaTrigger"
    source = KafkaSource
    dead_letter = TopicForLetters

    def __init__(self, installation: Installation) -> None:
        self._default_brokers = installation.environ.get(BROKERS) or "127.0.0.1:9092"
        self._replica = installation.replica
        self._shared = Shared()
        contexts = Contexts()
        self._accesses = Accesses(contexts)
        self._registries = Registries(contexts)
        self._writing = Writing()

    async def __aenter__(self) -> KafkaConnector:
        await self._writing.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._writing.__aexit__(kind, error, trace)

    async def listen(self, subscription: Subscription[KafkaSource]) -> None:
        """Emit the records of the topics until cancelled.

        Raises ``ListenError``, with a sentence, when the brokers cannot be reached or refuse; and
        ``SpecError`` for brokers, a topic, a group or a secret that cannot be one.
        """
        try:
            access = self._access(subscription)
            schemas = self._registries.of(subscription)
        except ExtraMissingError as error:
            subscription.report.disconnected(error.reason, str(error))
            raise
        async with self._shared.of(access) as brokers:
            await Listener(subscription, access, brokers, schemas, self._replica).run()

    async def clean_up(self, subscription: Subscription[KafkaSource]) -> None:
        """Delete the consumer group, with its offsets.

        Raises ``CleanUpError``, with a sentence, when the brokers cannot be reached or refuse, as
        they do while the group has members; and ``SpecError`` as ``listen`` does.
        """
        await delete_group(subscription, self._access(subscription))

    async def seek(self, subscription: Subscription[KafkaSource]) -> None:
        """Move the positions of a group that has no members, where the manifest says so and it is
        not done yet.

        Raises ``SeekError``, with a sentence, when the brokers cannot be reached or refuse, as
        they do while the group has members; and ``SpecError`` as ``listen`` does.
        """
        await seek(subscription, self._access(subscription))

    async def replay(
        self,
        subscription: Subscription[KafkaSource],
        since: datetime | str,
        until: datetime | str | None,
        progress: Progress,
    ) -> None:
        """Emit the records between, read without any group.

        Raises ``ValueError`` for a text that is no position of these topics, ``ReplayError``, with
        a sentence, when the brokers refuse, and ``SpecError`` as ``listen`` does.
        """
        access, schemas = self._access(subscription), self._registries.of(subscription)
        await Replay(subscription, access, schemas, progress).run(since, until)

    async def lay_down(
        self, subscription: Subscription[KafkaSource], place: TopicForLetters, letter: Letter
    ) -> Mapping[str, str]:
        """Write a dead letter to its topic. Returns topic, partition and offset.

        Raises ``NotTaken``; and ``SpecError`` as ``listen`` does.
        """
        assert place.topic is not None
        event = letter.event
        token = ("letter", subscription.name, event.source, event.id)
        record = letter_record(place.topic, letter)
        written = await self._writing.write(self._access(subscription), token, record)
        if written.offset < 0:  # it was there already, and the broker does not know any more where
            raise NotTaken(f"topic {place.topic} did not say where the record lies")
        return coordinates_of(written.topic, written.partition, written.offset)

    async def read_back(
        self, subscription: Subscription[KafkaSource], coordinates: Mapping[str, str]
    ) -> Event:
        """The event of a dead letter that lies in a topic.

        Raises ``Unreadable``; ``NotTaken`` when no broker answers; ``SpecError`` as ``listen``
        does.
        """
        at = TopicPartition(coordinates["topic"], int(coordinates["partition"]))
        offset = int(coordinates["offset"])
        where = f"topic {at.topic} partition {at.partition} offset {offset}"
        client = await self._writing.client(self._access(subscription))
        try:
            async with asyncio.timeout(_READ_WITHIN):
                record = await fetch(client, at, offset)
        except (KafkaError, OSError) as error:
            raise Unreadable(f"{where}: {error or 'no answer in time'}") from error
        if record is None:
            raise Unreadable(f"{where}: it is there no more: retention took it, or the topic went")
        try:
            died = what_died(record)
        except ValueError as error:
            raise Unreadable(f"{where}: it is no dead letter: {error}") from error
        return event_of(died, await self._decoder(subscription, died, where))

    async def _decoder(
        self, subscription: Subscription[KafkaSource], record: Record, where: str
    ) -> Callable[[Record], Event]:
        decode = decoder(record.topic, record.partition)
        schemas = self._registries.of(subscription)
        if schemas is None or not record.topic:  # a test event is in no schema's form
            return decode
        try:
            known = await schemas.of([record])
        except RegistryFault as fault:
            raise Unreadable(f"{where}: {fault}") from fault
        return partial(translate, known, decode)

    async def reply(
        self, subscription: Subscription[KafkaSource], event: Event, reply: Reply
    ) -> None:
        """Write a function's answer to the topic of ``spec.source.reply``.

        Raises ``NotTaken``; and ``SpecError`` as ``listen`` does.
        """
        to = subscription.source.reply
        assert to is not None
        token = ("reply", subscription.name, event.source, event.id)
        record = reply_record(to.topic, event, reply)
        await self._writing.write(self._access(subscription), token, record)

    def _access(self, subscription: Subscription[KafkaSource]) -> Access:
        return self._accesses.of(subscription, self._brokers(subscription.source))

    def _brokers(self, source: KafkaSource) -> list[str]:
        if source.brokers is not None:
            return source.brokers
        try:
            return [BROKER.read(text.strip()) for text in self._default_brokers.split(",")]
        except ValueError as error:
            raise SpecError(f"{BROKERS}: {error}") from None
