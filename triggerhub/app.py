"""One hub, put together: every room gets what it needs, and nothing knows the whole."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
import uvloop

from triggerhub import __version__
from triggerhub.admin.access import split_address
from triggerhub.admin.api import serve
from triggerhub.admin.view import View
from triggerhub.connector import Installation, alone, at_once
from triggerhub.control.changes import Changes
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import Kind, installed_kinds
from triggerhub.control.reconciler import Reconciler, ResourceSource
from triggerhub.control.replays import Replays
from triggerhub.control.sources.files import FolderSource
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.transport import Transport
from triggerhub.functions.absent import NoCode
from triggerhub.functions.processes import Processes
from triggerhub.settings import Settings
from triggerhub.stopping import end_at_once, stop_signals
from triggerhub.store.directory import directory_name, lock_directory
from triggerhub.store.opening import open_store
from triggerhub.store.records import Store
from triggerhub.store.turn import Turn

if TYPE_CHECKING:
    from triggerhub.cluster.cluster import Cluster
    from triggerhub.cluster.leadership import Leadership

log = structlog.get_logger()

_SOON = frozenset({"Starting", "Installing"})
"""Of a code function: it has not started yet."""
_LOOK = 0.05
_LOOKS = 200
"""A worker waits so many times so many seconds for its code functions before it takes requests."""

Picture = Callable[[View], AbstractAsyncContextManager[object]]
"""Shows a running hub on a terminal for as long as it is entered."""


def run(settings: Settings, picture: Picture | None = None) -> None:
    """Run a hub until SIGTERM or SIGINT; a second one ends the process at once.

    Raises ``OSError`` (``StoreError``, address in use, a path that is not there) with one plain
    sentence when it cannot start.
    """
    split_address(settings.listen, "--listen")  # only a trigger's condition would say so later
    with (
        lock_directory(settings.data),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(hub(settings, picture))


async def hub(settings: Settings, picture: Picture | None = None) -> None:
    """The running hub, or one of its workers. Stops in order: listeners drain while all else
    still works, then the code functions end, then the store closes."""
    kinds = installed_kinds()
    if settings.tls is not None:
        settings.tls.context(settings.tls.read())  # as above: to be told at once
    # A worker may be told twice, by a service manager and by its supervisor, which alone ends it
    # at once.
    with stop_signals((lambda _: None) if settings.worker else end_at_once) as stop:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store(settings.data, settings.store))
            transport = Transport(max_connections=1024)
            stack.push_async_callback(transport.close)
            changes = Changes()
            dispatcher = Dispatcher(transport, store, changed=changes.binding)
            # Positions in a store of several machines are not only this hub's.
            share = Turn(settings.data) if settings.worker and not settings.store else None
            place = await stack.enter_async_context(
                _folder(settings, kinds, share, store, wake=lambda: reconciler.wake())
                if settings.paths
                else _cluster(settings, kinds, share)
            )
            listeners = Listeners(
                kinds,
                Installation(
                    listen=settings.listen,
                    tls=settings.tls,
                    sockets=_sockets(settings, lambda: reconciler),
                    replica=_replica(settings),
                    environ=dict(os.environ),
                    stopping=stop.is_set,
                ),
                dispatcher,
                store,
                grace=settings.grace,
                own=place.own,
                turn=place.turn,
                changed=changes.binding,
            )
            reconciler = Reconciler(
                place.source,
                kinds,
                dispatcher,
                listeners,
                place.code,
                changes,
                environ=place.environ,
                edge=None if place.cluster is None else place.cluster.exposures,
            )
            watch = None if place.cluster is None else place.cluster.source
            view = View(reconciler, dispatcher, listeners, store, place.code, watch)
            replays = Replays(listeners, dispatcher)
            await stack.enter_async_context(serve(view, settings, replays))
            if place.hubs is not None:
                # Left after the listeners: who comes next finds nothing under way.
                await stack.enter_async_context(place.hubs.standing(listeners))
            await stack.enter_async_context(listeners)
            await stack.enter_async_context(replays)
            if picture is not None:
                await stack.enter_async_context(picture(view))
            duties = [reconciler.run()]
            if share is not None:
                share.stand()
            if place.cluster is not None:
                part = partial(place.cluster.run, reconciler, listeners, dispatcher, changes)
                # Of one hub's processes one stands for election: its positions are theirs all.
                duties.append(part() if share is None else _after(share.own, part))
            await _until(stop, duties)
            log.info("hub.stopping", grace=settings.grace)
    log.info("hub.stopped")


def _replica(settings: Settings) -> str:
    """See ``Installation.replica``. Raises ``StoreError``."""
    name = os.environ.get("POD_NAME", "")
    if not name and "KUBERNETES_SERVICE_HOST" in os.environ:
        name = socket.gethostname()
    if not name:
        # Not the machine's name: hubs of several data directories may share a machine.
        name = directory_name(settings.data)
    return f"{name}-{settings.worker}" if settings.worker else name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where manifests come from, and what depends on that."""

    source: ResourceSource
    code: Processes | NoCode
    own: Callable[[], Awaitable[None]] = alone
    turn: Callable[[], Awaitable[float]] = at_once
    hubs: Leadership | None = None
    """Among the hubs that share a store."""
    environ: Mapping[str, str] | None = None
    cluster: Cluster | None = None


