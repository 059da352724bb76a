"""One stream of Kinesis: what is asked of it, and its shards."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from triggerhub_kinesis.client import Client
from triggerhub_kinesis.places import Place
from triggerhub_kinesis.source import KinesisSource


@dataclass(frozen=True, slots=True)
class Summary:
    """How a stream is."""

    status: str
    """CREATING, DELETING, ACTIVE or UPDATING."""
    created: int
    """Seconds since the epoch."""
    retention: float
    """Seconds."""
    now: datetime
    """By Kinesis's own clock, to the second before."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard of a stream."""

    id: str
    parents: tuple[str, ...]
    """Those that were split or merged into it: one or two, which may be gone already."""
    closed: bool
    """Nothing more comes into it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one GetRecords brought."""

    records: list[Mapping[str, Any]]
    iterator: str | None
    """For the next; None: the shard is read to its end."""
    behind: float
    """Seconds that this lies behind the shard's tip."""
    size: int
    """Bytes of data."""


class Stream:
    """Every method raises what botocore raises."""

    def __init__(self, client: Client, source: KinesisSource) -> None:
        self._client = client
        self.name = source.name
        self._which: dict[str, Any] = {"StreamName": source.stream, "StreamARN": source.stream_arn}
        # GetRecords knows the stream by its iterator; another account's is reached by its ARN.
        self._by_arn: dict[str, Any] = {"StreamARN": source.stream_arn}

    async def summary(self) -> Summary:
        answer = await self._client.call("describe_stream_summary", **self._which)
        found = answer["StreamDescriptionSummary"]
        return Summary(
            found["StreamStatus"],
            int(found["StreamCreationTimestamp"].timestamp()),
            found["RetentionPeriodHours"] * 3600.0,
            _now(answer),
        )

    async def shards(self) -> dict[str, Shard]:
        """All that still may hold records, by id."""
        found: dict[str, Shard] = {}
        asked: dict[str, Any] = dict(self._which)
        while True:
            answer = await self._client.call("list_shards", **asked)
            for one in answer["Shards"]:
                parents = (one.get("ParentShardId"), one.get("AdjacentParentShardId"))
                found[one["ShardId"]] = Shard(
                    one["ShardId"],
                    tuple(parent for parent in parents if parent),
                    "EndingSequenceNumber" in one["SequenceNumberRange"],
                )
            token = answer.get("NextToken")
            if not token:
                return found
            # A token stands for the stream, too.
            asked = {"NextToken": token, **self._by_arn}

    async def iterator(self, shard: str, place: Place) -> tuple[str, datetime]:
        """To read from a place on; and when, by Kinesis's clock, to the second before."""
        answer = await self._client.call(
            "get_shard_iterator", ShardId=shard, **self._which, **place.arguments()
        )
        found: str = answer["ShardIterator"]
        return found, _now(answer)

    async def records(self, iterator: str) -> Batch:
        """At most 10 MiB, 10 000 records."""
        answer = await self._client.call("get_records", ShardIterator=iterator, **self._by_arn)
        records = answer["Records"]
        return Batch(
            records,
            answer.get("NextShardIterator") or None,
            (answer.get("MillisBehindLatest") or 0) / 1000,
            sum(len(record["Data"]) for record in records),
        )


def in_order(shards: Mapping[str, Shard]) -> list[Shard]:
    """Parents before their children."""
    found: dict[str, Shard] = {}
    waiting = sorted(shards, reverse=True)
    while waiting:
        shard = shards[waiting[-1]]
        before = [name for name in shard.parents if name in shards and name not in found]
        if before:
            waiting.extend(before)
        else:
            found[shard.id] = shard
            waiting.pop()
    return list(found.values())


def may_be_read(
    shards: Mapping[str, Shard], ended: Collection[str], stopped: Collection[str] = ()
) -> list[str]:
    """Those that are not read to their end, while all their parents are: a parent that is not
    there any more holds nothing. ``stopped``: gone, and nobody has decided yet that it goes on."""
    return sorted(
        shard.id
        for shard in shards.values()
        if shard.id not in ended
        and all(
            parent in ended or (parent not in shards and parent not in stopped)
            for parent in shard.parents
        )
    )


def childless(shards: Mapping[str, Shard], ended: Collection[str]) -> bool:
    """Whether one is read to its end whose children are not known yet."""
    parents = {parent for shard in shards.values() for parent in shard.parents}
    return any(name in shards and name not in parents for name in ended)


def _now(answer: Mapping[str, Any]) -> datetime:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    try:
        found = parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return datetime.fromtimestamp(int(time.time()), UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
