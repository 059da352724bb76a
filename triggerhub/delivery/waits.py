"""How deliveries of one binding wait: between attempts, and while their function is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from triggerhub.connector import GivenBack
from triggerhub.delivery.course import Course
from triggerhub.delivery.retry import AWAY_STREAK

_Waiters = dict[asyncio.Future[bool], None]


class Waits:
    """After ``AWAY_STREAK`` attempts in a row that found the function away, one delivery (the
    prober) goes on trying and the others hold; the function's first answer lets all go on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._streak = 0
        self._prober: Course | None = None
        self._sleepers: _Waiters = {}
        self._holders: _Waiters = {}
        self._releases = 0
        self._closed = True
        self.away = False

    @property
    def troubled(self) -> bool:
        """The last attempt found the function away."""
        return self._streak > 0

    def found_away(self, course: Course) -> bool:
        """An attempt found the function away. True: so did enough others."""
        self._streak += 1
        if self._streak >= AWAY_STREAK:
            self.away = True
            if self._prober is None:
                self._prober = course
        return self.away

    def answered(self) -> None:
        """The function gave an answer, whatever it was: let all go on."""
        self._streak = 0
        if self.away:
            self.away = False
            self._prober = None
            for waiter in self._holders:
                _wake(waiter, True)

    def ended(self, course: Course) -> None:
        """This delivery goes no further; if it was the prober, another takes its place."""
        if self._prober is course:
            self._prober = None
            for waiter in self._holders:
                if not waiter.done():
                    waiter.set_result(True)
                    break

    def open(self) -> None:
        """There is a function, or it is another than before: whatever waits tries at once."""
        self._closed = False
        self.answered()
        self._wake_all(True)

    def close(self) -> None:
        """There is no function: whatever waits is given back, now and until ``open``."""
        self._closed = True
        self._wake_all(False)

    def release(self) -> None:
        """Whatever waits is given back, now and until ``resume``."""
        self._releases += 1
        self._wake_all(False)

    def resume(self) -> None:
        """Deliveries may wait again."""
        self._releases -= 1

    async def pause(self, seconds: float) -> None:
        """Wait between two attempts. Raises ``GivenBack``."""
        await self._wait(seconds, self._sleepers)

    def holds(self, course: Course) -> bool:
        """While the function is away, all hold but the prober."""
        return self.away and self._prober not in (None, course)

    async def hold(self, course: Course, left: Callable[[], float]) -> bool:
        """Wait while the function is away, unless this delivery is the one that probes.
        False: nothing was ``left`` of its time. Raises ``GivenBack``."""
        while self.away:
            if self._prober is None:
                self._prober = course
            if self._prober is course:
                break
            await self._wait(None if course.first is None else left(), self._holders)
            if left() <= 0:
                return False
        return True

    async def _wait(self, seconds: float | None, among: _Waiters) -> None:
        if self._releases or self._closed:
            raise GivenBack(f"{self._name}: the listener stops")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        among[waiter] = None
        timer = None if seconds is None else loop.call_later(max(0.0, seconds), _wake, waiter, True)
        try:
            if not await waiter:
                raise GivenBack(f"{self._name}: the listener stops")
        finally:
            if timer is not None:
                timer.cancel()
            del among[waiter]

    def _wake_all(self, go_on: bool) -> None:
        for waiter in (*self._sleepers, *self._holders):
            _wake(waiter, go_on)


def _wake(waiter: asyncio.Future[bool], go_on: bool) -> None:
    if not waiter.done():
        waiter.set_result(go_on)
