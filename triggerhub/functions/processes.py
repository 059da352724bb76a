"""Runs code functions here, as child processes: exactly those that are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from prometheus_client.metrics_core import Metric

from triggerhub.functions.code import Code
from triggerhub.functions.environments import Environments, find_uv
from triggerhub.functions.metrics import merge, scrape
from triggerhub.functions.version import FunctionState, Version

Key = tuple[str, str]
"""Namespace and name."""

_LINGER = 1.0
_UNKNOWN = FunctionState(None, "Starting", "not started yet")


@dataclass(slots=True)
class _Function:
    wanted: Version
    serving: Version | None = None
    """The last version that was ready, until a newer one is."""


class Processes:
    """The code functions of one hub. Owned by what decides which there are.

    A changed function is replaced: the old version serves until the new one is ready. What
    fails is tried again, with waits from 0.2 to 30 s.
    """

    def __init__(
        self,
        directory: Path,
        *,
        changed: Callable[[], None],
        grace: float = 10.0,
    ) -> None:
        """``directory`` holds code and environments, and may be deleted while no hub runs.
        ``changed`` is called, in the event loop, whenever some state is another. ``grace`` is
        how many seconds calls under way get when the block is left."""
        self._directory = directory
        self._changed = changed
        self._grace = grace
        self._environments = Environments(directory / "venvs", uv=find_uv())
        self._functions: dict[Key, _Function] = {}
        self._running: set[Version] = set()
        self._tasks = asyncio.TaskGroup()
        self._leaving = False

    async def __aenter__(self) -> Processes:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leaving = True
        self._functions.clear()
        loop = asyncio.get_running_loop()
        for version in self._running:
            version.stop(self._grace)
            assert version.task is not None
            # One that was being replaced may have begun to stop with a longer time; a second
            # cancellation ends that.
            loop.call_later(self._grace + 1.0, version.task.cancel)
        await self._tasks.__aexit__(kind, error, trace)

    def converge(self, functions: Mapping[Key, Code]) -> None:
        """Make these the functions that run; by (namespace, name). Returns at once."""
        if self._leaving:
            return
        for key in [key for key in self._functions if key not in functions]:
            function = self._functions.pop(key)
            function.wanted.stop()
            if function.serving is not None:
                function.serving.stop()
        for key, code in functions.items():
            known = self._functions.get(key)
            if known is None:
                self._functions[key] = _Function(self._start(key, code))
            elif known.wanted.code.digest != code.digest:
                self._replace(key, known, code)

    def state(self, namespace: str, name: str) -> FunctionState:
        """A function that was never wanted is ``Starting``."""
        function = self._functions.get((namespace, name))
        if function is None:
            return _UNKNOWN
        wanted, serving = function.wanted, function.serving
        if serving is None or serving is wanted:
            return wanted.state
        old, new = serving.state, wanted.state
        if wanted.under_way:
            return FunctionState(old.url, old.reason, f"new version: {new.message}")
        message = f"{new.message} (the version before goes on serving)"
        return FunctionState(old.url, new.reason, message)

    async def metrics(self) -> list[Metric]:
        """What the functions count themselves, as one set of metric families. A child that
        does not answer within a second is left out."""
        urls = [
            function.serving.state.url
            for function in self._functions.values()
            if function.serving is not None and function.serving.pid is not None
        ]
        async with asyncio.TaskGroup() as tasks:
            scrapes = [tasks.create_task(scrape(url)) for url in urls if url is not None]
        return merge(scrape.result() for scrape in scrapes)

    def _start(self, key: Key, code: Code) -> Version:
        version = Version(
            *key,
            code,
            directory=self._directory,
            environments=self._environments,
            changed=lambda: self._look(key, version),
        )
        version.task = self._tasks.create_task(version.run(), name="function:{}/{}".format(*key))
        self._running.add(version)
        version.task.add_done_callback(lambda _: self._running.discard(version))
        return version

    def _replace(self, key: Key, function: _Function, code: Code) -> None:
        if function.wanted is not function.serving:
            function.wanted.stop()
        if function.serving is not None and function.serving.code.digest == code.digest:
            function.wanted = function.serving
            asyncio.get_running_loop().call_soon(self._changed)
        else:
            function.wanted = self._start(key, code)

    def _look(self, key: Key, version: Version) -> None:
        """A version's state changed."""
        function = self._functions.get(key)
        if function is None or version not in (function.wanted, function.serving):
            return
        if version is function.wanted and version.pid is not None:
            old, function.serving = function.serving, version
            if old is not None and old is not version:
                # Those who send there learn of the new address first.
                asyncio.get_running_loop().call_later(_LINGER, old.stop)
        self._changed()
