"""Records of a shard that were gone before they were read, and how long that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from triggerhub.connector import Problem

_SHOWN_FOR = 24 * 3600
"""Seconds: as long as ``why`` knows of a delivery; a morning after is within it."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Lost:
    """Some records of one shard may be gone. Stored with its checkpoint."""

    why: str
    """How that is known, and where it went on."""
    at: int
    """When that was found, in seconds since the epoch."""

    def shown(self, now: float) -> bool:
        """Whether it is still told."""
        return now - self.at < _SHOWN_FOR

    def told(self, stream: str, shard: str) -> str:
        """A sentence for a condition."""
        when = datetime.fromtimestamp(self.at, UTC).isoformat().replace("+00:00", "Z")
        return f"shard {shard} of stream {stream}: {self.why}, at {when}"


def told(stream: str, lost: Mapping[str, Lost], now: float) -> Problem | None:
    """What is told of a stream's shards, by their names; None: nothing."""
    shown = sorted(item for item in lost.items() if item[1].shown(now))
    if not shown:
        return None
    texts = [one.told(stream, shard) for shard, one in shown[:_SHOWN]]
    if len(shown) > _SHOWN:
        texts.append(f"and {len(shown) - _SHOWN} more shards")
    return Problem("CheckpointExpired", "; ".join(texts))
