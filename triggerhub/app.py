"""One hub, put together: every room gets what it needs, and nothing knows the whole."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import uvloop

from triggerhub import __version__
from triggerhub.admin.access import split_address
from triggerhub.admin.api import serve
from triggerhub.admin.view import View
from triggerhub.connector import Installation, at_once
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
from triggerhub.store.directory import directory_name, lock_directory
from triggerhub.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from triggerhub.cluster.cluster import Cluster

log = structlog.get_logger()

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
    """The running hub. Stops in order: listeners drain while all else still works, then the
    code functions end, then the store closes."""
    kinds = installed_kinds()
    with _signals() as stop:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(SQLiteStore(settings.data))
            transport = Transport(max_connections=1024)
            stack.push_async_callback(transport.close)
            changes = Changes()
            dispatcher = Dispatcher(transport, store, changed=changes.binding)
            place = await stack.enter_async_context(
                _folder(settings, kinds, wake=lambda: reconciler.wake())
                if settings.paths
                else _cluster(settings, kinds)
            )
            listeners = Listeners(
                kinds,
                Installation(
                    listen=settings.listen,
                    replica=_replica(settings),
                    environ=dict(os.environ),
                    stopping=stop.is_set,
                ),
                dispatcher,
                store,
                grace=settings.grace,
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
            )
            watch = None if place.cluster is None else place.cluster.source
            view = View(reconciler, dispatcher, listeners, store, place.code, watch)
            replays = Replays(listeners, dispatcher)
            await stack.enter_async_context(serve(view, settings, replays))
            await stack.enter_async_context(listeners)
            await stack.enter_async_context(replays)
            if picture is not None:
                await stack.enter_async_context(picture(view))
            duties = [reconciler.run()]
            if place.cluster is not None:
                duties.append(place.cluster.run(reconciler, listeners, dispatcher, changes))
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
    turn: Callable[[], Awaitable[float]] = at_once
    environ: Mapping[str, str] | None = None
    cluster: Cluster | None = None


@asynccontextmanager
async def _folder(
    settings: Settings, kinds: Mapping[str, Kind], wake: Callable[[], None]
) -> AsyncIterator[_Place]:
    source = FolderSource(settings.paths, kinds)
    async with Processes(settings.data.absolute() / "functions", changed=wake) as processes:
        yield _Place(source=source, code=processes, environ=dict(os.environ))


@asynccontextmanager
async def _cluster(settings: Settings, kinds: Mapping[str, Kind]) -> AsyncIterator[_Place]:
    # Its client is large, and slow to import: a hub of a folder does without.
    from triggerhub.cluster.cluster import connected

    async with connected(settings, kinds) as cluster:
        yield _Place(source=cluster.source, code=NoCode(), turn=cluster.turn, cluster=cluster)


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


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """The event is set by the first SIGTERM or SIGINT; the second ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopping(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopping, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
