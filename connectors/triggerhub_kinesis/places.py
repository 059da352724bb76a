"""Where to go on in a shard, and what a stream's checkpoints as a whole say, as they are stored."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from triggerhub.fields import parse_time
from triggerhub_kinesis.losses import Lost

AT = "AT_SEQUENCE_NUMBER"
AFTER = "AFTER_SEQUENCE_NUMBER"
TIMESTAMP = "AT_TIMESTAMP"
TRIM_HORIZON = "TRIM_HORIZON"
LATEST = "LATEST"
ENDED = "ENDED"

MARKER = "stream"
"""Key of a ``Begun``."""
SHARD = "shard/"
"""Keys of the shards' places and claims begin with it."""
_REMEMBERED = 8
"""Seeks whose ids are kept."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on in a shard: all that comes before is settled."""

    type: str
    """A ``ShardIteratorType`` of Kinesis (API reference, GetShardIterator), or ``ENDED``: there is
    nothing more to come. ``LATEST`` is never stored."""
    where: str = ""
    """A sequence number, or a time (RFC 3339)."""
    until: int = 0
    """Seconds since the epoch: what arrived before then is settled. 0: not known."""
    lost: Lost | None = None
    """What was gone on the way here."""

    def __str__(self) -> str:
        return json.dumps({name: value for name, value in asdict(self).items() if value})

    def arguments(self) -> dict[str, Any]:
        """Of GetShardIterator."""
        found: dict[str, Any] = {"ShardIteratorType": self.type}
        if self.type in (AT, AFTER):
            found["StartingSequenceNumber"] = self.where
        elif self.type == TIMESTAMP:
            found["Timestamp"] = parse_time(self.where)
        return found


def read_place(text: str) -> Place:
    """Raises ValueError for what no hub wrote."""
    found = json.loads(text)
    lost = found.get("lost")
    return Place(
        str(found["type"]),
        str(found.get("where", "")),
        int(found.get("until", 0)),
        None if lost is None else Lost(str(lost["why"]), int(lost["at"])),
    )


def at_time(moment: datetime, *, pinned: bool = False) -> Place:
    """The first record that is not older. ``pinned``: it is the present, so that nothing before is
    missed."""
    return Place(TIMESTAMP, rfc3339(moment), int(moment.timestamp()) if pinned else 0)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Begun:
    """Each shard that the stream had has a place, written by one process for all."""

    created: int
    """Of the stream, in seconds since the epoch: another of the same name is told from it."""
    seeks: tuple[str, ...] = ()
    """Ids of those that are done, the latest first."""
    sought: str = ""
    """When the latest was done: RFC 3339."""
    to: str = ""
    """Where to."""

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    def sought_now(self, seek_id: str, now: datetime, to: str) -> Begun:
        """After one more."""
        return replace(
            self,
            seeks=(seek_id, *self.seeks)[:_REMEMBERED],
            sought=rfc3339(now),
            to=to,
        )


def read_begun(text: str) -> Begun:
    """Raises ValueError for what no hub wrote."""
    found = json.loads(text)
    return Begun(
        int(found["created"]), tuple(found["seeks"]), str(found["sought"]), str(found["to"])
    )
