"""Each file that is moved into a folder becomes an event; settled, it is deleted."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import Field

from triggerhub.connector import Installation, SourceModel, SpecError, Subscription
from triggerhub.event import Event, Origin, Outcome
from triggerhub.window import Window


class SpoolSource(SourceModel):
    """``spec.source`` of a SpoolTrigger."""

    folder: str = Field(description="An absolute path. Names that begin with a dot are left alone.")
    every: float = Field(default=1.0, gt=0, description="Seconds between two looks.")


class SpoolConnector:
    """Listens to a folder."""

    kind = "SpoolTrigger"
    source = SpoolSource

    def __init__(self, installation: Installation) -> None:
        """Nothing is shared among subscriptions, so there is nothing to open."""

    async def listen(self, subscription: Subscription[SpoolSource]) -> None:
        """Raises ``OSError`` when the folder cannot be read: the hub calls again."""
        folder = Path(subscription.source.folder)
        if not folder.is_absolute():
            raise SpecError(f"folder: found {str(folder)!r}, expected an absolute path")
        taken: set[str] = set()

        def settled(path: Path, outcome: Outcome) -> None:
            path.unlink(missing_ok=True)
            taken.discard(path.name)

        async with Window(subscription) as window:
            while True:
                names = await asyncio.to_thread(_names, folder)
                subscription.report.connected()
                subscription.report.lag(len(names) - len(taken))
                for name in names:
                    if name not in taken:
                        taken.add(name)
                        path = folder / name
                        event = await asyncio.to_thread(_event, path)
                        await window.put(event, partial(settled, path))
                await asyncio.sleep(subscription.source.every)


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))


def _event(path: Path) -> Event:
    changed = path.stat().st_mtime_ns
    return Event(
        id=f"{path.name}:{changed}",  # a file that comes again under the same name is another event
        source=f"/spool{path.parent}",
        type="com.example.spool.file",
        data=path.read_bytes(),
        subject=path.name,
        time=datetime.fromtimestamp(changed / 1e9, UTC),
        origin=lambda: Origin(coordinates={"file": str(path)}),
    )
