"""Fakes at the lowest seams: a function that answers by script, and a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from triggerhub.connector import InboxFull, Positions
from triggerhub.delivery.endpoint import Endpoint
from triggerhub.delivery.transport import Away, NoReply, Transport
from triggerhub.delivery.upload import Upload
from triggerhub.event import Event, Reply
from triggerhub.store.records import (
    DeadLetter,
    Deleted,
    Delivery,
    Entry,
    Put,
    Selection,
    StoreError,
    Trouble,
    Waiting,
)


@dataclass
class Sent:
    """One attempt that reached the scripted function."""

    url: str
    fields: dict[str, str]
    body: bytes
    time: float
    once: bool = False

    @property
    def id(self) -> str:
        return self.fields["ce-id"]


Answer = int | float | Reply | Exception | asyncio.Future[None]


class ScriptedFunction(Transport):
    """Stands where the network begins. ``answer`` says what becomes of each attempt: a status, a
    Reply, an exception, or a future to wait for first (then 200)."""

    def __init__(self, answer: Callable[[Sent], Answer] | None = None) -> None:
        super().__init__()
        self.answer = answer or (lambda sent: 200)
        self.sent: list[Sent] = []
        self.now = 0
        self.most = 0

    async def send(
        self,
        endpoint: Endpoint,
        head: bytes,
        body: bytes,
        timeout: float,
        keep: int = 1024,
        *,
        head_request: bool = False,
        once: bool = False,
        pace: float = 0.0,
        more: Upload | None = None,
    ) -> Reply:
        lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        sent = Sent(endpoint.url, fields, body, asyncio.get_running_loop().time(), once)
        self.sent.append(sent)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            answer = self.answer(sent)
            if isinstance(answer, asyncio.Future):
                await answer
                answer = 200
            if isinstance(answer, float):
                if answer > timeout:
                    await asyncio.sleep(timeout)
                    raise NoReply("timeout")
                await asyncio.sleep(answer)
                answer = 200
            else:
                await asyncio.sleep(0)
        finally:
            self.now -= 1
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer) if isinstance(answer, int) else answer


def refused() -> Away:
    """What an attempt meets when nobody listens."""
    return Away("connection refused")


@dataclass
class MemoryDeadLetters:
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    trouble: str = ""
    """Set: nothing can be stored, for this reason."""

    async def add(self, letter: DeadLetter) -> None:
        await asyncio.sleep(0)
        if self.trouble:
            raise StoreError(self.trouble)
        self.letters[letter.id] = letter

    async def list(
        self, selection: Selection, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        return [self.letters[key] for key in sorted(self.letters) if key > after][:limit]

    async def get(self, letter_id: str) -> DeadLetter | None:
        return self.letters.get(letter_id)

    async def delete(self, selection: Selection) -> Deleted:
        gone = [self.letters.pop(key) for key in selection.ids if key in self.letters]
        return Deleted(len(gone), sum(letter.elsewhere is not None for letter in gone))

    async def counts(self) -> dict[tuple[str, str, str], int]:
        return {}


@dataclass
class MemoryJournal:
    noted: list[Delivery] = field(default_factory=list)

    def note(self, delivery: Delivery) -> None:
        self.noted.append(delivery)

    async def find(self, event_id: str, source: str = "") -> Sequence[Delivery]:
        return [d for d in reversed(self.noted) if d.id == event_id]


@dataclass
class MemoryInbox:
    """Windows do not end."""

    entries: dict[int, Event] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    last: int = 0
    reads: int = 0
    most: int = 1_000_000
    trouble: str = ""
    """Set: nothing can be written, for this reason."""

    async def put(self, event: Event, *, once: str = "", window: float = 0.0) -> Put:
        await self._reach()
        if once in self.known:
            return Put(self.known[once], fresh=False)
        if len(self.entries) >= self.most:
            raise InboxFull("the inbox is full")
        before, self.last = self.last, self.last + 1
        self.entries[self.last] = event
        if once:
            self.known[once] = self.last
        return Put(self.last, fresh=True, before=before)

    async def read(
        self, after: int = 0, *, limit: int = 256, size: int = 8 * 1024 * 1024
    ) -> Sequence[Entry]:
        self.reads += 1
        await self._reach()
        return [Entry(n, event) for n, event in self.entries.items() if n > after][:limit]

    async def remove(self, numbers: Collection[int]) -> None:
        await self._reach()
        for number in numbers:
            self.entries.pop(number, None)

    async def purge(self) -> int:
        await self._reach()
        gone = len(self.entries)
        self.entries.clear()
        return gone

    async def has(self, number: int) -> bool | None:
        await self._reach()
        return number in self.entries if 0 < number <= self.last else None

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.trouble:
            raise StoreError(self.trouble)


class MemoryInboxes:
    """The part of a store that keeps inboxes."""

    def __init__(self) -> None:
        self.inboxes: dict[str, MemoryInbox] = {}

    def inbox(self, binding: str) -> MemoryInbox:
        return self.inboxes.setdefault(binding, MemoryInbox())

    async def waiting(self) -> Mapping[str, Waiting]:
        found = {name: Waiting(len(one.entries), 0) for name, one in self.inboxes.items()}
        return {name: waiting for name, waiting in found.items() if waiting.events}


class MemoryStore(MemoryInboxes):
    """Dead letters, journal and inboxes."""

    def __init__(self) -> None:
        super().__init__()
        self.dead_letters = MemoryDeadLetters()
        self.journal = MemoryJournal()
        self.trouble: Trouble | None = None

    def positions(self, subscription: str) -> Positions:
        raise NotImplementedError


def event(number: int = 1, **changes: object) -> Event:
    """The numbered event of a test."""
    plain: dict[str, object] = {"id": str(number), "source": "/test", "type": "t", "data": b"x"}
    return Event(**(plain | changes))  # type: ignore[arg-type]
