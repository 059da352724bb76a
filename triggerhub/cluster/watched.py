"""The objects at the edge of the cluster, watched while somebody needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from triggerhub.cluster.answers import ApiError, Resource
from triggerhub.cluster.edge import (
    EXPOSES,
    GATEWAY_API,
    GATEWAYS,
    GRANTS,
    INGRESSES,
    ROUTES,
    Front,
    Place,
)
from triggerhub.cluster.found import Found, read_found
from triggerhub.cluster.keeping import Trouble
from triggerhub.cluster.referred import SERVICES
from triggerhub.cluster.reflector import Lister, Reflector, Sync


class Watched:
    """Of Gateways all, of the others those that bear our label."""

    def __init__(
        self, api: Lister, namespace: str | None, front: Front, changed: Callable[[], None]
    ) -> None:
        """``namespace``: the one that is looked at; None: all."""
        self._api = api
        self._namespace = namespace
        self._front = front
        self._changed = changed
        self._of: dict[Resource, Reflector[Found]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Watch what may be there, though no trigger asks for it: an earlier leader may have left
        something to be removed."""
        self._watch(tasks, INGRESSES, SERVICES)
        try:
            served = await self._api.discover(ROUTES.group, ROUTES.version)
        except ApiError:
            return  # once a trigger asks for routes, they are watched in any case
        if served is not None and ROUTES.plural in served:
            self._watch(tasks, ROUTES, GRANTS)

    def routes_too(self, tasks: asyncio.TaskGroup) -> None:
        """A trigger asks for a route."""
        self._watch(tasks, ROUTES, GRANTS, GATEWAYS)

    def end(self) -> None:
        """Of the watching."""
        for task in self._tasks:
            task.cancel()

    def get(self, place: Place) -> Found | None:
        """One object; None: it is not there, as far as is known."""
        watched = self._of.get(place.resource)
        return None if watched is None else watched.items.get(place.key)

    def all(self, *resources: Resource) -> Iterator[tuple[Place, Found]]:
        """All objects of these."""
        for resource in resources:
            watched = self._of.get(resource)
            for key, found in tuple(watched.items.items()) if watched is not None else ():
                yield Place(resource, key.namespace, key.name), found

    def synced(self, resource: Resource) -> bool:
        """It is known what is there."""
        watched = self._of.get(resource)
        return watched is not None and watched.state is Sync.SYNCED

    def trouble(self, resource: Resource) -> Trouble | None:
        """Why nothing can be known of it, or done about it."""
        watched = self._of.get(resource)
        if watched is None or watched.state in (Sync.PENDING, Sync.SYNCED):
            return None
        if watched.state is Sync.ABSENT and resource.group == GATEWAY_API:
            message = f"{watched.problem}; once it is there, it is taken up by itself"
            return Trouble("GatewayAPIMissing", message)
        return Trouble("ExposeRefused", watched.problem)

    def _watch(self, tasks: asyncio.TaskGroup, *resources: Resource) -> None:
        for resource in resources:
            if resource not in self._of:
                watched = self._of[resource] = Reflector(
                    self._api, resource,
                    self._front.namespace if resource == GRANTS else self._namespace,
                    read_found, lambda _before, _after: self._changed(),
                    selector="" if resource == GATEWAYS else EXPOSES,
                )  # fmt: skip
                self._tasks.append(tasks.create_task(watched.run(), name=f"watch {resource}"))
