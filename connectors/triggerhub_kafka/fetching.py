"""What aiokafka's fetcher lacks: an end to what it holds, patience with brokers that have nothing,
and with names of headers.

It asks again and again for every partition of which it holds nothing, also while nobody takes what
it has; so it would hold one fetch of each partition, however many there are. It asks twice a second
where nothing comes. And of a header whose name is not UTF-8, which Kafka does not forbid, it raises
for ever.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.util import calc_crc32c

HELD = 32 * 1024 * 1024
"""Bytes of batches, as they came, from which on no more are asked for."""
HELD_MS = 30_000
"""How long a broker holds a fetch while there is nothing to fetch."""
HELD_BRIEFLY_MS = 500
_LEADER_EVERY = 0.5
"""Seconds between two looks for the leader of a partition that has none."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
"""Of a batch: base offset, length, leader's epoch, magic, CRC, attributes, last offset's delta,
first and last timestamp, producer's id and epoch, base sequence, number of records."""
_AFTER_LENGTH = struct.calcsize(">qi")
_AFTER_CRC = struct.calcsize(">qiibI")
_CODEC, _CONTROL = 0x07, 0x20
_DECODERS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes, 1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode,
}  # fmt: skip
_NO_ASCII = bytes(range(128)) + b"?" * 128


class Fetched(OrderedDict[TopicPartition, Any]):
    """What is fetched and not taken, by partition: stands in for the fetcher's own dict."""

    def __init__(self, mending: set[TopicPartition]) -> None:
        super().__init__()
        self._mending = mending
        self._sizes: dict[TopicPartition, int] = {}
        self.bytes = 0

    def __setitem__(self, partition: TopicPartition, fetched: Any) -> None:
        if partition in self:
            del self[partition]
        if type(fetched) is FetchResult:
            self._sizes[partition] = fetched._partition_records._records.size_in_bytes()
            self.bytes += self._sizes[partition]
            take = fetched.getall
            fetched.getall = lambda most=None: self._take(partition, fetched, take, most)
        super().__setitem__(partition, fetched)

    def __delitem__(self, partition: TopicPartition) -> None:
        super().__delitem__(partition)
        self.bytes -= self._sizes.pop(partition, 0)

    def clear(self) -> None:
        super().clear()
        self._sizes.clear()
        self.bytes = 0

    def _take(
        self,
        partition: TopicPartition,
        fetched: FetchResult,
        take: Callable[[int | None], list[Any]],
        most: int | None,
    ) -> list[Any]:
        try:
            return take(most)
        except UnicodeDecodeError as error:
            if partition in self._mending:
                raise CorruptRecordException(f"{partition}: {error}") from error
            # It is fetched again from the same offset, and mended.
            self._mending.add(partition)
            fetched._partition_records = None
            return []


class WaitInterruptedError(KafkaError):  # type: ignore[misc]
    """Ends a wait for records."""


class PatientFetcher(Fetcher):  # type: ignore[misc]
    """Holds no more than ``HELD``, and lets a broker hold a fetch for long while there is nothing
    to fetch: an answer comes with the first record anyway."""

    _came = False
    _sought_leader = -_LEADER_EVERY

    def __init__(self, *arguments: Any, mending: set[TopicPartition], **options: Any) -> None:
        """``mending`` is told the partitions whose batches must go through ``mend`` from now
        on."""
        super().__init__(*arguments, **options)
        self.fetched = self._records = Fetched(mending)

    async def fetched_records(self, partitions: Any, *rest: Any, **options: Any) -> Any:
        self._came = bool(self._records.keys() & (partitions or self._records.keys()))
        return await super().fetched_records(partitions, *rest, **options)

    def _create_fetch_waiter(self) -> Any:
        waiter = super()._create_fetch_waiter()
        if self._came:
            # Something came, and no record: a transaction's marker. The position has moved, and
            # is to be committed.
            waiter.set_exception(WaitInterruptedError())
        self._came = True
        return waiter

    def _get_actions_per_node(self, assignment: Any) -> Any:
        requests, resets, timeout, leaderless, paused = super()._get_actions_per_node(assignment)
        if self.fetched.bytes > HELD:
            requests = []
        # aiokafka has one fetch under way for each broker: a partition that this one leaves out
        # would wait for its end. And the first one tells where each partition ends.
        waiting = self._records or resets or leaderless or paused
        if not waiting and _ends_known(assignment):
            for _, request in requests:
                request._max_wait_ms = HELD_MS
        if leaderless:
            # aiokafka would read the metadata again as fast as brokers answer.
            timeout = min(timeout, _LEADER_EVERY)
            leaderless = self._loop.time() >= self._sought_leader + _LEADER_EVERY
            if leaderless:
                self._sought_leader = self._loop.time()
        return requests, resets, timeout, leaderless, paused


def _ends_known(assignment: Any) -> bool:
    return all(assignment.state_value(at).highwater is not None for at in assignment.tps)


def mend(batches: bytes) -> bytes:
    """The same batches with names of headers that are UTF-8: in one that is not, each byte that is
    no ASCII is a ``?``. Batches that cannot be read stay as they are."""
    mended = []
    at = 0
    while at + _HEADER.size <= len(batches):
        length = _AFTER_LENGTH + struct.unpack_from(">i", batches, at + 8)[0]
        batch = batches[at : at + length]
        mended.append(_mend(batch) if len(batch) == length else batch)
        at += length
    mended.append(batches[at:])
    return b"".join(mended)


def _mend(batch: bytes) -> bytes:
    fields = list(_HEADER.unpack_from(batch))
    magic, crc, attributes, number = fields[3], fields[4], fields[5], fields[12]
    decode = _DECODERS.get(attributes & _CODEC)
    if magic != 2 or attributes & _CONTROL or decode is None:
        return batch
    if calc_crc32c(batch[_AFTER_CRC:]) != crc:
        return batch
    records = bytearray(decode(batch[_HEADER.size :]))
    try:
        if not _mend_names(records, number):
            return batch
    except IndexError:
        return batch
    fields[1] = _HEADER.size - _AFTER_LENGTH + len(records)
    fields[5] = attributes & ~_CODEC
    made = bytearray(_HEADER.pack(*fields)) + records
    struct.pack_into(">I", made, _AFTER_CRC - 4, calc_crc32c(bytes(made[_AFTER_CRC:])))
    return bytes(made)


def _mend_names(records: bytearray, number: int) -> bool:
    """In place. Whether there was anything to mend. Raises IndexError."""
    found = False
    at = 0
    for _ in range(number):
        length, at = _varint(records, at)
        end = at + length
        at += 1  # attributes
        for _ in range(2):  # timestamp and offset, as deltas
            _, at = _varint(records, at)
        for _ in range(2):  # key and value
            size, at = _varint(records, at)
            at += max(0, size)
        headers, at = _varint(records, at)
        for _ in range(headers):
            size, at = _varint(records, at)
            name = bytes(records[at : at + max(0, size)])
            if not _is_text(name):
                records[at : at + len(name)] = name.translate(_NO_ASCII)
                found = True
            at += len(name)
            size, at = _varint(records, at)
            at += max(0, size)
        if at != end:
            raise IndexError(at)
    return found


def _varint(buffer: bytearray, at: int) -> tuple[int, int]:
    """A zigzag number and where it ends. Raises IndexError: aiokafka's own, in C, reads beyond."""
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
