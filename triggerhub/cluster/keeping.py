"""One object of the API server that is to be as the hub says: written, put right, removed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import structlog

from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.edge import Place
from triggerhub.cluster.found import Found, read_found

SOON = 1.0
"""Seconds until what somebody else changed is put right: doubled while it goes on."""
LATER = 30.0
"""Seconds until what was refused is tried again, and the longest of the others."""
UNSEEN = 10.0
"""Seconds after which what was written and is not there is gone, and not only late."""
_CALM = 60.0
"""Seconds after which a change by somebody else is not one of a row."""
_LONGEST_ROW = 10
_PASSING = (0, 404, 408, 409, 410, 429)
"""Of these, as of 5xx, nothing is said: trying again may do."""

log = structlog.get_logger()


class Writer(Protocol):
    """What is asked of the API server. Raises ``ApiError``."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object: ...
    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: Literal["apply"],
        force: bool,
    ) -> Object: ...
    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why it is not as it should be, as a condition says it."""

    reason: str
    message: str


@dataclass(slots=True)
class _Kept:
    body: Object = field(default_factory=dict)
    """As it was tried last."""
    written: bool = False
    over: str = ""
    """The version that the watch had brought by then; empty: none."""
    digest: str = ""
    """Of what the server made of it."""
    at: float = -math.inf
    """When it was tried last (the loop's time)."""
    again: float = -math.inf
    """When it may be tried again."""
    row: int = 0
    """How often in a row it was refused, or changed by somebody else."""
    trouble: Trouble | None = None


class Keeping:
    """Remembers what was written, so that what others change is noticed, and what is refused is
    not asked for without a pause."""

    def __init__(self, api: Writer) -> None:
        self._api = api
        self._kept: dict[Place, _Kept] = {}
        self._removed: dict[str, float] = {}
        """Until when each is not asked for again (the loop's time), by uid."""

    def written(self, place: Place, body: Object) -> bool:
        """It was written so."""
        kept = self._kept.get(place)
        return kept is not None and kept.written and kept.body == body

    def trouble(self, place: Place) -> Trouble | None:
        """What stands against it."""
        kept = self._kept.get(place)
        return None if kept is None else kept.trouble

    def due(self, place: Place, body: Object, found: Found | None) -> float:
        """When it is to be written (the loop's time); infinity: it is as it should be. ``found``
        is what the watch has brought."""
        kept = self._kept.get(place)
        if kept is None or kept.body != body:
            return -math.inf
        if not kept.written:
            return kept.again
        if found is None:
            return max(kept.again, kept.at + UNSEEN) if not kept.over else kept.again
        if found.version == kept.over or found.digest == kept.digest:
            return math.inf
        return kept.again

    async def keep(
        self, place: Place, body: Object, found: Found | None, owner: tuple[str, str] | None
    ) -> None:
        """Write it whole, or note why not. What is there already must have that owner."""
        now = asyncio.get_running_loop().time()
        kept = self._kept.setdefault(place, _Kept())
        again = kept.body == body and now - kept.at < _CALM
        kept.body, kept.at, kept.row = body, now, kept.row + 1 if again else 0
        kept.again = now + min(LATER, SOON * 2.0 ** min(kept.row, _LONGEST_ROW))
        kept.written = False
        seen = found
        try:
            found = found or await self._look(place)
            if found is not None and found.owner != owner:
                message = (
                    f"{place} is there and not this trigger's: nothing of it is touched. Rename "
                    "the trigger, or delete what has its name"
                )
                kept.trouble = Trouble("NameTaken", message)
            elif found is None or not found.deleting:
                answer = await self._apply(place, body, found)
                kept.digest, kept.over = read_found(answer).digest, seen.version if seen else ""
                kept.written, kept.trouble = True, None
        except ApiError as error:
            self._refused(place, kept, error, fresh=found is None)

    async def remove(self, place: Place, found: Found) -> None:
        """Delete this one."""
        now = asyncio.get_running_loop().time()
        if found.deleting or self._removed.get(found.uid, -math.inf) > now:
            return
        self._removed[found.uid] = now + LATER
        try:
            resource, namespace, name = place
            await self._api.delete(resource, namespace, name, uid=found.uid)
        except ApiError as error:
            if error.status not in (404, 409):
                log.warning("exposure.left", object=str(place), error=str(error))

    def forget(self, places: Collection[Place]) -> None:
        """Of others than these nothing need be remembered."""
        self._kept = {place: kept for place, kept in self._kept.items() if place in places}
        now = asyncio.get_running_loop().time()
        self._removed = {uid: until for uid, until in self._removed.items() if until > now}

    async def _look(self, place: Place) -> Found | None:
        """What has that name, though the watch, which sees only what is labelled, has not."""
        try:
            return read_found(await self._api.get(*place))
        except ApiError as error:
            if error.status != 404 or error.reason != "NotFound":
                raise
            return None

    async def _apply(self, place: Place, body: Object, found: Found | None) -> Object:
        if found is not None:  # this one, and none that has its name by now
            body = body | {"metadata": body["metadata"] | {"uid": found.uid}}
        resource, namespace, name = place
        return await self._api.patch(
            resource, namespace, name, body, kind="apply", force=found is not None
        )

    def _refused(self, place: Place, kept: _Kept, error: ApiError, *, fresh: bool) -> None:
        if error.status == 409 and fresh:
            # It came between the look and the write.
            kept.trouble = Trouble("NameTaken", f"{place} is there and another's: {error.message}")
        elif error.status not in _PASSING and error.status < 500:
            kept.again = kept.at + LATER
            kept.trouble = Trouble("ExposeRefused", str(error))
