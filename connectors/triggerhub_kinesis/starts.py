"""Where to begin in each shard of a stream, and where to go on after a seek: written once, by one
process for all, before anybody reads."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from triggerhub.connector import Position, Positions, Sought, Subscription
from triggerhub.fields import parse_time
from triggerhub_kinesis.places import (
    ENDED,
    LATEST,
    MARKER,
    SHARD,
    TRIM_HORIZON,
    Begun,
    Place,
    at_time,
    read_begun,
    rfc3339,
)
from triggerhub_kinesis.source import KinesisSource, Seek, StartAt
from triggerhub_kinesis.stream import Shard, Stream, Summary, in_order

log = logging.getLogger("triggerhub.kinesis")

_CLAIM = "starts"
_TTL = 15.0
_TRY_EVERY = 0.5

Where = str | StartAt
"""``Latest``, ``TrimHorizon`` or a time."""


class StillRead(Exception):  # noqa: N818 - a fact about the shard
    """A shard cannot be moved: another process reads it."""


class Starts:
    """Sees to it that each shard has a place."""

    def __init__(self, stream: Stream, subscription: Subscription[KinesisSource]) -> None:
        self._stream = stream
        self._source = subscription.source
        self._positions: Positions = subscription.positions
        self._report = subscription.report
        self._iterators: dict[str, tuple[Place, str]] = {}

    def iterator(self, shard: str, place: Place) -> str | None:
        """Where this process wrote down that a shard begins with ``Latest``, and nobody has read
        it since: exactly there, while the place itself is the second in which that was."""
        pinned, iterator = self._iterators.pop(shard, (None, None))
        return iterator if pinned == place else None

    async def fix(self, summary: Summary, *, awaited: bool, patient: bool) -> None:
        """Begin where nothing has begun, and do the seek that is not done yet. ``awaited``: the
        stream was not there before, so all of it counts. ``patient``: wait for others to stop
        reading; else raises StillRead.

        Raises what botocore raises, and OSError from the store.
        """
        while True:
            stored = await self._positions.load()
            begun = _begun(stored)
            if begun is not None and begun.created == summary.created and self._done(begun):
                self._tell(begun)
                return
            if await self._positions.claim(_CLAIM, _TTL):
                try:
                    await self._write(stored, begun, summary, awaited, patient)
                finally:
                    await self._positions.release(_CLAIM)
            else:
                await asyncio.sleep(_TRY_EVERY)

    def _done(self, begun: Begun) -> bool:
        seek = self._source.seek
        return seek is None or seek.id in begun.seeks

    def _tell(self, begun: Begun) -> None:
        if begun.seeks and begun.sought:
            when = parse_time(begun.sought)
            self._report.sought(Sought(id=begun.seeks[0], time=when, positions=begun.to))

    async def _write(
        self,
        stored: dict[str, Position],
        begun: Begun | None,
        summary: Summary,
        awaited: bool,
        patient: bool,
    ) -> None:
        where: Where = "TrimHorizon" if awaited else self._source.start_from
        if begun is not None and begun.created != summary.created:
            log.warning("kinesis.stream_recreated stream=%s", self._stream.name)
            for key in stored:
                if key.startswith(SHARD):
                    await self._positions.delete(key)
            begun, where = None, "TrimHorizon"
        marker = begun or Begun(summary.created)
        seek = self._source.seek
        moving = begun is not None
        if seek is not None:
            where = seek.to
        for shard in in_order(await self._stream.shards()):
            await self._positions.claim(_CLAIM, _TTL)
            await self._move(shard, where, summary, held=moving, patient=patient)
        if seek is not None:
            marker = marker.sought_now(seek.id, summary.now, _said(seek, summary.now))
        await self._positions.save(MARKER, str(marker))

    async def _move(
        self, shard: Shard, where: Where, summary: Summary, *, held: bool, patient: bool
    ) -> None:
        """``held``: others may read it."""
        place = await self._place(shard, where, summary)
        key = SHARD + shard.id
        while held and not await self._positions.claim(key, _TTL):
            text = f"shard {shard.id} is still read by another process"
            if not patient:
                raise StillRead(text)
            self._report.disconnected("ShardInUse", f"{text}: the seek waits until it is not")
            await asyncio.sleep(_TRY_EVERY)
            await self._positions.claim(_CLAIM, _TTL)
        try:
            await self._positions.save(key, str(place))
        finally:
            if held:
                await self._positions.release(key)

    async def _place(self, shard: Shard, where: Where, summary: Summary) -> Place:
        if isinstance(where, StartAt):
            return at_time(parse_time(where.timestamp))
        if where == "TrimHorizon":
            return Place(TRIM_HORIZON)
        if shard.closed:
            return Place(ENDED)
        # In this order: what comes after the iterator is not older than the time.
        iterator, now = await self._stream.iterator(shard.id, Place(LATEST))
        place = at_time(now, pinned=True)
        self._iterators[shard.id] = place, iterator
        return place


async def nobody_reads(positions: Positions) -> None:
    """Raises StillRead where another process does; OSError."""
    for key in await positions.load(SHARD):
        if not await positions.claim(key, _TTL):
            name = key.removeprefix(SHARD)
            raise StillRead(f"shard {name} is still read by another process")
        await positions.release(key)


def _begun(stored: dict[str, Position]) -> Begun | None:
    found = stored.get(MARKER)
    return None if found is None else read_begun(found.value)


def _said(seek: Seek, now: datetime) -> str:
    if isinstance(seek.to, StartAt):
        return seek.to.timestamp
    if seek.to == "Latest":
        return rfc3339(now)
    return seek.to
