"""Kubernetes Events at the turning points."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol
from uuid import uuid4

import structlog

from triggerhub.cluster.answers import ApiError, Object, Resource
from triggerhub.cluster.reported import Held, Reported
from triggerhub.control.resources import API_VERSION

EVENTS = Resource("", "v1", "events")
SAME = 600.0
"""Seconds within which the same Event is counted, not written again."""
BURST = 10
"""Events of one object in that time; the rest are dropped."""
_WAITING = 1000
_REMEMBERED = 4000
_LONGEST = 1024
_UNATTEMPTED = ("InvalidSpec", "NotListening", "Paused")
"""Why nothing is connected that nobody wants to be."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that an Event is about."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A turning point, as an Event tells it."""

    reason: str
    message: str
    warning: bool = False


def turns(before: Reported | None, now: Reported) -> Iterator[Turn]:
    """What happened between two reports of one trigger or function."""
    old = {held.type: held for held in before.conditions} if before is not None else {}
    new = {held.type: held for held in now.conditions}
    accepted, bound, ready = new.get("Accepted"), new.get("Bound"), new.get("Ready")
    if accepted is not None and _turned(old, accepted, "False"):
        yield Turn(accepted.reason, accepted.message, warning=True)
        return
    if bound is not None and _turned(old, bound, "True"):
        yield Turn("Bound", f"events go to {bound.message}")
    was_bound = old.get("Bound")
    if (
        bound is not None
        and bound.status == "False"
        and was_bound is not None
        and was_bound.status == "True"
    ):
        yield Turn("Unbound", bound.message, warning=True)
        return
    yield from _connection(old.get("Connected"), new.get("Connected"))
    was_ready = old.get("Ready")
    if ready is not None and was_ready is not None and ready.reason != was_ready.reason:
        if ready.reason in ("FunctionAway", "FunctionGone", "Blocked", "DeadLetterUnavailable",
                            "ReplyRefused", "ReplyUnavailable", "NoEndpoints"):  # fmt: skip
            yield Turn(ready.reason, ready.message, warning=True)
        elif was_ready.reason == "FunctionAway" and ready.status == "True":
            yield Turn("FunctionBack", "the function answers again")


def _connection(old: Held | None, new: Held | None) -> Iterator[Turn]:
    if old is None or new is None:
        return
    if new.status == "True" and new.reason != "Connected":
        # It goes on, and something happened that the user is to know.
        if (old.status, old.reason, old.message) != (new.status, new.reason, new.message):
            yield Turn("Connected", f"{new.reason}: {new.message}", warning=True)
        return
    if old.status == new.status:
        return
    if new.status == "False" and new.reason not in _UNATTEMPTED:
        yield Turn("Disconnected", f"{new.reason}: {new.message}", warning=True)
    elif new.status == "True" and old.status == "False" and old.reason not in _UNATTEMPTED:
        yield Turn("Connected", "the listener is attached again")


def _turned(old: dict[str, Held], held: Held, status: str) -> bool:
    before = old.get(held.type)
    return held.status == status and (before is None or before.status != status)


class Leads(Protocol):
    """Whether this replica speaks for all."""

    @property
    def leading(self) -> bool: ...


class Writer(Protocol):
    """What is asked of the API server. Raises ``ApiError``."""

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object: ...
    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: Literal["merge"],
    ) -> Object: ...


@dataclass(slots=True)
class _Told:
    name: str
    first: float
    count: int


class Events:
    """Writes Events, the same ones counted. What cannot be written is dropped: an Event is told,
    not kept."""

    def __init__(self, api: Writer, election: Leads) -> None:
        self._api = api
        self._election = election
        self._queue: asyncio.Queue[tuple[Subject, Turn]] = asyncio.Queue(_WAITING)
        self._told: OrderedDict[tuple[str, Turn], _Told] = OrderedDict()
        self._bursts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._refused = ""

    def tell(self, subject: Subject, turn: Turn) -> None:
        """Write it soon. Returns at once; where too many wait it is dropped."""
        if self._election.leading and not self._queue.full():
            self._queue.put_nowait((subject, turn))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            subject, turn = await self._queue.get()
            try:
                await self._write(subject, turn)
            except ApiError as error:
                # A namespace that goes away takes none.
                if error.status not in (404, 409) and str(error) != self._refused:
                    log.warning("event.refused", error=str(error))
                    self._refused = str(error)

    async def _write(self, subject: Subject, turn: Turn) -> None:
        now = asyncio.get_running_loop().time()
        key = (subject.uid, turn)
        told = self._told.get(key)
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        if told is not None and now - told.first < SAME:
            told.count += 1
            body = {"count": told.count, "lastTimestamp": stamp}
            try:
                await self._api.patch(EVENTS, subject.namespace, told.name, body, kind="merge")
                return
            except ApiError as error:
                if error.status != 404:  # it may have been deleted: write it anew
                    raise
        if not self._allowed(subject.uid, now):
            return
        name = f"{subject.name}.{uuid4().hex[:16]}"
        await self._api.create(EVENTS, subject.namespace, _body(subject, turn, name, stamp))
        self._told[key] = _Told(name, now, 1)
        self._told.move_to_end(key)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def _allowed(self, uid: str, now: float) -> bool:
        began, count = self._bursts.pop(uid, (now, 0))
        if now - began >= SAME:
            began, count = now, 0
        self._bursts[uid] = (began, count + 1)
        while len(self._bursts) > _REMEMBERED:
            self._bursts.popitem(last=False)
        return count < BURST


def _body(subject: Subject, turn: Turn, name: str, stamp: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": subject.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
        },
        "reason": turn.reason,
        "message": turn.message[:_LONGEST],
        "type": "Warning" if turn.warning else "Normal",
        "source": {"component": "triggerhub"},
        "reportingComponent": "triggerhub",
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
