"""Serves one function: each HTTP request becomes a call of its handler.

The one file stands alone: it needs the standard library and uvicorn with httptools, and never
imports the hub, so that it runs as ``python -P runtime.py`` inside a function's own environment.

A handler has the signature ``handler(event, context)``, plain or ``async``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import faulthandler
import importlib
import inspect
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

import uvicorn

Handler = Callable[["Event", "Context"], Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

EXIT_CODE_ERROR = 65  # EX_DATAERR of sysexits.h
EXIT_STUCK = 75  # EX_TEMPFAIL: starting again helps

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_ATTRIBUTES = frozenset(("id", "source", "type", "subject", "time", "partitionkey"))
_CONNECTION_FIELDS = frozenset(("connection", "content-length", "keep-alive", "transfer-encoding"))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_LINE = 1000
_GRACE_WITHOUT_PARENT = 5.0
_GRACE_AFTER_CANCEL = 1.0
_KEEP_ALIVE = 300  # seconds; a caller's pool should give up idle connections first


class Headers(Mapping[str, str]):
    """A request's header fields by name, whatever its case. A repeated field reads as one,
    joined by commas (RFC 9110, section 5.3); ``get_all`` has them apart."""

    __slots__ = ("_fields",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in raw:
            self._fields.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._fields[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, in order; empty when there is none."""
        return list(self._fields.get(name.lower(), ()))


class Query(dict[str, list[str]]):
    """The query as decoded lists of values; ``raw`` is what stood after the question mark."""

    def __init__(self, raw: str) -> None:
        super().__init__(parse_qs(raw, keep_blank_values=True) if raw else {})
        self.raw = raw


