"""What waits in inboxes, by binding; and how an operator gets rid of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from triggerhub.admin.view import View
from triggerhub.admin.wire import Json
from triggerhub.delivery.feeder import CLAIM
from triggerhub.store.records import StoreError, Waiting

_TTL = 60.0
"""Seconds that nobody delivers what is purged; also after a purge that its process did not
survive."""


class NotPurged(Exception):  # noqa: N818 - a fact about the inbox
    """Says why. ``there``: something waits in it."""

    def __init__(self, message: str, *, there: bool) -> None:
        super().__init__(message)
        self.there = there


async def purge(view: View, binding: str) -> int:
    """Delete what waits for a binding that is gone; returns how many events. Raises
    ``NotPurged``, ``StoreError``."""
    if binding not in await view.store.waiting():
        raise NotPurged(f"nothing waits in an inbox of {binding}", there=False)
    if why := view.tended(binding):
        raise NotPurged(f"{binding}: {why}", there=True)
    claims = view.store.positions(f"inbox/{binding}")
    if not await claims.claim(CLAIM, _TTL):
        raise NotPurged(f"{binding}: another process delivers what waits in its inbox", there=True)
    try:
        return await view.store.inbox(binding).purge()
    finally:
        with suppress(StoreError):  # else it ends by itself
            await claims.release(CLAIM)


def inboxes_json(waiting: Mapping[str, Waiting], bound: Mapping[str, bool]) -> list[Json]:
    """By binding; ``bound`` says of each whether it is, where that is known."""
    return [
        {"binding": name, "events": held.events, "bytes": held.size, "bound": bound.get(name)}
        for name, held in sorted(waiting.items())
    ]
