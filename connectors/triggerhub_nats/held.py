"""The messages of a durable consumer that this process holds, and what the server is to hear."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

ACK = b"+ACK"
NAK = b"-NAK"
TERM = b"+TERM"
IN_PROGRESS = b"+WPI"

_REMEMBERED = 10_000


@dataclass(slots=True)
class _Message:
    reply: str
    size: int
    told: float
    """When the server last heard that it is under way; monotonic."""


class Held:
    """By the sequence in the stream.

    The server brings a message again when it heard nothing of it for the ack wait: because it, or
    the connection, was away, or because an ack was lost with them. What is under way here is not
    delivered twice for that, and what is settled is acked again.
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes of what is open."""
        self.unsaid: list[bytes] = []
        """Lines of the protocol that the server has not been sent yet."""
        self.unconfirmed: dict[int, tuple[str, bytes]] = {}
        self._open: dict[int, _Message] = {}
        self._settled: dict[int, bytes] = {}
        self._order: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, sequence: int, reply: str, size: int) -> bool:
        """A message came. False: it is here already, or was settled; the server hears of that."""
        if sequence in self._open:
            self._open[sequence].reply = reply
            self.say(reply, IN_PROGRESS)
            return False
        word = self._settled.get(sequence)
        if word is not None:
            self.say(reply, word)
            return False
        self._open[sequence] = _Message(reply, size, time.monotonic())
        self.size += size
        return True

    def settle(self, sequence: int, word: bytes, inbox: str | None) -> None:
        """Its outcome is known. ``inbox``: where the server is to confirm that it heard."""
        message = self._open.pop(sequence)
        self.size -= message.size
        self._settled[sequence] = word
        self._order.append(sequence)
        if len(self._order) > _REMEMBERED:
            self._settled.pop(self._order.popleft(), None)
        if inbox is None:
            self.say(message.reply, word)
        else:
            self.unconfirmed[sequence] = message.reply, word
            self.say(message.reply, word, f"{inbox}.{sequence}")

    def repeat(self, inbox: str) -> None:
        """Say again what the server has not confirmed."""
        for sequence, (reply, word) in self.unconfirmed.items():
            self.say(reply, word, f"{inbox}.{sequence}")

    def say(self, reply: str, word: bytes, confirm: str = "") -> None:
        """To the server, with the next write."""
        self.unsaid.append(b"PUB %b %b %d\r\n%b\r\n" % (
            reply.encode(), confirm.encode(), len(word), word
        ))  # fmt: skip

    def in_progress(self, every: float) -> None:
        """Say so of all that the server has not heard of for so many seconds."""
        now = time.monotonic()
        for message in self._open.values():
            if message.told <= now - every:
                message.told = now
                self.say(message.reply, IN_PROGRESS)

    def give_back(self) -> None:
        """All that is open, the oldest first: in this order the server brings it again."""
        for sequence in sorted(self._open):
            self.say(self._open[sequence].reply, NAK)
        self._open.clear()
        self.size = 0

    def forget_settled(self) -> None:
        """The server counts anew: what it brings now is meant."""
        self._settled.clear()
        self._order.clear()
        self.unconfirmed.clear()
