"""What is written behind the description of a durable consumer: the seeks that were done to it.

``triggerhub: shop.orders.f [seek=2026-11-23-a@1795420800,1520 before=x,y]``. It is written in the
request that creates the consumer where the seek says, so that a seek is known to be done exactly as
long as the position is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from triggerhub.connector import Sought

_REMEMBERED = 8
_LONGEST = 4096
"""Bytes that a description may have."""
_FORM = re.compile(r" ?\[seek=([^ @\]]+)@([0-9]{1,12}),([0-9]{1,20})(?: before=([^ \]]+))?\]$")


@dataclass(frozen=True, slots=True)
class Done:
    """One that was done."""

    id: str
    time: int
    """Seconds since the epoch."""
    sequence: int
    """Where to."""


@dataclass(frozen=True, slots=True)
class Note:
    """Of one consumer."""

    seek: Done | None = None
    """The last."""
    before: tuple[str, ...] = ()
    """Ids of those before it, the latest first."""

    def done(self, seek_id: str) -> bool:
        """Whether that seek is done."""
        return self.seek is not None and seek_id in (self.seek.id, *self.before)

    def sought(self, done: Done) -> Note:
        """After one more."""
        ids = () if self.seek is None else (self.seek.id, *self.before)
        return Note(done, ids[: _REMEMBERED - 1])

    @property
    def told(self) -> Sought | None:
        """For ``Report.sought``."""
        if self.seek is None:
            return None
        time = datetime.fromtimestamp(self.seek.time, UTC)
        return Sought(id=self.seek.id, time=time, positions=str(self.seek.sequence))


NOTHING = Note()


def read_note(description: str) -> Note:
    """An empty one where nothing was done, or by something else."""
    found = _FORM.search(description)
    if found is None:
        return NOTHING
    before = tuple(found[4].split(",")) if found[4] else ()
    return Note(Done(found[1], int(found[2]), int(found[3])), before)


def described(description: str, note: Note) -> str:
    """A description with this note instead of its own."""
    text = _FORM.sub("", description)
    if (seek := note.seek) is None:
        return text
    before = f" before={','.join(note.before)}" if note.before else ""
    behind = f" [seek={seek.id}@{seek.time},{seek.sequence}{before}]"
    room = _LONGEST - len(behind)
    return text.encode()[:room].decode(errors="ignore") + behind
