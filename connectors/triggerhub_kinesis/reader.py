"""One shard, as long as this process has it: read, emit, know what is settled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from botocore.exceptions import BotoCoreError, ClientError

from triggerhub.connector import Problem
from triggerhub.event import Event, Outcome
from triggerhub.fields import parse_time
from triggerhub.window import OffsetTracker, Window
from triggerhub_kinesis.decode import Record, decoder
from triggerhub_kinesis.health import Health
from triggerhub_kinesis.losses import Lost
from triggerhub_kinesis.pace import Pace, Room, rest, retry
from triggerhub_kinesis.places import (
    AFTER,
    AT,
    ENDED,
    LATEST,
    TIMESTAMP,
    TRIM_HORIZON,
    Place,
    at_time,
)
from triggerhub_kinesis.problems import code, is_away, is_throttled
from triggerhub_kinesis.source import KinesisSource
from triggerhub_kinesis.stream import Batch, Stream

log = logging.getLogger("triggerhub.kinesis")

PROBLEMS = (BotoCoreError, ClientError, OSError)
"""What asking Kinesis may raise."""

_LARGEST = 10 * 1024 * 1024
"""Bytes that one GetRecords may bring (Kinesis quotas)."""
_MISPLACED = frozenset({"ResourceNotFoundException", "InvalidArgumentException"})


class Source:
    """What the readers of one subscription share."""

    def __init__(
        self,
        stream: Stream,
        source: KinesisSource,
        window: Window,
        health: Health,
        explain: Callable[[Exception], Problem],
    ) -> None:
        self.stream = stream
        self.policy = source.out_of_range
        self.window = window
        self.health = health
        self.explain = explain
        self.room = Room(64 * 1024 * 1024)
        self.retention = 24 * 3600.0
        """Seconds that the stream keeps its records."""
        self.ended = asyncio.Event()
        """A shard was read to its end, and all of it is settled."""


class Reader:
    """Reads on from a place. ``run`` ends when the shard is read to its end."""

    def __init__(
        self, shared: Source, shard: str, place: Place, pace: Pace, iterator: str | None = None
    ) -> None:
        """``iterator``: of that very place, where there is one."""
        self.shard = shard
        self._shared = shared
        self._pace = pace
        self._place = place
        self._lost = place.lost
        self._iterator = iterator
        self._decode: Callable[[Record], list[Event]] = decoder(shared.stream.name, shard)
        self._tracker = OffsetTracker()
        self._last = ""
        self._at_end = False
        self._taking = False
        self._leaving = False
        self._quiet = asyncio.Event()
        self._marks: deque[tuple[int, int]] = deque()
        """Of each batch the first record: its sequence number, and when it came in, in seconds."""
        self._behind = 0.0
        self._caught_up = 0
        """When there was nothing that was not taken, in seconds since the epoch."""

    async def run(self) -> None:
        """Until cancelled, or the shard's end. Raises what asking Kinesis raises and no waiting
        cures, and what ``emit`` raises."""
        idle = failed = 0
        await self._check_age()
        while not self._at_end:
            try:
                batch = await self._fetch()
            except PROBLEMS as error:
                failed += 1
                await self._heed(error, failed)
                continue
            failed = 0
            self._shared.health.fine(self.shard)
            self._taking = True
            try:
                taken = await self._take(batch)
            finally:
                self._taking = False
                self._shared.room.give(batch.size)
            if not taken:
                return  # the window drains, or the shard is given up: that is another's to follow
            self._iterator = batch.iterator
            self._behind = batch.behind
            if batch.iterator is None:
                self._at_end = True
                self._tell_end()
            elif batch.behind:
                idle = 0
            else:
                idle = 0 if batch.records else idle + 1
                if idle:
                    self._caught_up = int(time.time())
                await asyncio.sleep(rest(idle))

    async def leave(self, task: asyncio.Task[None], within: float) -> bool:
        """End ``task``, which is ``run``, and wait until what was taken is settled. False: it was
        not in time."""
        self._leaving = True
        if not self._taking:
            task.cancel()
        try:
            async with asyncio.timeout(within):
                await asyncio.wait([task])
                while self._tracker.open():
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def rewind(self) -> None:
        """What was taken and not settled belongs to the shard again. Not while ``run`` runs."""
        self._place = self.reached()
        self._tracker = OffsetTracker()
        self._last = ""
        self._at_end = self._place.type == ENDED
        self._taking = self._leaving = False
        self._iterator = None
        self._marks.clear()

    @property
    def lost(self) -> Lost | None:
        """What is still told of records that were gone."""
        return self._lost if self._lost is not None and self._lost.shown(time.time()) else None

    def reached(self) -> Place:
        """All that comes before is settled."""
        return replace(self._reached(), lost=self.lost)

    def _reached(self) -> Place:
        if self._tracker.open():
            oldest = self._tracker.committable()
            assert oldest is not None
            return Place(AT, str(oldest), self._arrived(oldest))
        if self._at_end:
            return Place(ENDED)
        if not self._last:
            return self._place if not self._caught_up else self._since(self._place)
        return self._since(Place(AFTER, self._last, self._arrived(int(self._last))))

    def behind(self) -> float:
        """Seconds since the oldest record came in that is not settled; 0 where there is none."""
        if self._tracker.open():
            oldest = self._tracker.committable()
            assert oldest is not None
            return max(self._behind, time.time() - self._arrived(oldest))
        return self._behind

    def _since(self, place: Place) -> Place:
        until = max(place.until, self._caught_up)
        return Place(place.type, place.where, until)

    def _arrived(self, sequence: int) -> int:
        """About when a record came in that is not older than the oldest open one."""
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= sequence:
            marks.popleft()
        return marks[0][1] if marks else int(time.time())

    async def _fetch(self) -> Batch:
        """What it holds of the room is ``batch.size``."""
        shared = self._shared
        if self._iterator is None:
            await self._find()
        assert self._iterator is not None
        await shared.room.take(_LARGEST)
        held = 0
        try:
            await self._pace.turn()
            batch = await shared.stream.records(self._iterator)
            held = batch.size
        finally:
            shared.room.give(_LARGEST - held)
        self._pace.took(batch.size)
        return batch

    async def _find(self) -> None:
        """An iterator for what comes next."""
        stream = self._shared.stream
        place = Place(AFTER, self._last) if self._last else self._place
        if place.type == TIMESTAMP:
            # Kinesis refuses a time that is still to come.
            await asyncio.sleep(parse_time(place.where).timestamp() - time.time())
        try:
            self._iterator, _ = await stream.iterator(self.shard, place)
        except ClientError as error:
            if place.type not in (AT, AFTER) or code(error) not in _MISPLACED:
                raise
            # It may be the stream, or the shard, that is not there.
            if self.shard not in await stream.shards():
                raise
            await self._go_on(f"record {place.where} is not there any more", Place(TRIM_HORIZON))

    async def _check_age(self) -> None:
        """Kinesis says nothing where a place is older than what it keeps: it goes on with the
        oldest record that is there."""
        place, kept = self._place, self._shared.retention
        if place.until and time.time() - place.until > kept:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(place.until))
            why = f"the checkpoint is of {since}, and records are kept for {kept / 3600:g} hours"
            await self._go_on(f"{why}: what came in between may be gone", place)

    async def _go_on(self, why: str, oldest: Place) -> None:
        """By policy; ``oldest`` is where there is the oldest record that is. Waits for ever where
        the policy is to stop."""
        shared = self._shared
        text = f"shard {self.shard} of stream {shared.stream.name}: {why}"
        if shared.policy == "Stop":
            text += ", and outOfRange is Stop: set spec.source.seek to say where to go on"
            shared.health.wrong(self.shard, Problem("CheckpointExpired", text))
            await asyncio.Event().wait()
        self._lost = Lost(f"{why}; went on with {shared.policy}", int(time.time()))
        log.warning("kinesis.checkpoint_expired %s; went on with %s", text, shared.policy)
        if shared.policy == "Latest":
            self._iterator, now = await shared.stream.iterator(self.shard, Place(LATEST))
            self._place = at_time(now, pinned=True)
        else:
            self._iterator, _ = await shared.stream.iterator(self.shard, oldest)
            self._place = oldest
        self._last = ""

    async def _heed(self, error: Exception, failed: int) -> None:
        """Wait before the next try; raises what no waiting cures."""
        shared = self._shared
        if code(error) == "ExpiredIteratorException":
            self._iterator = None
            if failed == 1:
                return
        elif is_throttled(error):
            shared.health.throttled(self.shard, shared.explain(error))
        elif is_away(error):
            shared.health.wrong(self.shard, shared.explain(error))
        else:
            raise error
        await asyncio.sleep(retry(failed))

    async def _take(self, batch: Batch) -> bool:
        """Put all into the window. False: it drained, and the rest is the shard's again."""
        tracker, put, decode = self._tracker, self._shared.window.put, self._decode
        if batch.records:
            first = batch.records[0]
            arrived = first.get("ApproximateArrivalTimestamp")
            moment = time.time() if arrived is None else arrived.timestamp()
            self._marks.append((int(first["SequenceNumber"]), int(moment)))
        for record in batch.records:
            text = record["SequenceNumber"]
            sequence = int(text)
            events = decode(record)
            tracker.begin(sequence)
            self._last = text
            settled: Callable[[Outcome], None]
            if len(events) == 1:
                settled = partial(self._settled, tracker, sequence)
            else:
                settled = partial(self._part_settled, tracker, sequence, [len(events)])
            for event in events:
                if not await put(event, settled, self.shard):
                    return False
            if self._leaving:
                return False
        return True

    def _settled(self, tracker: OffsetTracker, sequence: int, _: Outcome) -> None:
        tracker.settle(sequence)
        if not tracker.open():
            self._quiet.set()
            self._tell_end()

    def _tell_end(self) -> None:
        if self._at_end and not self._tracker.open():
            self._shared.ended.set()

    def _part_settled(
        self, tracker: OffsetTracker, sequence: int, left: list[int], outcome: Outcome
    ) -> None:
        """Of an aggregated record: a checkpoint falls on whole records."""
        left[0] -= 1
        if not left[0]:
            self._settled(tracker, sequence, outcome)
