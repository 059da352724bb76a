"""A lease among hubs that share a store, as the election asks for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from triggerhub.cluster.answers import ApiError
from triggerhub.cluster.election import LEASES, Election
from triggerhub.cluster.shared import LEADER, StoreLeases
from triggerhub.store.records import StoreError
from triggerhub.testing.fakes import MemoryPositions, MemoryStore


def stands(store: MemoryStore, name: str) -> Election:
    return Election(
        StoreLeases(MemoryPositions(store)), name=LEADER, namespace="", identity=name,
        changed=lambda: None,
    )  # fmt: skip


@pytest.mark.looptime
async def test_one_leads_and_another_follows_when_it_shows_no_sign_of_life() -> None:
    store = MemoryStore()
    one, two = stands(store, "one"), stands(store, "two")
    first = asyncio.create_task(one.run())
    await asyncio.sleep(1)
    second = asyncio.create_task(two.run())
    await asyncio.sleep(60)
    assert (one.leading, two.leading) == (True, False)
    store.failure = StoreError("away")  # to both: who leads stops before anybody may follow
    await asyncio.sleep(9)
    assert not one.leading
    store.failure = None
    first.cancel()
    await asyncio.wait([first])
    await asyncio.sleep(5)
    assert two.leading
    assert two.since <= time.time()
    second.cancel()
    await asyncio.wait([second])


async def test_what_is_not_there_what_changed_and_what_is_away_are_told_apart() -> None:
    store = MemoryStore()
    leases = StoreLeases(MemoryPositions(store))
    with pytest.raises(ApiError) as missing:
        await leases.get(LEASES, None, LEADER)
    assert missing.value.status == 404
    made = await leases.create(LEASES, None, {"metadata": {"name": LEADER}, "spec": {"a": 1}})
    assert await leases.get(LEASES, None, LEADER) == made
    with pytest.raises(ApiError) as twice:
        await leases.create(LEASES, None, {"metadata": {"name": LEADER}, "spec": {}})
    assert twice.value.status == 409
    later = await leases.replace(LEASES, None, LEADER, {**made, "spec": {"a": 2}})
    assert later["spec"] == {"a": 2}
    with pytest.raises(ApiError) as changed:
        await leases.replace(LEASES, None, LEADER, made)
    assert changed.value.status == 409
    store.failure = StoreError("store nats://n: no NATS server answers")
    with pytest.raises(ApiError) as away:
        await leases.get(LEASES, None, LEADER)
    assert (away.value.status, str(away.value)) == (0, "store nats://n: no NATS server answers")
