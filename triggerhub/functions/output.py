"""What a child process prints, as bounded lines at a bounded rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LINE = 8 * 1024
"""Bytes of a line that are kept; the rest is cut off."""

_BURST = 1000
_RATE = 200.0

# What Python itself says before it lists frames: the reason, unlike the last line.
_REASONS = ("Fatal Python error:", "Timeout (")


class Output(asyncio.Protocol):
    """Reads one stream to its end, as fast as it comes, so that the child never waits.

    Of a flood, 1000 lines and then 200 a second go to ``line``; the others are counted and told
    to ``dropped``. Invalid UTF-8 is replaced.
    """

    def __init__(self, line: Callable[[str], None], dropped: Callable[[int], None]) -> None:
        self._line = line
        self._tell_dropped = dropped
        self._loop = asyncio.get_running_loop()
        self._budget = float(_BURST)
        self._filled = self._loop.time()
        self._begun = b""
        self._dropped = 0
        self._reason = ""
        self._last = ""
        self.ended: asyncio.Future[None] = self._loop.create_future()

    @property
    def last(self) -> str:
        """The last line that was not blank; of a fatal error or stall of the interpreter, the
        line that names it."""
        return self._reason or self._last

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        self._budget = min(_BURST, self._budget + (now - self._filled) * _RATE)
        self._filled = now
        start = 0
        while self._budget >= 1 and (end := data.find(b"\n", start)) >= 0:
            self._budget -= 1
            self._tell(self._begun + data[start : min(end, start + LINE + 1)])
            self._begun = b""
            start = end + 1
        if excess := data.count(b"\n", start):
            self._dropped += excess
            *_, last, self._begun = data[max(start, len(data) - 2 * LINE) :].split(b"\n")
            self._remember(last)
        else:
            self._begun += data[start : start + LINE + 1]
        self._begun = self._begun[: LINE + 1]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._begun:
            self._tell(self._begun)
            self._begun = b""
        self._say_dropped()
        if not self.ended.done():
            self.ended.set_result(None)

    def _tell(self, raw: bytes) -> None:
        self._say_dropped()
        self._line(self._remember(raw))

    def _remember(self, raw: bytes) -> str:
        text = raw[:LINE].decode("utf-8", "replace").rstrip("\r")
        if len(raw) > LINE:
            text += "…"
        if text.startswith(_REASONS):
            self._reason = text
        if text.strip():
            self._last = text.strip()
        return text

    def _say_dropped(self) -> None:
        if self._dropped:
            self._tell_dropped(self._dropped)
            self._dropped = 0
