"""One child process that serves a function: started, heard, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from triggerhub.functions.output import Output
from triggerhub.stopping import ending

_LAST_WORDS = 0.5
_REPORT = 64 * 1024

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """The child takes requests."""

    port: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The child could not load the code."""

    message: str
    file: str
    line: int
    lasting: bool
    """True: the same code will never load."""


class _Report(asyncio.Protocol):
    """The pipe on which the runtime tells once what became of its start."""

    def __init__(self) -> None:
        self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._bytes = b""

    def data_received(self, data: bytes) -> None:
        self._bytes = (self._bytes + data)[:_REPORT]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.received.done():
            self.received.set_result(self._bytes)


class Child:
    """A running child. Leaving its block stops it: SIGTERM, ``grace`` seconds, SIGKILL.

    It has a session of its own, so that a Ctrl-C meant for the hub does not reach it, and its
    stdin is a pipe that nobody writes to: that ends when the hub does, however it ends.
    """

    def __init__(self, name: str, *, grace: float) -> None:
        self._name = name
        self.grace = grace
        self._process: asyncio.subprocess.Process | None = None
        self._exited: asyncio.Task[int] | None = None
        self._report = _Report()
        self._stdout = self._output("stdout")
        self._stderr = self._output("stderr")
        self._alive = -1
        self._transports: list[asyncio.BaseTransport] = []

    async def start(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        """``command`` is given two more arguments, for its report. Raises OSError."""
        theirs: list[int] = []
        try:
            stdin, self._alive = os.pipe()
            theirs.append(stdin)
            report = await self._listen(self._report, theirs)
            stdout = await self._listen(self._stdout, theirs)
            stderr = await self._listen(self._stderr, theirs)
            # Not asyncio's own pipes: its wait() may also wait for their end, which a process
            # that the function started can hold off for ever.
            self._process = await asyncio.create_subprocess_exec(
                *command,
                "--parent-on-stdin",
                f"--report-fd={report}",
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(report,),
                start_new_session=True,
                cwd=cwd,
                env=env,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        # Registered from the start, so that it ends only after asyncio has let go of the process.
        self._exited = asyncio.create_task(self._process.wait())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def report(self) -> Ready | Failed | None:
        """Wait for the end of its start; None: it ended, or closed the pipe, without a word."""
        raw = await asyncio.shield(self._report.received)
        try:
            said: dict[str, Any] = json.loads(raw)
        except ValueError:
            return None
        return Ready(**said["ready"]) if "ready" in said else Failed(**said["failed"])

    async def ended(self) -> str:
        """Wait for its end; says how it ended, with the last line of its stderr."""
        assert self._exited is not None
        code = await asyncio.shield(self._exited)
        await asyncio.wait((self._stderr.ended,), timeout=_LAST_WORDS)
        last = self._stderr.last
        return ending(code) + (f": {last}" if last else "")

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._stop()
        finally:
            for transport in self._transports:
                transport.close()
            if self._alive >= 0:
                os.close(self._alive)
                self._alive = -1

    async def _stop(self) -> None:
        process, exited = self._process, self._exited
        if process is None or exited is None:
            return
        # Not process.send_signal(), which may take the exit code from asyncio's own watcher.
        if not exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait((exited,), timeout=self.grace)
        finally:
            # Also where this wait was cancelled: whoever waits for it has no more time.
            if not exited.done():
                _log.warning("function.killed", function=self._name, pid=process.pid)
                with contextlib.suppress(ProcessLookupError):
                    # The whole session: what the function started goes too.
                    os.killpg(process.pid, signal.SIGKILL)
            await asyncio.wait(
                (exited, self._stdout.ended, self._stderr.ended), timeout=_LAST_WORDS
            )

    async def _listen(self, protocol: asyncio.Protocol, theirs: list[int]) -> int:
        """A pipe whose other end, also added to ``theirs``, is returned."""
        ours, their = os.pipe()
        theirs.append(their)
        loop = asyncio.get_running_loop()
        file = os.fdopen(ours, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, file)
        self._transports.append(transport)
        return their

    def _output(self, stream: str) -> Output:
        def line(text: str) -> None:
            _log.info("function.output", function=self._name, stream=stream, line=text)

        def dropped(lines: int) -> None:
            _log.warning("function.output_dropped", function=self._name, stream=stream, lines=lines)

        return Output(line, dropped)
