"""What may have another status is named once, to whoever asks."""

from __future__ import annotations

import asyncio

import pytest

from triggerhub.control.changes import Changes
from triggerhub.control.resources import ResourceKey

pytestmark = pytest.mark.looptime

ORDERS = ResourceKey("shop", "orders")


async def test_what_was_noted_is_taken_once() -> None:
    changes = Changes()
    changes.binding("shop.orders.f.with.dots")
    changes.trigger(ORDERS)
    changes.function(ResourceKey("shop", "f"))
    await changes.wait()
    assert changes.take() == ({ORDERS}, {ResourceKey("shop", "f")})
    assert changes.take() == (set(), set())


async def test_who_waits_is_woken_by_the_next_note_only() -> None:
    changes = Changes()
    changes.trigger(ORDERS)
    changes.take()
    waiting = asyncio.ensure_future(changes.wait())
    await asyncio.sleep(1)
    assert not waiting.done()
    changes.function(ORDERS)
    await asyncio.sleep(0.1)
    assert waiting.done()


async def test_what_is_noted_after_the_taking_is_not_lost() -> None:
    changes = Changes()
    changes.trigger(ORDERS)
    taken, _ = changes.take()
    changes.trigger(ResourceKey("shop", "later"))
    assert taken == {ORDERS}
    async with asyncio.timeout(1):
        await changes.wait()
    assert changes.take()[0] == {ResourceKey("shop", "later")}
