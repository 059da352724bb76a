"""Who may pass: all that a trigger asks of a request before it becomes an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import NoReturn
from urllib.parse import quote

from triggerhub.connector import Subscription
from triggerhub_http.addresses import Elsewhere, Places
from triggerhub_http.clients import Identity
from triggerhub_http.holders import Holders, NobodyKnown
from triggerhub_http.keys import NoKeys
from triggerhub_http.messages import CALLER, Field, Head, Refusal
from triggerhub_http.passwords import Busy
from triggerhub_http.signatures import Replays, Signatures, Stated, Unsigned
from triggerhub_http.source import HTTPSource

_RETRY = (b"retry-after", b"1")
_PASSED_OVER = 16 * 1024
"""Bytes of a body that is read and dropped for the connection's sake."""
_LARGE = 256 * 1024
"""Bytes of a body whose signature is not checked on the event loop."""


class Gate:
    """What one trigger asks."""

    def __init__(
        self,
        subscription: Subscription[HTTPSource],
        replays: Replays,
        changed: Callable[[], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        """``changed`` is called when ``trouble`` is another; ``now``: seconds since the epoch.
        Raises SpecError, with a sentence that shows no secret."""
        source = subscription.source
        self._turned_away = subscription.report.turned_away
        self._replays = replays
        self._now = now
        self._holders = None
        self._places = None
        self._signatures = None
        if source.auth is not None:
            if source.auth.addresses is not None:
                self._places = Places(source.auth.addresses)
            if source.auth.holders:
                self._holders = Holders(source.auth, subscription, changed)
        if source.signature is not None:
            self._signatures = Signatures("spec.source.signature", source.signature, subscription)
        self._needs = frozenset(
            {
                *(self._holders.needs if self._holders else ()),
                *(self._signatures.needs if self._signatures else ()),
            }
        )

    @property
    def trouble(self) -> str:
        """What an operator should know: why nobody new may be let in. Empty: nothing."""
        return "" if self._holders is None else self._holders.trouble

    async def keep(self) -> None:
        """Keep fresh what is fetched, until cancelled."""
        if self._holders is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._holders.keep()

    def close(self) -> None:
        """Nobody is let in any more."""
        if self._holders is not None:
            self._holders.close()

    async def admit(self, head: Head, peer: str, shown: Identity | None = None) -> Entry:
        """Ask all that can be asked while the body is not there. ``shown``: by a certificate.
        Raises Refusal: 401, 403, 503."""
        asked = self._asked(head.kept)
        if self._places is not None:
            try:
                head.believed = self._places.check(peer, head.forwarded)
            except Elsewhere as error:
                self._refuse(403, "AddressRefused", str(error))
        stated = None
        if self._signatures is not None:
            try:
                stated = self._signatures.read(asked, self._now())
            except Unsigned as error:
                self._refuse(403, error.reason, str(error))
        if self._holders is not None:
            caller = await self._held(self._holders, asked, shown)
            head.kept[:] = self._holders.without(head.kept)
            if caller:
                head.kept.append((CALLER, quote(caller, safe="!#$&'()*+,/:;=?@[]~ ").encode()))
        return Entry(self, stated)

    def _asked(self, fields: Iterable[Field]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for name, value in fields:
            if name in self._needs:
                if name in found:
                    self._refuse(400, "BadRequest", f"found 2 fields {name.decode()}, expected one")
                found[name] = value
        return found

    async def _held(
        self, holders: Holders, asked: dict[bytes, bytes], shown: Identity | None
    ) -> str:
        try:
            return await holders.find(asked, shown, self._now())
        except NobodyKnown as error:
            challenges = [(b"www-authenticate", one) for one in holders.challenges(error)]
            # A certificate cannot be asked for here (RFC 9110, section 15.5.2).
            self._refuse(401 if challenges else 403, error.reason, str(error), *challenges)
        except (Busy, NoKeys) as error:
            # Not why: that is for the operator, who sees it in the trigger's condition.
            reason = "Busy" if isinstance(error, Busy) else "KeysUnavailable"
            self._refuse(503, reason, "who calls cannot be checked now: try again", _RETRY)

    async def check(self, stated: Stated, body: bytes) -> bytes:
        """The signature that is right, under way from now on. Raises Refusal."""
        assert self._signatures is not None
        try:
            if len(body) > _LARGE:
                right = await asyncio.to_thread(self._signatures.verify, stated, body)
            else:
                right = self._signatures.verify(stated, body)
        except Unsigned as error:
            self._refuse(403, error.reason, str(error))
        if not self._until(stated):
            return b""
        if not self._replays.enter(right, self._now()):
            self._refuse(409, "Replayed", "this signature was taken before")
        return right

    def answered(self, stated: Stated, right: bytes, status: int) -> None:
        """What ``check`` let pass was answered with ``status``, 0: not at all. Whoever was not
        answered 2xx may send the same again."""
        self._replays.leave(right, self._until(stated) if 200 <= status < 300 else 0.0)

    def _until(self, stated: Stated) -> float:
        assert self._signatures is not None
        return self._signatures.spent_until(stated, self._now())

    def _refuse(self, status: int, reason: str, message: str, *fields: Field) -> NoReturn:
        self._turned_away(reason)
        raise Refusal(status, reason, message, *fields)


class Entry:
    """One request that was admitted by its head; a context manager around its delivery."""

    __slots__ = ("_gate", "_right", "_stated", "status")

    def __init__(self, gate: Gate | None, stated: Stated | None = None) -> None:
        self._gate = gate
        self._stated = stated
        self._right = b""
        self.status = 0
        """Of the answer, once there is one."""

    @property
    def wants_body(self) -> bool:
        """Whether ``check`` needs the whole body."""
        return self._stated is not None

    async def check(self, body: bytes) -> None:
        """Raises Refusal: 403, 409."""
        if self._gate is not None and self._stated is not None:
            self._right = await self._gate.check(self._stated, body)

    def __enter__(self) -> Entry:
        return self

    def __exit__(self, *_: object) -> None:
        if self._gate is not None and self._stated is not None and self._right:
            self._gate.answered(self._stated, self._right, self.status)


NOTHING_ASKED = Entry(None)


async def admitted(
    gate: Gate | None,
    head: Head,
    client: tuple[str, int] | None,
    shown: Identity | None = None,
) -> Entry:
    """``client``: address and port. ``shown``: by a certificate. Raises Refusal: one that ends the
    connection where a body comes that nobody wants."""
    if gate is None:
        return NOTHING_ASKED
    try:
        return await gate.admit(head, client[0] if client else "", shown)
    except Refusal as refusal:
        refusal.close = head.body and not 0 < head.length <= _PASSED_OVER
        raise
