"""A consumer's membership of its group: aiokafka's, with static members that leave and are fenced.

KIP-345: a member that bears a name takes over from one that bore it, at once and without a
rebalance. aiokafka joins with the name and otherwise forgets it: it never says it in heartbeats and
commits, so that of two members with one name each would throw out the other for ever.
"""

from __future__ import annotations

import asyncio
import logging
import re
import zlib
from collections import Counter
from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetCommitResponse_v3
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest

from triggerhub_kafka.naming import FencedInstanceIdError, NamedCommit, NamedHeartbeat

log = logging.getLogger("triggerhub.kafka")

_BEAT = 0.25
_UNIQUE = re.compile("-([-0-9a-f]{36}|[-_0-9A-Za-z]{22})")
"""What a broker puts behind a static member's name to make its id."""


class Membership(GroupCoordinator):  # type: ignore[misc]
    """Sends heartbeats on a beat that all members of this process share: a wake-up of the event
    loop costs more than the heartbeat that it is for."""

    fenced = False
    _leader = ""

    _group_instance_id: str | None

    @property
    def _name(self) -> str | None:
        return self._group_instance_id

    async def _heartbeat_routine(self) -> None:
        """aiokafka's, without its poll interval: see ``settings``."""
        interval = self._heartbeat_interval_ms / 1000
        slots = max(1, int(interval / _BEAT))
        phase = zlib.crc32(self.group_id.encode()) % slots * _BEAT
        clock = asyncio.get_running_loop().time
        answered = clock()
        alive = True
        while self.member_id != JoinGroupRequest.UNKNOWN_MEMBER_ID:
            next_beat = interval - (clock() - phase) % interval
            try:
                await asyncio.sleep(next_beat if alive else self._retry_backoff_ms / 1000)
                await self.ensure_coordinator_known()
                alive = await self._do_heartbeat()
            except asyncio.CancelledError:
                # aiokafka awaits the task that it has cancelled.
                break
            if alive:
                answered = clock()
            elif clock() - answered > self._session_timeout_ms / 1000:
                self.coordinator_dead()

    async def _do_heartbeat(self) -> bool:
        alive: bool = await super()._do_heartbeat()
        # aiokafka took it for a connection that broke.
        self._raise_if_fenced()
        return alive

    async def ensure_active_group(self, *arguments: Any) -> Any:
        joined = await super().ensure_active_group(*arguments)
        self._raise_if_fenced()
        if joined is not None and self._has_led():
            await self._lead_again()
        return joined

    async def _send_req(self, request: Any) -> Any:
        if self._name is not None:
            if type(request) is HeartbeatRequest:
                request = NamedHeartbeat(self._name, self.group_id, self.generation, self.member_id)
            elif type(request) is OffsetCommitRequest:
                request = NamedCommit(self._name, request)
        reply = await super()._send_req(request)
        if FencedInstanceIdError.errno in _codes(reply):
            self.fenced = True
            raise FencedInstanceIdError(self._name)
        if type(request) is JoinGroupRequest:
            self._leader = reply.leader_id
        return reply

    def _raise_if_fenced(self) -> None:
        if self.fenced:
            raise FencedInstanceIdError(self._name)

    async def _maybe_leave_group(self) -> None:
        """In an orderly end a static member leaves, too: who is left takes over at once, and the
        group can be deleted."""
        name, self._group_instance_id = self._group_instance_id, None
        try:
            await super()._maybe_leave_group()
        finally:
            self._group_instance_id = name

    def _has_led(self) -> bool:
        """The group's leader has died and is back under its name. The broker then tells it of a
        leader that is there no more, so that it does not assign anew, and nobody watches over the
        number of partitions (KAFKA-13435)."""
        return self._leader != self.member_id and is_named(self._leader, self._name)

    async def _lead_again(self) -> None:
        try:
            members = await self._members()
        except KafkaError as error:
            log.info("kafka.describe_failed group=%s error=%r", self.group_id, error)
            self.request_rejoin()
            return
        assigned: Counter[str] = Counter()
        topics: set[str] = set()
        for _, _, _, metadata, assignment in members:
            topics.update(ConsumerProtocol.METADATA.decode(metadata).subscription)
            for topic, partitions in ConsumerProtocol.ASSIGNMENT.decode(assignment).assignment:
                assigned[topic] += len(partitions)
        self._group_subscription = topics
        await self._client.set_topics(topics)
        # As a leader remembers them; where they differ from what there is, it rejoins.
        self._metadata_snapshot = {topic: assigned[topic] for topic in topics}
        self._handle_metadata_update(self._cluster)

    async def _members(self) -> Any:
        reply = await self._send_req(DescribeGroupsRequest([self.group_id]))
        code, *_, members = reply.groups[0][:6]
        if code != 0:
            raise for_code(code)(self.group_id)
        return members


def is_named(member: str, name: str | None) -> bool:
    """Whether a broker made this member's id from that static name."""
    return (
        name is not None
        and member.startswith(name)
        and _UNIQUE.fullmatch(member[len(name) :]) is not None
    )


def _codes(reply: Any) -> set[int]:
    """Every error code of an answer to a member."""
    if hasattr(reply, "error_code"):
        return {reply.error_code}
    if isinstance(reply, OffsetCommitResponse_v3):
        return {code for _, partitions in reply.topics for _, code in partitions}
    return set()
