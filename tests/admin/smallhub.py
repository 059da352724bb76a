"""A small hub under its admin API: the real dispatcher and store, a memory of manifests, and a
function server that answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import Metric

from tests.plugins.triggerhub_cellar import CellarConnector
from triggerhub.admin.api import serve
from triggerhub.admin.states import key_of
from triggerhub.admin.view import View
from triggerhub.connector import Connector, Installation, Letter, Order, Subscription
from triggerhub.control.binding import Binding, Listening
from triggerhub.control.replays import Replays
from triggerhub.control.report import SourceState
from triggerhub.control.resources import (
    Function,
    FunctionReference,
    Snapshot,
    Trigger,
    TriggerSpec,
)
from triggerhub.control.services import Reach
from triggerhub.control.status import BoundFunction, Condition, State, TriggerStatus
from triggerhub.delivery.dispatcher import Dispatcher
from triggerhub.delivery.retry import Policy
from triggerhub.delivery.target import Target
from triggerhub.delivery.transport import Transport
from triggerhub.event import Event, Origin
from triggerhub.settings import Settings
from triggerhub.store.records import DeadLetter, Elsewhere, Selection
from triggerhub.store.sqlite import SQLiteStore
from triggerhub.store.ulid import new_ulid
from triggerhub.testing.fakes import MemoryIntake, MemoryPositions, subscription
from triggerhub.testing.memory import MemoryConnector, MemoryLog, MemorySource


async def until(fact: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a condition, bounded in time."""
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(0.005)


@dataclass
class FunctionServer:
    """Answers each POST with what ``answer`` says of its id."""

    status: dict[str, int] = field(default_factory=dict)
    default: int = 200
    body: bytes = b""
    seen: list[tuple[str, bytes]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    pause: float = 0.0
    busy: int = 0
    most: int = 0
    """So many requests were under way at once."""
    url: str = ""
    server: asyncio.Server | None = None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line
                )
                data = await reader.readexactly(int(fields.get("content-length", "0")))
                event = fields.get("ce-id", "").upper()
                self.seen.append((event, data))
                if self.hold is not None:
                    await self.hold.wait()
                self.busy += 1
                self.most = max(self.most, self.busy)
                await asyncio.sleep(self.pause)
                self.busy -= 1
                status = self.status.get(event, self.default)
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-length: {len(self.body)}\r\n\r\n".encode()
                    + self.body
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@dataclass
class Manifests:
    """Stands in for the reconciler."""

    bindings: list[Binding] = field(default_factory=list)
    snapshot: Snapshot | None = field(default_factory=Snapshot)
    is_ready: bool = True
    unbound: list[TriggerStatus] = field(default_factory=list)

    def ready(self) -> bool:
        return self.is_ready

    def functions(self) -> list[tuple[Function, Reach]]:
        found = () if self.snapshot is None else self.snapshot.functions
        return [(f, Reach(f.spec.url, "Ready" if f.spec.url else "Starting")) for f in found]

    def status(self) -> list[TriggerStatus]:
        bound: dict[tuple[str, str, str], list[str]] = {}
        for binding in self.bindings:
            half = binding.listening
            bound.setdefault((half.kind, half.namespace, half.trigger), []).append(binding.name)
        return [
            status(*key, tuple(names), Condition("Ready", State.TRUE, "Ready"))
            for key, names in bound.items()
        ] + self.unbound


def status(
    kind: str, namespace: str, name: str, bindings: tuple[str, ...], ready: Condition
) -> TriggerStatus:
    return TriggerStatus(
        kind=kind,
        namespace=namespace,
        name=name,
        created=datetime.now(UTC),
        observed_generation=1,
        conditions=(ready,),
        functions=tuple(BoundFunction(key_of(name)[2], "http://f.test/") for name in bindings),
    )


@dataclass
class Sources:
    """Stands in for the listeners."""

    states: dict[str, SourceState] = field(default_factory=dict)
    logs: dict[str, MemoryLog] = field(default_factory=dict)
    """What a replay reads, by the trigger's name."""
    connectors: dict[str, Any] = field(default_factory=dict)
    """By kind."""
    dispatcher: Dispatcher | None = None
    cellar: CellarConnector = field(default_factory=lambda: CellarConnector(Installation()))

    def state(self, name: str) -> SourceState | None:
        return self.states.get(name)

    async def connector(self, kind: str) -> Any:
        return self.connectors.get(kind) or MemoryConnector(self.logs)

    def subscription(self, listening: Listening, state: SourceState) -> Subscription[Any]:
        assert self.dispatcher is not None
        return Subscription(
            name=listening.name, namespace=listening.namespace, trigger=listening.trigger,
            function=listening.function, source=listening.source, order=listening.order,
            emit=self.dispatcher.link(listening.name), in_flight=listening.in_flight, grace=1.0,
            positions=MemoryPositions(), inbox=MemoryIntake(), report=state,
            created=listening.created,
        )  # fmt: skip

    async def reach(self, listening: Listening) -> tuple[Connector[Any], Subscription[Any]]:
        return self.cellar, subscription(listening.source, name=listening.name)


@dataclass(frozen=True)
class Code:
    url: str | None = None
    reason: str = "Starting"
    message: str = ""


