"""Kafka to functions that fail and hang, out of topics with gaps."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from aiokafka import AIOKafkaProducer

from integration.function import Answer, Call, answering, hang, reply
from integration.hub import function, running
from integration.servers import Kafka, eventually
from integration.story import RETRY, story
from integration.streams import Stream, in_order, kafka_trigger, place


def test_the_markers_of_transactions_are_committed_and_no_lag(kafka: Kafka, tmp_path: Path) -> None:
    stream = Stream(kafka.broker, partitions=1)
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, "orders", "f"))
        hub.start()
        asyncio.run(transact(stream))
        hub.wait(lambda: {b"first", b"last"} <= {c.body for c in target.accepted}, "delivery")
        # The last that there is in the partition is a marker, and no record.
        hub.wait(lambda: stream.committed("orders") == stream.ends(), "commit to the end", 5)
        hub.wait(lambda: hub.metric("triggerhub_source_lag") == 0, "lag 0", 10)


async def transact(stream: Stream) -> None:
    """A transaction that is committed, one that is aborted, twice."""
    client = AIOKafkaProducer(
        bootstrap_servers=stream.broker, transactional_id=f"{stream.topic}-writer"
    )
    async with client:
        for value in (b"first", b"last"):
            async with client.transaction():
                await client.send_and_wait(stream.topic, value, key=b"k0")
            await client.begin_transaction()
            await client.send_and_wait(stream.topic, b"aborted", key=b"k0")
            await client.abort_transaction()


def test_records_that_compaction_removed_are_not_waited_for(kafka: Kafka, tmp_path: Path) -> None:
    compacted = {
        "cleanup.policy": "compact", "segment.ms": "1", "min.cleanable.dirty.ratio": "0.001",
    }  # fmt: skip
    stream = Stream(kafka.broker, partitions=1, settings=compacted)
    for _ in range(6):
        stream.send(400)
    eventually(lambda: stream.there() < set(stream.sent), "compaction")
    with answering() as target, running(tmp_path, start=False) as hub:
        hub.write("f.yaml", function("f", target.url))
        hub.write("t.yaml", kafka_trigger(stream, "orders", "f"))
        hub.start()
        hub.wait(lambda: stream.committed("orders") == stream.ends(), "commit to the end")
        hub.wait(lambda: hub.metric("triggerhub_source_lag") == 0, "lag 0", 10)
        delivered = {call.id for call in target.accepted}
        # Compaction goes on, and keeps the latest record of each key.
        assert stream.there() <= delivered < set(stream.sent)
        assert in_order(target.accepted)


def test_a_key_that_hangs_among_failures_blocks_itself_alone_and_no_commit_passes_it(
    kafka: Kafka, tmp_path: Path
) -> None:
    def failing(call: Call) -> Answer:
        if call.body == b"k1:5":
            return hang
        chance = random.Random(f"{call.id} {call.attempt}").random()
        return reply(500 if chance < 0.3 and call.attempt < 6 else 200, after=0.01)

    retry = {"attempts": 8} | RETRY
    with story(tmp_path, kafka.broker, failing, timeout="1s", retry=retry) as told:
        with told.stream.flowing(per_second=100):
            told.hub.wait(lambda: any(c.body == b"k1:5" for c in told.target.calls), "the poison")
            poison = next(call.id for call in told.target.calls if call.body == b"k1:5")
            partition, offset = place(poison)
            committed = 0
            while True:
                found = told.committed()[partition]
                if told.hub.letters():
                    break
                committed = found
                assert committed <= offset
                told.flows(20)  # of other keys, of that partition too
            assert committed == offset
            told.hub.wait(lambda: told.committed()[partition] > offset, "commit after it")
        letter = told.hub.letters()[0]
        assert (letter["reason"], letter["attempts"]) == ("AttemptsExhausted", 8)
        assert len({c.id for c in told.target.calls if c.status == 500}) > len(told.stream.sent) / 5
        told.ends_well(dead={poison})
