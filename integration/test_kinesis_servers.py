"""What the tests of the Kinesis connector stand on: the endpoint, its tools and its faults."""

from __future__ import annotations

import time
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from integration import kinesis_proxy
from integration.kinesis_proxy import faults
from integration.kinesis_servers import Kinesis, Moto
from integration.kinesis_tools import (
    HIGHEST,
    client,
    create_stream,
    is_open,
    merge,
    put,
    resize,
    shards,
    split,
)

FIRST = "shardId-000000000000"


async def test_shards_have_parents_and_the_last_records_come_with_the_children(
    kinesis: Kinesis,
) -> None:
    stream = f"s{uuid4().hex}"
    await create_stream(kinesis.endpoint, stream)
    ids = await put(kinesis.endpoint, stream, *((f"k{n}", b"%d" % n) for n in range(700)))
    left, right = await split(kinesis.endpoint, stream, FIRST)
    [high] = await put(kinesis.endpoint, stream, ("k", b"high"), hash_key=HIGHEST)
    child = await merge(kinesis.endpoint, stream, left, right)
    await resize(kinesis.endpoint, stream, 2)
    found = await shards(kinesis.endpoint, stream)
    assert [(s["ShardId"], is_open(s)) for s in found][:4] == [
        (FIRST, False), (left, False), (right, False), (child, False),
    ]  # fmt: skip
    assert sum(map(is_open, found)) == 2
    async with client(kinesis.endpoint) as aws:
        iterator = await aws.get_shard_iterator(
            StreamName=stream, ShardId=FIRST, ShardIteratorType="TRIM_HORIZON"
        )
        answer = await aws.get_records(ShardIterator=iterator["ShardIterator"])
        of_child = await aws.get_shard_iterator(
            StreamName=stream, ShardId=right, ShardIteratorType="TRIM_HORIZON"
        )
        child_records = (await aws.get_records(ShardIterator=of_child["ShardIterator"]))["Records"]
    assert [each["SequenceNumber"] for each in answer["Records"]] == ids
    assert [each["SequenceNumber"] for each in child_records] == [high]
    assert "NextShardIterator" not in answer
    assert {each["ShardId"] for each in answer["ChildShards"]} == {left, right}


async def test_faults_are_what_a_client_sees(kinesis: Kinesis) -> None:
    stream = f"s{uuid4().hex}"
    await create_stream(kinesis.endpoint, stream)
    await put(kinesis.endpoint, stream, ("k", b"x"))
    with faults(kinesis.endpoint) as proxy:
        async with client(proxy.endpoint, attempts=1) as aws:
            start = {"StreamName": stream, "ShardId": FIRST, "ShardIteratorType": "TRIM_HORIZON"}
            proxy.inject(kinesis_proxy.error("ThrottlingException"), "ListShards", times=1)
            proxy.inject(kinesis_proxy.error("ExpiredIteratorException"), "GetRecords", times=1)
            proxy.inject(kinesis_proxy.hollow(), "GetRecords", times=1)
            with pytest.raises(ClientError, match="ThrottlingException"):
                await aws.list_shards(StreamName=stream)
            assert (await aws.list_shards(StreamName=stream))["Shards"]
            assert (proxy.calls["ListShards"], proxy.injected["ListShards"]) == (2, 1)
            iterator = (await aws.get_shard_iterator(**start))["ShardIterator"]
            with pytest.raises(ClientError, match="ExpiredIteratorException"):
                await aws.get_records(ShardIterator=iterator)
            answer = await aws.get_records(ShardIterator=iterator)
            assert (answer["Records"], answer["MillisBehindLatest"]) == ([], 60_000)
            answer = await aws.get_records(ShardIterator=answer["NextShardIterator"])
            assert [each["Data"] for each in answer["Records"]] == [b"x"]
            assert proxy.reads() == {f"{stream}/{FIRST}": 3}
            proxy.inject(kinesis_proxy.cut())
            with pytest.raises(ConnectionClosedError):
                await aws.list_shards(StreamName=stream)
            proxy.heal()
            proxy.inject(kinesis_proxy.slow(0.3), times=1)
            began = time.monotonic()
            assert (await aws.list_shards(StreamName=stream))["Shards"]
            assert time.monotonic() - began >= 0.3


async def test_the_limit_of_reads_holds_for_each_shard(kinesis: Kinesis) -> None:
    stream = f"s{uuid4().hex}"
    await create_stream(kinesis.endpoint, stream, shards=2)
    with faults(kinesis.endpoint) as proxy:
        proxy.limited = True
        async with client(proxy.endpoint, attempts=1) as aws:
            one, other = [
                (
                    await aws.get_shard_iterator(
                        StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="LATEST"
                    )
                )["ShardIterator"]
                for shard in await shards(kinesis.endpoint, stream)
            ]
            told = ""
            for _ in range(200):
                try:
                    await aws.get_records(ShardIterator=one)
                except ClientError as error:
                    told = str(error)
                    break
            assert "ProvisionedThroughputExceededException" in told
            await aws.get_records(ShardIterator=other)
            assert proxy.injected["GetRecords"] == 1
            assert proxy.busiest() == 6


async def test_roles_are_taken_on_where_there_is_sts(moto: Moto) -> None:
    async with client(moto.endpoint, "sts") as sts:
        answer = await sts.assume_role(
            RoleArn="arn:aws:iam::123456789012:role/reader", RoleSessionName="hub"
        )
    assert answer["Credentials"]["SessionToken"]
    await create_stream(moto.endpoint, f"s{uuid4().hex}")
