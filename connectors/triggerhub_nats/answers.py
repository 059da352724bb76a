"""Who asked gets the function's answer, or hears why there is none."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

import nats.errors

from triggerhub.event import Outcome, Reply, Settled
from triggerhub.nats.client import heed
from triggerhub.nats.connection import Connection

log = logging.getLogger("triggerhub.nats")

STATUS = "Triggerhub-Status"
ERROR = "Nats-Service-Error"
ERROR_CODE = "Nats-Service-Error-Code"

Answer = tuple[bytes, Mapping[str, str]]
"""Data and headers."""


def answer_of(outcome: Outcome) -> Answer:
    """The function's body, content type and status; where it did not accept, also the headers
    that NATS services say so with (ADR-32)."""
    reply = outcome.reply
    if reply is None:
        if outcome.settled in (Settled.DEAD, Settled.DROPPED):
            return failure(400, "the message could not be delivered")
        return b"", {STATUS: "204"}
    headers = {STATUS: str(reply.status)}
    for name, value in reply.headers:
        if name == b"content-type":
            headers["content-type"] = value.decode("latin-1")
    if not 200 <= reply.status < 300:
        headers |= {ERROR: _first_line(reply), ERROR_CODE: str(reply.status)}
    return reply.body, headers


def failure(code: int, text: str) -> Answer:
    """An answer of the hub's own."""
    return b"", {STATUS: str(code), ERROR: text, ERROR_CODE: str(code)}


def _first_line(reply: Reply) -> str:
    text = reply.body[:400].decode(errors="replace").strip().partition("\n")[0]
    text = "".join(c for c in text if c.isprintable())[:120]
    return text or f"the function answers {reply.status}"


class Answers:
    """Those that are owed, and those that are to be sent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._owed: dict[int, str] = {}
        self._number = 0
        self._ready: deque[tuple[str, Answer]] = deque()
        self._some = asyncio.Event()

    def owe(self, reply: str) -> int:
        """Somebody waits for an answer at this subject. Returns the debt's number."""
        self._number += 1
        self._owed[self._number] = reply
        return self._number

    def pay(self, debt: int, answer: Answer) -> None:
        """Answer, with the next write."""
        reply = self._owed.pop(debt, None)
        if reply is not None:
            self._ready.append((reply, answer))
            self._some.set()

    def give_up(self) -> None:
        """All that is owed is answered with a failure: the hub stops."""
        for debt in list(self._owed):
            self.pay(debt, failure(503, "the hub stopped before there was an answer"))

    async def run(self) -> None:
        """Send them, until cancelled."""
        while True:
            await self._some.wait()
            self._some.clear()
            await self.send()

    async def send(self) -> None:
        """Send those that are ready. Without a connection they are lost, as who asked is."""
        while self._ready:
            reply, (data, headers) = self._ready.popleft()
            client = self._connection.client
            if client is None:
                continue
            try:
                try:
                    await heed(client.publish(reply, data, headers=dict(headers)))
                except nats.errors.MaxPayloadError:
                    text = f"the answer has {len(data)} bytes, NATS takes {client.max_payload}"
                    await heed(client.publish(reply, b"", headers=dict(failure(502, text)[1])))
            except (nats.errors.Error, OSError) as error:
                log.debug("nats.answer_failed error=%r", error)
