"""Dead letters and inboxes read from a hub's store, whether it runs or not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from triggerhub.admin.inboxes import inboxes_json
from triggerhub.admin.wire import BadRequest, letter_json, selection_of
from triggerhub.cli.failure import Failure
from triggerhub.store.opening import open_store
from triggerhub.store.records import StoreError
from triggerhub.telemetry import log_nothing

_ONLY_A_HUB = "only a running hub reads it from there"

T = TypeVar("T")


def listed_in(data: Path, url: str, shape: dict[str, Any], limit: int) -> tuple[list[Any], bool]:
    """As the API lists them, at most ``limit``; and whether there are more. Raises
    ``Failure``."""

    async def read() -> list[Any]:
        async with open_store(data, url, read_only=True) as store:
            found = await store.dead_letters.list(selection_of(shape), limit=limit + 1)
            return [letter_json(letter, whole=False) for letter in found]

    letters = _run(read())
    return letters[:limit], len(letters) > limit


def shown_from(data: Path, url: str, letter_id: str) -> dict[str, Any]:
    """As the API shows it. Raises ``Failure``."""

    async def read() -> dict[str, Any]:
        async with open_store(data, url, read_only=True) as store:
            letter = await store.dead_letters.get(letter_id)
            if letter is None:
                raise Failure(f"there is no dead letter {letter_id}")
            # Only a hub knows how the system is reached.
            return letter_json(letter, whole=True, unread=_ONLY_A_HUB)

    return _run(read())


def inboxes_in(data: Path, url: str) -> list[Any]:
    """As the API lists them; what is bound only a hub knows. Raises ``Failure``."""

    async def read() -> list[Any]:
        async with open_store(data, url, read_only=True) as store:
            return inboxes_json(await store.waiting(), {})

    return _run(read())


def _run(reading: Coroutine[Any, Any, T]) -> T:
    log_nothing()  # what goes wrong is the one sentence
    try:
        return asyncio.run(reading)
    except (StoreError, BadRequest) as error:
        raise Failure(str(error)) from None
