"""Where one membership of a consumer group stands in each of its partitions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from triggerhub.connector import Report
from triggerhub.window import OffsetTracker
from triggerhub_kafka.client import Consumer
from triggerhub_kafka.health import Health
from triggerhub_kafka.notes import Note
from triggerhub_kafka.seeks import last_done, read_notes
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.starts import find_starts

log = logging.getLogger("triggerhub.kafka")

_COMMIT_EVERY = 1.0
_COMMIT_WITHIN = 5.0


class Offsets:
    """Chooses where to begin, tracks what is settled, and commits its contiguous beginning.

    aiokafka's protocol is eager: each rebalance revokes every partition. ``generation`` counts
    them: what was learned in an earlier one is of no use.
    """

    def __init__(
        self, consumer: Consumer, group: str, source: KafkaSource, health: Health, report: Report
    ) -> None:
        self._consumer = consumer
        self._group = group
        self._source = source
        self._health = health
        self._report = report
        self.generation = 0
        self.fixed = False
        """Every assigned partition has a start that is committed."""
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._notes: dict[TopicPartition, Note] = {}
        self.moved: Collection[TopicPartition] = ()
        """Where the last start that was chosen is not the one that was committed before."""
        self._told = False

    def tracker(self, partition: TopicPartition) -> OffsetTracker:
        """Of what is taken from it in this generation."""
        found = self._trackers.get(partition)
        if found is None:
            found = self._trackers[partition] = OffsetTracker()
        return found

    def all_taken(self) -> None:
        """Every record that was fetched has begun in its tracker. What else lies below the
        positions is none: a transaction's marker, what compaction removed."""
        for partition, position in self._consumer.positions().items():
            self.tracker(partition).pass_to(position)

    def revoked(self) -> None:
        """The assignment ends; until ``forget``, what is settled may still be committed."""
        self.generation += 1
        self.fixed = False

    def forget(self) -> None:
        """The partitions are another's now."""
        self._trackers.clear()
        self._committed.clear()

    async def fix(self, born: Collection[str]) -> bool:
        """See to it that every assigned partition has a start that is committed. False: the
        assignment ended meanwhile. ``born``: as of ``find_starts``. Raises KafkaError."""
        generation = self.generation
        while not self.fixed:
            if not await self._fix_once(born):
                await asyncio.sleep(0.1)
            if generation != self.generation:
                return False
        return True

    async def _fix_once(self, born: Collection[str]) -> bool:
        generation = self.generation
        starts = await find_starts(self._consumer, self._consumer.assignment(), self._source, born)
        if generation != self.generation:
            return False
        self._notes.update(starts.notes)
        self._committed.update(starts.committed)
        for partition, offset in starts.fresh.items():
            self._consumer.seek(partition, offset)
        # At once, and before connected(): a restart before the first event must not move Latest.
        if starts.fresh and not await self._commit(dict(starts.fresh)):
            return False
        if generation != self.generation:
            return False
        self.moved = starts.fresh.keys()
        self.fixed = True
        self._health.joined()
        if {at.topic for at in starts.notes} == self._consumer.subscription():
            self._tell(starts.notes)
        return True

    async def follow_seek(self) -> None:
        """Report the seek once it is done in all partitions, those of other members included.
        Raises KafkaError."""
        if self.fixed and self._source.seek is not None and not self._told:
            self._tell(await read_notes(self._consumer, self._consumer.subscription()))

    def _tell(self, notes: Mapping[TopicPartition, Note | None]) -> None:
        done = last_done(notes, self._source.seek)
        if done is not None:
            self._told = True
            self._report.sought(done)

    async def skip_to_what_is_there(self, lost: dict[TopicPartition, int]) -> None:
        """Go on after the gap that retention has made before the reader came."""
        begin = await self._consumer.beginning_offsets(list(lost))
        for partition, offset in begin.items():
            if partition not in self._consumer.assignment():
                continue
            text = (
                f"topic {partition.topic} partition {partition.partition}: offset "
                f"{lost[partition]} is not there any more; going on with {offset}, "
                "the first that is"
            )
            log.warning("kafka.offset_out_of_range %s", text)
            self._health.note("OffsetOutOfRange", text)
            self._trackers[partition] = OffsetTracker()
            self._consumer.seek(partition, offset)
            await self._commit({partition: offset})
        self._health.tell()

    async def commit_now_and_then(self) -> None:
        """Until cancelled. Raises KafkaError."""
        while True:
            await asyncio.sleep(_COMMIT_EVERY)
            await self.commit_settled()

    async def commit_settled(self) -> None:
        """Commit what may be and is not yet. Raises KafkaError."""
        offsets = {}
        for partition, tracker in self._trackers.items():
            offset = tracker.committable()
            if offset is None or partition.topic in self._health.missing:
                continue
            if offset != self._committed.get(partition):
                offsets[partition] = offset
        if offsets:
            await self._commit(offsets)

    async def _commit(self, offsets: dict[TopicPartition, int]) -> bool:
        """False: the group would not take it, now; what is settled is committed later, or comes
        again."""
        generation = self.generation
        noted = {at: (offset, str(self._notes[at])) for at, offset in offsets.items()}
        try:
            async with asyncio.timeout(_COMMIT_WITHIN):
                await self._consumer.commit(noted)
        except (CommitFailedError, IllegalStateError, TimeoutError) as error:
            log.info("kafka.commit_failed group=%s error=%r", self._group, error)
            return False
        if generation == self.generation:
            self._committed.update(offsets)
        return True

    def behind(self, partition: TopicPartition, end: int) -> int:
        """How many records wait there, where ``end`` is the offset after the last."""
        tracker = self._trackers.get(partition)
        offset = None if tracker is None else tracker.committable()
        if offset is None:
            offset = self._committed.get(partition, end)
        return max(0, end - offset)
