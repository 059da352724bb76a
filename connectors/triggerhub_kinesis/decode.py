"""A Kinesis record as events: one, or, where a producer put several together, as many.

An event is ``dev.triggerhub.kinesis.record``: source ``/kinesis/<stream>``, the sequence number as
id (the shard's number is part of it), and ``<sequence number>:<n>`` for part n, from 0, of an
aggregated record. Its key is the partition key; its time is when the stream took it. Data comes
byte for byte. A record has no headers: the content type is ``application/json`` where the data
begins and ends as a JSON object or array does (two byte comparisons; nothing is parsed), and
otherwise ``application/octet-stream``. For the same reason a record cannot say that it is a
CloudEvent: one in JSON is data like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from triggerhub.cloudevents import guessed_type
from triggerhub.event import Event, Origin
from triggerhub_kinesis.aggregated import AggregateError, is_aggregated, unpack

TYPE = "dev.triggerhub.kinesis.record"

Record = Mapping[str, Any]
"""As ``GetRecords`` answers: ``Data`` (bytes), ``PartitionKey``, ``SequenceNumber`` and
``ApproximateArrivalTimestamp`` (an aware datetime; may be missing)."""


def decoder(stream: str, shard: str) -> Callable[[Record], list[Event]]:
    """The function that turns records of one shard into events, at least one each. It raises
    nothing: what it cannot make sense of becomes an event with a ``fault``."""
    source = f"/kinesis/{stream}"

    def decode(record: Record) -> list[Event]:
        data: bytes = record["Data"]
        # Data of this first byte is not UTF-8 text, so hardly any other is looked at.
        if data[:1] == b"\xf3" and is_aggregated(data):
            return _parts(stream, shard, record)
        return [
            Event(
                id=record["SequenceNumber"],
                source=source,
                type=TYPE,
                data=data,
                datacontenttype=guessed_type(data),
                time=_time(record),
                key=record["PartitionKey"],
                origin=partial(_origin, stream, shard, record),
            )
        ]

    return decode


def _parts(stream: str, shard: str, record: Record) -> list[Event]:
    source = f"/kinesis/{stream}"
    sequence: str = record["SequenceNumber"]
    time = _time(record)
    try:
        parts = unpack(record["Data"])
    except AggregateError as error:
        return [
            Event(
                id=sequence,
                source=source,
                type=TYPE,
                data=record["Data"],
                datacontenttype="application/octet-stream",
                time=time,
                key=record["PartitionKey"],
                origin=partial(_origin, stream, shard, record),
                fault=f"its digest fits, but it is no aggregated record: {error}",
            )
        ]
    return [
        Event(
            id=f"{sequence}:{number}",
            source=source,
            type=TYPE,
            data=part.data,
            datacontenttype=guessed_type(part.data),
            time=time,
            key=part.key,
            origin=partial(
                _part_origin, stream, shard, record, number, part.key, part.hash_key, part.data
            ),
        )
        for number, part in enumerate(parts)
    ]


def _origin(stream: str, shard: str, record: Record) -> Origin:
    return Origin(
        coordinates=_coordinates(stream, shard, record),
        key=record["PartitionKey"].encode(),
        value=record["Data"],
    )


def _part_origin(
    stream: str,
    shard: str,
    record: Record,
    number: int,
    key: str,
    hash_key: str | None,
    data: bytes,
) -> Origin:
    """The part's data, not the whole: that may be a thousand times as much, in each letter."""
    coordinates = _coordinates(stream, shard, record)
    coordinates |= {"subSequence": str(number), "recordPartitionKey": record["PartitionKey"]}
    if hash_key is not None:
        coordinates["explicitHashKey"] = hash_key
    return Origin(coordinates=coordinates, key=key.encode(), value=data)


def _coordinates(stream: str, shard: str, record: Record) -> dict[str, str]:
    return {"stream": stream, "shard": shard, "sequence": record["SequenceNumber"]}


def _time(record: Record) -> datetime | None:
    moment: datetime | None = record.get("ApproximateArrivalTimestamp")
    return None if moment is None else moment.astimezone(UTC)
