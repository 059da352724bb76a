"""How a source stands: what its connector reported last."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from triggerhub.connector import Sought
from triggerhub.control.growth import Growths
from triggerhub.delivery.link import unheard

log = structlog.get_logger()

_NO_PARTS: Mapping[str, float] = MappingProxyType({})


@dataclass(slots=True)
class SourceState:
    """How one listener stands: what its connector reported last. Also the ``Report`` given to
    the connector. A turn for the worse, and the one back, is a log line."""

    binding: str = ""
    attached: bool | None = None
    """None: nothing reported yet."""
    reason: str = "Connecting"
    message: str = "the listener is starting"
    waiting: float | None = None
    """Lag in events, where the source tells."""
    parts: Mapping[str, float] = field(default_factory=lambda: _NO_PARTS)
    """And in each of its partitions or shards."""
    growing: str = ""
    """That it only grows, in a sentence."""
    errors: int = 0
    turned: Counter[str] = field(default_factory=Counter)
    """Those who were refused, by reason."""
    refused: bool = False
    """The source half of the manifest cannot work (``SpecError``)."""
    seek: Sought | None = None
    """The last one that is done, as far as is known."""
    acting: bool = False
    """Its turn has come (``Subscription.turn``), or the positions are its own."""
    now: Callable[[], float] = field(default=time.time, repr=False)
    """Seconds since the epoch."""
    _growths: Growths | None = field(default=None, repr=False)
    """None: nothing ever waited."""
    changed: Callable[[str], None] = field(default=unheard, repr=False)
    """Called with the binding's name after each change that a condition shows."""

    @property
    def told(self) -> tuple[str, str]:
        """While it is connected, what there is to know: a reason and a message, which is empty
        when all is well."""
        if not self.growing:
            return self.reason, self.message
        return "LagGrowing", "; ".join(filter(None, (self.growing, self.message)))

    def connected(self, reason: str = "Connected", message: str = "") -> None:
        if (self.attached, self.reason, self.message) == (True, reason, message):
            return
        if self.attached is False:
            log.info("listener.connected", binding=self.binding)
        self.attached, self.reason, self.message, self.refused = True, reason, message, False
        self.changed(self.binding)

    def disconnected(self, reason: str, message: str = "") -> None:
        before = (self.attached, self.reason, self.message)
        if before[:2] != (False, reason):
            self.errors += 1
            log.warning("listener.disconnected", binding=self.binding, reason=reason, error=message)
        self.attached, self.reason, self.message = False, reason, message
        if before != (False, reason, message):
            self.changed(self.binding)

    def lag(self, events: float, parts: Mapping[str, float] | None = None) -> None:
        self.waiting, self.parts = events, parts or _NO_PARTS
        if self._growths is None:
            if not events:
                return
            self._growths = Growths()
        if self._growths.note(self.now(), self.parts or {"": events}):
            self.growing = self._growths.text
            self.changed(self.binding)

    def turned_away(self, reason: str) -> None:
        self.turned[reason] += 1

    def sought(self, seek: Sought) -> None:
        if seek != self.seek:
            self.seek = seek
            self.changed(self.binding)
