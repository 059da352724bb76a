"""A past window of a stream, read once more beside its checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import takewhile

from triggerhub.connector import Problem, Progress, Subscription, now_and_then
from triggerhub.sentence import leaf
from triggerhub.window import Window
from triggerhub_kinesis.client import Access, Client
from triggerhub_kinesis.decode import Record
from triggerhub_kinesis.health import Health
from triggerhub_kinesis.pace import Pace, Paces
from triggerhub_kinesis.places import ENDED, Place, rfc3339
from triggerhub_kinesis.problems import explain
from triggerhub_kinesis.reader import PROBLEMS, Reader, Source
from triggerhub_kinesis.source import KinesisSource
from triggerhub_kinesis.spans import Span, find_spans, say_places
from triggerhub_kinesis.stream import Batch, Shard, Stream, Summary, in_order


class ReplayError(Exception):
    """The replay cannot go on; says why."""


class Replay:
    """One replay. It claims nothing and writes no checkpoint."""

    def __init__(
        self,
        subscription: Subscription[KinesisSource],
        client: Client,
        access: Access,
        paces: Paces,
        progress: Progress,
    ) -> None:
        self._subscription = subscription
        self._access = access
        self._paces = paces
        self._progress = progress
        self._stream = Stream(client, subscription.source)
        self._health = Health(subscription.report)
        self._readers: dict[str, _Past] = {}
        self._done: dict[str, asyncio.Event] = {}
        self._most = 0

    async def run(self, since: datetime | str, until: datetime | str | None) -> None:
        """Until all is settled. Raises ReplayError, ValueError, and what ``emit`` raises."""
        try:
            summary = await self._stream.summary()
            shards = await self._stream.shards()
            spans = find_spans(shards, since, until)
            begin, end = _times(summary, since, until)
            size = max(1, int((end - begin).total_seconds() * 1000))
            named = until if isinstance(until, str) else rfc3339(end)
            self._progress.window(size, named, _gone(summary, since))
            await self._send(summary, shards, spans, begin, end)
        except (BaseExceptionGroup, *PROBLEMS) as error:
            raise self._plain(error) from error

    async def _send(
        self,
        summary: Summary,
        shards: Mapping[str, Shard],
        spans: Mapping[str, Span],
        begin: datetime,
        end: datetime,
    ) -> None:
        self._done = {shard: asyncio.Event() for shard in spans}
        async with (
            now_and_then(partial(self._tell_reached, spans, begin, end)),
            Window(self._subscription) as window,
            asyncio.TaskGroup() as tasks,
        ):
            source = self._subscription.source
            shared = Source(self._stream, source, window, self._health, self._explained)
            shared.retention = summary.retention
            self._health.begun()
            for shard in in_order({name: shards[name] for name in spans}):
                pace = self._paces.of(self._access, self._stream.name, shard.id)
                reader = _Past(shared, shard.id, spans[shard.id], end, pace)
                tasks.create_task(self._read(reader, shard))

    async def _read(self, reader: _Past, shard: Shard) -> None:
        """After the shards that were split or merged into it."""
        for parent in shard.parents:
            if parent in self._done:
                await self._done[parent].wait()
        self._readers[shard.id] = reader
        await reader.run()
        await reader.settled()
        self._done[shard.id].set()

    def _tell_reached(self, spans: Mapping[str, Span], begin: datetime, end: datetime) -> None:
        """How far the slowest of those is that are begun: the others come after them."""
        places = {shard: span.begin for shard, span in spans.items()}
        places |= {shard: reader.reached() for shard, reader in self._readers.items()}
        left = {shard: place for shard, place in places.items() if place.type != ENDED}
        moments = [
            datetime.fromtimestamp(place.until, UTC) if place.until else begin
            for shard, place in left.items()
            if shard in self._readers
        ]
        reached = min(moments, default=end if not left else begin)
        self._most = max(self._most, int((min(reached, end) - begin).total_seconds() * 1000))
        since = say_places(left) if left else rfc3339(end)
        self._progress.reached(self._most, since)

    def _explained(self, error: Exception) -> Problem:
        return explain(
            error,
            stream=self._stream.name,
            region=self._access.region or "",
            endpoint=self._access.endpoint or "",
        )

    def _plain(self, error: BaseException) -> BaseException:
        """The first fault of a group, in words where it is Kinesis's."""
        first = leaf(error)
        if not isinstance(first, PROBLEMS):
            return first
        assert isinstance(first, Exception)
        return ReplayError(self._explained(first).text)


class _Past(Reader):
    """Ends where its span ends, or with what is there now."""

    def __init__(self, shared: Source, shard: str, span: Span, end: datetime, pace: Pace) -> None:
        super().__init__(shared, shard, span.begin, pace)
        self._until = span.end
        self._end = end

    async def settled(self) -> None:
        """Wait until all that was read is."""
        while self._tracker.open():
            self._quiet.clear()
            await self._quiet.wait()

    def _belongs(self, record: Record) -> bool:
        if self._until is not None and int(record["SequenceNumber"]) >= self._until:
            return False
        arrived: datetime | None = record.get("ApproximateArrivalTimestamp")
        return arrived is None or arrived < self._end

    async def _take(self, batch: Batch) -> bool:
        records = list(takewhile(self._belongs, batch.records))
        taken = await super()._take(replace(batch, records=records))
        # Behind nothing: what comes from now on is not past.
        self._at_end = taken and (len(records) < len(batch.records) or not batch.behind)
        return taken

    async def _go_on(self, why: str, oldest: Place) -> None:
        raise ReplayError(f"shard {self.shard} of stream {self._shared.stream.name}: {why}")


def _times(
    summary: Summary, since: datetime | str, until: datetime | str | None
) -> tuple[datetime, datetime]:
    """What the window's size is measured between."""
    # Its clock is told to the second before.
    end = summary.now + timedelta(seconds=1)
    if isinstance(until, datetime):
        end = min(until, end)
    begin = max(_horizon(summary), datetime.fromtimestamp(summary.created, UTC))
    if isinstance(since, datetime):
        begin = max(since, begin)
    return min(begin, end), end


def _gone(summary: Summary, since: datetime | str) -> str:
    """What belongs to the window and may not be there any more."""
    horizon = _horizon(summary)
    if not isinstance(since, datetime) or since >= horizon:
        return ""
    return f"not there any more, by the stream's retention: what came before {rfc3339(horizon)}"


def _horizon(summary: Summary) -> datetime:
    return summary.now - timedelta(seconds=summary.retention)
