"""aiokafka's consumer with what a listener that never ends needs besides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.group_coordinator import NoGroupCoordinator
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import OffsetAndMetadata

from triggerhub_kafka.access import Access
from triggerhub_kafka.brokers import Brokers, View
from triggerhub_kafka.connections import Connections
from triggerhub_kafka.fetching import (
    HELD_BRIEFLY_MS,
    HELD_MS,
    PatientFetcher,
    WaitInterruptedError,
)
from triggerhub_kafka.membership import Membership
from triggerhub_kafka.source import KafkaSource

log = logging.getLogger("triggerhub.kafka")

_BACKOFF = 0.1
_NOT_A_MEMBER = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)
_TEN_YEARS_MS = 10 * 365 * 24 * 3600 * 1000


_ISOLATION_LEVELS = {"ReadCommitted": "read_committed", "ReadUncommitted": "read_uncommitted"}


def settings(grace: float, source: KafkaSource) -> dict[str, Any]:
    """aiokafka's settings, each on purpose.

    ``heartbeat_interval_ms``: a heartbeat's answer is how a member learns of a rebalance, so that
    one begins within three seconds; more often costs more than all else that an idle trigger does.
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
    ``consumer_timeout_ms``: how often aiokafka looks whether it could fetch, besides whenever
    something happened that allows it.
    ``metadata_max_age_ms``: the watch sees what changed within seconds, and has it read then.
    """
    rebalance_ms = int((grace + 15.0) * 1000)
    return {
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "heartbeat_interval_ms": 3_000,
        "session_timeout_ms": 15_000,
        "rebalance_timeout_ms": rebalance_ms,
        "request_timeout_ms": max(rebalance_ms, HELD_MS) + 10_000,
        "max_poll_interval_ms": _TEN_YEARS_MS,
        "max_partition_fetch_bytes": 1024 * 1024,
        "fetch_max_bytes": 16 * 1024 * 1024,
        "fetch_max_wait_ms": HELD_BRIEFLY_MS,
        "consumer_timeout_ms": 10_000,
        "metadata_max_age_ms": 600_000,
        "isolation_level": _ISOLATION_LEVELS[source.isolation],
    }


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer that creates no topics, can be looked into, and whose end is bounded in time."""

    def __init__(
        self, access: Access, brokers: Brokers | None = None, *, request_timeout_ms: int,
        metadata_max_age_ms: int = 30_000, **rest: Any,
    ) -> None:  # fmt: skip
        """``brokers``: what it shares with others. Alone, it has all connections to itself."""
        connection = {
            **access.options,
            "request_timeout_ms": request_timeout_ms,
            "metadata_max_age_ms": metadata_max_age_ms,
        }
        super().__init__(**connection, **rest)
        self._brokers = brokers
        # The client that it made has neither connections nor tasks before start().
        self._client = Connections(brokers, **connection)

    async def start(self) -> None:
        """Learn of the brokers; ``subscribe`` then joins the group. Raises KafkaError."""
        await self._client.bootstrap()
        self._fetcher = PatientFetcher(
            self._client,
            self._subscription,
            mending=self._client.mending,
            fetch_min_bytes=self._fetch_min_bytes,
            fetch_max_bytes=self._fetch_max_bytes,
            fetch_max_wait_ms=self._fetch_max_wait_ms,
            max_partition_fetch_bytes=self._max_partition_fetch_bytes,
            fetcher_timeout=self._consumer_timeout,
            retry_backoff_ms=self._retry_backoff_ms,
            auto_offset_reset=self._auto_offset_reset,
            isolation_level=self._isolation_level,
        )
        if self._group_id is None:
            self._coordinator = NoGroupCoordinator(self._client, self._subscription)
            return
        self._coordinator = Membership(
            self._client,
            self._subscription,
            group_id=self._group_id,
            group_instance_id=self._group_instance_id,
            heartbeat_interval_ms=self._heartbeat_interval_ms,
            session_timeout_ms=self._session_timeout_ms,
            retry_backoff_ms=self._retry_backoff_ms,
            enable_auto_commit=False,
            assignors=self._partition_assignment_strategy,
            rebalance_timeout_ms=self._rebalance_timeout_ms,
            max_poll_interval_ms=self._max_poll_interval_ms,
        )

    async def look(self, topics: Collection[str]) -> View:
        """How these topics stand; what the consumer knew otherwise is read anew. Raises
        KafkaError."""
        assert self._brokers is not None
        view = await self._brokers.look(topics)
        known = self._client.cluster
        for topic in view.leaders.keys() & self.subscription():
            found = known._partitions.get(topic, {})
            if {n: at.leader for n, at in found.items()} != view.leaders[topic]:
                # A partition that another broker leads now would wait for the end of what that
                # one holds. Of a topic that was forbidden for a moment nothing is known, and the
                # group has assigned nothing.
                self._client.interrupt()
                self.refresh()
                break
        return view

    @property
    def held(self) -> int:
        """Bytes of batches that are fetched and not taken."""
        return int(self._fetcher.fetched.bytes)

    async def missing(self, topics: Collection[str]) -> set[str]:
        """Which of ``topics`` do not exist. Raises KafkaError."""
        found: set[str] = await self._client.missing(topics)
        return found

    async def learn(self, topics: Collection[str]) -> None:
        """Read the metadata of these topics, for ``partitions_for_topic``."""
        await self._client.set_topics(list(topics))

    async def topic_names(self) -> set[str]:
        """All topics that the account may see, without Kafka's own. Raises KafkaError."""
        asked = self._client if self._brokers is None else self._brokers
        found: set[str] = await asked.topic_names()
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

    @property
    def refused(self) -> Mapping[TopicPartition, str]:
        """Partitions that a broker gives nothing of, and its word for why."""
        return self._client.refused

    def standing(self, partition: TopicPartition) -> tuple[int, int] | None:
        """Of an assigned partition: up to which offset ``getmany`` has returned all there is, and
        the end of what it may return, as of the last fetch; None before there was one."""
        subscription = self._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or partition not in assignment.tps:
            return None
        state = assignment.state_value(partition)
        if not state.has_valid_position or state.highwater is None:
            return None
        # What is in a transaction that is open yet may not be read.
        committed = self._isolation_level == "read_committed" and state.lso is not None
        return state.position, state.lso if committed else state.highwater

    async def check_may_read(self, topics: Collection[str], view: View) -> None:
        """Raises TopicAuthorizationFailedError for one that the account may see, not read: else
        that shows only after the group was joined, each time anew."""
        assert self._brokers is not None
        await self._brokers.check_may_read(topics, view)

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

    async def getmany(self, *partitions: Any, timeout_ms: int = 0, **rest: Any) -> Any:
        try:
            return await super().getmany(*partitions, timeout_ms=timeout_ms, **rest)
        except WaitInterruptedError:
            return {}

    def interrupt(self) -> None:
        """A ``getmany`` under way returns now."""
        for waiter in list(self._fetcher._fetch_waiters):
            if not waiter.done():
                waiter.set_exception(WaitInterruptedError())

    def seek(self, partition: TopicPartition, offset: int) -> None:
        super().seek(partition, offset)
        self._client.interrupt()

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
