"""How fast statuses are written, and what becomes of those that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

import structlog

from triggerhub.cluster.answers import ApiError

T = TypeVar("T", bound=Hashable)

PER_SECOND = 300.0
_SLOWLY = 0.25
"""Seconds between two that were refused before, while everything is refused."""
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 5.0
_LASTING_WAIT = 30.0
_LONGEST_ASKED = 60.0
"""Seconds that a server can ask to be left alone for."""
_LASTING = (400, 403, 413, 422)
"""What is refused so is refused again, until somebody changes something."""
_ELSEWHERE = (404, 409, 410)
"""It is gone, or another: the watch will soon say which."""
_STUBBORN = 5
"""Failures in a row after which that is no explanation."""

log = structlog.get_logger()


class Pace(Generic[T]):
    """An object that is refused waits, longer each time, and no other with it."""

    def __init__(self) -> None:
        self._slot = 0.0
        self._again = 0.0
        self._refusing = False
        """The server took nothing since it last refused something."""
        self._failures: dict[T, int] = {}
        """In a row, of each."""
        self._told: dict[str, T] = {}
        """Which refusals were logged, and of what object."""

    async def turn(self, *, again: bool) -> None:
        """Wait until the next request is due; ``again``: of those that were refused before."""
        apart = 1 / PER_SECOND
        now = asyncio.get_running_loop().time()
        if again:
            self._again = max(self._again + (_SLOWLY if self._refusing else apart), now)
            await asyncio.sleep(self._again - now)
            now = asyncio.get_running_loop().time()
        self._slot = max(self._slot + apart, now)
        await asyncio.sleep(self._slot - now)

    def refused(self, item: T, error: ApiError) -> float:
        """Seconds until that object is to be tried again. Each kind of refusal is logged once,
        until what was refused is well."""
        failures = self._failures[item] = self._failures.get(item, 0) + 1
        self._refusing = error.status != 409
        asked = min(error.retry_after, _LONGEST_ASKED)
        self._slot = max(self._slot, asyncio.get_running_loop().time() + asked)
        if error.status not in _ELSEWHERE or failures >= _STUBBORN:
            self._tell(item, error)
        if error.status in _LASTING:
            return _LASTING_WAIT
        return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(failures - 1, 10))

    def accepted(self, item: T) -> None:
        """The server took it."""
        self._refusing = False
        self.well(item)

    def well(self, item: T) -> None:
        """Nothing stands against that object any more."""
        if self._failures.pop(item, 0):
            self._told = {said: of for said, of in self._told.items() if of != item}

    def _tell(self, item: T, error: ApiError) -> None:
        said = f"{error.verb} {error.resource} {error.reason}"
        if said not in self._told:
            self._told[said] = item
            log.warning("status.refused", object=str(item), error=str(error))
