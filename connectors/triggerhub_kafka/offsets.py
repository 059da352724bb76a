"""Where one membership of a consumer group stands in each of its partitions."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import replace

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from triggerhub.connector import Problem, Report
from triggerhub.window import OffsetTracker
from triggerhub_kafka.consumer import Consumer
from triggerhub_kafka.health import Health
from triggerhub_kafka.losses import lose
from triggerhub_kafka.notes import Note
from triggerhub_kafka.seeks import last_done, read_notes
from triggerhub_kafka.source import KafkaSource
from triggerhub_kafka.starts import Starts, find_starts
from triggerhub_kafka.topics import Topics

log = logging.getLogger("triggerhub.kafka")

_COMMIT_EVERY = 1.0
_COMMIT_WITHIN = 5.0


class Offsets:
    """Chooses where to begin, tracks what is settled, and commits its contiguous beginning.

    aiokafka's protocol is eager: each rebalance revokes every partition. ``generation`` counts
    them: what was learned in an earlier one is of no use.
    """

    def __init__(
        self,
        consumer: Consumer,
        group: str,
        source: KafkaSource,
        topics: Topics,
        health: Health,
        report: Report,
    ) -> None:
        self._consumer = consumer
        self._group = group
        self._source = source
        self._topics = topics
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
        self._marked = False
        """The group has begun with these topics."""
        self._whole = False
        """Every partition of them has a start that is committed, those of other members too."""
        self._busy = asyncio.Event()
        """There may be something to commit, or to wait for."""
        self._taking = False

    def tracker(self, partition: TopicPartition) -> OffsetTracker:
        """Of what is taken from it in this generation."""
        self._taking = True
        self._busy.set()
        found = self._trackers.get(partition)
        if found is None:
            found = self._trackers[partition] = OffsetTracker()
        return found

    def all_taken(self) -> None:
        """Every record that was fetched has begun in its tracker. What else lies below the
        positions is none: a transaction's marker, what compaction removed."""
        for partition, position in self._consumer.positions().items():
            self.tracker(partition).pass_to(position)
        self._taking = False

    def revoked(self) -> None:
        """The assignment ends; until ``forget``, what is settled may still be committed."""
        self.generation += 1
        self.fixed = False

    def forget(self) -> None:
        """The partitions are another's now."""
        self._trackers.clear()
        self._committed.clear()

    async def fix(self) -> bool:
        """See to it that every assigned partition has a start that is committed. False: the
        assignment ended meanwhile. Raises KafkaError."""
        generation = self.generation
        while not self.fixed:
            if not await self._fix_once():
                await asyncio.sleep(0.1)
            if generation != self.generation:
                return False
        return True

    async def _fix_once(self) -> bool:
        generation = self.generation
        starts = await self._find_starts(self._consumer.assignment())
        if generation != self.generation:
            return False
        self._notes = dict(starts.notes)
        self._committed.update(starts.committed)
        for partition, offset in starts.fresh.items():
            self._consumer.seek(partition, offset)
        fresh = dict(starts.fresh)
        if starts.whole and not starts.marked:
            fresh = {**starts.committed, **fresh}  # for the mark
        # At once, and before connected(): a restart before the first event must not move Latest.
        if fresh and not await self._commit(fresh):
            return False
        if generation != self.generation:
            return False
        self.moved = starts.fresh.keys()
        self.fixed = True
        self._busy.set()
        self._marked = self._marked or starts.marked or starts.whole
        self._whole = starts.whole
        self._begun()
        if {at.topic for at in starts.notes} == self._consumer.subscription():
            self._tell(starts.notes)
        return True

    async def _find_starts(self, assigned: Collection[TopicPartition]) -> Starts:
        there, born = self._topics.there, self._topics.born
        return await find_starts(
            self._consumer, assigned, self._source, there, born, begun=self._marked
        )

    async def _fix_the_rest(self) -> None:
        """Wait for the other members' starts: a trigger is ready when no partition's can move.
        Then the group has begun, and that is noted."""
        generation = self.generation
        starts = await self._find_starts(())
        if generation == self.generation and starts.whole:
            choice = self._source.choice
            self._notes = {at: replace(note, choice=choice) for at, note in self._notes.items()}
            if not self._committed or await self._commit(self._reached()):
                self._marked = self._whole = True
                self._begun()

    def _begun(self) -> None:
        if self._whole:
            self._tell_lost()
            self._health.joined()

    def _tell_lost(self) -> None:
        self._health.lost({at: n.lost for at, n in self._notes.items() if n.lost is not None})

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

    async def return_to_range(self, sought: dict[TopicPartition, int]) -> bool:
        """Go on by policy where an offset is not there: retention was faster, or the topic was
        made anew. False: the policy is to stop. Raises KafkaError."""
        partitions = [at for at in sought if at in self._consumer.assignment()]
        policy = self._source.out_of_range
        find = self._consumer.end_offsets if policy == "Latest" else (
            self._consumer.beginning_offsets
        )  # fmt: skip
        now = time.time()
        for partition, offset in (await find(partitions) if partitions else {}).items():
            if partition not in self._consumer.assignment():
                continue
            if policy == "Stop":
                self._stop(partition, sought[partition], offset)
                return False
            note = self._notes[partition]
            lost = lose(note.lost, sought[partition], offset, now)
            text = lose(None, sought[partition], offset, now).told(partition)
            log.warning("kafka.offset_out_of_range group=%s %s", self._group, text)
            self._health.note(Problem("OffsetOutOfRange", text))
            self._notes[partition] = replace(note, lost=lost)
            if offset < sought[partition]:
                self._trackers[partition] = OffsetTracker()  # offsets begin anew
            self._consumer.seek(partition, offset)
            self.tracker(partition).pass_to(offset)
            await self._commit({partition: self._reached()[partition]})
        self._tell_lost()
        self._health.tell()
        return True

    def _stop(self, partition: TopicPartition, sought: int, first: int) -> None:
        text = (
            f"topic {partition.topic} partition {partition.partition}: offset {sought} is not "
            f"there, the first that is is {first}, and outOfRange is Stop: set spec.source.seek, "
            "or spec.source.outOfRange to Earliest or Latest, to say where to go on"
        )
        log.warning("kafka.offset_out_of_range group=%s %s", self._group, text)
        self._health.stopped(text)

    async def commit_now_and_then(self) -> None:
        """Until cancelled. Raises KafkaError."""
        while True:
            await self._busy.wait()
            await asyncio.sleep(_COMMIT_EVERY)
            await self.commit_settled()
            if self.fixed and not self._whole:
                await self._fix_the_rest()
            if self._whole and not self._taking and self._all_committed():
                # An idle trigger needs no timer.
                self._busy.clear()

    async def commit_settled(self) -> None:
        """Commit what may be and is not yet. Raises KafkaError."""
        offsets = {
            partition: offset
            for partition, offset in self._reached().items()
            if partition.topic in self._topics.there and offset != self._committed.get(partition)
        }
        if offsets:
            await self._commit(offsets)

    def _all_committed(self) -> bool:
        return all(
            tracker.open() == 0 and tracker.committable() in (None, self._committed.get(partition))
            for partition, tracker in self._trackers.items()
        )

    def _reached(self) -> dict[TopicPartition, int]:
        """Of each partition the offset after the contiguous beginning of what is settled."""
        found = dict(self._committed)
        for partition, tracker in self._trackers.items():
            if (offset := tracker.committable()) is not None:
                found[partition] = offset
        return found

    async def _commit(self, offsets: dict[TopicPartition, int]) -> bool:
        """False: the group would not take it, now; what is settled is committed later, or comes
        again."""
        generation = self.generation
        noted = {at: (offset, str(self._note(at))) for at, offset in offsets.items()}
        try:
            async with asyncio.timeout(_COMMIT_WITHIN):
                await self._consumer.commit(noted)
        except (CommitFailedError, IllegalStateError, TimeoutError) as error:
            log.info("kafka.commit_failed group=%s error=%r", self._group, error)
            return False
        if generation == self.generation:
            self._committed.update(offsets)
        return True

    def _note(self, partition: TopicPartition) -> Note:
        note = self._notes[partition]
        if note.lost is not None and not note.lost.shown(time.time()):
            return replace(note, lost=None)
        return note

    def behind(self, partition: TopicPartition, end: int) -> int:
        """How many records wait there, where ``end`` is the offset after the last."""
        tracker = self._trackers.get(partition)
        offset = None if tracker is None else tracker.committable()
        if offset is None:
            offset = self._committed.get(partition, end)
        return max(0, end - offset)
