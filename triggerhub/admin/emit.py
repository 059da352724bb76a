"""A test event through a trigger's binding, and what became of it."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches

from triggerhub.admin.states import BindingView
from triggerhub.admin.view import View
from triggerhub.admin.wire import BadRequest, Json, delivery_json
from triggerhub.connector import GivenBack
from triggerhub.event import Event
from triggerhub.store.ulid import new_ulid

EVENT_TYPE = "dev.triggerhub.emit"
MOST_WAITING = 64
"""Test events that may be under way at once."""

_FIELDS = (
    "contentType", "data", "data_base64", "extensions", "id", "key", "source", "subject",
    "timeout", "type",
)  # fmt: skip
_EXTENSION = re.compile(r"[a-z0-9]{1,20}")
_RESERVED = frozenset(
    {"id", "source", "type", "specversion", "subject", "time", "data", "datacontenttype",
     "dataschema", "partitionkey"}
)  # fmt: skip


class NotBound(LookupError):  # noqa: N818 - a fact about the trigger
    """No binding can take the event: ``status`` is 404 (no such trigger) or 409 (not now)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a JSON body."""

    status: int
    body: Json


def find_binding(name: str, bindings: list[BindingView]) -> BindingView:
    """The binding that ``trigger``, ``namespace/trigger`` or ``namespace.trigger.function``
    means. Raises ``NotBound``."""
    exact = [view for view in bindings if view.name == name]
    namespace, _, trigger = name.rpartition("/")
    found = exact or [
        view for view in bindings if view.trigger == trigger and namespace in ("", view.namespace)
    ]
    if not found:
        known = sorted({f"{view.namespace}/{view.trigger}" for view in bindings})
        near = get_close_matches(name, [*known, *(k.partition("/")[2] for k in known)], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise NotBound(404, f"there is no trigger {name}{hint}")
    if len(found) > 1:
        names = ", ".join(view.name or f"{view.namespace}/{view.trigger}" for view in found)
        raise NotBound(409, f"{name} stands for several bindings; name one of: {names}")
    view = found[0]
    if not view.name or view.state in ("Stopping", "Unbound"):
        raise NotBound(409, f"{name} is not bound: {view.reason}: {view.message}")
    return view


def event_of(body: Mapping[str, object], binding: BindingView, now: datetime) -> Event:
    """The event that a request describes: ``data`` is a text as it is or other JSON as JSON,
    ``data_base64`` any bytes. Raises ``BadRequest``."""
    for name in body:
        if name not in _FIELDS:
            raise BadRequest(f"unknown field {name!r}, expected {', '.join(_FIELDS)}")
    data, encoded = body.get("data"), _text(body, "data_base64")
    kind = _text(body, "contentType")
    if encoded is not None:
        raw, default = _decoded(encoded), "application/octet-stream"
    elif isinstance(data, str):
        raw, default = data.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    elif data is None:
        raw, default = b"", ""
    else:
        raw, default = json.dumps(data, ensure_ascii=False).encode(), "application/json"
    return Event(
        id=_text(body, "id") or new_ulid(),
        source=_text(body, "source") or f"/emit/{binding.namespace}/{binding.trigger}",
        type=_text(body, "type") or EVENT_TYPE,
        data=raw,
        datacontenttype=kind or default or None,
        subject=_text(body, "subject"),
        time=now,
        key=_text(body, "key"),
        extensions=_extensions(body.get("extensions", {})),
    )


class Emitter:
    """Sends test events; ``tasks`` keeps those that outlast their request."""

    def __init__(self, view: View, tasks: asyncio.TaskGroup) -> None:
        self._view = view
        self._tasks = tasks
        self._under_way: set[asyncio.Task[str]] = set()

    async def emit(self, name: str, body: Mapping[str, object], timeout: float) -> Answer:
        """Waits up to ``timeout`` seconds for the outcome. Raises ``BadRequest``,
        ``NotBound``."""
        binding = find_binding(name, self._view.bindings())
        event = event_of(body, binding, datetime.now(UTC))
        if len(self._under_way) >= MOST_WAITING:
            raise NotBound(429, f"{MOST_WAITING} test events are under way already; wait for them")
        task = self._tasks.create_task(self._dispatch(binding.name, event))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait([task], timeout=timeout)
        shape: Json = {"binding": binding.name, "source": event.source, "id": event.id}
        shape["outcome"] = task.result() if task.done() else "under way"
        # It went through this process: the store has nothing to add, and may be away.
        found = self._view.dispatcher.recent(event.id, event.source)
        if found:
            shape["delivery"] = delivery_json(found[0])
        return Answer(200 if task.done() else 202, shape)

    def stop(self) -> None:
        """End what is still under way: a test event has no source to be given back to."""
        for task in self._under_way:
            task.cancel()

    async def _dispatch(self, binding: str, event: Event) -> str:
        try:
            outcome = await self._view.dispatcher.dispatch(binding, event)
        except GivenBack:
            return "given back"
        self._view.recount()
        return str(outcome.settled)


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise BadRequest(f"data_base64: {error}") from None


def _text(body: Mapping[str, object], name: str) -> str | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or not value.isprintable() or not value):
        raise BadRequest(f"{name}: found {value!r}, expected a text of printable characters")
    return value


def _extensions(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadRequest(f"extensions: found {value!r}, expected a mapping of names to texts")
    for name, text in value.items():
        if not _EXTENSION.fullmatch(name) or name in _RESERVED:
            raise BadRequest(
                f"extensions: found the name {name!r}, expected at most 20 of a-z 0-9 and no "
                "attribute that CloudEvents itself has"
            )
        if not isinstance(text, str) or not text.isprintable():
            raise BadRequest(f"extensions.{name}: found {text!r}, expected a text")
    return value
