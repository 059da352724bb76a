"""Positions and claims of one subscription in two KV buckets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from triggerhub.connector import Position, PositionConflict
from triggerhub.store.jetstream.names import text_of, word
from triggerhub.store.jetstream.server import Changed, Message, Server
from triggerhub.store.jetstream.streams import DAY, Streams
from triggerhub.store.positions import check_text
from triggerhub.store.records import StoreError

_FORGOTTEN = 1_000


class Claims:
    """Who holds what, as far as this process has seen it.

    Two machines' clocks may differ, so neither's time is written down: another's claim has ended
    when its revision has not changed for as long as it lasts, by the clock of who looks, counted
    from its first look. The holder's own count began earlier, before it asked. A claim is taken
    and renewed by compare-and-set on its revision, so of two that try one gets it.
    """

    def __init__(self, server: Server, streams: Streams, holder: str) -> None:
        self._server = server
        self._stream = streams.claims
        self._holder = holder
        self._held: dict[str, int] = {}
        """Revisions of our own, by subject."""
        self._seen: dict[str, tuple[int, float]] = {}
        """Of others': the revision, and when it was first seen (monotonic)."""
        self._clock: Callable[[], float] = time.monotonic

    async def take(self, subject: str, ttl: float) -> bool:
        """Raises ``StoreError``."""
        revision = self._held.pop(subject, None)
        if revision is not None and await self._write(subject, ttl, revision):
            return True
        found = await self._server.get(self._stream, last_by_subj=subject)
        if found is not None and not self._free(found):
            return False
        return await self._write(subject, ttl, 0 if found is None else found.seq)

    async def release(self, subject: str) -> None:
        """Raises ``StoreError``."""
        revision = self._held.pop(subject, None)
        if revision is not None:
            # Not what somebody took over meanwhile: that has a later revision.
            await self._server.purge(self._stream, subject, revision + 1)

    async def _write(self, subject: str, ttl: float, last: int) -> bool:
        claim = json.dumps({"holder": self._holder, "seconds": ttl}).encode()
        try:
            self._held[subject] = await self._server.put(subject, claim, last=last)
        except Changed:
            return False
        self._seen.pop(subject, None)
        return True

    def _free(self, found: Message) -> bool:
        try:
            claim = json.loads(found.data)
            holder, seconds = claim["holder"], float(claim["seconds"])
        except (ValueError, TypeError, KeyError):
            return True  # an administrator's doing
        if holder == self._holder:
            return True
        now = self._clock()
        revision, since = self._seen.get(found.subject, (0, now))
        if revision != found.seq:
            if len(self._seen) >= _FORGOTTEN:
                self._seen.clear()  # then they last longer, never less
            self._seen[found.subject] = found.seq, now
            return False
        return now - since >= seconds


@dataclass(frozen=True, slots=True)
class JetStreamPositions:
    """``Positions``. Revisions are the stream's sequences: they only grow."""

    server: Server
    streams: Streams
    claims: Claims
    subscription: str

    async def load(self, prefix: str = "") -> dict[str, Position]:
        """All stored positions whose key begins with ``prefix``. Raises ``StoreError``."""
        check_text(prefix)
        stream = self.streams.positions
        subjects = [
            subject
            for subject in await self.server.subjects(stream, self._subject(stream.root, "*"))
            if _key(subject).startswith(prefix)
        ]
        found = await self.server.get_all(stream, sorted(subjects, key=_key))
        return {
            _key(message.subject): Position(_value(message), message.seq)
            for message in found
            if message is not None and "KV-Operation" not in message.headers
        }

    async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
        """Returns the new revision. Raises ``PositionConflict``, ``StoreError``; ValueError for
        text that is not valid Unicode."""
        check_text(key, value)
        subject = self._subject(self.streams.positions.root, word(key))
        try:
            return await self.server.put(subject, value.encode(), last=expect)
        except Changed as error:
            raise PositionConflict(
                f"position {key!r} of {self.subscription}: {error}, expected {expect}"
            ) from None

    async def delete(self, key: str) -> None:
        """Forget one key; no error when it is not there. Raises ``StoreError``."""
        check_text(key)
        stream = self.streams.positions
        # Not a marker, as a KV bucket has for what was deleted: those of many ticks add up.
        await self.server.purge(stream, self._subject(stream.root, word(key)))

    async def claim(self, key: str, ttl: float) -> bool:
        """Take or renew ``key`` for ``ttl`` seconds, a day at most. False: another process holds
        it. Raises ``StoreError``; ValueError for another ``ttl``."""
        check_text(key)
        if not 0 < ttl <= DAY:
            raise ValueError(f"a claim lasts {ttl!r} s: expected more than 0, at most {DAY}")
        return await self.claims.take(self._subject(self.streams.claims.root, word(key)), ttl)

    async def release(self, key: str) -> None:
        """Give up a claim that this store holds; no error otherwise. Raises ``StoreError``."""
        check_text(key)
        await self.claims.release(self._subject(self.streams.claims.root, word(key)))

    def _subject(self, root: str, last: str) -> str:
        names = ".".join(word(name) for name in self.subscription.split("."))
        return f"{root}.{names}.{last}"


def _key(subject: str) -> str:
    return text_of(subject.rpartition(".")[2])


def _value(message: Message) -> str:
    try:
        return message.data.decode()
    except UnicodeDecodeError:
        raise StoreError(f"position {message.subject} is damaged: it is no text") from None
