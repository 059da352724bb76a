"""Offsets by partition, as people read and write them: ``0:1520,1:1498``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from aiokafka import TopicPartition

_PLACE = re.compile(r"(?:([a-zA-Z0-9._-]{1,249}):)?([0-9]{1,9}):([0-9]{1,18})", re.ASCII)
_EXPECTED = (
    "expected a time, Earliest, or offsets such as 0:1520,1:1498 (partition:offset, or "
    "topic:partition:offset where there are several topics)"
)


def say_places(offsets: Mapping[TopicPartition, int], *, several: bool) -> list[str]:
    """``partition:offset`` each, ``topic:partition:offset`` where there are several topics."""
    return [
        f"{f'{at.topic}:' if several else ''}{at.partition}:{offset}"
        for at, offset in sorted(offsets.items())
    ]


def read_places(text: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Offsets by partition; none for ``Earliest``. Raises ValueError for what names no partition
    of these, one twice, or nothing."""
    if text == "Earliest":
        return {}
    found: dict[TopicPartition, int] = {}
    topics = {at.topic for at in partitions}
    for part in text.split(","):
        match = _PLACE.fullmatch(part.strip())
        if match is None or (match[1] is None and len(topics) > 1):
            raise ValueError(f"found {text!r}, {_EXPECTED}")
        at = TopicPartition(match[1] or next(iter(topics), ""), int(match[2]))
        if at not in partitions:
            raise ValueError(f"found {part.strip()!r}, expected one of the trigger's partitions")
        if at in found:
            raise ValueError(f"found {at.partition} of {at.topic} twice, expected it once")
        found[at] = int(match[3])
    return found
