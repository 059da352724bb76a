"""The shards that this process has: claimed, read, checkpointed, handed over."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from triggerhub.connector import PositionConflict, Positions
from triggerhub_kinesis.losses import Lost
from triggerhub_kinesis.places import ENDED, SHARD, TRIM_HORIZON, Place, read_place
from triggerhub_kinesis.reader import Reader, Source

log = logging.getLogger("triggerhub.kinesis")

TTL = 8.0
"""Seconds that a claim lasts without being renewed."""
_TTL_HERE = TTL - 1.0
"""So long is one relied upon: what is under way then needs a moment to end."""
_LEAVE_WITHIN = 10.0
_REFRESH = 600
"""Seconds: so old may a checkpoint's ``until`` be where nothing else has changed."""


class ClaimsLost(OSError):  # noqa: N818 - a fact about the claims
    """The store could not be reached for so long that the shards may be another process's."""


@dataclass(slots=True)
class Holding:
    """One of them."""

    reader: Reader
    revision: int
    """Of its place, as this process wrote it last: another's write is told from it."""
    saved: Place
    until: float
    """Loop time: then the claim ends."""
    task: asyncio.Task[None] | None = None


class Holdings:
    """No shard is read here beyond the time that its claim lasts; and what was read before a
    claim was lost cannot move the checkpoint, which has another revision then."""

    def __init__(
        self,
        positions: Positions,
        shared: Source,
        tasks: asyncio.TaskGroup,
        reader: Callable[[str, Place], Reader],
    ) -> None:
        """``tasks``: where the readers run; ``reader`` makes one."""
        self._positions = positions
        self._shared = shared
        self._tasks = tasks
        self._reader = reader
        self._clock = asyncio.get_running_loop().time
        self._held: dict[str, Holding] = {}
        self._changing = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._failure: Exception | None = None
        """Of the store, when claims were renewed last."""

    def names(self) -> list[str]:
        return sorted(self._held)

    def lags(self) -> dict[str, float]:
        """Seconds that each is behind."""
        return {shard: held.reader.behind() for shard, held in self._held.items()}

    def lost(self) -> dict[str, Lost]:
        """What is told of records that were gone, by shard."""
        return {shard: lost for shard, held in self._held.items() if (lost := held.reader.lost)}

    async def take(self, shard: str) -> bool:
        """Claim a shard and read it. False: another has it, or has read it to its end."""
        key = SHARD + shard
        until = self._clock() + _TTL_HERE
        if not await self._positions.claim(key, TTL):
            return False
        stored = (await self._positions.load(key)).get(key)
        place = read_place(stored.value) if stored is not None else Place(TRIM_HORIZON)
        if place.type == ENDED:
            await self._positions.release(key)
            return False
        try:
            # As it was: whoever had it before cannot write any more.
            revision = await self._positions.save(
                key, str(place), expect=0 if stored is None else stored.revision
            )
        except PositionConflict:
            await self._positions.release(key)
            return False
        async with self._changing:
            held = Holding(self._reader(shard, place), revision, place, until)
            self._held[shard] = held
            self._start(held)
        return True

    async def leave(self, shard: str) -> None:
        """Hand a shard over: read no more, wait for what is under way, checkpoint, release."""
        held = self._held[shard]
        assert held.task is not None
        if not await held.reader.leave(held.task, _LEAVE_WITHIN):
            await self._begin_anew((), leaving=shard)
        if self._held.get(shard) is held:
            await self._save(held)
            await self._drop(shard)

    def soonest(self) -> float:
        """Loop time: when the first of the claims ends."""
        return min((held.until for held in self._held.values()), default=math.inf)

    async def renew(self) -> None:
        """Renew the claims; what was lost is read here no more. Raises ClaimsLost, OSError."""
        lost: list[str] = []
        failure: Exception | None = None
        for shard, held in list(self._held.items()):
            now = self._clock()
            kept = False
            try:
                if now < held.until:
                    async with asyncio.timeout_at(held.until):
                        kept = await self._positions.claim(SHARD + shard, TTL)
            except (OSError, TimeoutError) as error:
                failure = error
                if self._clock() < held.until:
                    continue
            if kept:
                held.until = now + _TTL_HERE
            elif self._held.get(shard) is held:
                lost.append(shard)
        if lost:
            log.warning("kinesis.claims_lost shards=%s", ",".join(lost))
            await self._begin_anew(lost)
        before, self._failure = self._failure, failure
        if lost and (failure or before):
            # A claim that ended while the store was asked has no words of its own.
            words = str(failure or "") or str(before or "") or "no answer in time"
            raise ClaimsLost(f"the store does not answer: {words}")
        if failure is not None:
            raise failure

    async def checkpoint(self) -> None:
        """Write what has changed. Raises OSError."""
        for shard, held in list(self._held.items()):
            if self._held.get(shard) is not held:
                continue
            if not await self._save(held):
                await self._begin_anew([shard])
            elif held.saved.type == ENDED and self._held.get(shard) is held:
                await self._drop(shard)

    async def give_back(self) -> None:
        """At the end, when nothing is under way: checkpoint, then release all."""
        for shard, held in list(self._held.items()):
            await self._save(held)
            await self._drop(shard)

    def _start(self, held: Holding) -> None:
        held.task = self._tasks.create_task(held.reader.run())

    async def _stop(self, some: Iterable[Holding]) -> None:
        tasks = [held.task for held in some if held.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _begin_anew(self, lost: Iterable[str], leaving: str = "") -> None:
        """All that was taken and is not settled is given back; what is lost, or is to be handed
        over, is read no more. Where something is lost, attempts under way end at once."""
        lost = list(lost)
        async with self._changing:
            await self._stop(self._held.values())
            await self._shared.window.drain(0 if lost else None)
            for shard in lost:
                self._held.pop(shard, None)
                self._shared.health.forget(shard)
            for shard, held in self._held.items():
                held.reader.rewind()
                if shard != leaving:
                    self._start(held)

    async def _save(self, held: Holding) -> bool:
        """False: another has written there."""
        async with self._saving:
            place, saved = held.reader.reached(), held.saved
            same = replace(place, until=saved.until) == saved
            if same and place.until - saved.until < _REFRESH:
                return True
            try:
                held.revision = await self._positions.save(
                    SHARD + held.reader.shard, str(place), expect=held.revision
                )
            except PositionConflict as conflict:
                log.warning("kinesis.checkpoint_refused %s", conflict)
                return False
            held.saved = place
            return True

    async def _drop(self, shard: str) -> None:
        """Nothing of it is under way."""
        held = self._held.pop(shard, None)
        if held is None:
            return
        await self._stop([held])
        self._shared.health.forget(shard)
        await self._positions.release(SHARD + shard)
