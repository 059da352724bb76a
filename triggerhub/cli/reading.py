"""Where commands read what a hub keeps: from the hub, or from its store itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from triggerhub.cli.client import DEFAULT_ADMIN, NoHub
from triggerhub.cli.failure import Failure

_DEFAULT_DATA = Path(".triggerhub")

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Read a hub's data itself; the hub may be down."),
]
StoreOption = Annotated[
    str,
    typer.Option("--store", metavar="URL", help="Read nats://…, a store of several machines."),
]


def offline() -> Any:
    """The module that reads a store itself."""
    # Imported only where it is used: it brings the store.
    from triggerhub.cli import offline

    return offline


def read(
    from_hub: Callable[[], Any],
    from_store: Callable[[Path, str], Any],
    data: Path | None,
    store: str,
    admin: str,
) -> Any:
    """Ask the hub; or read its store, where that is named or the hub is down."""
    if data is not None and store:
        raise Failure("found --data and --store, expected one of them", 2)
    if data is not None or store:
        return from_store(data or _DEFAULT_DATA, store)
    try:
        return from_hub()
    except NoHub:
        url = os.environ.get("TRIGGERHUB_STORE", "")
        if admin != DEFAULT_ADMIN or not (url or _DEFAULT_DATA.is_dir()):
            raise
        where = "the store that TRIGGERHUB_STORE names" if url else _DEFAULT_DATA
        print(f"triggerhub: no hub answers; this is read from {where}", file=sys.stderr)
        return from_store(_DEFAULT_DATA, url)
