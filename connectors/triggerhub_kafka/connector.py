"""The Kafka connector: which brokers, and one listener for each subscription."""

from __future__ import annotations

from datetime import datetime

from triggerhub.connector import Installation, Progress, SpecError, Subscription
from triggerhub_kafka.access import Access, Accesses
from triggerhub_kafka.groups import delete_group
from triggerhub_kafka.listener import Listener
from triggerhub_kafka.replay import Replay
from triggerhub_kafka.seeks import seek
from triggerhub_kafka.source import KafkaSource, check_broker

BROKERS = "TRIGGERHUB_KAFKA_BROKERS"


class KafkaConnector:
    """Listens to Kafka topics, one consumer group for each binding."""

    kind = "KafkaTrigger"
    source = KafkaSource

    def __init__(self, installation: Installation) -> None:
        self._default_brokers = installation.environ.get(BROKERS) or "127.0.0.1:9092"
        self._accesses = Accesses()

    async def listen(self, subscription: Subscription[KafkaSource]) -> None:
        """Emit the records of the topics until cancelled.

        Raises ``ListenError``, with a sentence, when the brokers cannot be reached or refuse; and
        ``SpecError`` for brokers, a topic, a group or a secret that cannot be one.
        """
        await Listener(subscription, self._access(subscription)).run()

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
        await Replay(subscription, self._access(subscription), progress).run(since, until)

    def _access(self, subscription: Subscription[KafkaSource]) -> Access:
        return self._accesses.of(subscription, self._brokers(subscription.source))

    def _brokers(self, source: KafkaSource) -> list[str]:
        if source.brokers is not None:
            return source.brokers
        try:
            return [check_broker(text.strip()) for text in self._default_brokers.split(",")]
        except ValueError as error:
            raise SpecError(f"{BROKERS}: {error}") from None
