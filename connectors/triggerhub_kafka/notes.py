"""What is written beside a committed offset: the metadata that Kafka keeps with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_REMEMBERED = 8
"""Seeks whose ids are kept: metadata may have 4096 bytes."""
_ID = r"[A-Za-z0-9._:+-]+"
_NOTE = re.compile(
    rf"triggerhub partitions=([0-9]+)"
    rf"( seek=({_ID})@([0-9]+),([0-9]+)( before=({_ID}(,{_ID})*))?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Seek:
    """One that was done in a partition."""

    id: str
    time: int
    """Seconds since the epoch."""
    offset: int
    """Where to."""


@dataclass(frozen=True, slots=True)
class Note:
    """Of one partition. It is committed with the offset, in one write, so that what has happened
    to a position is known exactly as long as the position is."""

    width: int
    """How many partitions its topic had when the group began with it: one that was added to the
    topic later is told from one that the group has always known."""
    seek: Seek | None = None
    """The last."""
    before: tuple[str, ...] = ()
    """Ids of those before it, the latest first."""

    def __str__(self) -> str:
        text = f"triggerhub partitions={self.width}"
        if self.seek is not None:
            text += f" seek={self.seek.id}@{self.seek.time},{self.seek.offset}"
            if self.before:
                text += f" before={','.join(self.before)}"
        return text

    def done(self, seek_id: str) -> bool:
        """Whether that seek is done."""
        return self.seek is not None and seek_id in (self.seek.id, *self.before)

    def sought(self, seek: Seek) -> Note:
        """After one more."""
        ids = () if self.seek is None else (self.seek.id, *self.before)
        return replace(self, seek=seek, before=ids[: _REMEMBERED - 1])


def read_note(metadata: str | None) -> Note | None:
    """None: the offset was committed by something else."""
    found = _NOTE.fullmatch(metadata or "")
    if found is None:
        return None
    seek = None if found[3] is None else Seek(found[3], int(found[4]), int(found[5]))
    return Note(int(found[1]), seek, tuple(found[7].split(",")) if found[7] else ())
