"""How often, and how much, a shard is read: within what AWS allows, and no more than is needed."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from triggerhub.backoff import backoff
from triggerhub_kinesis.client import Access

_READS = 4
"""A second and shard. Kinesis allows five, of all its consumers together (quotas, GetRecords); some
are late, and then come together."""
_BYTES = 2_000_000
"""A second and shard, of all its consumers together."""
_CAUGHT_UP, _LONGEST_REST = 0.4, 1.0
_FIRST_RETRY, _LONGEST_RETRY = 0.2, 5.0


class Pace:
    """Of one shard, for all who read it in this process."""

    def __init__(self) -> None:
        self._free = 0.0

    async def turn(self) -> None:
        """Wait until it may be read once more."""
        now = asyncio.get_running_loop().time()
        begin = max(self._free, now)
        self._free = begin + 1 / _READS
        await asyncio.sleep(begin - now)

    def took(self, size: int) -> None:
        """So many bytes came."""
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now + size / _BYTES)


class Paces:
    """Those of all shards that somebody reads."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[object, ...], Pace] = WeakValueDictionary()

    def of(self, access: Access, stream: str, shard: str) -> Pace:
        """The same for each who reads this shard, as whomever."""
        key = (access.region, access.endpoint, stream, shard)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Pace()
        return found


class Room:
    """How many bytes may be fetched and not yet passed on."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: set[asyncio.Future[None]] = set()

    async def take(self, size: int) -> None:
        while self._free < size:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
        self._free -= size

    def give(self, size: int) -> None:
        self._free += size
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


def rest(idle: int) -> float:
    """Seconds until a shard of which nothing is left is read again; ``idle``: how often in a row
    it brought nothing. Who is not behind leaves some of its five reads to other consumers."""
    return min(_LONGEST_REST, _CAUGHT_UP * 2.0 ** min(idle, 10))


def retry(failed: int) -> float:
    """Seconds until what failed so many times in a row is tried again."""
    return backoff(failed, _FIRST_RETRY, _LONGEST_RETRY)
