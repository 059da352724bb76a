"""Virtual environments with a function's requirements, built once and kept."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

_RUNTIME = ("uvicorn>=0.50", "httptools>=0.8")
_LIMIT = 900.0
_STALE = 3600.0
_SAID = 500
_LOOK = 0.2

_log = structlog.get_logger()


class RequirementsError(Exception):
    """The requirements could not be installed: says why, in one line."""


def find_uv() -> str | None:
    """The ``uv`` on the path, else that of the package ``uv``."""
    found = shutil.which("uv")
    if found is not None:
        return found
    try:
        return str(importlib.import_module("uv").find_uv_bin())
    except (ImportError, FileNotFoundError):
        return None


class Environments:
    """A folder of environments, each named by the hash of what is in it.

    An environment appears under its name only when it is complete. Several processes may share
    the folder: one builds, the others wait.
    """

    def __init__(self, directory: Path, *, uv: str | None) -> None:
        self._directory = directory
        self._locks = directory.with_name("locks")
        self._uv = uv
        self._building: dict[str, asyncio.Lock] = {}

    async def python(self, requirements: Sequence[str], *, function: str) -> Path:
        """The interpreter of the environment with ``requirements``; builds it where there is
        none. ``function`` is named in the log. Raises ``RequirementsError``."""
        described = json.dumps(
            [sys.version, platform.machine(), sys.prefix, _RUNTIME, sorted(requirements)]
        )
        name = hashlib.sha256(described.encode()).hexdigest()[:32]
        python = self._directory / name / "bin" / "python"
        async with self._building.setdefault(name, asyncio.Lock()):
            if await asyncio.to_thread(python.exists):
                return python
            async with self._alone(name):
                if await asyncio.to_thread(python.exists):
                    return python
                log = _log.bind(function=function, requirements=" ".join(requirements))
                log.info("function.install_started")
                began = time.monotonic()
                try:
                    await self._build(self._directory / name, requirements)
                except OSError as error:
                    raise RequirementsError(str(error)) from error
                log.info("function.install_ended", seconds=round(time.monotonic() - began, 1))
        return python

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """No other process builds it meanwhile. Raises ``RequirementsError``."""
        try:
            self._locks.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RequirementsError(str(error)) from error
        try:
            while True:
                if _locked(descriptor):
                    break
                # Asked again and again: a wait in a thread could not be cancelled.
                await asyncio.sleep(_LOOK)
            yield
        finally:
            os.close(descriptor)

    async def _build(self, target: Path, requirements: Sequence[str]) -> None:
        if self._uv is None:
            raise RequirementsError(
                "requirements are installed with uv, which is missing: "
                "pip install 'triggerhub[python]'"
            )
        await asyncio.to_thread(self._sweep)
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=self._directory))
        try:
            # Relocatable: the scripts' paths survive the renaming.
            await self._run("venv", "--relocatable", "--python", sys.executable, str(partial))
            python = str(partial / "bin" / "python")
            await self._run("pip", "install", "--python", python, "--", *_RUNTIME, *requirements)
            await asyncio.to_thread(_settle, partial, target)
        finally:
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a killed hub left half built."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for partial in self._directory.glob("partial-*"):
            try:
                age = time.time() - partial.stat().st_mtime
            except FileNotFoundError:
                continue
            if age > _STALE:
                shutil.rmtree(partial, ignore_errors=True)

    async def _run(self, *arguments: str) -> None:
        assert self._uv is not None
        process = await asyncio.create_subprocess_exec(
            self._uv,
            "--quiet",
            "--no-progress",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=_environ(os.environ),
        )
        try:
            async with asyncio.timeout(_LIMIT):
                _, said = await process.communicate()
        except TimeoutError as error:
            raise RequirementsError(f"uv did not end within {_LIMIT:.0f} s") from error
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            text = " ".join(said.decode("utf-8", "replace").split())
            raise RequirementsError(text[:_SAID] or f"uv ended with exit code {process.returncode}")


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _settle(partial: Path, target: Path) -> None:
    """Give a complete environment its name. Raises OSError."""
    try:
        partial.rename(target)
    except OSError:
        # Another hub may have been faster: then the target is complete.
        if not (target / "bin" / "python").exists():
            raise


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what points at the hub's own environment."""
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX")
    return {name: value for name, value in environ.items() if name not in hidden}
