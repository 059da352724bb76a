"""aiokafka's client with what a listener that never ends needs besides.

This module, ``connections``, ``consumer``, ``fetching`` and ``membership`` reach behind aiokafka's
public names; each place says what for.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import OAuthAuthenticator, create_conn
from aiokafka.errors import (
    GroupIdNotFound,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.admin import DeleteGroupsRequest, DescribeGroupsRequest
from aiokafka.protocol.metadata import MetadataRequest

from triggerhub_kafka.refusal import REFUSALS, LoginFailed, Tried, why

log = logging.getLogger("triggerhub.kafka")

_ANSWER_WITHIN = 1.5
"""Seconds of silence after which another broker is asked."""


class Client(AIOKafkaClient):  # type: ignore[misc]
    """Asks for metadata without creating topics.

    aiokafka sends ``allow_auto_topic_creation: true`` with every metadata request and has no
    setting for it, so that a broker with Kafka's default settings would make each topic that is
    misspelt or was just deleted.
    """

    _sync_task: asyncio.Task[None] | None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ending: set[asyncio.Future[None]] = set()
        self._silent: set[int] = set()
        """Brokers that did not answer when they were last asked: others are asked first."""

    async def close(self) -> None:
        """End every connection, those that were hung up included."""
        await super().close()
        if self._ending:
            await asyncio.wait(self._ending)

    def hang_up(self, connection: Any) -> None:
        """End this one: a broker answers in order, so that what is asked next on it would wait
        for an answer that is not wanted any more. So would the end of TLS: there is none."""
        if connection.connected():
            connection._writer.transport.abort()
        ended = connection.close()
        self._ending.add(ended)
        ended.add_done_callback(self._ending.discard)

    async def bootstrap(self) -> None:
        """Learn the cluster's brokers from the first one that answers. Raises the KafkaError of
        the last that did not; aiokafka's own says only that none did, and leaves a connection
        open when it is cancelled."""
        failure: KafkaError = KafkaConnectionError("no broker is named")
        for host, port, _ in self.hosts:
            found = await self._ask(host, port)
            if found is None and self.cluster.brokers():
                self._synchronize()
                return
            found = found or KafkaConnectionError(f"{host}:{port} knows of no broker yet")
            failure = _telling(failure, found)
        raise failure

    def _synchronize(self) -> None:
        """Keep the metadata fresh, from now on."""
        if self._sync_task is None:
            # aiokafka's close() ends it.
            self._sync_task = asyncio.create_task(self._md_synchronizer())

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
        reply = await self.metadata(list(topics))
        found = {topic: for_code(code) for code, topic, *_ in reply.topics}
        for topic, error_type in found.items():
            if issubclass(error_type, TopicAuthorizationFailedError | InvalidTopicError):
                raise error_type(topic)
        # LeaderNotAvailable and the like: it is being made.
        return {topic for topic in topics if topic not in found or found[topic].errno != 0}

    async def topic_names(self) -> set[str]:
        """All topics that the account may see, without Kafka's own. Raises KafkaError."""
        reply = await self.metadata(None)
        return {topic for code, topic, internal, _ in reply.topics if not internal and code == 0}

    async def metadata(self, topics: list[str] | None) -> Any:
        """The answer of any broker; ``None``: on all topics. Raises KafkaError."""
        request = MetadataRequest(topics, allow_auto_topic_creation=False)
        for node in sorted(self._shuffled_nodes(), key=self._silent.__contains__):
            # Twice: brokers close connections that were idle, or whose login is too old.
            for _ in range(2):
                try:
                    answer = await self.answer(node, request, _ANSWER_WITHIN)
                    if not answer.brokers:
                        raise _unknown("broker", node)
                    return answer
                except (NodeNotReadyError, KafkaConnectionError) as error:
                    log.debug("kafka.metadata_failed node=%s error=%r", node, error)
                except TimeoutError:
                    break
        raise await self._refused()

    async def answer(self, node: int, request: Any, silent: float) -> Any:
        """What that broker answers. Raises KafkaError; TimeoutError when it says nothing at all
        for so many seconds."""
        asked = asyncio.create_task(self.send(node, request))
        try:
            while not (await asyncio.wait([asked], timeout=silent))[0]:
                connection = self._conns.get((node, ConnectionGroup.DEFAULT))
                # It may have much to do: others ask on the same connection.
                if connection is None or time.monotonic() - connection._last_action >= silent:
                    self._silent.add(node)
                    if connection is not None:
                        self.hang_up(connection)
                    raise TimeoutError
            self._silent.discard(node)
            return asked.result()
        finally:
            asked.cancel()

    async def _refused(self) -> KafkaError:
        """Why no broker takes connections: aiokafka only logs it."""
        failure: KafkaError = NodeNotReadyError("none of the cluster's brokers takes connections")
        for broker in self.cluster.brokers():
            found = await self._ask(broker.host, broker.port)
            failure = _telling(failure, found or failure)
        return failure

    async def members(self, group: str) -> list[str]:
        """The ids of a consumer group's members. Raises KafkaError."""
        coordinator = await self.coordinator_lookup(CoordinationType.GROUP, group)
        reply = await self.send(coordinator, DescribeGroupsRequest([group]))
        code, *_, members = reply.groups[0][:6]
        if code != 0:
            raise for_code(code)(group)
        return [member for member, *_ in members]

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