# What Kubeless' Python runtime called them.
_OLD_NAMES = {
    "event-id": "id",
    "event-type": "type",
    "event-time": "time",
    "event-namespace": "source",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Event(Mapping[str, Any]):
    """What the handler is given: ``event.data`` and ``event["data"]`` are the same.

    The names are those of CloudEvents; a plain HTTP request has None for what it lacks. Item
    access also knows ``event-id``, ``event-type``, ``event-time`` and ``event-namespace``: the
    header of that name, else id, type, time (as text) and source.
    """

    data: Any
    """Parsed for JSON content types, text for ``text/*``, else bytes; None without a body."""
    id: str | None = None
    source: str | None = None
    type: str | None = None
    subject: str | None = None
    time: datetime | None = None
    key: str | None = None
    """What order means for this event: the attribute ``partitionkey``."""
    datacontenttype: str | None = None
    extensions: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1
    """Counts from 1; more than 1 says that the hub sends this event again."""
    body: bytes = field(default=b"", repr=False)
    headers: Headers = field(repr=False)
    method: str = "POST"
    path: str = "/"
    """Below the function's own path, percent-decoded."""
    query: Query

    def __getitem__(self, name: str) -> Any:
        if name in _OLD_NAMES:
            header = self.headers.get(name)
            value = getattr(self, _OLD_NAMES[name]) if header is None else header
            return value.isoformat() if isinstance(value, datetime) else value
        if name in _FIELDS:
            return getattr(self, name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)


_FIELDS = tuple(each.name for each in fields(Event))


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """About this call: ``context.function_name``, or ``context["function-name"]``."""

    function_name: str
    namespace: str
    timeout: float
    """Seconds that a call may take."""
    deadline: datetime
    """When this call's time is up, in UTC."""
    logger: logging.Logger
    trace: str | None
    """The request's ``traceparent`` (W3C Trace Context), to be passed on."""
    runtime: str = f"python{sys.version_info.major}.{sys.version_info.minor}"
    memory_limit: str | None = None

    def __getitem__(self, name: str) -> Any:
        attribute = name.replace("-", "_")
        if attribute in self.__slots__:
            return getattr(self, attribute)
        raise KeyError(name)


class BadRequestError(ValueError):
    """The request does not hold what it says; the message is the answer's body."""


def decode(scope: Mapping[str, Any], path: str, body: bytes) -> Event:
    """Read an event from a request in binary or structured mode, or a plain request
    (CloudEvents HTTP protocol binding 1.0.2, section 3). Raises ``BadRequestError``."""
    headers = Headers(scope["headers"])
    content_type = headers.get("content-type")
    media, _ = _media_type(content_type)
    attributes: dict[str, Any]
    if media == "application/cloudevents+json":
        attributes = _structured(body)
        content_type = attributes.pop("datacontenttype", None)
        data = _structured_data(attributes, content_type)
    else:
        attributes = {
            name.decode("latin-1")[3:]: _decode_header(value)
            for name, value in scope["headers"]
            if name.startswith(b"ce-")
        }
        data = _decode_data(body, content_type)
    attributes.pop("specversion", None)
    attempt = headers.get("triggerhub-attempt", "1")
    return Event(
        data=data,
        id=attributes.get("id"),
        source=attributes.get("source"),
        type=attributes.get("type"),
        subject=attributes.get("subject"),
        time=_time(attributes.get("time")),
        key=attributes.get("partitionkey"),
        datacontenttype=content_type,
        extensions={k: v for k, v in attributes.items() if k not in _ATTRIBUTES},
        attempt=int(attempt) if attempt.isdecimal() else 1,
        body=body,
        headers=headers,
        method=scope["method"],
        path=path,
        query=Query(scope["query_string"].decode("latin-1")),
    )


def _media_type(content_type: str | None) -> tuple[str, str | None]:
    """The type in lower case, and its charset."""
    if content_type is None:
        return "", None
    media, *parameters = content_type.split(";")
    charset = None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"')
    return media.strip().lower(), charset


def _decode_header(value: bytes) -> str:
    """CloudEvents HTTP protocol binding 1.0.2, section 3.1.3.2: quoted strings, then a single
    round of percent-decoding."""
    if len(value) > 1 and value.startswith(b'"') and value.endswith(b'"'):
        value = re.sub(rb"\\(.)", rb"\1", value[1:-1])
    if b"%" in value:
        value = unquote_to_bytes(value)
    return value.decode("utf-8", "replace")


def _decode_data(body: bytes, content_type: str | None) -> Any:
    media, charset = _media_type(content_type)
    json_type = media.endswith(("/json", "+json"))
    if not body and (json_type or not media):
        return None
    if not json_type and not media.startswith("text/"):
        return body
    try:
        if not json_type:
            return body.decode(charset or "utf-8")
        # Without a charset json.loads tells UTF-8, 16 and 32 apart.
        return json.loads(body.decode(charset) if charset else body)
    except (ValueError, LookupError, RecursionError) as error:
        raise BadRequestError(
            f"content-type is {content_type}, but the body is not: {one_line(error)}"
        ) from error


def _structured(body: bytes) -> dict[str, Any]:
    try:
        attributes = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"not a CloudEvent in JSON: {one_line(error)}") from error
    if not isinstance(attributes, dict):
        raise BadRequestError(
            f"not a CloudEvent in JSON: found {type(attributes).__name__}, expected an object"
        )
    for name in ("id", "source", "type", "subject", "time", "datacontenttype", "partitionkey"):
        if not isinstance(attributes.get(name), str | None):
            raise BadRequestError(
                f"attribute {name} of the CloudEvent is {attributes[name]!r}, expected text"
            )
    return attributes


def _structured_data(attributes: dict[str, Any], content_type: str | None) -> Any:
    """CloudEvents JSON format 1.0.2, section 3.1.1."""
    encoded = attributes.pop("data_base64", None)
    data = attributes.pop("data", None)
    if encoded is not None:
        try:
            return _decode_data(base64.b64decode(encoded, validate=True), content_type)
        except (ValueError, TypeError) as error:
            if isinstance(error, BadRequestError):
                raise
            raise BadRequestError(f"data_base64 of the CloudEvent: {one_line(error)}") from error
    media, _ = _media_type(content_type)
    if isinstance(data, str) and media and not media.endswith(("/json", "+json")):
        return data if media.startswith("text/") else data.encode("utf-8", "surrogatepass")
    return data


