"""One subscription to a stream: finds its shards, shares them with other processes, reads them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from triggerhub.connector import Position, PositionConflict, Problem, Subscription
from triggerhub.sentence import leaf
from triggerhub.window import Window
from triggerhub_kinesis.client import Access, Client
from triggerhub_kinesis.health import Health
from triggerhub_kinesis.holdings import ClaimsLost, Holdings
from triggerhub_kinesis.losses import Lost, told
from triggerhub_kinesis.pace import Paces
from triggerhub_kinesis.places import ENDED, MARKER, SHARD, Place, read_place
from triggerhub_kinesis.problems import explain, not_active
from triggerhub_kinesis.reader import PROBLEMS, Reader, Source
from triggerhub_kinesis.sharing import Members, preferred, quota
from triggerhub_kinesis.source import KinesisSource
from triggerhub_kinesis.starts import Starts
from triggerhub_kinesis.stream import Shard, Stream, Summary, childless, may_be_read

log = logging.getLogger("triggerhub.kinesis")

_LOOK_EVERY = 2.0
_RENEW_EVERY = 2.0
_CHECKPOINT_EVERY = 1.0
_LIST_EVERY = 30.0
_AWAIT_EVERY = 2.0


class ListenError(Exception):
    """Listening failed; its text says what was found and what to do."""


class Listener:
    """Listens once."""

    def __init__(
        self,
        subscription: Subscription[KinesisSource],
        client: Client,
        access: Access,
        paces: Paces,
    ) -> None:
        self._subscription = subscription
        self._positions = subscription.positions
        self._access = access
        self._paces = paces
        self._stream = Stream(client, subscription.source)
        self._health = Health(subscription.report)
        self._clock = asyncio.get_running_loop().time
        self._starts = Starts(self._stream, subscription)
        self._members = Members(subscription.positions, self._clock)
        self._shards: dict[str, Shard] = {}
        self._listed_at = 0.0
        self._stopped: set[str] = set()
        """Shards that are gone and were not read to their end, where that is to stop all."""

    async def run(self) -> None:
        """Listen until cancelled. Raises ListenError, OSError from the store, and what ``emit``
        raises."""
        with self._in_words():
            await self._listen()

    async def seek(self) -> None:
        """Do the seek of the manifest, if it is not done yet. Raises StillRead, and what ``run``
        raises."""
        with self._in_words():
            summary, awaited = await self._until_there()
            await self._starts.fix(summary, awaited=awaited, patient=False)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """The first fault of a group, in words where it is AWS's."""
        try:
            yield
        except (BaseExceptionGroup, *PROBLEMS) as error:
            first = leaf(error)
            if not isinstance(first, PROBLEMS) or isinstance(first, OSError):
                raise first from error
            problem = self._explain(first)
            self._health.wrong("", problem)
            raise ListenError(problem.text) from error

    async def _listen(self) -> None:
        summary, awaited = await self._until_there()
        await self._starts.fix(summary, awaited=awaited, patient=True)
        async with asyncio.TaskGroup() as keeping:
            keeper: asyncio.Task[None] | None = None
            holdings: Holdings | None = None
            try:
                async with Window(self._subscription) as window, asyncio.TaskGroup() as tasks:
                    shared = self._shared(window, summary)
                    holdings = Holdings(self._positions, shared, tasks, self._reader_of(shared))
                    # What is under way when the listener stops is still its own.
                    keeper = keeping.create_task(self._keep(holdings))
                    self._health.begun()
                    tasks.create_task(self._checkpoint(holdings))
                    await self._share(holdings, shared)
            finally:
                if keeper is not None:
                    keeper.cancel()
                if holdings is not None:
                    await self._give_back(holdings)

    async def _until_there(self) -> tuple[Summary, bool]:
        """Wait for the stream. Says whether it had to be waited for."""
        awaited = False
        while True:
            problem: Problem | None = None
            try:
                summary = await self._stream.summary()
            except PROBLEMS as error:
                problem = self._explain(error)
                if problem.reason != "StreamNotFound":
                    raise
            else:
                if summary.status in ("ACTIVE", "UPDATING"):
                    self._health.fine("")
                    return summary, awaited
                problem = not_active(self._stream.name, summary.status)
            # What is being deleted is another stream than the one that may come.
            awaited = True
            self._health.wrong("", problem)
            await asyncio.sleep(_AWAIT_EVERY)

    def _shared(self, window: Window, summary: Summary) -> Source:
        shared = Source(
            self._stream, self._subscription.source, window, self._health, self._explain
        )
        shared.retention = summary.retention
        return shared

    def _reader_of(self, shared: Source) -> Callable[[str, Place], Reader]:
        def make(shard: str, place: Place) -> Reader:
            pace = self._paces.of(self._access, self._stream.name, shard)
            return Reader(shared, shard, place, pace, self._starts.iterator(shard, place))

        return make

    async def _share(self, holdings: Holdings, shared: Source) -> None:
        """Have as many shards as are ours, of those that may be read. Until cancelled."""
        while True:
            shared.ended.clear()
            try:
                await self._look(holdings)
            except OSError as error:
                self._store_away(error)
            parts = holdings.lags()
            self._subscription.report.lag(max(parts.values(), default=0.0), parts)
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await shared.ended.wait()
            except TimeoutError:
                continue
            await self._write(holdings)

    async def _look(self, holdings: Holdings) -> None:
        stored = await self._positions.load()
        if MARKER not in stored:
            raise ListenError("the checkpoints were forgotten: it begins anew")
        members = await self._members.alive(stored)
        places = _places(stored)
        lost = {shard: place.lost for shard, place in places.items() if place.lost is not None}
        self._health.lost(told(self._stream.name, lost | holdings.lost(), time.time()))
        ended = {shard for shard, place in places.items() if place.type == ENDED}
        if await self._list(ended):
            for shard in places.keys() - self._shards.keys():
                await self._let_go(shard, places[shard], stored[SHARD + shard].revision)
        ready = may_be_read(self._shards, ended, self._stopped)
        me = self._members.me
        most = quota(members, me, len(ready))
        held = holdings.names()
        for shard in held[most:]:
            await holdings.leave(shard)
        for shard in preferred(members, me, ready):
            if len(held) >= most:
                break
            if shard not in held and await holdings.take(shard):
                held.append(shard)

    async def _list(self, ended: set[str]) -> bool:
        """Know the shards: anew now and then, and where one ended whose children are not known.
        Whether they were looked at now."""
        now = self._clock()
        if (
            self._shards
            and now - self._listed_at < _LIST_EVERY
            and not childless(self._shards, ended)
        ):
            return False
        try:
            self._shards = await self._stream.shards()
        except PROBLEMS as error:
            problem = self._explain(error)
            if problem.reason == "StreamNotFound" or not self._shards:
                raise
            self._health.wrong("", problem)
            return False
        self._health.fine("")
        self._listed_at = now
        return True

    async def _let_go(self, shard: str, place: Place, revision: int) -> None:
        """The stream has forgotten a shard. If it was not read to its end: by policy."""
        now = time.time()
        if place.type == ENDED:
            if place.lost is None or not place.lost.shown(now):
                await self._positions.delete(SHARD + shard)
            return
        why = "it is not there any more, and was not read to its end"
        text = f"shard {shard} of stream {self._stream.name}: {why}"
        if self._subscription.source.out_of_range == "Stop":
            text += ", and outOfRange is Stop: set spec.source.seek to say where to go on"
            self._health.wrong(shard, Problem("CheckpointExpired", text))
            self._stopped.add(shard)
            return
        log.warning("kinesis.checkpoint_expired %s; went on with those after it", text)
        gone = Place(ENDED, lost=Lost(f"{why}; went on with those after it", int(now)))
        with suppress(PositionConflict):  # another process does the same
            await self._positions.save(SHARD + shard, str(gone), expect=revision)

    async def _keep(self, holdings: Holdings) -> None:
        """Say that this process lives, and that its shards are its own. Until cancelled."""
        while True:
            try:
                await holdings.renew()
                await self._members.beat()
            except ClaimsLost:
                raise
            except OSError as error:
                self._store_away(error)
            left = holdings.soonest() - self._clock()
            await asyncio.sleep(max(0.0, min(_RENEW_EVERY, left)))

    async def _checkpoint(self, holdings: Holdings) -> None:
        while True:
            await asyncio.sleep(_CHECKPOINT_EVERY)
            await self._write(holdings)

    async def _write(self, holdings: Holdings) -> None:
        try:
            await holdings.checkpoint()
        except OSError as error:
            self._store_away(error)

    def _store_away(self, error: OSError) -> None:
        """It goes on as long as the claims last."""
        log.warning("kinesis.store_failed stream=%s error=%r", self._stream.name, error)

    async def _give_back(self, holdings: Holdings) -> None:
        try:
            await holdings.give_back()
            await self._members.leave()
        except OSError as error:
            # The claims end by themselves; what was settled since the last checkpoint comes again.
            log.warning("kinesis.give_back_failed stream=%s error=%r", self._stream.name, error)

    def _explain(self, error: Exception) -> Problem:
        return explain(
            error,
            stream=self._stream.name,
            region=self._access.region or "",
            endpoint=self._access.endpoint or "",
        )


def _places(stored: dict[str, Position]) -> dict[str, Place]:
    return {
        key.removeprefix(SHARD): read_place(position.value)
        for key, position in stored.items()
        if key.startswith(SHARD)
    }
