"""The journal in a stream, which forgets what is too old or too much."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from triggerhub.store.codec import delivery_of, delivery_text
from triggerhub.store.jetstream.server import Server, together
from triggerhub.store.jetstream.streams import Stream
from triggerhub.store.journal import MAX_FOUND, QueuedJournal
from triggerhub.store.records import Delivery, StoreError

_AT_ONCE = 100


class JetStreamJournal(QueuedJournal):
    """Subjects are ``<root>.<of the event's id>``."""

    def __init__(self, server: Server, stream: Stream) -> None:
        super().__init__()
        self._server = server
        self._stream = stream

    async def _write(self, group: Sequence[Delivery]) -> int:
        lost = 0

        async def write(noted: Delivery) -> None:
            nonlocal lost
            try:
                await self._server.put(self._subject(noted.id), delivery_text(noted).encode())
            except StoreError:
                lost += 1

        for start in range(0, len(group), _AT_ONCE):
            await together(write(noted) for noted in group[start : start + _AT_ONCE])
        return lost

    async def _read(self, event_id: str, source: str) -> list[Delivery]:
        found: list[Delivery] = []
        subject, seq = self._subject(event_id), 1
        while message := await self._server.get(self._stream, seq=seq, next_by_subj=subject):
            seq = message.seq + 1
            delivery = delivery_of(message.data.decode("utf-8", "replace"))
            # Ids of events may be anything: the subject is of many, though seldom.
            if delivery.id == event_id and source in ("", delivery.source):
                found.append(delivery)
        return found[: -MAX_FOUND - 1 : -1]

    def _subject(self, event_id: str) -> str:
        digest = sha256(event_id.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._stream.root}.{digest[:32]}"
