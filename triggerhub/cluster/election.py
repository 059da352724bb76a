"""One leader among the replicas, by a Lease."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from triggerhub.cluster.answers import ApiError, Object, Resource

LEASES = Resource("coordination.k8s.io", "v1", "leases")

_RELEASE = 2.0
"""Seconds that giving up the lease may take, at the end of the process."""

_LEAST = 0.2
"""Seconds between two rounds."""

log = structlog.get_logger()


class Leases(Protocol):
    """What an election asks of the API server. Raises ``ApiError``."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object: ...
    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object: ...
    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object
    ) -> Object: ...


class Election:
    """Follows client-go's rules: another's lease has ended when its record has not changed for as
    long as it lasts, by this process's own clock; and a leader that cannot renew stops before
    that."""

    def __init__(
        self,
        api: Leases,
        *,
        name: str,
        namespace: str,
        identity: str,
        changed: Callable[[], None],
        duration: float = 10.0,
        renew: float = 3.0,
    ) -> None:
        """``changed`` is called after ``leading`` became another, before anything else runs.
        ``duration``: seconds that a lease lasts; ``renew``: between two renewals, and what one
        may take."""
        self._api = api
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._changed = changed
        self._duration = duration
        self._renew = renew
        self._lease: Object = {}
        self._record: dict[str, Any] | None = None
        """Another's lease, as it was last seen to change."""
        self._taken = -math.inf
        """Until when another's lease is respected (the loop's time)."""
        self._before = math.inf
        """The last sign of life of whoever led last, seconds since the epoch."""
        self._wrote = False
        """It may be this process that the lease names."""
        self._in_office = False
        self._until = -math.inf
        self._end: asyncio.TimerHandle | None = None
        self._problem: tuple[int, str] | None = None
        self.since = math.inf
        """Since when what falls due is ours, seconds since the epoch: the predecessor's last sign
        of life; infinity where there was none."""

    @property
    def leading(self) -> bool:
        """Also after the process was stopped for a while: nobody else leads as long as this is
        True."""
        return self._in_office and asyncio.get_running_loop().time() < self._until

    async def run(self) -> None:
        """Until cancelled; then the lease is given up."""
        try:
            while True:
                began = asyncio.get_running_loop().time()
                await self._round(began)
                await asyncio.sleep(self._pause(began))
        finally:
            self._leave()
            if self._wrote:
                # The process ends: who comes next need not wait for the lease to run out.
                with suppress(ApiError, TimeoutError, _Changed):
                    async with asyncio.timeout(_RELEASE):
                        await self._release()

    async def _round(self, began: float) -> None:
        try:
            async with asyncio.timeout(self._renew):
                mine = await self._take()
        except (ApiError, TimeoutError) as error:
            self._failed(error)  # an office that is held ends by itself
            return
        if self._problem is not None:
            log.info("election.recovered", lease=self._name)
            self._problem = None
        if mine:
            self._enter(began + self._duration * 2 / 3)
        else:
            self._leave()

    def _pause(self, began: float) -> float:
        """Seconds until the next round, after one that began then."""
        now = asyncio.get_running_loop().time()
        if self._in_office and self._problem is None:
            wait = self._renew * random.uniform(0.8, 1.0)
        else:
            wait = self._renew / 3 * random.uniform(0.8, 1.2)
        # Less what the round took: one lost answer is to leave time for another try.
        return max(_LEAST, began + wait - now)

    async def _take(self) -> bool:
        """Renew the lease, or take it where it is free."""
        if self._in_office:
            with suppress(_Changed):
                await self._write()
                return True
        await self._read()
        if not self._free():
            return False
        try:
            await self._write()
        except _Changed:
            return False
        return True

    async def _read(self) -> None:
        try:
            self._lease = await self._api.get(LEASES, self._namespace, self._name)
        except ApiError as error:
            if error.status != 404:
                raise
            self._lease = {}

    def _free(self) -> bool:
        """Nobody's, ours, or run out."""
        now = asyncio.get_running_loop().time()
        # One that was deleted still counts: its holder need not know yet.
        if self._lease:
            spec = self._lease.get("spec") or {}
            holder = spec.get("holderIdentity") or ""
            if holder == self._identity:
                return True
            self._before = _seconds(spec.get("renewTime"))
            if spec != self._record:
                self._record = spec
                lasts = float(spec.get("leaseDurationSeconds") or self._duration)
                self._taken = now + lasts if holder else now
        return now >= self._taken

    async def _write(self, holder: str | None = None, duration: float | None = None) -> None:
        """Raises ``_Changed`` where somebody else was faster."""
        spec = dict(self._lease.get("spec") or {})
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        if holder is None and spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + bool(self._lease)
        spec["holderIdentity"] = self._identity if holder is None else holder
        spec["leaseDurationSeconds"] = math.ceil(duration or self._duration)
        spec["renewTime"] = now
        metadata = self._lease.get("metadata") or {
            "name": self._name, "namespace": self._namespace,
            "labels": {"app.kubernetes.io/name": "triggerhub"},
        }  # fmt: skip
        body = {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": metadata, "spec": spec,
        }  # fmt: skip
        self._wrote = True
        try:
            if self._lease:
                found = await self._api.replace(LEASES, self._namespace, self._name, body)
            else:
                found = await self._api.create(LEASES, self._namespace, body)
        except ApiError as error:
            if error.status in (404, 409):
                raise _Changed from None
            raise
        self._lease = found

    async def _release(self) -> None:
        """What was cut off before its answer may have been written, or be written yet."""
        with suppress(_Changed):
            if self._mine():
                await self._write(holder="", duration=1.0)
                return
        await self._read()
        if self._mine():
            await self._write(holder="", duration=1.0)

    def _mine(self) -> bool:
        return (self._lease.get("spec") or {}).get("holderIdentity") == self._identity

    def _enter(self, until: float) -> None:
        """Lead, for now until then (the loop's time)."""
        loop = asyncio.get_running_loop()
        self._until = until
        if self._end is not None:
            self._end.cancel()
        # A timer's callback, not a task: nothing that fell due later acts before it.
        self._end = loop.call_at(until, self._leave)
        if not self._in_office:
            self.since = min(self._before, time.time()) if self._before < math.inf else math.inf
            self._in_office = True
            self._changed()
        self._before = _seconds((self._lease.get("spec") or {}).get("renewTime"))

    def _leave(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._in_office:
            self._in_office = False
            self._changed()

    def _failed(self, error: ApiError | TimeoutError) -> None:
        if isinstance(error, ApiError):
            problem, text = (error.status, error.reason), str(error)
        else:
            problem, text = (0, "Unreachable"), f"no answer within {self._renew:g} s"
        if problem != self._problem:
            log.warning("election.failed", lease=self._name, error=text)
        self._problem = problem


def _seconds(time: object) -> float:
    """Of a MicroTime; infinity where it is none."""
    try:
        return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else math.inf
    except ValueError:
        return math.inf


class _Changed(Exception):  # noqa: N818 - what happened, not a fault
    """Somebody else wrote the lease first."""