@asynccontextmanager
async def _folder(
    settings: Settings,
    kinds: Mapping[str, Kind],
    share: Turn | None,
    store: Store,
    wake: Callable[[], None],
) -> AsyncIterator[_Place]:
    source = FolderSource(settings.paths, kinds)
    hubs = _hubs(settings, store) if settings.store else None
    leader = hubs or share
    async with Processes(settings.data.absolute() / "functions", changed=wake) as processes:
        yield _Place(
            source=source,
            code=processes,
            own=alone if leader is None else leader.own,
            turn=at_once if leader is None else leader.turn,
            hubs=hubs,
            environ=dict(os.environ),
        )


def _hubs(settings: Settings, store: Store) -> Leadership:
    from triggerhub.cluster.leadership import Leadership
    from triggerhub.cluster.shared import HUBS, LEADER, StoreLeases

    identity = f"{socket.gethostname()}_{_replica(settings)}_{uuid4().hex[:8]}"
    leases = StoreLeases(store.positions(HUBS))
    return Leadership(leases, name=LEADER, namespace="", identity=identity)


@asynccontextmanager
async def _cluster(
    settings: Settings, kinds: Mapping[str, Kind], share: Turn | None
) -> AsyncIterator[_Place]:
    # Its client is large, and slow to import: a hub of a folder does without.
    from triggerhub.cluster.cluster import connected

    async with connected(settings, kinds) as cluster:
        own = alone if share is None else share.own
        yield _Place(
            source=cluster.source,
            code=NoCode(),
            own=cluster.leadership.own if settings.store else own,
            turn=cluster.leadership.turn,
            cluster=cluster,
        )


def _sockets(
    settings: Settings, reconciler: Callable[[], Reconciler]
) -> Callable[[], Awaitable[Sequence[int]]] | None:
    """See ``Installation.sockets``."""

    async def sockets() -> Sequence[int]:
        # Other workers serve meanwhile: what this one does not know yet is not to be its 404.
        for _ in range(_LOOKS):
            if not any(reach.reason in _SOON for _, reach in reconciler().functions()):
                break
            await asyncio.sleep(_LOOK)
        return settings.sockets

    return sockets if settings.sockets else None


async def _after(first: Callable[[], Awaitable[None]], then: Callable[[], Awaitable[None]]) -> None:
    await first()
    await then()


async def _until(stop: asyncio.Event, duties: list[Coroutine[None, None, None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(duty) for duty in duties]
        log.info("hub.started", version=__version__, pid=os.getpid())
        # What was made at start stays: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        # Events make no cycles: looking for some at every 700 objects found nothing, often.
        gc.set_threshold(20_000, 20, 20)
        await stop.wait()
        for duty in running:
            duty.cancel()