def _time(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise BadRequestError(f"time of the CloudEvent is {value!r}, expected RFC 3339") from error


class Answer(NamedTuple):
    """What goes back: ``failed`` is what the failure counter counts."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    failed: bool = False


def refuse(status: int, reason: str, *headers: tuple[bytes, bytes]) -> Answer:
    """An answer that the function did not give."""
    content_type = (b"content-type", b"text/plain; charset=utf-8")
    return Answer(status, reason.encode("utf-8", "replace"), (content_type, *headers), failed=True)


def encode(result: Any) -> Answer:
    """A handler's return value as an answer. Raises TypeError or ValueError for what is none.

    None is 204; text, bytes and JSON values are 200; ``(status, body)`` and ``(status, body,
    headers)`` set the status, with headers as a mapping or as pairs.
    """
    if result is None:
        return Answer(204)
    if not isinstance(result, tuple):
        content_type, body = _encode_body(result)
        return Answer(200, body, ((b"content-type", content_type),))
    if len(result) not in (2, 3):
        raise TypeError(
            f"a tuple of {len(result)} was returned, "
            "expected (status, body) or (status, body, headers)"
        )
    status, value, *rest = result
    if type(status) is bool or not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"status {status!r} was returned, expected a number from 200 to 599")
    headers = _encode_headers(rest[0]) if rest and rest[0] is not None else []
    body = b""
    if value is not None:
        content_type, body = _encode_body(value)
        if all(name != b"content-type" for name, _ in headers):
            headers.append((b"content-type", content_type))
    return Answer(int(status), body, tuple(headers), failed=status >= 500)


def _encode_body(value: Any) -> tuple[bytes, bytes]:
    if isinstance(value, str):
        return b"text/plain; charset=utf-8", value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return b"application/octet-stream", bytes(value)
    if inspect.isawaitable(value):
        raise TypeError(f"{type(value).__name__} was returned: declare the handler async def")
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return b"application/json", text.encode()


def _encode_headers(headers: Any) -> list[tuple[bytes, bytes]]:
    encoded = []
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"header name {name!r} was returned, expected an HTTP field name")
        text = str(value)
        if any(character in text for character in "\r\n\0"):
            raise ValueError(f"the value of header {name} has a line break in it")
        if name.lower() not in _CONNECTION_FIELDS:
            encoded.append((name.lower().encode(), text.encode("latin-1")))
    return encoded


def one_line(error: BaseException) -> str:
    """``ValueError: no such order``."""
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    text = " ".join(said.split())[:_LINE]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Metrics:
    """Calls, failures and durations by method, as Prometheus text (exposition format 0.0.4)."""

    def __init__(self, namespace: str, name: str) -> None:
        self._labels = f'namespace="{namespace}",function="{name}"'
        self._calls: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._buckets: dict[str, list[int]] = {}

    def count(self, method: str, seconds: float, failed: bool) -> None:
        method = method if method in _METHODS else "other"  # callers choose it: bounded
        self._calls[method] = self._calls.get(method, 0) + 1
        self._failures[method] = self._failures.get(method, 0) + failed
        self._seconds[method] = self._seconds.get(method, 0.0) + seconds
        buckets = self._buckets.setdefault(method, [0] * len(_BUCKETS))
        for index, bound in enumerate(_BUCKETS):
            if seconds <= bound:
                buckets[index] += 1

    def render(self) -> str:
        lines = []
        for name, text, values in (
            ("function_calls_total", "Calls of the function.", self._calls),
            ("function_failures_total", "Calls that ended in an error.", self._failures),
        ):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} counter"]
            lines += [f"{name}{{{self._of(method)}}} {n}" for method, n in values.items()]
        name = "function_duration_seconds"
        lines += [f"# HELP {name} How long calls took.", f"# TYPE {name} histogram"]
        for method, buckets in self._buckets.items():
            labels = self._of(method)
            bounds = [*zip(_BUCKETS, buckets, strict=True), ("+Inf", self._calls[method])]
            lines += [f'{name}_bucket{{{labels},le="{bound}"}} {n}' for bound, n in bounds]
            lines.append(f"{name}_sum{{{labels}}} {self._seconds[method]!r}")
            lines.append(f"{name}_count{{{labels}}} {self._calls[method]}")
        return "\n".join(lines) + "\n"

    def _of(self, method: str) -> str:
        return f'{self._labels},method="{method}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line, decoded; durations in seconds, sizes in bytes."""

    code: Path
    handler: str
    namespace: str
    name: str
    path: str
    host: str
    port: int
    timeout: float
    concurrency: int
    max_body: int
    stall: float
    report_fd: int | None
    parent_on_stdin: bool


class Runtime:
    """The ASGI application: one handler, so many calls at once, each within its time limit."""

    def __init__(self, handler: Handler, options: Options, *, stuck: Callable[[str], None]) -> None:
        """``stuck`` is called, with the reason, when no call can ever be taken again."""
        self._handler = handler
        self._async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - the method, not whether there is one
        )
        self._options = options
        self._path = options.path.rstrip("/")
        self._slots = asyncio.Semaphore(options.concurrency)
        self._pool = ThreadPoolExecutor(options.concurrency, thread_name_prefix="function")
        self._stuck = stuck
        self._logger = logging.getLogger(f"{options.namespace}/{options.name}")
        self.metrics = Metrics(options.namespace, options.name)
        self.overdue: set[asyncio.Future[Answer]] = set()
        """Calls that go on after their time limit; each keeps its slot until it ends."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith("/_triggerhub/"):
            await self._send(scope, send, self._own(path))
            return
        below = path.removeprefix(self._path)
        if not path.startswith(self._path) or below[:1] not in ("", "/"):
            # Away rather than wrong: this port may have belonged to another function before.
            name = f"{self._options.namespace}/{self._options.name}"
            await self._send(scope, send, refuse(503, f"here is {name}, at {self._path}"))
            return
        try:
            body = await self._receive(receive)
        except ConnectionAbortedError:
            return
        began = time.perf_counter()
        answer = await self._answer(scope, below or "/", body, receive)
        if answer is None:
            return
        self.metrics.count(scope["method"], time.perf_counter() - began, answer.failed)
        await self._send(scope, send, answer)

    def _own(self, path: str) -> Answer:
        """``/_triggerhub/healthz`` and ``/_triggerhub/metrics``."""
        if path == "/_triggerhub/healthz":
            return Answer(200, b"OK", ((b"content-type", b"text/plain; charset=utf-8"),))
        if path == "/_triggerhub/metrics":
            content_type = b"text/plain; version=0.0.4; charset=utf-8"
            text = self.metrics.render().encode()
            return Answer(200, text, ((b"content-type", content_type),))
        return refuse(404, f"{path} is not an endpoint of the runtime")

    async def _receive(self, receive: Receive) -> bytes | None:
        """The whole body; None when it is too long. Raises ``ConnectionError`` when the caller
        went away."""
        limit = self._options.max_body
        chunks: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ConnectionAbortedError
            chunk: bytes = message.get("body", b"")
            length += len(chunk)
            if length > limit:
                # Read on to the end, keeping nothing: who is still sending may not hear an
                # answer, and would take the closed connection for an outage.
                chunks.clear()
            else:
                chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks) if length <= limit else None

    async def _answer(
        self, scope: Mapping[str, Any], path: str, body: bytes | None, receive: Receive
    ) -> Answer | None:
        if body is None:
            return refuse(413, f"the body is larger than {self._options.max_body} bytes")
        try:
            event = decode(scope, path, body)
        except BadRequestError as error:
            return refuse(400, str(error))
        if self._slots.locked():
            busy = await self._wait_for_slot(receive)
            if busy is not None:
                return busy if busy.status else None
        else:
            await self._slots.acquire()
        return await self._call(event)

    async def _wait_for_slot(self, receive: Receive) -> Answer | None:
        """None: there is a slot. An answer of status 0: the caller went away meanwhile."""
        seconds = self._options.timeout
        gone = asyncio.ensure_future(receive())
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            reason = f"all {self._options.concurrency} calls at once were busy for {seconds:g} s"
            return refuse(503, reason, (b"retry-after", b"1"))
        finally:
            gone.cancel()
        if gone.done() and not gone.cancelled():
            self._slots.release()
            return Answer(0)
        return None

    async def _call(self, event: Event) -> Answer:
        """Call the handler; the slot is given back when the call really ended."""
        seconds = self._options.timeout
        context = Context(
            function_name=self._options.name,
            namespace=self._options.namespace,
            timeout=seconds,
            deadline=datetime.now(UTC) + timedelta(seconds=seconds),
            logger=self._logger,
            trace=event.headers.get("traceparent"),
        )
        call: asyncio.Future[Answer]
        if self._async:
            call = asyncio.create_task(self._run_async(event, context))
        else:
            call = asyncio.wrap_future(self._pool.submit(self._run, event, context))
        call.add_done_callback(self._ended)
        done, _ = await asyncio.wait((call,), timeout=seconds)
        if done:
            return refuse(500, "CancelledError") if call.cancelled() else call.result()
        late = f"no result within the time limit of {seconds:g} s"
        if isinstance(call, asyncio.Task):
            call.cancel(late)
            await asyncio.wait((call,), timeout=_GRACE_AFTER_CANCEL)
        if not call.done():
            self.overdue.add(call)
            if len(self.overdue) == self._options.concurrency:
                self._stuck(f"all {len(self.overdue)} calls at once are past {seconds:g} s")
        sys.stderr.write(f"{late}: event {event.id}\n")
        return refuse(408, late)

    def _ended(self, call: asyncio.Future[Answer]) -> None:
        self.overdue.discard(call)
        self._slots.release()

    def _run(self, event: Event, context: Context) -> Answer:
        try:
            return encode(self._handler(event, context))
        except BaseException as error:  # noqa: BLE001 - whatever a function raises is its answer
            return _raised(error)

    async def _run_async(self, event: Event, context: Context) -> Answer:
        try:
            return encode(await self._handler(event, context))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - as above; sys.exit would end the loop
            return _raised(error)

    async def _send(self, scope: Mapping[str, Any], send: Send, answer: Answer) -> None:
        headers = list(answer.headers)
        if answer.status not in (204, 304):  # RFC 9110, section 8.6
            headers.append((b"content-length", b"%d" % len(answer.body)))
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        body = b"" if scope["method"] == "HEAD" or answer.status in (204, 304) else answer.body
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _raised(error: BaseException) -> Answer:
    """The traceback goes to stderr, from the handler's own frame on; one line is the answer."""
    trace = error.__traceback__
    own = trace.tb_next if trace is not None else None
    traceback.print_exception(type(error), error, own or trace)
    return refuse(500, one_line(error))


