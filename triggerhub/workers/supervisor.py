"""Keeps N workers running, and is one hub to whoever looks at it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import structlog

from triggerhub import __version__
from triggerhub.admin.access import UNIX, bind
from triggerhub.admin.front import Front, open_front
from triggerhub.backoff import backoff
from triggerhub.settings import Settings
from triggerhub.stopping import end_at_once, ending, stop_signals
from triggerhub.store.directory import lock_directory, make_directory
from triggerhub.store.turn import reset_turn
from triggerhub.workers.api import Api
from triggerhub.workers.fleet import Fleet, Worker
from triggerhub.workers.orders import Orders
from triggerhub.workers.process import Process

FIRST_WAIT = 0.2
LONGEST_WAIT = 30.0
HEALTHY = 60.0
"""Seconds of life after which a worker that ends is started again without a wait."""
_EVERY = 1.0
_SOON = 0.2
"""Seconds between two looks at the workers; the latter until each has answered once."""
_SPARING = 100.0
"""With thousands of bindings a look costs: the next comes after so many times its CPU time."""
_FOLDER = "workers"
_LONGEST_PATH = 107
"""Bytes of a socket's path (unix(7))."""

log = structlog.get_logger()


def run(settings: Settings, workers: int, *, debug: bool = False) -> None:
    """Run a hub of so many workers until SIGTERM or SIGINT; a second one ends all at once.

    Raises ``OSError`` with one plain sentence when it, or one of them, cannot start.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(lock_directory(settings.data))
        front = open_front(settings.admin, settings.admin_token_file)
        for one in front.sockets:
            stack.enter_context(one)
        # Bound here, and listened on by the workers: what the kernel has queued for one that
        # dies is the others'. Nobody is queued before a worker listens.
        sockets = bind(settings.listen, "--listen", listening=False)
        for one in sockets:
            stack.enter_context(one)
        reset_turn(settings.data)
        shared = replace(settings, sockets=tuple(one.fileno() for one in sockets))
        asyncio.run(_Supervisor(shared, workers, lock, debug).run(front))


class _Supervisor:
    def __init__(self, settings: Settings, workers: int, lock: int, debug: bool) -> None:
        self._settings = settings
        self._lock = lock
        self._debug = debug
        self._failures: list[str] = []
        self._fleet = Fleet([Worker(n, _place(settings.data, n)) for n in range(1, workers + 1)])

    async def run(self, front: Front) -> None:
        with stop_signals(self._end) as stop:
            async with front.serving(Api(self._fleet).routes(), {}):
                log.info("admin.listening", url=f"http://{front.address}")
                log.info("hub.started", version=__version__, pid=os.getpid(),
                         workers=len(self._fleet.workers))  # fmt: skip
                async with asyncio.TaskGroup() as tasks:
                    looking = tasks.create_task(self._look_for_ever())
                    await self._keep_all(stop)
                    looking.cancel()
        if self._failures:
            raise OSError("; ".join(self._failures))
        log.info("hub.stopped")

    def _end(self, number: int) -> None:
        """Now, and the workers, too."""
        self._fleet.kill()
        end_at_once(number)

    async def _keep_all(self, stop: asyncio.Event) -> None:
        """Until told to stop, and all have stopped."""
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep(worker)) for worker in self._fleet.workers]
            await stop.wait()
            log.info("hub.stopping", grace=self._settings.grace)
            for keeper in keepers:
                keeper.cancel()

    async def _keep(self, worker: Worker) -> None:
        """Keep one number's process running, until cancelled. Raises OSError where it cannot
        start at all."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            how, complaint = await self._once(worker)
            if not worker.answered:
                raise OSError(complaint or f"worker {worker.number} did not start: {how}")
            failures = 1 if loop.time() - began > HEALTHY else failures + 1
            wait = backoff(failures, FIRST_WAIT, LONGEST_WAIT)
            log.warning(
                "worker.ended", worker=worker.number, how=complaint or how, again_in=round(wait, 1)
            )
            await asyncio.sleep(wait)

    async def _once(self, worker: Worker) -> tuple[str, str]:
        """One process, from its start to its end: how it ended, and why it could not start."""
        process = Process(Orders(self._of(worker), self._lock, self._debug))
        try:
            await process.start()
        except OSError as error:
            return f"it could not be started: {error.strerror}", ""
        worker.began(process)
        log.info("worker.started", worker=worker.number, pid=process.pid)
        try:
            code, complaint = await process.ended()
            return ending(code), complaint
        except asyncio.CancelledError:
            code, complaint = await process.stop()
            # One that was told before it listened to signals had nothing to put in order.
            if code and not (code == -signal.SIGTERM and not worker.figures):
                self._failures.append(
                    f"worker {worker.number} did not stop in order: {complaint or ending(code)}"
                )
            raise
        finally:
            self._fleet.ended(worker)
            worker.place.unlink(missing_ok=True)
            process.close()

    async def _look_for_ever(self) -> None:
        while True:
            before = time.process_time()
            await self._fleet.look()
            every = _EVERY if all(w.answered for w in self._fleet.workers) else _SOON
            await asyncio.sleep(max(every, _SPARING * (time.process_time() - before)))

    def _of(self, worker: Worker) -> Settings:
        return replace(
            self._settings,
            worker=worker.number,
            admin=f"{UNIX}{worker.place}",
            admin_token_file=None,
        )


def _place(data: Path, number: int) -> Path:
    """Where a worker's admin API is to be; its folder is made. Raises OSError."""
    make_directory(data / _FOLDER)
    place = data / _FOLDER / f"{number}.sock"
    length = len(os.fsencode(place))
    if length > _LONGEST_PATH:
        raise OSError(
            f"--data: found a path of {len(os.fsencode(data))} bytes, expected at most "
            f"{_LONGEST_PATH - length + len(os.fsencode(data))} with --workers: sockets are there"
        )
    return place
