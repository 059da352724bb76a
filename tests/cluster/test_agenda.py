"""What is due comes in order, once, and never early; in virtual time."""

from __future__ import annotations

import asyncio
import random
from typing import Literal

import pytest

from triggerhub.cluster.agenda import Agenda

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_the_earliest_comes_first_and_each_once() -> None:
    agenda = Agenda[str]()
    agenda.add("late", 3.0)
    agenda.add("soon", 1.0)
    agenda.add("late", 2.0)
    agenda.add("late", 5.0)
    found = [(await agenda.next(), round(now(), 2)) for _ in range(2)]
    assert found == [("soon", 1.0), ("late", 2.0)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await agenda.next()


async def test_one_that_waits_for_a_later_one_sees_an_earlier_one_come() -> None:
    agenda = Agenda[str]()
    agenda.add("late", 100.0)
    loop = asyncio.get_running_loop()
    loop.call_later(1.0, agenda.add, "soon", 0.0)
    assert await agenda.next() == "soon"
    assert now() < 1.1


async def test_one_is_never_early_and_hardly_late_however_odd_its_time() -> None:
    agenda = Agenda[int]()
    due = {}
    for n in range(200):
        after = random.uniform(0.0, 2.0) + n / 7e7
        due[n] = now() + after
        agenda.add(n, after)
    for _ in range(200):
        n = await agenda.next()
        assert 0 <= now() - due[n] < 0.01


class Bounded(asyncio.Event):
    """Nobody waits for it for ever."""

    waits = 0

    async def wait(self) -> Literal[True]:
        self.waits += 1
        assert self.waits < 20, "it spins"
        return await super().wait()


async def test_what_is_due_in_next_to_no_time_is_not_waited_for_in_a_circle() -> None:
    agenda = Agenda[str]()
    agenda._more = Bounded()
    await asyncio.sleep(0.1)
    agenda.add("it", 0.2)  # 0.30000000000000004: the timer for it fires at 0.3
    assert await agenda.next() == "it"
    assert 0.3 < now() < 0.31
