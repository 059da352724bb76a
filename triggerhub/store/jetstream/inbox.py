"""Events that were accepted and are not delivered yet, in a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from triggerhub.connector import InboxFull
from triggerhub.event import Event
from triggerhub.store.codec import damaged, entry_of, entry_text
from triggerhub.store.jetstream.names import text_of, word
from triggerhub.store.jetstream.pieces import Missing, Pieces
from triggerhub.store.jetstream.server import Changed, Full, Message, Server, together
from triggerhub.store.jetstream.streams import Stream, Streams
from triggerhub.store.records import Entry, Put, Room, StoreError, Waiting

ENTRY = "entry"
_REST = "rest"
"""The first word of a subject: of an entry, of its further pieces."""
_MARK = 10
"""Bits of a number that tell the inbox; the others are the stream's sequence."""
_COUNT_EVERY = 10.0
_RESERVED = 30.0
"""Seconds that a put under way may take, once its key is reserved."""
_POLL = 0.1
_AT_ONCE = 64
_KNOWN = 10_000


class _Kept(NamedTuple):
    subject: str
    whole: bool
    """All of it is in this message."""


@dataclass(frozen=True, slots=True)
class _Reserved:
    """What is known of a text that was put once."""

    token: str
    window: float
    number: int
    """0: it is being put, or its process ended before it said so."""

    @classmethod
    def read(cls, found: Message) -> _Reserved:
        try:
            token, window, number = json.loads(found.data)
            return cls(str(token), float(window), int(number))
        except (ValueError, TypeError):
            return cls("", 0.0, 1)  # an administrator's doing: it is over

    def written(self) -> bytes:
        return json.dumps([self.token, self.window, self.number]).encode()


