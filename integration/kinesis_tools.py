"""What the tests of the Kinesis connector do to a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from aiobotocore.session import get_session
from botocore.config import Config

from integration.kinesis_servers import KEY_ID, REGION, SECRET

HIGHEST = 2**128 - 1
"""Of all hash keys."""
_BATCH = 500
_SOME_TRIES = 40
_session = cache(get_session)
"""Reads botocore's large files once."""


@asynccontextmanager
async def client(
    endpoint: str, service: str = "kinesis", *, attempts: int = 5, **options: Any
) -> AsyncIterator[Any]:
    """aiobotocore's. ``attempts``: how often it tries what is throttled or fails."""
    known = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": REGION}
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=50,
        retries={"total_max_attempts": attempts},
    )
    async with _session().create_client(
        service, endpoint_url=endpoint, config=config, **(known | options)
    ) as made:
        yield made


async def create_stream(endpoint: str, stream: str, shards: int = 1) -> str:
    """Make it, and wait until it is there; its ARN."""
    async with client(endpoint) as kinesis:
        await kinesis.create_stream(StreamName=stream, ShardCount=shards)
        return await settled(kinesis, stream)


async def delete_stream(endpoint: str, stream: str) -> None:
    async with client(endpoint) as kinesis:
        await kinesis.delete_stream(StreamName=stream, EnforceConsumerDeletion=True)


async def put(
    endpoint: str, stream: str, *records: tuple[str, bytes], hash_key: int | None = None
) -> list[str]:
    """Records by partition key and data, in this order for each key; returns their event ids."""
    async with client(endpoint) as kinesis:
        return await put_by(kinesis, stream, records, hash_key=hash_key)


async def put_by(
    kinesis: Any, stream: str, records: Sequence[tuple[str, bytes]], hash_key: int | None = None
) -> list[str]:
    """With a client."""
    place = {} if hash_key is None else {"ExplicitHashKey": str(hash_key)}
    ids: list[str] = []
    for first in range(0, len(records), _BATCH):
        answer = await kinesis.put_records(
            StreamName=stream,
            Records=[
                {"Data": data, "PartitionKey": key, **place}
                for key, data in records[first : first + _BATCH]
            ],
        )
        assert answer["FailedRecordCount"] == 0, answer
        ids += [each["SequenceNumber"] for each in answer["Records"]]
    return ids


async def shards(endpoint: str, stream: str) -> list[dict[str, Any]]:
    """All, closed ones too, as ListShards has them, by name."""
    async with client(endpoint) as kinesis:
        return await shards_by(kinesis, stream)


async def shards_by(kinesis: Any, stream: str) -> list[dict[str, Any]]:
    """With a client."""
    answer = await kinesis.list_shards(StreamName=stream)
    found: list[dict[str, Any]] = answer["Shards"]
    while token := answer.get("NextToken"):
        answer = await kinesis.list_shards(NextToken=token)
        found += answer["Shards"]
    return sorted(found, key=lambda shard: str(shard["ShardId"]))


def is_open(shard: dict[str, Any]) -> bool:
    return "EndingSequenceNumber" not in shard["SequenceNumberRange"]


async def split(endpoint: str, stream: str, shard: str) -> list[str]:
    """In the middle; its children."""
    async with client(endpoint) as kinesis:
        await settled(kinesis, stream)
        [one] = [s for s in await shards_by(kinesis, stream) if s["ShardId"] == shard]
        low, high = (int(one["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        await kinesis.split_shard(
            StreamName=stream, ShardToSplit=shard, NewStartingHashKey=str((low + high) // 2 + 1)
        )
        await settled(kinesis, stream)
        return children(await shards_by(kinesis, stream), shard)


async def merge(endpoint: str, stream: str, shard: str, adjacent: str) -> str:
    """Two shards that are neighbours; their child."""
    async with client(endpoint) as kinesis:
        await settled(kinesis, stream)
        await kinesis.merge_shards(
            StreamName=stream, ShardToMerge=shard, AdjacentShardToMerge=adjacent
        )
        await settled(kinesis, stream)
        [child] = children(await shards_by(kinesis, stream), shard)
        return child


async def resize(endpoint: str, stream: str, count: int) -> None:
    """UpdateShardCount."""
    async with client(endpoint) as kinesis:
        await settled(kinesis, stream)
        await kinesis.update_shard_count(
            StreamName=stream, TargetShardCount=count, ScalingType="UNIFORM_SCALING"
        )
        await settled(kinesis, stream)


async def settled(kinesis: Any, stream: str) -> str:
    """Wait until the stream is ACTIVE; its ARN."""
    for _ in range(_SOME_TRIES):
        answer = await kinesis.describe_stream_summary(StreamName=stream)
        summary = answer["StreamDescriptionSummary"]
        if summary["StreamStatus"] == "ACTIVE":
            return str(summary["StreamARN"])
        await asyncio.sleep(0.1)
    raise AssertionError(f"stream {stream} is {summary['StreamStatus']}")


def children(of: Iterable[dict[str, Any]], shard: str) -> list[str]:
    return [
        s["ShardId"]
        for s in of
        if shard in (s.get("ParentShardId"), s.get("AdjacentParentShardId"))
    ]
