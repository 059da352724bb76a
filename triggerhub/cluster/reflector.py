"""One resource of the API server, kept in step: list, watch, list anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import Enum
from typing import Generic, Protocol, TypeVar

import structlog

from triggerhub.cluster.answers import ApiError, Object, Page, Resource
from triggerhub.control.resources import ResourceKey

T = TypeVar("T")

log = structlog.get_logger()

WATCH = 75.0
"""Seconds that one watch lasts: how late a dead connection is noticed."""
FIRST_WAIT = 0.2
LONGEST_WAIT = 15.0
AWAY_WAIT = 3.0
"""The longest wait for a server that takes no connection: asking costs it nothing."""
LONGEST_ASKED = 60.0
"""Seconds that a server can ask to be left alone for."""
ABSENT_WAIT = 5.0
"""Seconds until a resource that is not served is looked for again."""
_LASTED = 5.0
"""Seconds after which a failure begins the backoff anew."""
_AT_ONCE = 1.0
"""Seconds within which the end of a watch counts as a failure."""
_STUBBORN = 5
"""Failures in a row after which what was watched is listed anew: the version itself may be what
the server cannot serve."""
_BREATH = 20
"""Objects that are read without letting others run."""


class Lister(Protocol):
    """What is needed of the API server."""

    def list(
        self, resource: Resource, namespace: str | None, *, selector: str, field: str
    ) -> AsyncGenerator[Page, None]: ...
    def watch(
        self,
        resource: Resource,
        namespace: str | None,
        resource_version: str,
        *,
        timeout: float,
        selector: str,
        field: str,
    ) -> AsyncGenerator[tuple[str, Object], None]: ...
    async def discover(self, group: str, version: str) -> set[str] | None: ...


class Sync(Enum):
    """How far a reflector is."""

    PENDING = "Pending"
    SYNCED = "Synced"
    ABSENT = "Absent"
    """The server does not serve the resource: its CRD is not installed."""
    REFUSED = "Refused"
    """The hub may not list it, and never could."""


class Reflector(Generic[T]):
    """What a resource holds, by namespace and name, as values of the caller's making.

    Once there, what it holds stands until the server says otherwise: an unreachable server, a
    refusal or an error empties nothing. A list replaces all. A resource that is no longer served
    holds nothing.
    """

    def __init__(
        self,
        api: Lister,
        resource: Resource,
        namespace: str | None,
        read: Callable[[Object, T | None], T],
        changed: Callable[[T | None, T | None], None],
        *,
        selector: str = "",
        field: str = "",
        timeout: float = WATCH,
        every: float = 0.0,
    ) -> None:
        """``read`` makes a value of an object, and is given the one before. ``changed`` is called
        with a value before and after; two None: anything may have changed, the state too.
        ``every``: list so often, in seconds, instead of watching."""
        self._api = api
        self.resource = resource
        self.namespace = namespace
        self._read = read
        self._changed = changed
        self._selector = selector
        self._field = field
        self._timeout = timeout
        self._every = every
        self._version = ""
        self._missed = False
        self.items: dict[ResourceKey, T] = {}
        self.state = Sync.PENDING
        self.problem = ""
        """The present trouble in one sentence; empty when there is none."""
        self.heard = asyncio.get_running_loop().time()
        """When the server was last heard or asked, in the loop's time."""

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        failures, status = 0, -1
        while True:
            began = self.heard = loop.time()
            error: ApiError | None = None
            try:
                if not self._version:
                    await self._list()
                await self._follow()
            except ApiError as raised:
                error = raised
                await self._failed(error)
                if error.status != status:
                    # Another trouble than before: a server that comes back goes through some.
                    failures, status = 0, error.status
            lasted = loop.time() - began
            if self.state is Sync.ABSENT or self._missed:
                failures = 0
                await asyncio.sleep(ABSENT_WAIT)
                continue
            if lasted > _LASTED:
                failures = 0
            # A server that ends each watch at once is no better than one that fails.
            failures = failures + 1 if error is not None or lasted < _AT_ONCE else 0
            if failures >= _STUBBORN and error is not None and error.status >= 500:
                self._version = ""
            await asyncio.sleep(_wait(failures, error))

    async def _list(self) -> None:
        """Replace what is held."""
        found: dict[ResourceKey, T] = {}
        version = ""
        pages = self._api.list(
            self.resource, self.namespace, selector=self._selector, field=self._field
        )
        async with aclosing(pages):
            async for page in pages:
                self.heard = asyncio.get_running_loop().time()
                version = page.resource_version
                for number, body in enumerate(page.items):
                    key = _key_of(body)
                    before = self.items.get(key)
                    value = self._read(body, before)
                    found[key] = before if before is not None and before == value else value
                    if not number % _BREATH:
                        await asyncio.sleep(0)
        self.items, self._version, self._missed = found, version, False
        self.state = Sync.SYNCED
        self._changed(None, None)

    async def _follow(self) -> None:
        """Watch once, from the latest version on."""
        if self._every:
            self._well()
            await asyncio.sleep(self._every * random.uniform(0.8, 1.0))
            self._version = ""
            return
        changes = self._api.watch(
            self.resource,
            self.namespace,
            self._version,
            timeout=self._timeout * random.uniform(0.8, 1.0),
            selector=self._selector,
            field=self._field,
        )
        async with aclosing(changes):
            async for kind, body in changes:
                self.heard = asyncio.get_running_loop().time()
                if kind == "OPENED":
                    self._well()
                    continue
                if kind != "BOOKMARK":
                    self._take(kind, body)
                self._version = str((body.get("metadata") or {}).get("resourceVersion") or "")

    def _take(self, kind: str, body: Object) -> None:
        key = _key_of(body)
        before = self.items.get(key)
        if kind == "DELETED":
            if before is not None:
                del self.items[key]
                self._changed(before, None)
            return
        value = self._read(body, before)
        if before is None or before != value:
            self.items[key] = value
            self._changed(before, value)

    async def _failed(self, error: ApiError) -> None:
        """Decide what stands, and what is tried next."""
        if error.status == 410:
            self._version = ""  # no trouble: listing anew is what it asks for
            return
        if error.status == 404:
            self._version = ""
            if await self._absent():
                self._lost()
                return
        elif error.status == 403:
            # It may still list what it may not watch: late is better than never.
            self._version = ""
            if self.state in (Sync.PENDING, Sync.ABSENT) and error.verb == "list":
                self.state = Sync.REFUSED
                self._changed(None, None)
        self._missed = False
        self._trouble(str(error))

    async def _absent(self) -> bool:
        """Whether it is really not served: a server that starts may say so of what it only does
        not know yet, and then its discovery is silent too."""
        try:
            served = await self._api.discover(self.resource.group, self.resource.version)
        except ApiError:
            return False
        return served is None or self.resource.plural not in served

    def _lost(self) -> None:
        """It is not served. What is held goes when that is still so at a second look: everything
        that is bound would end with it."""
        if self.state is Sync.SYNCED and not self._missed:
            self._missed = True
            return
        self._missed = False
        self._trouble(f"the API server does not serve {self.resource}: install its CRD")
        if self.state is not Sync.ABSENT:
            self.state, self.items = Sync.ABSENT, {}
            self._changed(None, None)

    def _trouble(self, problem: str) -> None:
        if problem == self.problem:
            return
        log.warning("watch.failed", resource=str(self.resource), error=problem)
        self.problem = problem
        if self.state is Sync.PENDING:
            self._changed(None, None)  # who waits for it need not wait on

    def _well(self) -> None:
        if self.problem:
            log.info("watch.recovered", resource=str(self.resource))
            self.problem = ""


def _wait(failures: int, error: ApiError | None) -> float:
    """Seconds until the next attempt: doubling, with full jitter, and no less than the server
    asks for."""
    if not failures:
        return 0.0
    longest = AWAY_WAIT if error is not None and error.status == 0 else LONGEST_WAIT
    ceiling = min(longest, FIRST_WAIT * 2.0 ** min(failures - 1, 20))
    asked = min(error.retry_after, LONGEST_ASKED) if error is not None else 0.0
    return max(ceiling * random.random(), asked)


def _key_of(body: Object) -> ResourceKey:
    metadata = body.get("metadata") or {}
    return ResourceKey(str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
