"""What is written beside a committed offset: the metadata that Kafka keeps with it.

A line of words such as ``triggerhub partitions=3 choice=1a2b3c4d``. Words that are not known are
passed over, so that releases may read each other's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from triggerhub_kafka.losses import Lost

_FIRST = "triggerhub"
_REMEMBERED = 8
"""Seeks whose ids are kept: metadata may have 4096 bytes."""


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
    choice: str = ""
    """Which topics the group reads (``KafkaSource.choice``), once each that there was then had an
    offset: a topic that was made later is told from one that the group has always known."""
    lost: Lost | None = None

    def __str__(self) -> str:
        text = f"{_FIRST} partitions={self.width}"
        if self.seek is not None:
            text += f" seek={self.seek.id}@{self.seek.time},{self.seek.offset}"
            if self.before:
                text += f" before={','.join(self.before)}"
        if self.choice:
            text += f" choice={self.choice}"
        if (lost := self.lost) is not None:
            text += f" lost={lost.first}:{lost.next}:{lost.records}:{lost.at}"
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
    first, *words = (metadata or "").split(" ")
    values = dict(word.split("=", 1) for word in words if "=" in word)
    before, lost = values.get("before"), values.get("lost")
    try:
        if first != _FIRST:
            return None
        return Note(
            width=int(values["partitions"]),
            seek=_read_seek(values["seek"]) if "seek" in values else None,
            before=tuple(before.split(",")) if before else (),
            choice=values.get("choice", ""),
            lost=None if lost is None else Lost(*map(int, lost.split(":"))),
        )
    except (KeyError, ValueError, TypeError):
        return None


def _read_seek(text: str) -> Seek:
    """Raises ValueError."""
    seek_id, _, rest = text.partition("@")
    time, offset = rest.split(",")
    return Seek(seek_id, int(time), int(offset))
