"""Listens to the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from types import TracebackType

from triggerhub.connector import Installation, Subscription, Upcoming
from triggerhub_cron.record import Unwritten
from triggerhub_cron.source import CronSource
from triggerhub_cron.ticker import Ticker
from triggerhub_cron.timer import Timer
from triggerhub_cron.upcoming import foretell


class CronConnector:
    """Ticks at the times that a schedule names. One timer serves all triggers.

    A tick is on record before it is sent, and until it is settled: one that was under way when
    the process died is sent again, first, and under the same id. A tick whose record could not be
    written is sent when the store is back; one that is settled, and could not be taken off the
    record, is not sent again. A time at or before the last tick is not due again,
    whatever the clock says.
    """

    kind = "CronTrigger"
    source = CronSource

    def __init__(
        self, installation: Installation, *, clock: Callable[[], float] = time.time
    ) -> None:
        """``clock`` returns seconds since the epoch; waiting is the event loop's."""
        self._timer = Timer(clock)
        self._unwritten = Unwritten()

    async def __aenter__(self) -> CronConnector:
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._ticks = self._tasks.create_task(self._timer.run(), name="cron timer")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ticks.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    async def listen(self, subscription: Subscription[CronSource]) -> None:
        """Raises ``OSError`` when the store cannot be read or written."""
        await Ticker(subscription, self._timer, self._tasks, self._unwritten).run()

    def upcoming(self, source: CronSource, trigger: str, after: datetime) -> Iterator[Upcoming]:
        """See ``Foreteller``."""
        return foretell(source.plan(trigger), after)
