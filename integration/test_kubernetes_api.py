"""A real API server answers as the fakes of the unit tests do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from integration.kubernetes import ApiServer
from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.api import Api
from triggerhub.cluster.election import LEASES, Election
from triggerhub.cluster.events import Events, Subject, Turn
from triggerhub.cluster.reported import Held, Reported
from triggerhub.cluster.standing import resource_of
from triggerhub.control.resources import API_VERSION, GROUP, VERSION

FUNCTIONS = resource_of("Function")
SINCE = "2026-01-31T12:00:00Z"


@pytest.fixture
async def api(apiserver: ApiServer) -> AsyncIterator[Api]:
    async with await Api.connect(kubeconfig=apiserver.kubeconfig) as api:
        yield api


async def made(api: Api, namespace: str, name: str = "handle") -> Object:
    body = {
        "apiVersion": API_VERSION, "kind": "Function",
        "metadata": {"name": name, "namespace": namespace}, "spec": {"url": "http://127.0.0.1:9/"},
    }  # fmt: skip
    return await api.create(FUNCTIONS, namespace, body)


def report(*names: str) -> Reported:
    conditions = tuple(Held(name, "True", "Ready", "", SINCE) for name in names)
    return Reported(generation=1, conditions=conditions, url="http://127.0.0.1:9/")


async def applied(
    api: Api, found: Object, status: dict[str, Any], manager: str = "triggerhub"
) -> Object:
    """As of that version of a function."""
    kept = ("name", "namespace", "resourceVersion")
    body = {
        "apiVersion": API_VERSION, "kind": "Function",
        "metadata": {name: found["metadata"][name] for name in kept}, "status": status,
    }  # fmt: skip
    return await api.patch(
        FUNCTIONS, found["metadata"]["namespace"], found["metadata"]["name"], body,
        kind="apply", subresource="status", manager=manager,
    )  # fmt: skip


async def test_conditions_of_others_stay_and_what_is_the_same_is_no_new_version(
    api: Api, namespace: str
) -> None:
    found = await made(api, namespace)
    theirs = {
        "type": "Approved", "status": "True", "reason": "ByHand", "message": "",
        "lastTransitionTime": SINCE,
    }  # fmt: skip
    found = await applied(api, found, {"conditions": [theirs]}, manager="somebody")
    wanted = report("Accepted", "Ready")
    once = await applied(api, found, wanted.as_status())
    held = Reported.read(once["status"])
    assert held is not None
    assert {condition.type for condition in held.conditions} == {"Accepted", "Approved", "Ready"}
    assert wanted.says(held)
    twice = await applied(api, once, wanted.as_status())
    assert twice["metadata"]["resourceVersion"] == once["metadata"]["resourceVersion"]
    # What was ours and is no longer said goes; what is theirs does not.
    less = await applied(api, twice, report("Ready").as_status())
    held = Reported.read(less["status"])
    assert held is not None
    assert {condition.type for condition in held.conditions} == {"Approved", "Ready"}


async def test_no_status_reaches_one_that_changed_or_was_made_anew_or_is_gone(
    api: Api, namespace: str
) -> None:
    old = await made(api, namespace)
    await api.patch(FUNCTIONS, namespace, "handle", {"metadata": {"labels": {"a": "b"}}},
                    kind="merge")  # fmt: skip
    with pytest.raises(ApiError) as changed:
        await applied(api, old, report("Ready").as_status())
    assert changed.value.status == 409
    await api.delete(FUNCTIONS, namespace, "handle")
    with pytest.raises(ApiError) as gone:
        await applied(api, old, report("Ready").as_status())
    assert gone.value.status in (404, 409)
    await made(api, namespace)
    with pytest.raises(ApiError) as another:
        await applied(api, old, report("Ready").as_status())
    assert another.value.status == 409
    assert "status" not in await api.get(FUNCTIONS, namespace, "handle")


async def test_only_what_was_looked_at_is_deleted(api: Api, namespace: str) -> None:
    metadata = (await made(api, namespace))["metadata"]
    for conditions in ({"uid": "another"}, {"resource_version": "1"}):
        with pytest.raises(ApiError) as told:
            await api.delete(FUNCTIONS, namespace, "handle", **conditions)
        assert told.value.status == 409
    await api.delete(
        FUNCTIONS, namespace, "handle",
        uid=metadata["uid"], resource_version=metadata["resourceVersion"],
    )  # fmt: skip


async def test_what_is_not_served_is_told_apart_from_what_is(api: Api) -> None:
    served = await api.discover(GROUP, VERSION)
    assert served is not None
    assert {"functions", "crontriggers"} <= served
    assert await api.discover("nobody.example.com", "v1") is None
    with pytest.raises(ApiError) as told:
        async for _ in api.list(Resource("nobody.example.com", "v1", "things"), None):
            pass
    assert told.value.status == 404


async def test_a_list_goes_on_where_its_page_ended(api: Api, namespace: str) -> None:
    for n in range(5):
        await made(api, namespace, f"f{n}")
    pages = [page async for page in api.list(FUNCTIONS, namespace, limit=2)]
    names = [[item["metadata"]["name"] for item in page.items] for page in pages]
    assert names == [["f0", "f1"], ["f2", "f3"], ["f4"]]
    assert len({page.resource_version for page in pages}) == 1
    empty = [page async for page in api.list(LEASES, namespace)]
    assert [page.items for page in empty] == [[]]
    assert empty[0].resource_version


async def test_a_lease_is_taken_renewed_and_given_up(api: Api, namespace: str) -> None:
    flips: list[bool] = []
    election = Election(
        api, name="hub", namespace=namespace, identity="one",
        changed=lambda: flips.append(election.leading),
    )  # fmt: skip
    assert await election._take()  # made
    election._enter(float("inf"))
    assert await election._take()  # renewed
    lease = await api.get(LEASES, namespace, "hub")
    assert lease["spec"]["holderIdentity"] == "one"
    other = Election(api, name="hub", namespace=namespace, identity="two", changed=lambda: None)
    assert not await other._take()
    await election._release()
    assert await other._take()
    assert not await election._take()
    election._leave()
    assert flips == [True, False]


async def test_an_event_is_taken_and_counted(api: Api, namespace: str) -> None:
    class Office:
        leading = True

    uid = (await made(api, namespace))["metadata"]["uid"]
    events = Events(api, Office())
    subject = Subject("Function", namespace, "handle", uid)
    turn = Turn("NoEndpoints", "ä" * 5000, warning=True)
    await events._write(subject, turn)
    await events._write(subject, turn)
    found = [
        event
        async for page in api.list(Resource("", "v1", "events"), namespace)
        for event in page.items
    ]
    assert [(event["reason"], event["count"]) for event in found] == [("NoEndpoints", 2)]
    assert found[0]["involvedObject"]["uid"] == uid
