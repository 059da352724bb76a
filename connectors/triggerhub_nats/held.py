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


Key = tuple[int, int]
"""A message's sequence in the stream and the time at which the stream took it, in ns. A server that
is killed may lose its last messages and give their sequences to others."""


class Held:
    """By sequence and time.

    The server brings a message again when it heard nothing of it for the ack wait: because it, or
    the connection, was away, or because an ack was lost with them. What is under way here is not
    delivered twice for that, and what is settled is acked again.
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes of what is open."""
        self.unsaid: list[bytes] = []
        """Lines of the protocol that the server has not been sent yet."""
        self.unconfirmed: dict[Key, tuple[str, bytes]] = {}
        self._open: dict[Key, _Message] = {}
        self._settled: dict[Key, bytes] = {}
        self._order: deque[Key] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, key: Key, reply: str, size: int) -> bool:
        """A message came. False: it is here already, or was settled; the server hears of that."""
        if key in self._open:
            self._open[key].reply = reply
            self.say(reply, IN_PROGRESS)
            return False
        word = self._settled.get(key)
        if word is not None:
            self.say(reply, word)
            return False
        self._open[key] = _Message(reply, size, time.monotonic())
        self.size += size
        return True

    def settle(self, key: Key, word: bytes, inbox: str | None) -> None:
        """Its outcome is known. ``inbox``: where the server is to confirm that it heard."""
        message = self._open.pop(key)
        self.size -= message.size
        self._settled[key] = word
        self._order.append(key)
        if len(self._order) > _REMEMBERED:
            self._settled.pop(self._order.popleft(), None)
        if inbox is None:
            self.say(message.reply, word)
        else:
            self.unconfirmed[key] = message.reply, word
            self.say(message.reply, word, _confirmation(inbox, key))

    def repeat(self, inbox: str) -> None:
        """Say again what the server has not confirmed."""
        for key, (reply, word) in self.unconfirmed.items():
            self.say(reply, word, _confirmation(inbox, key))

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
        for key in sorted(self._open):
            self.say(self._open[key].reply, NAK)
        self._open.clear()
        self.size = 0

    def forget_settled(self) -> None:
        """The server counts anew: what it brings now is meant."""
        self._settled.clear()
        self._order.clear()
        self.unconfirmed.clear()


def _confirmation(inbox: str, key: Key) -> str:
    return f"{inbox}.{key[0]}-{key[1]}"


def confirmed(token: str) -> Key:
    """What a confirmation is for, by the last word of its subject."""
    sequence, _, stamp = token.partition("-")
    return int(sequence), int(stamp)
