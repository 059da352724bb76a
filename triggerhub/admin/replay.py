"""A replay on request: what is asked for, and how it goes, line by line."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from triggerhub.admin.emit import NotBound, find_binding
from triggerhub.admin.states import BindingView
from triggerhub.admin.view import View
from triggerhub.admin.wire import BadRequest, Json
from triggerhub.connector import GivenBack, SpecError
from triggerhub.control.binding import Binding
from triggerhub.control.replays import Refused, Replays, Standing, Wish
from triggerhub.durations import seconds

_EVERY = 0.5
"""Seconds between two lines."""
_FIELDS = ("from", "function", "rate", "to")
_LIKE_A_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*", re.ASCII)
_TIMES = "an RFC 3339 time such as 2026-01-31T08:00:00Z"
_GREATEST = 1e6

Send = Callable[[Json], Awaitable[None]]


def wish_of(body: Mapping[str, object], now: datetime) -> Wish:
    """What a request means: ``from`` and ``to``, each a time, a duration before now, or a position
    in the words of the source; ``to`` may be missing or ``now``; ``rate``. Raises
    ``BadRequest``."""
    for name in body:
        if name not in _FIELDS:
            raise BadRequest(f"unknown field {name!r}, expected {', '.join(_FIELDS)}")
    since = _moment("from", body.get("from"), now)
    until = None if body.get("to") in (None, "now") else _moment("to", body["to"], now)
    if isinstance(since, datetime) and isinstance(until, datetime) and since >= until:
        raise BadRequest(
            f"from: found {since.isoformat()}, which is not before to, {until.isoformat()}"
        )
    return Wish(since=since, until=until, rate=_rate(body.get("rate")))


def binding_of(name: str, body: Mapping[str, object], view: View) -> Binding:
    """Along which binding. Raises ``BadRequest``, ``NotBound``."""
    function = body.get("function", "")
    if not isinstance(function, str):
        raise BadRequest(f"function: found {function!r}, expected a name")
    views = view.bindings()
    if function:
        views = _of_function(name, function, views)
    found = view.binding(find_binding(name, views).name)
    if found is None:
        raise NotBound(409, f"{name} is not bound any more")
    return found


def _of_function(name: str, function: str, views: list[BindingView]) -> list[BindingView]:
    namespace, _, trigger = name.rpartition("/")
    own = [v for v in views if v.trigger == trigger and namespace in ("", v.namespace)]
    if own and all(v.function != function for v in own):
        bound = ", ".join(sorted(v.function for v in own if v.function)) or "none"
        raise NotBound(404, f"{name} is not bound to function {function}, but to {bound}")
    return [v for v in views if v.function == function] if own else views


async def stream(replays: Replays, binding: Binding, wish: Wish, send: Send) -> None:
    """Replay, and tell how far it is twice a second; the last line has ``ended`` true, or an
    ``error`` and a ``message``."""
    standings: list[Standing] = []

    async def tell() -> None:
        while True:
            await asyncio.sleep(_EVERY)
            if standings:
                await send(shape(standings[0]))

    last: Json = {"ended": True}
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(tell())
        try:
            await replays.replay(binding.listening, wish, standings.append)
        except (Refused, GivenBack, SpecError, ValueError) as error:
            last = {"error": type(error).__name__, "message": str(error)}
        except Exception as error:  # noqa: BLE001 - a connector's: logged where it was caught
            last = {"error": "SourceFailed", "message": str(error) or type(error).__name__}
        telling.cancel()
    await send((shape(standings[0]) if standings else {}) | last)


def shape(standing: Standing) -> Json:
    """How far it is."""
    return {
        "replay": standing.id,
        "binding": standing.binding,
        # In a measure of the source's own, such as offsets; null: not known yet.
        "size": standing.size,
        "done": standing.done,
        "events": dict(sorted(standing.outcomes.items())),
        # Another replay goes on from there to there.
        "from": standing.since,
        "to": standing.until,
        "note": standing.note,
        "trouble": standing.trouble,
    }


def _moment(name: str, value: object, now: datetime) -> datetime | str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise BadRequest(
            f"{name}: found {value!r}, expected {_TIMES}, a duration before now such as 2h, or a "
            "position in the words of the source"
        )
    if _LIKE_A_TIME.fullmatch(value):
        found = _time(value)
        if found is None:
            raise BadRequest(f"{name}: found {value!r}, expected {_TIMES}")
        if found > now:
            raise BadRequest(f"{name}: found {value!r}, which is yet to come")
        return found.astimezone(UTC)
    try:
        return now - timedelta(seconds=seconds(value))
    except (ValueError, OverflowError):
        return value


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if found.tzinfo is None else found


def _rate(value: object) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _GREATEST:
        raise BadRequest(f"rate: found {value!r}, expected events per second, more than 0")
    return float(value)
