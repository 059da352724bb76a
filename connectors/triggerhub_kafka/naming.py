"""What a member says of its name: aiokafka says it only when it joins (KIP-345)."""

from __future__ import annotations

from typing import Any

from aiokafka.errors import BrokerResponseError
from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.commit import (
    OffsetCommitRequest,
    OffsetCommitRequest_v3,
    OffsetCommitResponse_v3,
)
from aiokafka.protocol.group import HeartbeatRequest_v1, HeartbeatResponse_v1
from aiokafka.protocol.types import Array, Int32, Int64, Schema, String


class FencedInstanceIdError(BrokerResponseError):  # type: ignore[misc]
    """Another member of the group has this one's name. aiokafka has no such error."""

    errno = 82
    message = "FENCED_INSTANCE_ID"
    description = "another member has this one's name"


class _HeartbeatResponse_v3(HeartbeatResponse_v1):  # type: ignore[misc] # noqa: N801
    API_VERSION = 3


class _HeartbeatRequest_v3(RequestStruct):  # type: ignore[misc] # noqa: N801
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse_v3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class NamedHeartbeat(Request[HeartbeatRequest_v1 | _HeartbeatRequest_v3]):  # type: ignore[misc]
    """Of a member with a name."""

    API_KEY = 12

    def __init__(self, name: str, *rest: Any) -> None:
        self._name = name
        self._rest = rest

    def build(self, request_struct_class: Any) -> Any:
        if request_struct_class is _HeartbeatRequest_v3:
            return request_struct_class(*self._rest, self._name)
        return request_struct_class(*self._rest)


class _CommitResponse_v7(OffsetCommitResponse_v3):  # type: ignore[misc] # noqa: N801
    API_VERSION = 7


class _CommitRequest_v7(RequestStruct):  # type: ignore[misc] # noqa: N801
    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = _CommitResponse_v7
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", String("utf-8")),
                    ),
                ),
            ),
        ),
    )


class NamedCommit(Request[OffsetCommitRequest_v3 | _CommitRequest_v7]):  # type: ignore[misc]
    """Of a member with a name."""

    API_KEY = 8

    def __init__(self, name: str, request: OffsetCommitRequest) -> None:
        self._name = name
        self._request = request

    def build(self, request_struct_class: Any) -> Any:
        plain = self._request.build(OffsetCommitRequest_v3)
        if request_struct_class is not _CommitRequest_v7:
            return plain
        group, generation, member, _, topics = (plain.get_item(n) for n in plain.SCHEMA.names)
        return request_struct_class(
            group, generation, member, self._name,
            [(topic, [(number, offset, -1, note) for number, offset, note in partitions])
             for topic, partitions in topics],
        )  # fmt: skip
