"""Who else listens to the same stream under this name, and how many shards are whose."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from triggerhub.connector import Position, Positions

MEMBER = "member/"
DEAD_AFTER = 3.5
"""Seconds without a sign of life, seen at every look: two are missing. Who is only slow loses
nothing by it, since its claims say what is its own; and in a store whose claims end by the clock
of who looks at them (JetStream) nobody looks before, so that both times add up."""
_FORGET_AFTER = 60.0


class Members:
    """Each process changes a position of its own every other second; one that stays the same
    belongs to nobody. No two clocks are compared."""

    def __init__(self, positions: Positions, clock: Callable[[], float]) -> None:
        self.me = secrets.token_hex(8)
        self._positions = positions
        self._clock = clock
        self._beats = 0
        self._seen: dict[str, tuple[int, float]] = {}
        """Of each: the revision, and when it was first seen."""

    async def beat(self) -> None:
        """Say that this process lives. Raises OSError."""
        self._beats += 1
        await self._positions.save(MEMBER + self.me, str(self._beats))

    async def leave(self) -> None:
        """Raises OSError."""
        await self._positions.delete(MEMBER + self.me)

    async def alive(self, stored: Mapping[str, Position]) -> list[str]:
        """Who lives, this process among them, in an order that is the same for all. Those that
        have been dead for long are forgotten. Raises OSError."""
        now = self._clock()
        found = {self.me}
        for key, position in stored.items():
            name = key.removeprefix(MEMBER)
            if name == key or name == self.me:
                continue
            revision, since = self._seen.get(name, (0, now))
            if revision != position.revision:
                self._seen[name] = position.revision, now
                found.add(name)
            elif now - since < DEAD_AFTER:
                found.add(name)
            elif now - since > _FORGET_AFTER:
                await self._positions.delete(key)
        return sorted(found)


def quota(members: Sequence[str], me: str, shards: int) -> int:
    """How many shards are this member's: the same for all, give or take one; together all."""
    share, rest = divmod(shards, len(members))
    return share + (members.index(me) < rest)


def preferred(members: Sequence[str], me: str, shards: Sequence[str]) -> list[str]:
    """All shards, those first that others look at last: so that two do not want the same."""
    first = members.index(me) * len(shards) // len(members)
    return [*shards[first:], *shards[:first]]
