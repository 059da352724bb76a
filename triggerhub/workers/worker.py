"""One worker: the ordinary hub, on what its supervisor gives it, for as long as that lives."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading

import uvloop

from triggerhub.app import hub
from triggerhub.sentence import sentence
from triggerhub.telemetry import log_to_stderr
from triggerhub.workers.orders import read


def main() -> None:
    """``sys.argv`` has the descriptor of a socket: the orders come on it, in one line; why the
    hub cannot start goes back; and its end is the supervisor's, however that ended."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    with channel.makefile("rb") as lines:
        line = lines.readline()
    if not line.endswith(b"\n"):
        return  # the supervisor has ended before it said anything
    orders = read(line)
    for descriptor in (channel.fileno(), *orders.descriptors):
        os.set_inheritable(descriptor, False)
    log_to_stderr(debug=orders.debug, worker=orders.settings.worker)
    threading.Thread(target=_end_with, args=(channel,), name="supervisor", daemon=True).start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(hub(orders.settings))
    except* OSError as errors:
        channel.sendall(sentence(errors).encode())
        sys.exit(1)


def _end_with(channel: socket.socket) -> None:
    # Not in order: the next hub may wait for the data directory already, and what is under way
    # is where a machine that goes away would leave it.
    while channel.recv(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