class JetStreamInbox:
    """``Inbox`` of one binding. Subjects are ``<root>.entry.<binding>.<size>.<token>``, so that
    the server tells how much there is; a number is the sequence of an entry's message.

    How much an inbox holds is counted every ten seconds, and by what this process puts and removes
    meanwhile: several may go a little beyond its room. The stream's own limit holds always.
    """

    def __init__(self, server: Server, streams: Streams, binding: str, room: Room) -> None:
        self._server = server
        self._stream = streams.inbox
        self._once = streams.once
        self._pieces = Pieces(server, self._stream)
        self._binding = binding
        self._words = ".".join(word(name) for name in binding.split("."))
        self._mark = int.from_bytes(sha256(self._words.encode()).digest()[:4]) % (1 << _MARK)
        self._room = room
        self._events = self._size = 0
        self._counted = -_COUNT_EVERY
        self._known: dict[int, _Kept] = {}
        """Where entries lie that were put or read here."""

    async def put(self, event: Event, *, once: str = "", window: float = 0.0) -> Put:
        """Stored by JetStream when it returns. ``window``: a week at most, and as one where it is
        longer. Raises ``InboxFull``, ``StoreError``."""
        if not once:
            return Put(await self._put(event, secrets.token_hex(12)), fresh=True)
        return await self._put_once(event, self._key(once), window)

    async def read(
        self, after: int = 0, *, limit: int = 256, size: int = 8 * 1024 * 1024
    ) -> Sequence[Entry]:
        """See ``Inbox.read``. Raises ``StoreError``."""
        found: list[Entry] = []
        seq = (after >> _MARK) + 1
        wanted = self._subject(ENTRY, "*", "*")
        while len(found) < limit:
            message = await self._server.get(self._stream, seq=seq, next_by_subj=wanted)
            if message is None:
                break
            seq = message.seq + 1
            entry = await self._entry(message)
            if entry is None:
                continue
            size -= len(entry.event.data)
            if found and size < 0:
                break
            found.append(entry)
        return found

    async def remove(self, numbers: Collection[int]) -> None:
        """They are settled; no error for one that is not there. Raises ``StoreError``."""
        mine = [number for number in numbers if self._is_mine(number)]
        for start in range(0, len(mine), _AT_ONCE):
            await together(self._remove(number) for number in mine[start : start + _AT_ONCE])

    async def purge(self) -> int:
        """See ``Inbox.purge``. Raises ``StoreError``."""
        until = int((await self._server.state(self._stream))["last_seq"]) + 1
        gone = await self._server.purge(self._stream, self._subject(ENTRY, "*", "*"), until)
        await self._server.purge(self._stream, self._subject(_REST, "*", "*", "*"), until)
        self._known.clear()
        self._counted = -_COUNT_EVERY
        return gone

    async def has(self, number: int) -> bool | None:
        """Whether it is there; False: it was; None: it never was. Raises ``StoreError``."""
        if not self._is_mine(number):
            return None
        if await self._find(number) is not None:
            return True
        state = await self._server.state(self._stream)
        return False if number >> _MARK <= state["last_seq"] else None

    async def _put(self, event: Event, token: str) -> int:
        """Returns the number. Raises ``InboxFull``, ``StoreError``."""
        data = _written(event)
        await self._see_to_room(len(data))
        names = (str(len(data)), token)
        subject = self._subject(ENTRY, *names)
        try:
            seq = await self._pieces.write(subject, self._subject(_REST, *names), data)
        except Full as error:
            raise InboxFull(f"the inboxes of {error}") from None
        if seq is None:  # from a try before this one
            found = await self._server.get(self._stream, last_by_subj=subject)
            if found is None:
                raise StoreError(f"stream {self._stream.name}: {subject} is gone already")
            seq = found.seq
        self._events += 1
        self._size += len(data)
        number = seq << _MARK | self._mark
        self._know(number, subject, whole=False)
        return number

    async def _put_once(self, event: Event, key: str, window: float) -> Put:
        """The key is reserved for a token, then the entry is put under that token, then its number
        is written beside the key. One that did not come so far has put nothing, or what it put is
        found by its token."""
        mine = _Reserved(secrets.token_hex(12), window, 0)
        until = asyncio.get_running_loop().time() + self._server.patience
        last: int | None = 0
        while True:
            if last is not None:
                try:
                    reserved = await self._server.put(key, mine.written(), last=last)
                    break
                except Changed:
                    pass
            put, last = await self._put_before(key)
            if put is not None:
                return put
            if last is None:
                if asyncio.get_running_loop().time() > until:
                    raise StoreError(f"another process is putting what is to be put once: {key}")
                await asyncio.sleep(_POLL)
        try:
            number = await self._put(event, mine.token)
        except InboxFull:
            await self._server.purge(self._once, key, reserved + 1)
            raise
        if not await self._note(key, mine, number, reserved):
            put, _ = await self._put_before(key)
            if put is not None and put.number != number:
                # So slow that another took the key over.
                await self._remove(number)
                return put
        return Put(number, fresh=True)

    async def _put_before(self, key: str) -> tuple[Put | None, int | None]:
        """What was put under a key; or the sequence after which it may be reserved, None where it
        is being put."""
        found = await self._server.get(self._once, last_by_subj=key)
        if found is None:
            return None, 0
        known, age = _Reserved.read(found), time.time() - found.time
        if known.number:
            over = age >= known.window
            return (None, found.seq) if over else (Put(known.number, fresh=False), None)
        number = await self._under(known.token)
        if number is not None and await self._note(key, known, number, found.seq):
            return Put(number, fresh=False), None
        return None, found.seq if number is None and age > _RESERVED else None

    async def _note(self, key: str, put: _Reserved, number: int, last: int) -> bool:
        """False: what is known of the key is something else by now."""
        done = _Reserved(put.token, put.window, number)
        try:
            await self._server.put(key, done.written(), last=last)
        except Changed:
            return False
        return True

    async def _under(self, token: str) -> int | None:
        """The number of the entry that was put under a token."""
        wanted = self._subject(ENTRY, "*", token)
        found = await self._server.get(self._stream, last_by_subj=wanted)
        return None if found is None else found.seq << _MARK | self._mark

    async def _see_to_room(self, size: int) -> None:
        now = time.monotonic()
        if now - self._counted > _COUNT_EVERY:
            self._counted = now
            waiting = await count(self._server, self._stream, f"{self._words}.*.*")
            self._events, self._size = waiting.get(self._binding, Waiting(0, 0))
        room = self._room
        if self._events and (self._events >= room.events or self._size + size > room.size):
            raise InboxFull(
                f"the inbox of {self._binding} is full: it holds at most {room.events} "
                f"events and {room.size} bytes"
            )

    async def _entry(self, message: Message) -> Entry | None:
        """None: it was removed meanwhile."""
        rest = message.subject.replace(f".{ENTRY}.", f".{_REST}.", 1)
        number = message.seq << _MARK | self._mark
        try:
            line, _, data = (await self._pieces.whole(message, rest)).partition(b"\n")
        except Missing as error:
            if await self._find(number) is None:
                return None
            line, _, data = error.found.partition(b"\n")
            return damaged(number, line, data, str(error))
        self._know(number, message.subject, whole=self._pieces.one(message))
        return entry_of(number, line, data)

    async def _remove(self, number: int) -> None:
        kept = self._known.pop(number, None) or await self._find(number)
        if kept is None:
            return
        if await self._server.delete(self._stream, number >> _MARK):
            self._events -= 1
            self._size -= int(kept.subject.split(".")[-2])
        if not kept.whole:
            rest = kept.subject.replace(f".{ENTRY}.", f".{_REST}.", 1)
            await self._server.purge(self._stream, f"{rest}.*")

    async def _find(self, number: int) -> _Kept | None:
        found = await self._server.get(self._stream, seq=number >> _MARK)
        if found is None or not found.subject.startswith(self._subject(ENTRY, "")):
            return None
        return _Kept(found.subject, self._pieces.one(found))

    def _know(self, number: int, subject: str, *, whole: bool) -> None:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[number] = _Kept(subject, whole)

    def _is_mine(self, number: int) -> bool:
        return number > 0 and number % (1 << _MARK) == self._mark

    def _subject(self, first: str, *last: str) -> str:
        return ".".join((self._stream.root, first, self._words, *last))

    def _key(self, once: str) -> str:
        digest = sha256(once.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._once.root}.{self._words}.{digest[:32]}"


async def count(server: Server, stream: Stream, wanted: str = ">") -> dict[str, Waiting]:
    """What inboxes hold, by binding, but for the empty ones; of those that ``wanted`` means, as
    the end of a subject. Raises ``StoreError``."""
    found: dict[str, Waiting] = {}
    root = f"{stream.root}.{ENTRY}."
    for subject in await server.subjects(stream, f"{root}{wanted}"):
        *words, size, _ = subject.removeprefix(root).split(".")
        binding = ".".join(map(text_of, words))
        before = found.get(binding, Waiting(0, 0))
        found[binding] = Waiting(before.events + 1, before.size + int(size))
    return found


def _written(event: Event) -> bytes:
    """A line of JSON, and the data."""
    return entry_text(event).encode() + b"\n" + event.data
