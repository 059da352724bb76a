"""Which store: of one machine, or of several."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from triggerhub.store.records import Store, StoreError
from triggerhub.store.sqlite import SQLiteStore


def open_store(
    data: Path, url: str, *, read_only: bool = False
) -> AbstractAsyncContextManager[Store]:
    """The one that ``url`` names (``--store``); without one, that in the data directory. Raises
    ``StoreError``, as entering it does."""
    if not url:
        return SQLiteStore(data, read_only=read_only)
    try:
        # Its client is slow to import: a hub with a store of its own does without.
        from triggerhub.store.jetstream.store import JetStreamStore
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nats":
            raise
        raise StoreError("--store needs: pip install 'triggerhub[nats]'") from None
    return JetStreamStore(url, read_only=read_only)
