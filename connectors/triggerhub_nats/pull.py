"""Asks for messages of a durable consumer: as many as there is room for, ahead of need."""

from __future__ import annotations

import json
import time
from typing import Any

from nats.aio.msg import Msg

from triggerhub.nats.client import Client, heed
from triggerhub_nats.consumer import Consumer

_EXPIRES = 30.0
_HEARTBEAT = 5.0
_SILENCE = 12.0
"""Seconds without a heartbeat after which a request is taken for forgotten."""
_BATCH = 256
_LEAST_BYTES = 8 * 1024 * 1024
_MOST_HELD = 32 * 1024 * 1024
_OVER = ("Message Size Exceeds MaxBytes", "Batch Completed")
"""What a 409 says of a request that was worked on. The second is said since nats-server 2.10, of
each that names a size and got all that it asked for."""


class Forgotten(Exception):  # noqa: N818 - a fact about the requests
    """The server does not work on our requests any longer: look what became of the consumer."""


class Pull:
    """The requests to one consumer over one connection. Its answers come to ``inbox``: messages,
    and statuses, which bear no reply subject."""

    def __init__(self, client: Client, consumer: Consumer, inbox: str, capacity: int) -> None:
        """``capacity``: messages that may be held here and be due together."""
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        self._inbox = inbox
        self._capacity = capacity
        self._batch = max(1, min(_BATCH, capacity // 2))
        # A message that is larger than what is asked for never comes.
        self._bytes = max(_LEAST_BYTES, client.max_payload + 64 * 1024)
        self._due = 0
        self._heard = time.monotonic()
        self._forgotten = ""

    def came(self) -> None:
        """A message came."""
        self._due -= 1
        self._heard = time.monotonic()

    def status(self, message: Msg) -> None:
        """What the server says of a request (ADR-13): 100 heartbeat; 404, 408: it is over; 409:
        it is over, or worse; 503: nobody listens to it; any other: it is refused."""
        headers = message.headers or {}
        code = headers.get("Status")
        text = headers.get("Description", "")
        self._heard = time.monotonic()
        if code == "100":
            return
        # What was asked for and did not come.
        self._due -= int(headers.get("Nats-Pending-Messages") or self._due)
        if code not in (None, "404", "408") and text not in _OVER:
            self._forgotten = text or "no responders"

    async def ask(self, held: int, size: int) -> None:
        """Ask for more where there is room, ``held`` messages of ``size`` bytes being here. Raises
        Forgotten, and nats.errors.Error where the connection ended."""
        if self._forgotten:
            raise Forgotten(self._forgotten)
        now = time.monotonic()
        if self._due > 0 and now - self._heard > _SILENCE:
            raise Forgotten("no heartbeat")
        self._due = max(0, self._due)
        room = min(self._batch, self._capacity - held - self._due)
        # In batches, but for the beginning and the rest.
        if size > _MOST_HELD or room < self._batch or self._due >= self._batch:
            return
        if not self._due:
            self._heard = now
        self._due += room
        request: dict[str, Any] = {
            "batch": room,
            "max_bytes": self._bytes,
            "expires": int(_EXPIRES * 1e9),
            "idle_heartbeat": int(_HEARTBEAT * 1e9),
        }
        payload = json.dumps(request).encode()
        await heed(self._client.publish(self._subject, payload, self._inbox))
