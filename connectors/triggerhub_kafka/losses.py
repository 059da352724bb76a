"""Records that were gone before they were read, and how long that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import TopicPartition

_SHOWN_FOR = 24 * 3600
"""Seconds: as long as ``why`` knows of a delivery; a morning after is within it."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Lost:
    """Records of one partition that were gone before they were read."""

    first: int
    """The offset that was not there."""
    next: int
    """Where it went on; less than ``first`` when the partition ends before that."""
    records: int
    """How many at most: compaction and transactions leave gaps."""
    at: int
    """When that was found last, in seconds since the epoch."""

    def shown(self, now: float) -> bool:
        """Whether it is still told."""
        return now - self.at < _SHOWN_FOR

    def told(self, partition: TopicPartition) -> str:
        """A sentence for a condition."""
        where = f"topic {partition.topic} partition {partition.partition}"
        when = datetime.fromtimestamp(self.at, UTC).isoformat().replace("+00:00", "Z")
        if self.next < self.first:
            return (
                f"{where}: offset {self.first} was not there, the partition ended before it; went "
                f"on with {self.next} at {when}"
            )
        return (
            f"{where}: up to {self.records} records from offset {self.first} to {self.next - 1} "
            f"were gone before they were read; went on with {self.next} at {when}"
        )


def lose(before: Lost | None, position: int, to: int, now: float) -> Lost:
    """The reader of a partition went from one offset ``to`` the next that is there. ``before``:
    what is told of that partition until now."""
    at = int(now)
    if before is None or not before.shown(now) or to < position or before.next < before.first:
        return Lost(position, to, max(0, to - position), at)
    twice = max(0, min(to, before.next) - max(position, before.first))
    records = before.records + to - position - twice
    return Lost(min(position, before.first), max(to, before.next), records, at)


def told(lost: Mapping[TopicPartition, Lost], now: float) -> str:
    """What is told of all partitions; empty: nothing."""
    shown = sorted(item for item in lost.items() if item[1].shown(now))
    texts = [one.told(partition) for partition, one in shown[:_SHOWN]]
    if len(shown) > _SHOWN:
        texts.append(f"and {len(shown) - _SHOWN} more partitions")
    return "; ".join(texts)
