"""A hub's part in its cluster: what it watches, and what its leader writes."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import uuid4

from triggerhub.cluster.api import Api
from triggerhub.cluster.cleanup import Cleanups
from triggerhub.cluster.edge import Front
from triggerhub.cluster.events import Events
from triggerhub.cluster.exposures import Exposures
from triggerhub.cluster.leadership import Leadership
from triggerhub.cluster.source import KubernetesSource
from triggerhub.cluster.statuses import Statuses
from triggerhub.control.changes import Changes
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import Kind
from triggerhub.control.reconciler import Reconciler
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.settings import Settings

LEASE = "triggerhub"


class Cluster:
    """One replica among those that watch the same manifests. All deliver; the leader, chosen by
    a Lease, writes statuses, exposes and cleans up, and acts where a source cannot be shared."""

    def __init__(
        self,
        api: Api,
        kinds: Mapping[str, Kind],
        namespace: str | None,
        worker: int = 0,
        front: Front | None = None,
    ) -> None:
        """``namespace``: the one whose manifests are meant; None: all. ``worker``: which of the
        hub's processes this is, 0: the only one. ``front``: the Service that it is reached by."""
        replica = os.environ.get("POD_NAME") or socket.gethostname()
        replica += f"-{worker}" if worker else ""
        self._api = api
        self._kinds = kinds
        self.source = KubernetesSource(api, kinds, namespace)
        self.leadership = Leadership(
            api,
            # Hubs of different scopes are no replicas of each other.
            name=LEASE if namespace is None else f"{LEASE}-{namespace}",
            namespace=api.namespace,
            identity=f"{replica}_{uuid4().hex[:8]}",
        )
        self.election = self.leadership.election
        self.exposures = Exposures(api, self.source, self.election, namespace, front)

    async def run(
        self,
        reconciler: Reconciler,
        listeners: Listeners,
        dispatcher: Dispatcher,
        changes: Changes,
    ) -> None:
        """Until cancelled."""
        self.leadership.listeners = listeners
        events = Events(self._api, self.election)
        statuses = Statuses(
            self._api, self.source, reconciler, dispatcher, self.election, events, changes,
            self._kinds,
        )  # fmt: skip
        cleanups = Cleanups(self._api, self.source, reconciler, listeners, self.election, events)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.election.run(), name="election")
            tasks.create_task(statuses.run(), name="statuses")
            tasks.create_task(events.run(), name="events")
            tasks.create_task(cleanups.run(), name="cleanups")
            tasks.create_task(self.exposures.run(changes), name="exposures")


@asynccontextmanager
async def connected(settings: Settings, kinds: Mapping[str, Kind]) -> AsyncIterator[Cluster]:
    """The cluster that the settings mean. Raises OSError where no API server can be named."""
    service = os.environ.get("TRIGGERHUB_SERVICE")
    async with await Api.connect(kubeconfig=settings.kubeconfig, context=settings.context) as api:
        front = Front.read(service, api.namespace) if service else None
        yield Cluster(api, kinds, settings.namespace, settings.worker, front)
