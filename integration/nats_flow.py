"""Messages that flow through a stream, or as they pass, and what a function should have got."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

import nats as nats_py
import nats.errors as nats_errors

from integration import nats_tools as tools
from integration.function import Function
from integration.hub import trigger
from integration.streams import meanwhile


class Served(Protocol):
    """A server, or several."""

    @property
    def server(self) -> str:
        """``host:port``, separated by commas."""


class Flow:
    """A stream, and what was put into it: each value is ``<key>:<n>``, n counting per key, with
    the subject ``<stream>.<key>``. ``core``: there is no stream behind the subjects."""

    def __init__(
        self,
        nats: Served,
        keys: int = 8,
        *,
        core: bool = False,
        ack_wait: float = 0,
        replicas: int = 1,
    ) -> None:
        """``ack_wait``: seconds, of the durable consumer, where not the hub's own is to do."""
        self.nats = nats
        self.name = f"story{uuid4().hex[:8]}"
        self.core = core
        self.sent: list[bytes] = []
        """Those that the server has confirmed, or, without a stream, has been sent."""
        self._keys = itertools.cycle([f"k{n}" for n in range(keys)])
        self._next: defaultdict[str, int] = defaultdict(int)
        if not core:
            asyncio.run(self._create(ack_wait, replicas))

    def send(self, number: int) -> None:
        asyncio.run(self._send(number))

    @contextmanager
    def flowing(self, per_second: int) -> Iterator[None]:
        """Messages keep coming while the block runs."""
        with meanwhile(partial(self._flow, per_second)):
            yield

    def trigger(
        self, to: str, more: dict[str, Any] | None = None, **delivery: Any
    ) -> dict[str, Any]:
        """``more``: of the source."""
        source: dict[str, Any] = {"servers": self.nats.server.split(",")}
        if self.core:
            source |= {"subject": f"{self.name}.*"}
        else:
            source |= {"stream": self.name, "startFrom": "All", "durable": "story"}
        return trigger("NATSTrigger", "orders", to, source | (more or {}), **delivery)

    def unsettled(self) -> int:
        found = asyncio.run(tools.consumer(self.nats.server, self.name, "story"))
        return (found.num_pending or 0) + (found.num_ack_pending or 0)

    def arrived(self, target: Function) -> bool:
        return {call.body for call in target.accepted} >= set(self.sent)

    async def _create(self, ack_wait: float, replicas: int) -> None:
        async with tools.jetstream(self.nats.server) as context:
            await context.add_stream(
                name=self.name, subjects=[f"{self.name}.>"], num_replicas=replicas
            )
            if ack_wait:
                await context.add_consumer(
                    self.name, durable_name="story", ack_policy="explicit", ack_wait=ack_wait
                )

    async def _send(self, number: int) -> None:
        async with tools.connected(self.nats.server) as client:
            for _ in range(number):
                await self._put(client)

    async def _put(self, client: Any) -> None:
        key = next(self._keys)
        value = f"{key}:{self._next[key]}".encode()
        self._next[key] += 1
        subject = f"{self.name}.{key}"
        if self.core:
            await client.publish(subject, value)
            await client.flush()
        else:
            # The server knows a message that is sent once more by this.
            headers = {"Nats-Msg-Id": value.decode()}
            while True:
                try:
                    await client.jetstream().publish(subject, value, headers=headers, timeout=2)
                    break
                except (nats_errors.Error, OSError):
                    await asyncio.sleep(0.1)
        self.sent.append(value)

    async def _flow(self, per_second: int, done: threading.Event) -> None:
        async def nothing(error: Exception) -> None: ...

        client = await nats_py.connect(
            tools.urls(self.nats.server), reconnect_time_wait=0.1, max_reconnect_attempts=-1,
            error_cb=nothing, connect_timeout=2,
        )  # fmt: skip
        try:
            while not done.is_set():
                await self._put(client)
                await asyncio.sleep(1 / per_second)
        finally:
            await client.close()
