"""When to look again: changes in a set of folders, told by the system or by the clock."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog
from watchfiles import Change
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

log = structlog.get_logger()

_DEBOUNCE_MS = 50
_STEP_MS = 20
_BACKSTOP = 5.0
"""Seconds between two looks when nothing is told: network file systems tell nothing, nor do
files behind a chain of links."""
_POLL = 1.0

Folders = Mapping[str, tuple[int, int]]
"""Path to device and inode."""


async def wakes(
    folders: Callable[[], Folders], matters: Callable[[str], bool], *, polling: bool = False
) -> AsyncGenerator[None, None]:
    """Yield at once, and then each time something may have changed in one of the folders.

    ``folders`` is asked after each look, ``matters`` whether a changed file of this path could
    make a difference. Folders are watched one by one and not with all that is below them: what
    is hidden or belongs to others costs nothing. ``polling``: ask nothing of the system.
    """
    armed: Folders = {}
    notify: RustNotify | None = None
    with ThreadPoolExecutor(1, "watch") as threads:
        try:
            while True:
                yield
                wanted = folders()
                if polling:
                    await asyncio.sleep(_POLL)
                elif notify is None or wanted != armed:
                    _close(notify)
                    try:
                        # Were it told to ignore what permissions deny, it would keep quiet
                        # about the system's limits as well.
                        notify = RustNotify(list(wanted), False, False, 0, False, False)
                    except FileNotFoundError:
                        notify = None  # gone since the look: look again
                        await asyncio.sleep(_STEP_MS / 1000)
                    except (OSError, WatchfilesRustInternalError) as error:
                        log.warning("manifests.polling", reason=str(error), every=_POLL)
                        notify, polling = None, True
                    # Looking again closes the gap between the look and the watch.
                    armed = wanted
                elif not await _changed(notify, armed, matters, threads):
                    _close(notify)
                    notify = None
        finally:
            _close(notify)


def _close(notify: RustNotify | None) -> None:
    if notify is not None:
        notify.close()


async def _changed(
    notify: RustNotify,
    armed: Folders,
    matters: Callable[[str], bool],
    threads: ThreadPoolExecutor,
) -> bool:
    """Wait for a change that matters, or for the backstop. False: a watched folder itself came
    or went, so the watch must be set up anew."""
    stop = threading.Event()
    loop = asyncio.get_running_loop()
    end = loop.time() + _BACKSTOP
    while (left := end - loop.time()) > 0:
        waiting = loop.run_in_executor(
            threads, notify.watch, _DEBOUNCE_MS, _STEP_MS, int(left * 1000) + 1, stop
        )
        try:
            await asyncio.wait([waiting])
        finally:
            stop.set()
            if not waiting.done():
                # The thread sees it within a step; closing under it would be an error.
                await asyncio.wait([waiting])
        stop.clear()
        try:
            changes = waiting.result()
        except WatchfilesRustInternalError as error:
            log.warning("manifests.watch_lost", reason=str(error))
            return False
        if isinstance(changes, str):
            return True
        if any(kind != Change.modified and path in armed for kind, path in changes):
            return False
        if any(_tells(kind, path, armed, matters) for kind, path in changes):
            return True
    return True


def _tells(kind: int, path: str, armed: Folders, matters: Callable[[str], bool]) -> bool:
    name = os.path.basename(path)
    if name.startswith("."):
        return name.startswith("..")  # names with two dots are how mounted ConfigMaps change
    return path in armed or matters(path) or (kind == Change.added and os.path.isdir(path))
