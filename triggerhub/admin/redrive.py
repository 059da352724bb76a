"""Send dead letters again along their bindings."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from triggerhub.admin.view import View
from triggerhub.connector import GivenBack, Unreadable
from triggerhub.event import Settled
from triggerhub.store.records import DeadLetter, Selection
from triggerhub.store.ulid import new_ulid

AT_ONCE = 16
"""Dead letters of one redrive that are under way at one moment."""

_PAGE = 64
_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of one dead letter."""

    id: str
    outcome: str
    """``accepted``; ``dead`` (again: a new dead letter has the fresh evidence); ``kept`` (it is
    still there, ``detail`` says why)."""
    detail: str = ""


Tell = Callable[[Redriven], Awaitable[None]]


class Redrive:
    """One request's work. A letter is deleted only after its event had an outcome, so a hub that
    is killed in between has it still. Letters of one key go one after the other, oldest first."""

    def __init__(self, view: View, tell: Tell) -> None:
        self._whole = view.whole
        self._dispatcher = view.dispatcher
        self._store = view.store
        self._tell = tell
        self._room = asyncio.Semaphore(AT_ONCE)
        self._under_way: defaultdict[str, dict[asyncio.Timeout, None]] = defaultdict(dict)
        self._deadline = 0.0

    async def run(self, selection: Selection, timeout: float) -> None:
        """``timeout``: seconds after which what has no outcome yet is kept. Raises
        ``StoreError``."""
        self._deadline = asyncio.get_running_loop().time() + timeout
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._make_way())
            await self._follow(selection)
            watching.cancel()

    async def _follow(self, selection: Selection) -> None:
        async for page in self._pages(selection):
            lanes: dict[tuple[str, bool, str], list[DeadLetter]] = {}
            for letter in page:
                # Without a key, each letter is a lane of its own.
                key = letter.event.key
                lane = (letter.binding, key is None, letter.id if key is None else key)
                lanes.setdefault(lane, []).append(letter)
            async with asyncio.TaskGroup() as tasks:
                for letters in lanes.values():
                    tasks.create_task(self._lane(letters))

    async def _pages(self, selection: Selection) -> AsyncIterator[Sequence[DeadLetter]]:
        # What dies again during this redrive has a greater id than this, and is not met again.
        newest, after = new_ulid(), ""
        while page := await self._store.dead_letters.list(selection, limit=_PAGE, after=after):
            after = page[-1].id
            chosen = [letter for letter in page if letter.id <= newest]
            if chosen:
                yield chosen
            if len(chosen) < len(page):
                return

    async def _lane(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            async with self._room:
                await self._tell(await self._one(letter))

    async def _one(self, letter: DeadLetter) -> Redriven:
        kept = self._hopeless(letter)
        if kept:
            return Redriven(letter.id, "kept", kept)
        under_way = self._under_way[letter.binding]
        limit = asyncio.timeout_at(self._deadline)
        under_way[limit] = None
        try:
            async with limit:
                whole = await self._whole(letter)
                if whole.event.fault is not None:
                    return Redriven(letter.id, "kept", _undecodable(whole))
                # Should it die again, its letter is made of the same.
                event = replace(whole.event, origin=lambda: whole.origin)
                outcome = await self._dispatcher.dispatch(letter.binding, event)
        except TimeoutError:
            return Redriven(letter.id, "kept", self._why_not(letter.binding))
        except (GivenBack, Unreadable) as error:
            return Redriven(letter.id, "kept", str(error))
        finally:
            del under_way[limit]
        if outcome.settled is Settled.ACCEPTED:
            await self._store.dead_letters.delete(Selection(ids=(letter.id,)))
            return Redriven(letter.id, "accepted")
        if outcome.settled is Settled.DEAD:
            await self._store.dead_letters.delete(Selection(ids=(letter.id,)))
            return Redriven(letter.id, "dead", self._last_error(letter.binding))
        # Dropped or filtered now: the operator asked to send it, not to lose it.
        return Redriven(letter.id, "kept", f"it would be {outcome.settled} now")

    def _hopeless(self, letter: DeadLetter) -> str:
        if letter.event.fault is not None and letter.elsewhere is None:
            return _undecodable(letter)
        if asyncio.get_running_loop().time() >= self._deadline:
            return "the time limit had passed"
        return self._away(letter.binding) if self._under_way[letter.binding] else ""

    async def _make_way(self) -> None:
        """Until cancelled: where a function is away one letter probes, and the others do not
        stand in the way of other bindings' letters."""
        while True:
            await asyncio.sleep(_LOOK)
            for binding, limits in self._under_way.items():
                if len(limits) > 1 and self._away(binding):
                    for limit in [*limits][1:]:
                        limit.reschedule(0)

    def _away(self, binding: str) -> str:
        """How the function is away; empty when it is not."""
        for link in self._dispatcher.links():
            problem = link.problem if link.name == binding else None
            if problem is not None and problem.reason == "FunctionAway":
                return problem.message
        return ""

    def _why_not(self, binding: str) -> str:
        return self._away(binding) or "no outcome within the time limit"

    def _last_error(self, binding: str) -> str:
        return next((k.last_error for k in self._dispatcher.links() if k.name == binding), "")


def _undecodable(letter: DeadLetter) -> str:
    return f"the record could not be decoded: {letter.event.fault}"
