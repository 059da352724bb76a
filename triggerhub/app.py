"""One hub, put together: every room gets what it needs, and nothing knows the whole."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager

import structlog
import uvloop

from triggerhub import __version__
from triggerhub.admin.access import split_address
from triggerhub.admin.api import serve
from triggerhub.admin.view import View
from triggerhub.connector import Installation
from triggerhub.control.listeners import Listeners
from triggerhub.control.plugins import installed_kinds
from triggerhub.control.reconciler import Reconciler
from triggerhub.control.sources.files import FolderSource
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.transport import Transport
from triggerhub.functions.processes import Processes
from triggerhub.settings import Settings
from triggerhub.store.directory import lock_directory
from triggerhub.store.sqlite import SQLiteStore

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
    source = FolderSource(settings.paths, kinds)
    with _signals() as stop:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(SQLiteStore(settings.data))
            transport = Transport(max_connections=1024)
            stack.push_async_callback(transport.close)
            dispatcher = Dispatcher(transport, store)
            listeners = Listeners(
                kinds,
                Installation(listen=settings.listen, environ=dict(os.environ)),
                dispatcher,
                store,
                grace=settings.grace,
            )
            processes = Processes(
                settings.data.absolute() / "functions", changed=lambda: reconciler.wake()
            )
            reconciler = Reconciler(source, kinds, dispatcher, listeners, processes)
            await stack.enter_async_context(processes)
            view = View(reconciler, dispatcher, listeners, store, processes)
            await stack.enter_async_context(serve(view, settings))
            await stack.enter_async_context(listeners)
            if picture is not None:
                await stack.enter_async_context(picture(view))
            await _until(stop, reconciler)
            log.info("hub.stopping", grace=settings.grace)
    log.info("hub.stopped")


async def _until(stop: asyncio.Event, reconciler: Reconciler) -> None:
    async with asyncio.TaskGroup() as tasks:
        reconciling = tasks.create_task(reconciler.run())
        log.info("hub.started", version=__version__, pid=os.getpid())
        # What was made at start stays: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        # Events make no cycles: looking for some at every 700 objects found nothing, often.
        gc.set_threshold(20_000, 20, 20)
        await stop.wait()
        reconciling.cancel()


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
