"""aiokafka's client and consumer with what a listener that never ends needs besides.

This module and ``fetching`` reach behind aiokafka's public names; each place says what for.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import OAuthAuthenticator, create_conn
from aiokafka.errors import (
    CommitFailedError,
    GroupIdNotFound,
    IllegalGenerationError,
    IllegalStateError,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RebalanceInProgressError,
    TopicAuthorizationFailedError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import OffsetAndMetadata

from triggerhub_kafka.access import Access
from triggerhub_kafka.fetching import improve, mend
from triggerhub_kafka.refusal import REFUSALS, LoginFailed, Tried, why
from triggerhub_kafka.source import KafkaSource

log = logging.getLogger("triggerhub.kafka")

_BACKOFF = 0.1
_NOT_A_MEMBER = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)
_TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000


_ISOLATION_LEVELS = {"ReadCommitted": "read_committed", "ReadUncommitted": "read_uncommitted"}


def settings(grace: float, source: KafkaSource) -> dict[str, Any]:
    """aiokafka's settings, each on purpose.

    ``heartbeat_interval_ms``: a heartbeat's answer is how a member learns of a rebalance; one
    second keeps a rebalance short and costs one small request.
    ``session_timeout_ms``: after a crash the others take over after 15 s; the event loop may stall
    for some seconds without losing the group; within a broker's default bounds (6 s to 30 min).
    ``rebalance_timeout_ms``: how long the group waits for a member that lets its attempts end:
    the grace time, with room for heartbeat and commit.
    ``request_timeout_ms``: longer than that, because a JoinGroup is answered only when every
    member has joined. That a broker does not answer is noticed by the watch, not by this.
    ``max_poll_interval_ms``: aiokafka leaves the group when getmany is not called for that long.
    While the function is away the window is full and getmany is not called, for a night if need
    be; heartbeats are sent by the event loop that also delivers, so they are proof enough of life.
    ``auto_offset_reset`` none: a position that is missing or gone is never replaced silently.
    ``max_partition_fetch_bytes``, ``fetch_max_bytes``: a fetch brings at most the first of each
    partition, and the second of all; a record that is larger than both comes alone (KIP-74). How
    much of it waits in memory is bounded by ``fetching.HELD``.
    """
    rebalance_ms = int((grace + 15.0) * 1000)
    return {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "heartbeat_interval_ms": 1_000,
        "session_timeout_ms": 15_000,
        "rebalance_timeout_ms": rebalance_ms,
        "request_timeout_ms": rebalance_ms + 10_000,
        "max_poll_interval_ms": _TEN_YEARS_MS,
        "max_partition_fetch_bytes": 1024 * 1024,
        "fetch_max_bytes": 16 * 1024 * 1024,
        "isolation_level": _ISOLATION_LEVELS[source.isolation],
    }


class Client(AIOKafkaClient):  # type: ignore[misc]
    """Asks for metadata without creating topics.

    aiokafka sends ``allow_auto_topic_creation: true`` with every metadata request and has no
    setting for it, so that a broker with Kafka's default settings would make each topic that is
    misspelt or was just deleted.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.mending: set[TopicPartition] = set()
        """Partitions whose batches have names that aiokafka cannot read."""

    async def send(self, node_id: Any, request: Any, **options: Any) -> Any:
        """See aiokafka. What is fetched from partitions in ``mending`` is mended."""
        reply = await super().send(node_id, request, **options)
        if self.mending and isinstance(request, FetchRequest):
            reply.topics = [
                (topic, [self._mended(topic, *partition) for partition in partitions])
                for topic, partitions in reply.topics
            ]
        return reply

    def _mended(self, topic: str, partition: int, *rest: Any) -> tuple[Any, ...]:
        *between, batches = rest
        if TopicPartition(topic, partition) in self.mending:
            batches = mend(batches)
        return (partition, *between, batches)

    async def bootstrap(self) -> None:
        """Learn the cluster's brokers from the first one that answers. Raises the KafkaError of
        the last that did not; aiokafka's own says only that none did, and leaves a connection
        open when it is cancelled."""
        failure: KafkaError = KafkaConnectionError("no broker is named")
        for host, port, _ in self.hosts:
            found = await self._ask(host, port)
            if found is None and self.cluster.brokers():
                # aiokafka's close() ends it.
                self._sync_task = asyncio.create_task(self._md_synchronizer())
                return
            found = found or KafkaConnectionError(f"{host}:{port} knows of no broker yet")
            failure = _telling(failure, found)
        raise failure

    async def _ask(self, host: str, port: int) -> KafkaError | None:
        """Learn the cluster's brokers from this one. Returns why that was not possible."""
        connect = partial(self._connect, host, port)
        try:
            connection = await connect()
            try:
                metadata = await connection.send(MetadataRequest([]))
                if self._bearer is not None and not metadata.brokers:
                    raise _unknown(host, port)
                self.cluster.update_metadata(metadata)
            finally:
                connection.close()
        except REFUSALS as error:
            tried = Tried(
                host, port, self._security_protocol, self._ssl_context, connect, self._bearer
            )
            found = await why(error, tried)
            if isinstance(found, LoginFailed):
                # Not to be tried again with the token that a provider keeps.
                getattr(self._sasl_oauth_token_provider, "refused", bool)()
            return found
        return None

    async def _connect(self, host: str, port: int, **otherwise: Any) -> Any:
        options = {
            "client_id": self._client_id,
            "request_timeout_ms": min(self._request_timeout_ms, 10_000),
            "ssl_context": self._ssl_context,
            "security_protocol": self._security_protocol,
            "sasl_mechanism": self._sasl_mechanism,
            "sasl_plain_username": self._sasl_plain_username,
            "sasl_plain_password": self._sasl_plain_password,
            "sasl_oauth_token_provider": self._sasl_oauth_token_provider,
        }
        return await create_conn(host, port, **options | otherwise)

    @property
    def _bearer(self) -> Callable[[], Awaitable[bytes]] | None:
        """Gives what a client says first that logs in with a token; None: this one does not."""
        provider = self._sasl_oauth_token_provider
        return None if provider is None else partial(_first_words, provider)

    async def _metadata_update(
        self, cluster_metadata: ClusterMetadata, topics: Collection[str]
    ) -> bool:
        # No topics: only the brokers. aiokafka would ask for every topic of the cluster.
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        for node in self._shuffled_nodes():
            connection = await self._get_conn(node)
            if connection is None:
                continue
            try:
                metadata = await connection.send(request)
            except (KafkaError, TimeoutError) as error:
                log.debug("kafka.metadata_failed node=%s error=%r", node, error)
                continue
            if metadata.brokers:
                cluster_metadata.update_metadata(metadata)
                return True
        cluster_metadata.failed_update(None)
        return False

    async def _get_conn(self, node_id: int, **which: Any) -> Any:
        # What was reset a moment ago, and is not known to aiokafka yet: asyncio drops what is
        # written to it, and uvloop raises a RuntimeError that aiokafka does not expect.
        known = self._conns.get((node_id, which.get("group", ConnectionGroup.DEFAULT)))
        if known is not None and known.connected() and known._writer.transport.is_closing():
            known.close()
        return await super()._get_conn(node_id, **which)

    async def missing(self, topics: Collection[str]) -> set[str]:
        """Which of ``topics`` do not exist. Raises KafkaError."""
        reply = await self._metadata(list(topics))
        found = {topic: for_code(code) for code, topic, *_ in reply.topics}
        for topic, error_type in found.items():
            if issubclass(error_type, TopicAuthorizationFailedError | InvalidTopicError):
                raise error_type(topic)
        # LeaderNotAvailable and the like: it is being made.
        return {topic for topic in topics if topic not in found or found[topic].errno != 0}

    async def topic_names(self) -> set[str]:
        """All topics that the account may see, without Kafka's own. Raises KafkaError."""
        reply = await self._metadata(None)
        return {topic for code, topic, internal, _ in reply.topics if not internal and code == 0}

    async def _metadata(self, topics: list[str] | None) -> Any:
        """The answer of any broker; ``None``: on all topics."""
        request = MetadataRequest(topics, allow_auto_topic_creation=False)
        # Each twice: brokers close connections that were idle, or whose login is too old.
        for node in [node for node in self._shuffled_nodes() for _ in range(2)]:
            try:
                answer = await self.send(node, request)
                if not answer.brokers:
                    raise _unknown("broker", node)
                return answer
            except (NodeNotReadyError, KafkaConnectionError) as error:
                log.debug("kafka.metadata_failed node=%s error=%r", node, error)
        raise await self._refused()

    async def _refused(self) -> KafkaError:
        """Why no broker takes connections: aiokafka only logs it."""
        failure: KafkaError = NodeNotReadyError("none of the cluster's brokers takes connections")
        for broker in self.cluster.brokers():
            found = await self._ask(broker.host, broker.port)
            failure = _telling(failure, found or failure)
        return failure

    async def delete_group(self, group: str) -> None:
        """Delete a consumer group with its offsets; no error when it is not there. Raises
        KafkaError; NonEmptyGroup while it has members. aiokafka's admin client has no such
        method."""
        coordinator = await self.coordinator_lookup(CoordinationType.GROUP, group)
        reply = await self.send(coordinator, DeleteGroupsRequest([group]))
        for _, code in reply.results:
            error_type = for_code(code)
            if error_type.errno not in (0, GroupIdNotFound.errno):
                raise error_type(group)

    def _shuffled_nodes(self) -> list[Any]:
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        random.shuffle(nodes)
        return nodes


