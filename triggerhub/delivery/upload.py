"""The rest of a long request's body, sent as it comes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from triggerhub.delivery.failures import Interrupted
from triggerhub.event import Rest


class Way(Protocol):
    """The connection that it is sent on."""

    @property
    def takes(self) -> bool:
        """It is open, and not behind with what it has to send."""

    @property
    def open(self) -> bool: ...

    def send_on(self, data: bytes, *, last: bool) -> None: ...

    def renew(self) -> None:
        """``Upload.waiting`` is another."""

    def fail(self, error: Exception) -> None: ...


class Upload:
    """Of one attempt, which may go on on another connection until the first piece is sent. No more
    of it is read than the function takes."""

    __slots__ = ("_left", "_rest", "_wakes", "_way", "waiting")

    def __init__(self, rest: Rest, left: int | None) -> None:
        """``left``: bytes that follow; None: that is not known, and they are sent in chunks."""
        self._rest = rest
        self._left = left
        self._way: Way | None = None
        self._wakes: asyncio.Future[None] | None = None
        self.waiting = False
        """For the caller: the function has all that has come."""

    # What the connection calls.

    def attach(self, way: Way) -> None:
        self._way = way
        if self.waiting:
            way.renew()
        self.wake()

    def wake(self) -> None:
        """The connection takes more."""
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_result(None)

    # Beside the attempt.

    async def run(self) -> None:
        """Send all; to be cancelled when the attempt has ended. What reading it raises, the attempt
        raises as ``Interrupted``."""
        last = False
        while not last:
            await self._until_taken()
            self._wait(True)
            try:
                piece = await self._rest.read()
            except Exception as error:  # noqa: BLE001 - its reader knows what it is
                while not self._open():
                    await self._woken()
                assert self._way is not None
                self._way.fail(Interrupted(error))
                return
            self._wait(False)
            way = await self._until_taken()
            last = not piece
            if self._left is None:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            else:
                # Once it has all, the function may answer, whether we know that there is no more.
                self._left -= len(piece)
                last = last or self._left == 0
            way.send_on(piece, last=last)

    def _open(self) -> bool:
        return self._way is not None and self._way.open

    async def _until_taken(self) -> Way:
        while self._way is None or not self._way.takes:
            await self._woken()
        return self._way

    async def _woken(self) -> None:
        self._wakes = asyncio.get_running_loop().create_future()
        await self._wakes

    def _wait(self, waiting: bool) -> None:
        self.waiting = waiting
        if self._way is not None and self._way.open:
            self._way.renew()
