"""How a process of the hub is told to stop, and how one ended, in words."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def end_at_once(number: int) -> None:
    """End the process as this signal would have."""
    os._exit(128 + number)


@contextmanager
def stop_signals(again: Callable[[int], None] = end_at_once) -> Iterator[asyncio.Event]:
    """The event is set by the first SIGTERM or SIGINT; ``again`` is called with the number of
    each further one."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopping(number: int) -> None:
        if stop.is_set():
            again(number)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopping, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def ending(code: int) -> str:
    """How a process ended, in words; ``code`` as ``subprocess`` has it: of a signal, negative."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
