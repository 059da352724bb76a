"""The admin API of a hub with workers: the same routes and shapes, answered by all or by one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from triggerhub.admin.server import LinesResponse, SendLine
from triggerhub.workers.asking import Answer, Broken, NotAsked, asked
from triggerhub.workers.figures import Figures, figures_text, read_figures, with_states
from triggerhub.workers.fleet import Fleet
from triggerhub.workers.rows import (
    Row,
    Told,
    merged_bindings,
    merged_deliveries,
    merged_faults,
    merged_functions,
    merged_triggers,
)

LARGEST_BODY = 16 * 1024 * 1024

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class Api:
    """The routes' handlers over a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)

    def routes(self) -> list[Route]:
        """What all workers answer together, and what any one of them does."""
        return [
            Route("/healthz", self.healthz),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
            Route("/v1/bindings", self._merging("bindings", merged_bindings)),
            Route("/v1/triggers", self._merging("triggers", merged_triggers)),
            Route("/v1/functions", self._merging("functions", merged_functions)),
            Route("/v1/faults", self._merging("faults", merged_faults)),
            Route("/v1/events", self.events),
            Route("/v1/events/{rest:path}", self.events),
            Route("/{rest:path}", self.pass_on, methods=_METHODS),
        ]

    async def healthz(self, _request: Request) -> Response:
        ill = await self._fleet.ill()
        return PlainTextResponse(_lines(ill) or "ok\n", 503 if ill else 200)

    async def readyz(self, _request: Request) -> Response:
        await self._fleet.look()
        waits = self._fleet.waits()
        text = _lines(waits) or _lines(["ready", *self._fleet.notes()])
        return PlainTextResponse(text, 503 if waits else 200)

    async def metrics(self, _request: Request) -> Response:
        told = await self._fleet.told("/v1/bindings", "bindings")
        await self._fleet.look()
        figures = self._fleet.total(self._own())
        states = Counter(str(row["state"]) for row in merged_bindings(told))
        text = figures_text(with_states(figures, states))
        return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    async def events(self, request: Request) -> Response:
        told = await self._fleet.told(_target(request), "deliveries")
        if not told:
            # Nobody knows of it, or the question makes no sense: each says so in the same words.
            return await self.pass_on(request)
        return JSONResponse({"deliveries": merged_deliveries(told)})

    async def pass_on(self, request: Request) -> Response:
        """What one worker answers: they share one store."""
        body = await _body(request)
        for worker in self._fleet.running:
            stack = AsyncExitStack()
            try:
                answer = await stack.enter_async_context(
                    asked(worker.place, request.method, _target(request), body)
                )
                if answer.kind.startswith(LinesResponse.media_type):
                    return LinesResponse(_passing(answer, stack.pop_all()))
                found = await answer.whole()
                return Response(found, answer.status, media_type=answer.kind)
            except NotAsked:
                continue
            except Broken as error:
                if request.method != "GET":
                    raise HTTPException(503, f"{_name(worker.number)}: {error}") from None
            finally:
                await stack.aclose()
        raise self._nobody()

    def _merging(self, name: str, merged: Callable[[Told], list[Row]]) -> Callable[..., Any]:
        async def handler(request: Request) -> Response:
            told = await self._fleet.told(_target(request), name)
            if not told:
                raise self._nobody()
            return JSONResponse({name: merged(told)})

        return handler

    def _nobody(self) -> HTTPException:
        waits = self._fleet.waits() or ["no worker answers"]
        return HTTPException(503, f"nobody can say now: {waits[0]}")

    def _own(self) -> Figures:
        return read_figures(generate_latest(self._process).decode())


def _passing(answer: Answer, stack: AsyncExitStack) -> Callable[[SendLine], Any]:
    """Send each line as it comes; ``stack`` holds the connection that they come on."""

    async def work(send: SendLine) -> None:
        async with stack:
            try:
                async for line in answer.lines():
                    await send(json.loads(line))
            except Broken as error:
                await send({"error": "WorkerGone", "message": str(error)})

    return work


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"the body is larger than {LARGEST_BODY} bytes")
    return bytes(body)


def _target(request: Request) -> str:
    """Path and query as they came."""
    path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _name(number: int) -> str:
    return f"worker {number}"


def _lines(texts: list[str]) -> str:
    return "".join(f"{text}\n" for text in texts)