class LoadError(Exception):
    """The handler cannot be had from the code."""

    def __init__(self, message: str, file: str = "", line: int = 0, *, lasting: bool = True):
        """``lasting``: the same code will never load, however often it is tried."""
        super().__init__(message)
        self.report = {"message": message, "file": file, "line": line, "lasting": lasting}


def load(directory: Path, handler: str) -> Handler:
    """Import the handler. Raises ``LoadError``."""
    module_name, _, function_name = handler.rpartition(".")
    top = module_name.partition(".")[0]
    own = (directory / f"{top}.py", directory / top / "__init__.py")
    if (top in sys.stdlib_module_names or top in sys.modules) and any(p.is_file() for p in own):
        raise LoadError(f"the name {top} belongs to a module of Python or the runtime: rename it")
    sys.path.insert(0, str(directory))
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # the function's module may raise anything, SystemExit too
        file, line = _place(error, directory)
        trace: TracebackType | None = error.__traceback__
        traceback.print_exception(type(error), error, _below_import(trace, directory))
        lasting = isinstance(error, SyntaxError | ImportError)
        raise LoadError(one_line(error), file, line, lasting=lasting) from error
    found = getattr(module, function_name, None)
    file = _relative(getattr(module, "__file__", None) or "", directory)
    if found is None:
        raise LoadError(f"{module_name} has no {function_name}, which the handler names", file)
    if not callable(found):
        raise LoadError(f"{handler} is {type(found).__name__}, expected a function", file)
    try:
        signature = inspect.signature(found)
    except ValueError:
        return found  # type: ignore[no-any-return]
    try:
        signature.bind(None, None)
    except TypeError as error:
        line = getattr(getattr(found, "__code__", None), "co_firstlineno", 0)
        message = f"{handler} takes {signature}, expected (event, context)"
        raise LoadError(message, file, line) from error
    return found  # type: ignore[no-any-return]


