"""The admin API over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from triggerhub.admin.emit import Emitter, NotBound
from triggerhub.admin.front import open_front, refusal
from triggerhub.admin.inboxes import NotPurged, inboxes_json, purge
from triggerhub.admin.metrics import CONTENT_TYPE, scrape
from triggerhub.admin.redrive import Redrive, Redriven
from triggerhub.admin.replay import binding_of, stream, wish_of
from triggerhub.admin.server import LinesResponse
from triggerhub.admin.view import View
from triggerhub.admin.wire import (
    BadRequest,
    Json,
    binding_json,
    delivery_json,
    duration_of,
    function_json,
    letter_json,
    selection_of,
    trigger_json,
)
from triggerhub.connector import Unreadable
from triggerhub.control.foretelling import NotForetold, asked, foretold, upcoming
from triggerhub.control.replays import Refused, Replays
from triggerhub.sentence import leaf
from triggerhub.settings import Settings
from triggerhub.store.records import Selection, StoreError

LARGEST_BODY = 16 * 1024 * 1024
MOST_LETTERS = 1000

log = structlog.get_logger()


class Api:
    """The routes' handlers over one view."""

    def __init__(self, view: View, emitter: Emitter, replays: Replays) -> None:
        self._view = view
        self._emitter = emitter
        self._replays = replays

    def routes(self) -> list[Route]:
        """Everything the API answers."""
        return [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
            Route("/v1/bindings", self.bindings),
            Route("/v1/triggers", self.triggers),
            Route("/v1/triggers/{name:path}/upcoming", self.upcoming),
            Route("/v1/functions", self.functions),
            Route("/v1/faults", self.faults),
            Route("/v1/dead-letters", self.dead_letters),
            Route("/v1/dead-letters", self.purge, methods=["DELETE"]),
            Route("/v1/dead-letters/redrive", self.redrive, methods=["POST"]),
            Route("/v1/dead-letters/{id}", self.dead_letter),
            Route("/v1/inboxes", self.inboxes),
            Route("/v1/inboxes/{name:path}", self.purge_inbox, methods=["DELETE"]),
            Route("/v1/events", self.events),
            Route("/v1/events/{rest:path}", self.event),
            Route("/v1/bindings/{name:path}/emit", self.emit, methods=["POST"]),
            Route("/v1/bindings/{name:path}/replay", self.replay, methods=["POST"]),
        ]

    async def healthz(self, _request: Request) -> Response:
        if self._view.alive():
            return PlainTextResponse("ok\n")
        return PlainTextResponse("the API server is not watched any more\n", 503)

    async def readyz(self, _request: Request) -> Response:
        waiting = self._view.not_ready()
        trouble = self._view.store.trouble
        text = "\n".join(waiting or ("ready", *([] if trouble is None else [trouble.text])))
        return PlainTextResponse(f"{text}\n", 503 if waiting else 200)

    async def metrics(self, _request: Request) -> Response:
        return Response(await scrape(self._view), headers={"content-type": CONTENT_TYPE})

    async def bindings(self, _request: Request) -> Response:
        await self._view.count(only_if_quick=True)
        return JSONResponse({"bindings": [binding_json(b) for b in self._view.bindings()]})

    async def triggers(self, _request: Request) -> Response:
        return JSONResponse({"triggers": [trigger_json(t) for t in self._view.triggers()]})

    async def upcoming(self, request: Request) -> Response:
        try:
            after, number = asked(request.query_params, datetime.now(UTC))
            trigger = self._view.trigger(request.path_params["name"])
            connector = await self._view.connector(trigger.kind)
            found = upcoming(trigger, connector, after, number)
        except NotForetold as error:
            raise HTTPException(409 if error.there else 404, str(error)) from None
        except ValueError as error:
            raise BadRequest(str(error)) from None
        return JSONResponse(foretold(trigger, found))

    async def functions(self, _request: Request) -> Response:
        return JSONResponse({"functions": [function_json(f) for f in self._view.functions()]})

    async def faults(self, _request: Request) -> Response:
        return JSONResponse({"faults": [fault.as_dict() for fault in self._view.faults()]})

    async def dead_letters(self, request: Request) -> Response:
        query: dict[str, Any] = dict(request.query_params)
        after = query.pop("after", "")
        limit = query.pop("limit", "100")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= MOST_LETTERS:
            raise BadRequest(f"limit: found {limit!r}, expected 1 to {MOST_LETTERS}")
        selection = selection_of(query)
        found = await self._view.store.dead_letters.list(selection, limit=int(limit), after=after)
        return JSONResponse(
            {
                "deadLetters": [letter_json(letter, whole=False) for letter in found],
                # To be given as `after`; empty on the last page.
                "next": found[-1].id if len(found) == int(limit) else "",
            }
        )

    async def dead_letter(self, request: Request) -> Response:
        letter_id = request.path_params["id"]
        letter = await self._view.store.dead_letters.get(letter_id)
        if letter is None:
            raise HTTPException(404, f"there is no dead letter {letter_id}")
        unread = ""
        try:
            letter = await self._view.whole(letter)
        except Unreadable as error:
            unread = str(error)
        return JSONResponse(letter_json(letter, whole=True, unread=unread))

    async def purge(self, request: Request) -> Response:
        selection = _selected(await _body(request))
        deleted = await self._view.store.dead_letters.delete(selection)
        self._view.recount()
        log.info("dead_letters.purged", deleted=deleted.number, elsewhere=deleted.elsewhere)
        return JSONResponse({"deleted": deleted.number, "elsewhere": deleted.elsewhere})

    async def redrive(self, request: Request) -> Response:
        body = await _body(request)
        timeout = duration_of("timeout", body.pop("timeout", None), 30.0)
        selection = _selected(body)

        async def work(send: Callable[[Json], Awaitable[None]]) -> None:
            async def tell(redriven: Redriven) -> None:
                await send(asdict(redriven))

            try:
                await Redrive(self._view, tell).run(selection, timeout)
            except* StoreError as errors:
                await send({"error": "StoreError", "message": str(leaf(errors))})
            finally:
                self._view.recount()

        return LinesResponse(work)

    async def inboxes(self, _request: Request) -> Response:
        waiting = await self._view.store.waiting()
        bound = {name: self._view.binding(name) is not None for name in waiting}
        return JSONResponse({"inboxes": inboxes_json(waiting, bound)})

    async def purge_inbox(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            deleted = await purge(self._view, name)
        except NotPurged as error:
            raise HTTPException(409 if error.there else 404, str(error)) from None
        self._view.recount()
        log.info("inbox.purged", binding=name, deleted=deleted)
        return JSONResponse({"deleted": deleted})

    async def events(self, request: Request) -> Response:
        event_id = request.query_params.get("id", "")
        if not event_id:
            raise BadRequest("id: found nothing, expected an event's id")
        return await self._story(event_id, request.query_params.get("source", ""))

    async def event(self, request: Request) -> Response:
        # Split before decoding: sources begin with a slash and may hold more.
        raw: bytes = request.scope["raw_path"]
        source, _, event_id = raw.decode("ascii").removeprefix("/v1/events/").rpartition("/")
        return await self._story(unquote(event_id), unquote(source))

    async def emit(self, request: Request) -> Response:
        body = await _body(request)
        timeout = duration_of("timeout", body.pop("timeout", None), 10.0)
        try:
            answer = await self._emitter.emit(request.path_params["name"], body, timeout)
        except NotBound as error:
            raise HTTPException(error.status, str(error)) from None
        return JSONResponse(answer.body, answer.status)

    async def replay(self, request: Request) -> Response:
        body = await _body(request)
        wish = wish_of(body, datetime.now(UTC))
        try:
            binding = binding_of(request.path_params["name"], body, self._view)
            self._replays.check(binding.listening)
        except NotBound as error:
            raise HTTPException(error.status, str(error)) from None
        except Refused as error:
            raise HTTPException(429 if error.busy else 409, str(error)) from None

        async def work(send: Callable[[Json], Awaitable[None]]) -> None:
            try:
                await stream(self._replays, binding, wish, send)
            finally:
                self._view.recount()

        return LinesResponse(work)

    async def _story(self, event_id: str, source: str) -> Response:
        found = await self._view.dispatcher.deliveries(event_id, source)
        if not found:
            raise HTTPException(
                404,
                f"nothing is known of event {event_id}: the hub keeps the latest thousand "
                "deliveries of each binding, and for a day those that did not go well at once",
            )
        return JSONResponse({"deliveries": [delivery_json(delivery) for delivery in found]})


@asynccontextmanager
async def serve(view: View, settings: Settings, replays: Replays) -> AsyncIterator[str]:
    """The admin API, for as long as it is entered; yields its address.

    Raises OSError with one sentence where it cannot be opened to anyone, or must not be.
    """
    front = open_front(settings.admin, settings.admin_token_file)
    view.address = front.address
    async with asyncio.TaskGroup() as tasks:
        emitter = Emitter(view, tasks)
        routes = Api(view, emitter, replays).routes()
        watching = tasks.create_task(view.watch())
        async with front.serving(routes, {BadRequest: _bad_request, StoreError: _store_error}):
            if not settings.worker:
                log.info("admin.listening", url=f"http://{view.address}")
            try:
                yield view.address
            finally:
                emitter.stop()
        watching.cancel()


async def _body(request: Request) -> dict[str, Any]:
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > LARGEST_BODY:
            raise HTTPException(413, f"the body is larger than {LARGEST_BODY} bytes")
    try:
        body = json.loads(bytes(raw) or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body: expected a JSON object")
    return body


def _selected(body: dict[str, Any]) -> Selection:
    """What a redrive or purge means: a selection, or all of them when that is said."""
    everything = body.pop("all", False)
    if not isinstance(everything, bool):
        raise BadRequest("all: expected true or false")
    selection = selection_of(body)
    if everything and not selection.empty:
        raise BadRequest("found all and a selection, expected one of them")
    if not everything and selection.empty:
        raise BadRequest(
            'nothing is selected: give ids, trigger, function, reason, olderThan, or {"all": true}'
        )
    return selection


async def _bad_request(_request: Request, error: Exception) -> Response:
    return refusal(400, "BadRequest", str(error))


async def _store_error(_request: Request, error: Exception) -> Response:
    return refusal(503, "StoreError", str(error))
