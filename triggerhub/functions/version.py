"""Keeps one version of a function's code running: installs, starts, starts again."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from triggerhub.backoff import backoff
from triggerhub.functions.child import Child, Failed, Ready
from triggerhub.functions.code import Code
from triggerhub.functions.environments import Environments, RequirementsError

_RUNTIME = Path(__file__).with_name("runtime.py")
_HEALTHY = 60.0
_FIRST_WAIT = 0.2
_LONGEST_WAIT = 30.0
_TELL_EVERY = 5.0
_BEYOND_TIMEOUT = 2.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FunctionState:
    """How a code function is."""

    url: str | None
    """None until it was ready for the first time; then it stays, also while it is down."""
    reason: str
    """``Ready``, ``Starting``, ``Installing``, ``CodeError``, ``Crashed`` or
    ``RequirementsFailed``."""
    message: str = ""


class Version:
    """One version of one function. ``run`` is a task of its own; cancelling it stops the child."""

    def __init__(
        self,
        namespace: str,
        name: str,
        code: Code,
        *,
        directory: Path,
        environments: Environments,
        changed: Callable[[], None],
    ) -> None:
        self.code = code
        self.task: asyncio.Task[None] | None = None
        self.pid: int | None = None
        """Of the child, while it is ready."""
        self._namespace = namespace
        self._name = name
        self._directory = directory
        self._environments = environments
        self._changed = changed
        self._state = FunctionState(None, "Starting")
        self._under_way = ""
        self._since = asyncio.get_running_loop().time()
        self._timer: asyncio.TimerHandle | None = None
        self._grace = code.timeout + _BEYOND_TIMEOUT
        self._child: Child | None = None

    @property
    def state(self) -> FunctionState:
        if not self._under_way:
            return self._state
        seconds = asyncio.get_running_loop().time() - self._since
        text = f"{self._under_way} ({seconds:.0f} s)"
        message = f"{self._state.message}; {text}" if self._state.message else text
        return FunctionState(self._state.url, self._state.reason, message)

    @property
    def under_way(self) -> bool:
        """True while it installs or starts for the first time: neither good nor bad yet."""
        return self._state.reason in ("Installing", "Starting")

    def stop(self, grace: float | None = None) -> None:
        """End ``run``; calls under way get their time limit, or ``grace`` seconds."""
        if self.task is None or self.task.cancelling():
            return
        if grace is not None:
            self._grace = min(grace, self._grace)
        if self._child is not None:
            self._child.grace = self._grace
        self.task.cancel()

    async def run(self) -> None:
        """Until cancelled, or until it is known that the code can never run."""
        failures = 0
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                lasting = await self._once()
                if lasting and self._state.url is None:
                    return
                failures = 0 if loop.time() - began > _HEALTHY else failures + 1
                await asyncio.sleep(backoff(failures + 1, _FIRST_WAIT, _LONGEST_WAIT))
        finally:
            self._finished()

    async def _once(self) -> bool:
        """Install, start, and wait for the end. True: no use in trying again."""
        problem = self.code.problem()
        if problem:
            self._say("CodeError", problem)
            return True
        try:
            command, env = await self._prepare()
            folder = await asyncio.to_thread(self.code.place, self._directory / "code")
        except RequirementsError as error:
            _log.warning("function.install_failed", function=self._label, reason=str(error))
            self._say("RequirementsFailed", str(error))
            return False
        except OSError as error:
            self._say("Crashed", f"the code could not be stored: {error}")
            return False
        self._begin("Starting", f"loading {self.code.handler}")
        async with Child(self._label, grace=self._grace) as child:
            self._child = child
            try:
                await child.start([*command, "--code", str(folder)], cwd=folder, env=env)
            except OSError as error:
                self._say("Crashed", f"the process could not be started: {error}")
                return False
            return await self._watch(child)

    async def _prepare(self) -> tuple[list[str], dict[str, str]]:
        """The command and its environment."""
        python = Path(sys.executable)
        env = {k: v for k, v in os.environ.items() if not k.startswith("TRIGGERHUB_")}
        if self.code.requirements:
            self._begin("Installing", "installing " + " ".join(self.code.requirements))
            python = await self._environments.python(self.code.requirements, function=self._label)
            for hidden in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
                env.pop(hidden, None)
        # -P: the folder of runtime.py must not be where the function's imports look first.
        command = [str(python), "-P", str(_RUNTIME), "--handler", self.code.handler]
        command += ["--namespace", self._namespace, "--name", self._name, "--path", self._path]
        command += ["--timeout", str(self.code.timeout)]
        command += ["--concurrency", str(self.code.concurrency)]
        return command, {**env, "PYTHONUNBUFFERED": "1", **self.code.env}

    async def _watch(self, child: Child) -> bool:
        report = await child.report()
        if isinstance(report, Failed):
            self._say("CodeError", _described(report))
            return report.lasting
        if isinstance(report, Ready):
            _log.debug("function.ready", function=self._label, pid=child.pid, port=report.port)
            self.pid = child.pid
            self._say("Ready", "", f"http://127.0.0.1:{report.port}{self._path}")
        try:
            ending = await child.ended()
        finally:
            self.pid = None
        _log.warning("function.crashed", function=self._label, ending=ending)
        self._say("Crashed", ending)
        return False

    @property
    def _label(self) -> str:
        return f"{self._namespace}/{self._name}"

    @property
    def _path(self) -> str:
        # Not just "/": a port that the kernel gave to another function since then is recognised.
        return f"/{self._namespace}/{self._name}"

    def _say(self, reason: str, message: str, url: str | None = None) -> None:
        self._finished()
        self._state = FunctionState(url or self._state.url, reason, message)
        self._changed()

    def _begin(self, reason: str, under_way: str) -> None:
        """Something that may take long. After a failure the failure stays the reason."""
        self._finished()
        if self.under_way:
            self._state = FunctionState(self._state.url, reason)
        self._under_way = under_way
        self._since = asyncio.get_running_loop().time()
        self._tell()

    def _tell(self) -> None:
        self._changed()
        self._timer = asyncio.get_running_loop().call_later(_TELL_EVERY, self._tell)

    def _finished(self) -> None:
        self._under_way = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _described(failed: Failed) -> str:
    place = f"{failed.file}, line {failed.line}" if failed.line else failed.file
    return f"{place}: {failed.message}" if place else failed.message