def _relative(file: str, directory: Path) -> str:
    try:
        return str(Path(file).relative_to(directory))
    except ValueError:
        return ""


def _below_import(trace: TracebackType | None, directory: Path) -> TracebackType | None:
    """Without the frames of the import system."""
    while trace is not None and not _relative(trace.tb_frame.f_code.co_filename, directory):
        trace = trace.tb_next
    return trace


def _place(error: BaseException, directory: Path) -> tuple[str, int]:
    """File and line: of the syntax error, else the innermost frame in the function's code."""
    if isinstance(error, SyntaxError) and error.filename:
        return _relative(error.filename, directory) or error.filename, error.lineno or 0
    place = ("", 0)
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = _relative(frame.f_code.co_filename, directory)
        place = (file, line) if file else place
    return place


class Reporter:
    """Tells the parent, on a pipe of its own, what became of the start: one JSON line."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def tell(self, **report: Any) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._descriptor, json.dumps(report).encode() + b"\n")
            os.close(self._descriptor)
            self._descriptor = None


class Server(uvicorn.Server):
    """uvicorn, with a stop that exits with 0 and a watch on the event loop."""

    def __init__(self, config: uvicorn.Config, reporter: Reporter, stall: float) -> None:
        super().__init__(config)
        self._reporter = reporter
        self._stall = stall

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn raises the signal again when it is done, which would be the exit code."""
        yield

    def stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        self._reporter.tell(ready={"port": sockets[0].getsockname()[1]})

    async def on_tick(self, counter: int) -> bool:
        # A handler that blocks the event loop, or holds the interpreter's lock, stops every
        # call and every time limit. This thread needs neither: it writes where all threads
        # are and ends the process, to be started again.
        if counter % 10 == 0:
            faulthandler.dump_traceback_later(self._stall, exit=True)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        faulthandler.cancel_dump_traceback_later()
        await super().shutdown(sockets)


