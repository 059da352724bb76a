"""An API server in memory, as far as lists, watches and finalizers go; it fails as it is told."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from triggerhub.cluster.answers import ApiError, Object, Page, Resource
from triggerhub.control.resources import ResourceKey

Trouble = Callable[[], ApiError | None]


def trouble(status: int, reason: str = "", retry_after: float = 0.0) -> Trouble:
    """Each request fails so."""
    return lambda: ApiError("list", "x", None, status, reason or str(status), "told", retry_after)


class _News(NamedTuple):
    version: int
    kind: str
    plural: str
    body: Object


@dataclass
class MemoryServer:
    """What is asked of it is in ``asked``: the loop's time, the verb, the plural name, and where
    it begins."""

    page: int = 2
    bookmarks: float = 30.0
    """Seconds between two of them."""
    served: set[str] = field(default_factory=set)
    discovery: Trouble | None = None
    troubles: dict[tuple[str, str], Trouble] = field(default_factory=dict)
    """By verb and plural name."""
    mute: set[str] = field(default_factory=set)
    """Plural names whose lists are never answered."""
    asked: list[tuple[float, str, str, str]] = field(default_factory=list)
    created: list[Object] = field(default_factory=list)
    """What ``create`` was asked for."""
    version: int = 100
    _objects: defaultdict[str, dict[ResourceKey, Object]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _log: list[_News] = field(default_factory=list)
    _oldest: int = 0
    _watchers: list[asyncio.Queue[_News | None]] = field(default_factory=list)

    def put(self, plural: str, name: str, namespace: str = "shop", **body: Any) -> None:
        """Make or replace an object; ``metadata`` comes on top of the usual."""
        key = ResourceKey(namespace, name)
        kind = "MODIFIED" if key in self._objects[plural] else "ADDED"
        self.version += 1
        metadata = {
            "namespace": namespace, "name": name, "uid": f"{namespace}/{name}",
            "generation": 1, "creationTimestamp": "2026-01-31T12:00:00Z",
            **body.pop("metadata", {}), "resourceVersion": str(self.version),
        }  # fmt: skip
        found = {"metadata": metadata, **body}
        self._objects[plural][key] = found
        self._tell(kind, plural, found)

    def delete(self, plural: str, name: str, namespace: str = "shop") -> None:
        """Watchers see it."""
        found = copy.deepcopy(self._objects[plural].pop(ResourceKey(namespace, name)))
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", plural, found)

    def doom(self, plural: str, name: str, namespace: str = "shop", ago: float = 0.0) -> None:
        """Deleted so many seconds ago: it goes when nothing holds it any more."""
        found = copy.deepcopy(self._objects[plural][ResourceKey(namespace, name)])
        since = datetime.now(UTC) - timedelta(seconds=ago)
        found["metadata"]["deletionTimestamp"] = since.isoformat()
        self._store(plural, found)

    def get(self, plural: str, name: str, namespace: str = "shop") -> Object | None:
        """One object; None: it is not there."""
        return self._objects[plural].get(ResourceKey(namespace, name))

    def finalizers(self, plural: str, name: str, namespace: str = "shop") -> list[str] | None:
        """What holds it; None: it is not there."""
        found = self.get(plural, name, namespace)
        return None if found is None else found["metadata"].get("finalizers") or []

    def compact(self) -> None:
        """Forget every version but the present."""
        self._oldest = self.version
        self._log.clear()

    def count(self, verb: str, plural: str, since: float = 0.0) -> int:
        """How often it was asked for that."""
        return sum(a[1:3] == (verb, plural) and a[0] >= since for a in self.asked)

    def disconnect(self) -> None:
        """Every watch breaks."""
        for queue in self._watchers:
            queue.put_nowait(None)
        self._watchers.clear()

    @property
    def watching(self) -> int:
        """Watches that are open."""
        return len(self._watchers)

    async def list(
        self, resource: Resource, namespace: str | None, *, selector: str, field: str
    ) -> AsyncGenerator[Page, None]:
        self._ask("list", resource, "")
        if resource.plural in self.mute:
            await asyncio.Event().wait()
        found = [
            copy.deepcopy(body)
            for body in self._objects[resource.plural].values()
            if _fits(body, namespace, selector, field)
        ]
        version = str(self.version)
        for start in range(0, len(found) or 1, self.page):
            self._fail("page", resource)
            yield Page(found[start : start + self.page], version)
            await asyncio.sleep(0.01)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        resource_version: str,
        *,
        timeout: float,
        selector: str,
        field: str,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        self._ask("watch", resource, resource_version)
        yield "OPENED", {}
        seen = int(resource_version)
        if seen < self._oldest:
            raise ApiError("watch", resource.plural, namespace, 410, "Expired", "too old")
        queue: asyncio.Queue[_News | None] = asyncio.Queue()
        for news in self._log:
            if news.version > seen:
                queue.put_nowait(news)
        self._watchers.append(queue)
        try:
            async for news in self._read(queue, asyncio.get_running_loop().time() + timeout):
                if news.kind == "BOOKMARK":
                    yield news.kind, news.body
                elif news.plural == resource.plural and _fits(
                    news.body, namespace, selector, field
                ):
                    yield news.kind, copy.deepcopy(news.body)
        finally:
            if queue in self._watchers:
                self._watchers.remove(queue)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: Literal["merge"],
    ) -> Object:
        """Of metadata alone. What ``body`` says of uid and version must be so, else 409."""
        assert kind == "merge"
        self._ask("patch", resource, name)
        await asyncio.sleep(0.01)
        assert namespace is not None
        found = copy.deepcopy(self._objects[resource.plural].get(ResourceKey(namespace, name)))
        if found is None:
            raise ApiError("patch", resource.plural, namespace, 404, "NotFound", name)
        for fact in ("uid", "resourceVersion"):
            if body["metadata"][fact] != found["metadata"][fact]:
                raise ApiError("patch", resource.plural, namespace, 409, "Conflict", fact)
        found["metadata"].update(body["metadata"])
        self._store(resource.plural, found)
        return found

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Kept, and never seen by a watch."""
        self._ask("create", resource, "")
        await asyncio.sleep(0.01)
        self.created.append(body)
        return body

    async def discover(self, group: str, version: str) -> set[str] | None:
        self.asked.append((asyncio.get_running_loop().time(), "discover", group, ""))
        error = self.discovery() if self.discovery else None
        if error is not None:
            raise error
        return set(self.served) or None

    async def _read(
        self, queue: asyncio.Queue[_News | None], ends: float
    ) -> AsyncGenerator[_News, None]:
        loop = asyncio.get_running_loop()
        mark = loop.time() + self.bookmarks
        # A timer may fire a little early, and virtual time does not go on by itself.
        while ends - loop.time() > 1e-3:
            try:
                async with asyncio.timeout_at(min(ends, mark)):
                    news = await queue.get()
            except TimeoutError:
                mark = loop.time() + self.bookmarks
                body = {"metadata": {"resourceVersion": str(self.version)}}
                yield _News(self.version, "BOOKMARK", "", body)
                continue
            if news is None:
                raise ApiError("watch", "x", None, 0, "Unreachable", "broken")
            yield news

    def _store(self, plural: str, found: Object) -> None:
        metadata = found["metadata"]
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        key = ResourceKey(metadata["namespace"], metadata["name"])
        self._objects[plural][key] = found
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            del self._objects[plural][key]
            self._tell("DELETED", plural, found)
        else:
            self._tell("MODIFIED", plural, found)

    def _tell(self, kind: str, plural: str, body: Object) -> None:
        news = _News(self.version, kind, plural, body)
        self._log.append(news)
        for queue in self._watchers:
            queue.put_nowait(news)

    def _ask(self, verb: str, resource: Resource, where: str) -> None:
        self.asked.append((asyncio.get_running_loop().time(), verb, resource.plural, where))
        self._fail(verb, resource)
        if resource.group == "triggerhub.dev" and resource.plural not in self.served:
            raise ApiError(verb, resource.plural, None, 404, "NotFound", "not served")

    def _fail(self, verb: str, resource: Resource) -> None:
        told = self.troubles.get((verb, resource.plural))
        error = told() if told else None
        if error is not None:
            raise ApiError(
                "list" if verb == "page" else verb, str(resource), None,
                error.status, error.reason, error.message, error.retry_after,
            )  # fmt: skip


def _fits(body: Object, namespace: str | None, selector: str, field: str) -> bool:
    metadata = body["metadata"]
    return (
        namespace in (None, metadata["namespace"])
        and (not selector or selector in metadata.get("labels", {}))
        and (not field or field == f"metadata.name={metadata['name']}")
    )
