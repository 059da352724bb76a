"""Dead letters in a stream."""

from __future__ import annotations

import builtins
import json
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from triggerhub.store.codec import letter_of, letter_row, searchable
from triggerhub.store.jetstream.names import text_of, word
from triggerhub.store.jetstream.pieces import Pieces
from triggerhub.store.jetstream.server import Message, Server, together
from triggerhub.store.jetstream.streams import Stream
from triggerhub.store.records import DeadLetter, Deleted, Selection, StoreError

_HERE, _ELSEWHERE, _REST = "here", "elsewhere", "rest"
"""The first word: of a letter, of an entry of one that lies elsewhere, of further pieces."""
_ORPHANED = 3600.0
"""Seconds after which pieces without a letter belong to none that is being stored."""
_CHUNK = 100


class JetStreamDeadLetters:
    """``DeadLetters``. A subject says what a selection asks for, so that the server chooses:
    ``<root>.<first word>.<namespace>.<trigger>.<function>.<reason>.<id>``."""

    def __init__(self, server: Server, stream: Stream) -> None:
        self._server = server
        self._stream = stream
        self._pieces = Pieces(server, stream)
        self._counted: tuple[Mapping[str, Any], dict[tuple[str, str, str], int]] | None = None

    async def add(self, letter: DeadLetter) -> None:
        """Stored by JetStream when it returns. Adding an id twice is no error: the first stays."""
        row = letter_row(letter)
        names = _names(*row[1:5], row[0])
        kind = _HERE if letter.elsewhere is None else _ELSEWHERE
        rest = f"{self._stream.root}.{_REST}.{names}"
        await self._pieces.write(f"{self._stream.root}.{kind}.{names}", rest, _written(row))

    async def list(
        self, selection: Selection, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """Oldest first, at most ``limit``, those whose id is greater than ``after``."""
        after = searchable(after)
        until = _until(selection)
        subjects = [subject for subject in await self._subjects(selection) if _id(subject) > after]
        subjects.sort(key=_id)
        found: builtins.list[DeadLetter] = []
        while subjects and len(found) < limit:
            chunk, subjects = subjects[:_CHUNK], subjects[_CHUNK:]
            messages = await self._server.get_all(self._stream, chunk[: limit - len(found)])
            subjects = chunk[limit - len(found) :] + subjects
            found += await together(
                self._letter(message)
                for message in messages
                if message is not None and message.time <= until
            )
        return found

    async def get(self, letter_id: str) -> DeadLetter | None:
        found = await self.list(Selection(ids=(letter_id,)), limit=1)
        return found[0] if found else None

    async def delete(self, selection: Selection) -> Deleted:
        """What is stored after the call began stays."""
        before = await self._before(selection)
        pieces = await self._with_pieces(selection)
        number = elsewhere = 0
        for wanted in self._wanted(selection, _HERE):
            number += await self._server.purge(self._stream, wanted, before)
        for wanted in self._wanted(selection, _ELSEWHERE):
            elsewhere += await self._server.purge(self._stream, wanted, before)
        for first, rest in pieces.items():
            if await self._server.get(self._stream, last_by_subj=first) is None:
                await self._server.purge(self._stream, f"{rest}.*")
        return Deleted(number + elsewhere, elsewhere)

    async def counts(self) -> dict[tuple[str, str, str], int]:
        """How many there are, by (namespace, trigger, function). Asks for the subjects only where
        the stream is another than before."""
        state = await self._server.state(self._stream)
        if self._counted is not None and self._counted[0] == state:
            return dict(self._counted[1])
        counts: dict[tuple[str, str, str], int] = {}
        for subject in await self._subjects(Selection()):
            namespace, trigger, function = map(text_of, subject.split(".")[-5:-2])
            binding = (namespace, trigger, function)
            counts[binding] = counts.get(binding, 0) + 1
        self._counted = state, counts
        return dict(counts)

    async def _subjects(self, selection: Selection) -> builtins.list[str]:
        """Of the letters that a selection means, its age apart."""
        found: builtins.list[str] = []
        if selection.ids:
            # Each is one at most: asked for by itself.
            wanted = self._wanted(selection, "*")
            messages = await self._server.get_all(self._stream, wanted)
            return [message.subject for message in messages if message is not None]
        for kind in (_HERE, _ELSEWHERE):
            for wanted_one in self._wanted(selection, kind):
                found += await self._server.subjects(self._stream, wanted_one)
        return found

    def _wanted(self, selection: Selection, kind: str) -> builtins.list[str]:
        """Subjects, with ``*`` for what may be anything."""
        namespace, slash, trigger = selection.trigger.rpartition("/")
        names = ".".join(
            word(text) if text or (text == namespace and slash) else "*"
            for text in (namespace, trigger, selection.function, selection.reason)
        )
        root = f"{self._stream.root}.{kind}.{names}"
        return [f"{root}.{word(one)}" for one in selection.ids] or [f"{root}.*"]

    async def _letter(self, message: Message) -> DeadLetter:
        names = ".".join(message.subject.split(".")[-5:])
        rest = f"{self._stream.root}.{_REST}.{names}"
        return _read(await self._pieces.whole(message, rest), message.subject)

    async def _before(self, selection: Selection) -> int:
        """The sequence before which all was stored that is old enough, when this was called."""
        state = await self._server.state(self._stream)
        low, high = int(state["first_seq"]), int(state["last_seq"]) + 1
        if selection.older_than is None:
            return high
        until = _until(selection)
        while low < high:
            middle = (low + high) // 2
            found = await self._server.get(
                self._stream, seq=middle, next_by_subj=f"{self._stream.root}.>"
            )
            if found is None or found.time > until:
                high = middle
            else:
                low = found.seq + 1
        return low

    async def _with_pieces(self, selection: Selection) -> dict[str, str]:
        """Of letters in several pieces that a selection means: the subject of the first, and what
        those of the others begin with. Of one that is being stored, there is no first yet: not
        those, unless it is long ago."""
        found = {}
        for wanted in self._wanted(selection, _REST):
            for subject in await self._server.subjects(self._stream, f"{wanted}.*"):
                rest = subject.rpartition(".")[0]
                names = ".".join(rest.split(".")[-5:])
                first = f"{self._stream.root}.{_HERE}.{names}"
                if first not in found and await self._there(first, subject):
                    found[first] = rest
        return found

    async def _there(self, first: str, piece: str) -> bool:
        if await self._server.get(self._stream, last_by_subj=first) is not None:
            return True
        found = await self._server.get(self._stream, last_by_subj=piece)
        return found is not None and found.time < time.time() - _ORPHANED


def _names(*texts: str) -> str:
    return ".".join(word(text) for text in texts)


def _id(subject: str) -> str:
    return text_of(subject.rpartition(".")[2])


def _until(selection: Selection) -> float:
    """What was stored later is too young."""
    age = selection.older_than
    return float("inf") if age is None else time.time() - age


def _written(row: tuple[Any, ...]) -> bytes:
    """A line of JSON with all but the data, and the data."""
    *texts, last_response, key, data, elsewhere = row
    head = {
        "texts": texts,
        "lastResponse": b64encode(last_response).decode(),
        "key": None if key is None else b64encode(key).decode(),
        "elsewhere": elsewhere,
    }
    return json.dumps(head).encode() + b"\n" + bytes(data)


def _read(written: bytes, subject: str) -> DeadLetter:
    """Raises ``StoreError`` when it makes no sense."""
    line, _, data = written.partition(b"\n")
    try:
        head = json.loads(line)
        letter_id, namespace, trigger, function, reason, evidence = head["texts"]
        key = None if head["key"] is None else b64decode(head["key"])
        answer, elsewhere = b64decode(head["lastResponse"]), head["elsewhere"]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"dead letter {_id(subject)} is damaged: {error!r}") from error
    row = (letter_id, namespace, trigger, function, reason, evidence, answer, key, data, elsewhere)
    return letter_of(row)