class Parent:
    """Notices that the process which holds the other end of stdin has died."""

    def __init__(self) -> None:
        self.gone: Callable[[], object] | None = None
        self._pipe = os.dup(0)
        # The function, and what it starts, must find nothing there.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        threading.Thread(target=self._watch, name="parent", daemon=True).start()

    def _watch(self) -> None:
        while os.read(self._pipe, 1024):
            pass
        # RuntimeError: the loop is closed, and what holds up the end is not ours to wait for.
        with contextlib.suppress(RuntimeError):
            if self.gone is not None:
                self.gone()
                time.sleep(_GRACE_WITHOUT_PARENT)
        os._exit(1)


async def serve(
    handler: Handler, options: Options, reporter: Reporter, parent: Parent | None
) -> int:
    """Serve until told to stop; returns the exit code."""
    loop = asyncio.get_running_loop()
    exit_code = 0

    def stuck(reason: str) -> None:
        nonlocal exit_code
        sys.stderr.write(f"{reason}; exiting, to be started again\n")
        exit_code = EXIT_STUCK
        server.stop()
        # The answer that is just being written gets through; nothing else can be saved.
        loop.call_later(1.0, os._exit, EXIT_STUCK)

    runtime = Runtime(handler, options, stuck=stuck)
    config = uvicorn.Config(
        runtime,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    server = Server(config, reporter, options.timeout + options.stall)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    if parent is not None:
        parent.gone = partial(loop.call_soon_threadsafe, server.stop)
    with socket.create_server((options.host, options.port), backlog=2048) as listening:
        await server.serve([listening])
    if runtime.overdue:
        # Their threads would keep the interpreter from ending.
        sys.stdout.flush()
        os._exit(exit_code)
    return exit_code


def parse(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--code", type=Path, required=True, help="folder of the function's files")
    parser.add_argument("--handler", required=True, help="<module>.<function>")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--name", default="function")
    parser.add_argument("--path", default="/", help="path under which the function answers")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one call")
    parser.add_argument("--concurrency", type=int, default=32, help="calls at once")
    parser.add_argument("--max-body", type=int, default=100 << 20, help="bytes")
    parser.add_argument("--stall", type=float, default=5.0, help="seconds beyond the time limit")
    parser.add_argument("--report-fd", type=int, help="where to tell the parent of the start")
    parser.add_argument("--parent-on-stdin", action="store_true", help="end when stdin does")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> int:
    options = parse()
    faulthandler.enable()
    reporter = Reporter(options.report_fd)
    parent = Parent() if options.parent_on_stdin else None
    try:
        handler = load(options.code.resolve(), options.handler)
    except LoadError as error:
        sys.stderr.write(f"{error}\n")
        reporter.tell(failed=error.report)
        return EXIT_CODE_ERROR
    # After the import: a function that configured logging itself keeps its own.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return asyncio.run(serve(handler, options, reporter, parent))


if __name__ == "__main__":
    sys.exit(main())
