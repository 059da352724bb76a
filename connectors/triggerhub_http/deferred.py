"""Requests that are answered when they are safe, and delivered afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from json import JSONEncoder
from urllib.parse import quote, unquote

from triggerhub.connector import Fate, InboxFull, Subscription
from triggerhub.event import Event, Reply
from triggerhub_http.messages import Field, Refusal
from triggerhub_http.preferences import Preferences
from triggerhub_http.source import HTTPSource

STATUS = "/.triggerhub/events/"
"""Paths of the hub's own: what became of an event that was accepted."""

_LOOK = 0.5
_JSON = (b"content-type", b"application/json")
_NOT_KEPT = (b"cache-control", b"no-store")
_RETRY = (b"retry-after", b"1")
_TAKEN_AT_ONCE = 4096
_LONGEST_ID = 1024
"""Characters: it is part of an address, and that of a header field."""
_to_json = JSONEncoder(ensure_ascii=False).encode


class Deferred:
    """Of one subscription."""

    def __init__(
        self, subscription: Subscription[HTTPSource], told: Callable[[OSError | None], None]
    ) -> None:
        """``told`` is called with the error when events cannot be made safe, and with None when
        they can again."""
        self._subscription = subscription
        self._told = told
        self._mode = subscription.source.mode
        self._window = subscription.source.idempotency_window
        self._taking = 0
        self._troubled = False
        self._stopping = False

    def takes(self, preferences: Preferences) -> bool:
        """Whether a request that prefers this is answered before it is delivered."""
        return self._mode == "Async" or (self._mode == "Prefer" and preferences.respond_async)

    def stop(self) -> None:
        """Who waits for an outcome is answered without it."""
        self._stopping = True

    async def accept(self, event: Event, preferences: Preferences, *, named: bool) -> Reply:
        """``named``: the request itself says who it is, so a repeat is the same event. Raises
        ``Refusal``."""
        if len(event.id) > _LONGEST_ID:
            found = f"found an id of {len(event.id)} characters"
            raise Refusal(400, "BadRequest", f"{found}, expected at most {_LONGEST_ID}")
        number = await self._put(event, self._window if named else 0.0)
        fate = Fate(waits=True)
        if preferences.wait:
            fate = await self._outcome(event, number, preferences.wait)
        path = f"{STATUS}{self._subscription.name}/{number}/{quote(event.id, safe='')}"
        fields: list[Field] = [_JSON, _NOT_KEPT, (b"location", path.encode())]
        if applied := preferences.applied():
            fields.append((b"preference-applied", applied))
        body = {"id": event.id, "source": event.source, **_told(fate), "status": path}
        return Reply(202 if fate.waits else 200, tuple(fields), _encoded(body))

    async def status(self, rest: str) -> Reply:
        """What became of an event; ``rest`` follows the binding's name in the path. Raises
        ``Refusal``."""
        number, _, event_id = rest.partition("/")
        event_id = unquote(event_id)
        fate = None
        if number.isascii() and number.isdigit() and len(number) < 19:
            try:
                fate = await self._subscription.inbox.fate(event_id, "", int(number))
            except OSError:
                raise Refusal(503, "StoreUnavailable", "try again", _RETRY) from None
        if fate is None:
            raise Refusal(404, "NotFound", "no event was accepted under this address")
        fields = (_JSON, _NOT_KEPT, *((_RETRY,) if fate.waits else ()))
        return Reply(200, fields, _encoded({"id": event_id, **_told(fate)}))

    async def _put(self, event: Event, window: float) -> int:
        if self._taking >= _TAKEN_AT_ONCE:
            raise Refusal(503, "Busy", "too many requests are being made safe", _RETRY)
        self._taking += 1
        try:
            taken = await self._subscription.inbox.put(event, window=window)
        except OSError as error:
            # The operator is told more than the caller.
            self._troubled = True
            self._told(error)
            if isinstance(error, InboxFull):
                raise Refusal(503, "InboxFull", "too many events wait", _RETRY) from None
            message = "the event cannot be made safe now: try again"
            raise Refusal(503, "InboxUnavailable", message, _RETRY) from None
        finally:
            self._taking -= 1
        if self._troubled:
            self._troubled = False
            self._told(None)
        return taken.number

    async def _outcome(self, event: Event, number: int, within: float) -> Fate:
        """As far as it is known in time. The event is safe: whatever fails here, it is accepted."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        fate = Fate(waits=True)
        while fate.waits and not self._stopping and (left := until - loop.time()) > 0:
            try:
                fate = (
                    await self._subscription.inbox.fate(
                        event.id, event.source, number, min(left, _LOOK)
                    )
                    or fate
                )
            except OSError:
                break
        return fate


def _told(fate: Fate) -> dict[str, object]:
    state = "waiting" if fate.waits else str(fate.settled or "settled")
    return {"state": state, "attempts": fate.attempts}


def _encoded(body: dict[str, object]) -> bytes:
    return _to_json(body).encode("utf-8", "replace") + b"\n"