def _unknown(*broker: object) -> KafkaConnectionError:
    """The error for one that says that there are no brokers at all, and so is none to ask. That
    is what it answers, before it closes, a client whose token it refuses."""
    return KafkaConnectionError(f"{':'.join(map(str, broker))} knows of no broker")


async def _first_words(provider: AbstractTokenProvider) -> bytes:
    said, _ = await OAuthAuthenticator(sasl_oauth_token_provider=provider).step(None)
    return bytes(said)


def _telling(before: KafkaError, after: KafkaError) -> KafkaError:
    """Which of two brokers' answers to show: one that refuses says more than one that is away."""
    return after if before.retriable else before


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer that creates no topics, can be looked into, and whose end is bounded in time."""

    def __init__(self, access: Access, *, request_timeout_ms: int, **rest: Any) -> None:
        connection = {
            **access.options,
            "request_timeout_ms": request_timeout_ms,
            "metadata_max_age_ms": 30_000,
        }
        super().__init__(**connection, **rest)
        # The client that it made has neither connections nor tasks before start().
        self._client = Client(**connection)

    async def start(self) -> None:
        """See aiokafka."""
        await super().start()
        self._fetched = improve(self._fetcher, self._client.mending)

    @property
    def held(self) -> int:
        """Bytes of batches that are fetched and not taken."""
        return self._fetched.bytes

    async def missing(self, topics: Collection[str]) -> set[str]:
        """Which of ``topics`` do not exist. Raises KafkaError."""
        found: set[str] = await self._client.missing(topics)
        return found

    async def learn(self, topics: Collection[str]) -> None:
        """Read the metadata of these topics, for ``partitions_for_topic``."""
        await self._client.set_topics(list(topics))

    async def topic_names(self) -> set[str]:
        """All topics that the account may see, without Kafka's own. Raises KafkaError."""
        found: set[str] = await self._client.topic_names()
        return found

    def rejoin(self) -> None:
        """Ask for a rebalance."""
        self._coordinator.request_rejoin()

    def resubscribe(self, topics: Collection[str]) -> None:
        """While partitions are revoked: join with these topics. ``subscribe`` would end the
        assignment at once, before what is settled could be committed."""
        subscription = self._subscription.subscription
        if subscription is not None and subscription.topics != topics:
            subscription._topics = frozenset(topics)
            self._client.set_topics(topics)

    def refresh(self) -> None:
        """Read the cluster's metadata soon: a topic came or went."""
        self._client.force_metadata_update()

    async def committed_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata]:
        """The group's committed offsets, where there are any, all in one request. Waits for the
        coordinator. Raises KafkaError."""
        found: Mapping[TopicPartition, OffsetAndMetadata]
        found = await self._coordinator.fetch_committed_offsets(list(partitions))
        return found

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """As aiokafka's, until it is done or cancelled. aiokafka shields its request from that:
        what became of it later could end a membership that has been renewed since, and was logged
        as an error that nobody waits for. It also tries again in a new generation, where the
        partition may be another's, who has come further."""
        subscription = self._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or not assignment.tps >= offsets.keys():
            raise IllegalStateError(f"not assigned: {offsets.keys()}")
        entries = {at: OffsetAndMetadata(*entry) for at, entry in offsets.items()}
        while assignment.active:
            await self._coordinator.ensure_coordinator_known()
            try:
                await self._coordinator._do_commit_offsets(assignment, entries)
                return
            except _NOT_A_MEMBER as error:
                raise CommitFailedError(self._group_id) from error
            except KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(_BACKOFF)
        raise CommitFailedError(self._group_id)

    def positions(self) -> dict[TopicPartition, int]:
        """Of each assigned partition, where it is known: the offset up to which ``getmany`` has
        returned every record. ``position`` would wait for the others."""
        assignment = self._subscription.subscription.assignment
        states = ((at, assignment.state_value(at)) for at in assignment.tps)
        return {at: state.position for at, state in states if state.has_valid_position}

    def check(self) -> bool:
        """Whether the group's coordinator is known. Raises the KafkaError that ended one of
        aiokafka's background tasks: it would otherwise show at the next getmany, if ever."""
        if self._fetcher.error_future.done():
            self._fetcher.error_future.result()
        self._coordinator.check_errors()
        return self._coordinator.coordinator_id is not None

    async def close(self) -> None:
        """Leave the group and close every connection, within a few seconds whatever the brokers
        do. Raises nothing but CancelledError.

        ``stop`` alone can take as long as a rebalance: it waits for a JoinGroup under way, which
        the broker answers when all members have joined. Leaving over another connection makes the
        broker answer it at once. ``stop`` also ends early, with connections open, when one of its
        tasks sleeps after a connection error.
        """
        stopping = asyncio.create_task(self.stop())
        grouped = self._coordinator is not None and self._group_id is not None
        try:
            if not await _done(stopping, 0.5):
                await _run(self._leave(), 2.0)
            if not await _done(stopping, 2.0) and grouped:
                self._coordinator._coordination_task.cancel()
                await _done(stopping, 1.0)
        finally:
            await _end(stopping)
        if grouped:
            await _run(self._coordinator._stop_heartbeat_task(), 1.0)
            await _run(self._coordinator._stop_commit_offsets_refresh_task(), 1.0)
        if self._fetcher is not None:
            await _run(self._fetcher.close(), 1.0)
        await _run(self._client.close(), 2.0)

    async def _leave(self) -> None:
        group = self._coordinator if self._group_id is not None else None
        if group is not None and group.coordinator_id is not None and group.member_id:
            request = LeaveGroupRequest(group.group_id, group.member_id)
            await self._client.send(group.coordinator_id, request)


async def _run(work: Coroutine[Any, Any, None], seconds: float) -> None:
    """Run to its end or for so long; how it ends is only logged."""
    task = asyncio.create_task(work)
    try:
        await _done(task, seconds)
    finally:
        await _end(task)


async def _done(task: asyncio.Task[None], seconds: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=seconds)
    return bool(done)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("kafka.close_failed error=%r", error)
