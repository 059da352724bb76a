"""What is past, sent once more along its binding, beside the live stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol

import structlog

from triggerhub.connector import Connector, GivenBack, Progress, Subscription
from triggerhub.control.binding import Listening
from triggerhub.control.report import SourceState
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.link import Link
from triggerhub.delivery.waits import Waits
from triggerhub.event import Event, Outcome
from triggerhub.sentence import leaf
from triggerhub.store.ulid import new_ulid

MOST = 4
"""Replays that may be under way in one process; of one binding, one."""
ATTRIBUTE = "triggerhubreplay"
"""The CloudEvents extension that a replayed event bears: the replay's id."""

log = structlog.get_logger()


class Refused(Exception):  # noqa: N818 - a fact about the request
    """The replay cannot begin: one sentence. ``busy``: but later it may."""

    def __init__(self, sentence: str, *, busy: bool = False) -> None:
        super().__init__(sentence)
        self.busy = busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to send again: as of ``Replayer``. ``rate``: events per second at most; 0: any."""

    since: datetime | str
    until: datetime | str | None
    rate: float = 0.0


class Sources(Protocol):
    """What is needed of the listeners."""

    async def connector(self, kind: str) -> Connector[Any]: ...
    def subscription(self, listening: Listening, state: SourceState) -> Subscription[Any]: ...


class Standing(Progress):
    """How one replay stands. Also the ``Progress`` given to the connector."""

    def __init__(self, binding: str, link: Link) -> None:
        self.id = new_ulid()
        self.binding = binding
        self.source = SourceState(binding)
        self.outcomes: Counter[str] = Counter()
        """Events by how they were settled."""
        self.size: int | None = None
        """None: not known yet."""
        self.done = 0
        self.since = ""
        self.until = ""
        self.note = ""
        self._link = link

    def window(self, size: int, until: str, note: str = "") -> None:
        self.size, self.until, self.note = size, until, note

    def reached(self, size: int, since: str) -> None:
        self.done, self.since = size, since

    @property
    def trouble(self) -> str:
        """What it waits for; empty when all goes well."""
        if self.source.attached is False:
            return f"{self.source.reason}: {self.source.message}"
        problem = self._link.problem
        return "" if problem is None else f"{problem.reason}: {problem.message}"


class Replays:
    """An async context manager; leaving it stops every replay (they drain)."""

    def __init__(self, sources: Sources, dispatcher: Dispatcher) -> None:
        self._sources = sources
        self._dispatcher = dispatcher
        self._tasks = asyncio.TaskGroup()
        self._running: dict[str, asyncio.Task[Exception | None]] = {}
        self._begun: set[str] = set()

    async def __aenter__(self) -> Replays:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._running.values():
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def check(self, listening: Listening) -> None:
        """Raises ``Refused`` where another one stands in the way."""
        name = listening.name
        if name in self._begun:
            raise Refused(f"a replay of {name} is under way: wait for it, or end it", busy=True)
        if len(self._begun) >= MOST:
            raise Refused(f"{MOST} replays are under way: wait for one of them", busy=True)

    async def replay(
        self, listening: Listening, wish: Wish, begun: Callable[[Standing], None]
    ) -> None:
        """Send it; returns when all is settled. ``begun`` is given the replay's state, which is
        kept up to date. Cancelled, it drains first.

        Raises ``Refused``, ``GivenBack`` when the binding goes or the hub stops, and what the
        connector raises.
        """
        name = listening.name
        self.check(listening)
        self._begun.add(name)
        try:
            connector = await self._sources.connector(listening.kind)
            replay = getattr(connector, "replay", None)
            if replay is None:
                raise Refused(f"a {listening.kind} cannot send again what is past")
            with self._dispatcher.beside(name) as link:
                standing = Standing(name, link)
                emit = _Emit(link, standing, wish.rate)
                subscription = replace(
                    self._sources.subscription(listening, standing.source),
                    emit=emit,
                    # Beside the live stream, which keeps the greater part of the function.
                    in_flight=max(1, listening.in_flight // 2),
                )
                begun(standing)
                log.info("replay.begun", binding=name, replay=standing.id)
                work = replay(subscription, wish.since, wish.until, standing)
                await self._run(name, work, emit)
                log.info("replay.ended", binding=name, replay=standing.id, **standing.outcomes)
        finally:
            self._begun.discard(name)

    async def _run(self, name: str, work: Coroutine[Any, Any, None], emit: _Emit) -> None:
        task = self._tasks.create_task(_guarded(work), name=f"replay {name}")
        lost = self._tasks.create_task(emit.lost.wait())
        self._running[name] = task
        try:
            await asyncio.wait([task, lost], return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            task.cancel()
            await asyncio.wait([task])
            del self._running[name]
        if emit.lost.is_set():
            raise GivenBack(f"{name} is not bound any more")
        if task.cancelled():
            raise GivenBack("the hub stops")
        error = task.result()
        if error is not None:
            raise error


async def _guarded(work: Coroutine[Any, Any, None]) -> Exception | None:
    """How it ended: a connector's errors are its source's, and do not end the hub."""
    try:
        await work
    except Exception as error:
        first = leaf(error)
        assert isinstance(first, Exception)  # an ExceptionGroup holds no others
        if not isinstance(first, OSError | ValueError):
            log.warning("replay.failed", error=str(first), exc_info=True)
        return first
    return None


class _Emit:
    """A replay's way along the binding: marked, counted, and not faster than asked for."""

    def __init__(self, link: Link, standing: Standing, rate: float) -> None:
        self.lost = asyncio.Event()
        """The binding went."""
        self._link = link
        self._standing = standing
        self._apart = 1 / rate if rate else 0.0
        self._next = 0.0
        self._waits = Waits(link.name)
        self._waits.open()

    async def __call__(self, event: Event) -> Outcome:
        if self._apart:
            await self._pace()
        marked = {**event.extensions, ATTRIBUTE: self._standing.id}
        try:
            outcome = await self._link(replace(event, extensions=marked))
        except GivenBack:
            if self._link.target is None:
                self.lost.set()
            raise
        self._standing.outcomes[str(outcome.settled)] += 1
        return outcome

    def release(self) -> None:
        """See ``Emit``."""
        self._waits.release()
        self._link.release()

    def resume(self) -> None:
        """See ``Emit``."""
        self._waits.resume()
        self._link.resume()

    async def _pace(self) -> None:
        now = asyncio.get_running_loop().time()
        begins = max(now, self._next)
        self._next = begins + self._apart
        if begins > now:
            await self._waits.pause(begins - now)