@dataclass
class CodeFunctions:
    """Stands in for the code functions' processes."""

    families: list[Metric] = field(default_factory=list)

    def state(self, namespace: str, name: str) -> Code:
        return Code()

    async def metrics(self) -> Sequence[Metric]:
        return self.families


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class SmallHub:
    view: View
    store: SQLiteStore
    dispatcher: Dispatcher
    manifests: Manifests
    sources: Sources
    code: CodeFunctions
    function: FunctionServer
    replays: Replays

    def bind(self, trigger: str = "orders", function: str = "handle", **target: Any) -> str:
        """Join a trigger to the function server; returns the binding's name."""
        made = Target(
            namespace="shop",
            trigger=trigger,
            function=function,
            url=target.pop("url", self.function.url),
            retry=target.pop("retry", Policy(attempts=2, initial=0.001, max=0.002)),
            **target,
        )
        listening = Listening(
            name=made.name,
            kind="KafkaTrigger",
            namespace="shop",
            trigger=trigger,
            function=function,
            source=MemorySource(log=trigger),
            order=Order.KEY,
            in_flight=64,
            created=datetime.now(UTC),
        )
        spec = TriggerSpec(function=FunctionReference(name=function))
        of = Trigger(
            kind="KafkaTrigger", namespace="shop", name=trigger, labels={}, generation=1,
            created=listening.created, spec=spec, source=listening.source,
        )  # fmt: skip
        self.manifests.bindings.append(
            Binding(listening=listening, target=made, paused=False, trigger=of)
        )
        self.dispatcher.rebind(binding.target for binding in self.manifests.bindings)
        self.sources.states[made.name] = SourceState(attached=True)
        return made.name

    async def bury(
        self, trigger: str = "orders", *, event_id: str = "", key: str | None = None
    ) -> DeadLetter:
        """Store a dead letter of a binding."""
        letter = DeadLetter(
            id=new_ulid(),
            namespace="shop",
            trigger=trigger,
            function="handle",
            event=Event(
                id=event_id or new_ulid(),
                source="/kafka/orders",
                type="t",
                data=b"\xff\x00",
                key=key,
            ),
            origin=Origin(coordinates={"topic": "orders"}, key=b"\xfe", headers=(("h", None),)),
            reason="Rejected",
            detail="status 422",
            last_status=422,
            last_response=b"no such order",
            attempts=1,
            first_time=1_700_000_000.0,
            last_time=1_700_000_001.5,
        )
        await self.store.dead_letters.add(letter)
        return letter

    async def lay_down(self, trigger: str = "orders", *, event_id: str = "7") -> DeadLetter:
        """Store a dead letter of a binding elsewhere; what the hub's own store has of it."""
        letter = await self.bury(trigger, event_id=event_id)
        await self.store.dead_letters.delete(Selection(ids=(letter.id,)))
        own = Letter(id=letter.id, event=letter.event, origin=letter.origin, evidence={})
        shelves = self.sources.cellar.letters
        shelves.append(("dead", own))
        place = {"shelf": "dead", "number": str(len(shelves) - 1)}
        entry = replace(
            letter,
            event=replace(letter.event, data=b""),
            origin=Origin(),
            elsewhere=Elsewhere(kind="KafkaTrigger", coordinates=place, size=2),
        )
        await self.store.dead_letters.add(entry)
        return entry

    async def letters(self) -> list[str]:
        return [letter.id for letter in await self.store.dead_letters.list(Selection())]

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """One request to the admin API, on a connection of its own."""
        return await request(self.view.address, method, path, body, headers, raw=raw)


async def request(
    address: str,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    raw: bytes | None = None,
) -> Answer:
    """One request to what listens there, on a connection of its own."""
    host, _, port = address.rpartition(":")
    payload = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    fields = {"host": address, "content-length": str(len(payload))} | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    reader, writer = await asyncio.open_connection(host.strip("[]") or "127.0.0.1", int(port))
    try:
        first = f"{method} {path} HTTP/1.1\r\n{head}connection: close\r\n\r\n"
        writer.write(first.encode() + payload)
        async with asyncio.timeout(20):
            answer = await reader.read()
    finally:
        writer.close()
    head_part, _, rest = answer.partition(b"\r\n\r\n")
    status, *lines = head_part.decode().split("\r\n")
    got = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    if got.get("transfer-encoding") == "chunked":
        rest = _unchunked(rest)
    return Answer(int(status.split(" ")[1]), got, rest)


def _unchunked(raw: bytes) -> bytes:
    whole = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        whole += raw[: int(size, 16)]
        raw = raw[int(size, 16) + 2 :]
    return whole


@asynccontextmanager
async def small_hub(directory: Path, settings: Settings) -> AsyncIterator[SmallHub]:
    function = FunctionServer()
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(function.talk, "127.0.0.1", 0)
        stack.callback(server.close)
        function.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in"
        store = await stack.enter_async_context(SQLiteStore(directory))
        transport = Transport()
        stack.push_async_callback(transport.close)
        dispatcher = Dispatcher(transport, store)
        manifests, sources, code = Manifests(), Sources(), CodeFunctions()
        view = View(manifests, dispatcher, sources, store, code)
        sources.dispatcher = dispatcher
        replays = Replays(sources, dispatcher)
        await stack.enter_async_context(serve(view, settings, replays))
        await stack.enter_async_context(replays)
        yield SmallHub(view, store, dispatcher, manifests, sources, code, function, replays)
