"""What the store keeps of a trigger's ticks: one text, written when a tick begins and when it is
settled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from triggerhub.connector import Position

KEY = "ticks"
COUNTS = ("missed", "skipped", "replaced", "since")
_TICK = "tick:"
_LAST = "last"
_encode = json.JSONEncoder(separators=(",", ":")).encode


def tick_id(due: int) -> str:
    """A tick's id: its due time as RFC 3339 has it, in UTC."""
    return datetime.fromtimestamp(due, UTC).isoformat()[:19] + "Z"


def instant(text: str) -> int:
    """Of a tick's id. Raises ValueError."""
    return int(datetime.fromisoformat(text).timestamp())


@dataclass(slots=True)
class Record:
    """Every slot up to ``past`` is decided: sent, skipped, missed. Times are seconds since the
    epoch."""

    past: int
    mark: str
    """Of the plan whose slots they are."""
    open: set[int] = field(default_factory=set)
    """Due times of the ticks under way."""
    others: set[int] | None = None
    """Those that another process has under way."""
    missed: int = 0
    skipped: int = 0
    replaced: int = 0
    since: int = 0
    """When the first of these was counted; 0: none was."""

    @property
    def unsent(self) -> int:
        return self.missed + self.skipped + self.replaced

    def text(self) -> str:
        shape: dict[str, object] = {"past": tick_id(self.past), "plan": self.mark}
        under_way = self.open | (self.others or set())
        if under_way:
            shape["open"] = [tick_id(due) for due in sorted(under_way)]
        shape |= {key: getattr(self, key) for key in COUNTS if getattr(self, key)}
        return _encode(shape)

    @classmethod
    def read(cls, stored: Mapping[str, Position], mark: str) -> Record | None:
        """From all positions of a trigger; None: it never ticked. Raises ``OSError`` for what no
        hub wrote."""
        try:
            if KEY in stored:
                return cls._read(json.loads(stored[KEY].value))
            # As hubs up to 0.1 kept it.
            ticks = {instant(key.removeprefix(_TICK)) for key in stored if key.startswith(_TICK)}
            last = instant(stored[_LAST].value) if _LAST in stored else 0
            return cls(max(last, *ticks, 0), mark, ticks) if stored else None
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"the store's record of this trigger cannot be read: {error}") from None

    @classmethod
    def _read(cls, shape: dict[str, object]) -> Record:
        counts = {key: shape.get(key, 0) for key in COUNTS}
        ticks, past, mark = shape.get("open", []), shape["past"], shape["plan"]
        if not isinstance(ticks, list) or not isinstance(past, str) or not isinstance(mark, str):
            raise ValueError(f"found {shape}")
        whole = {key: count for key, count in counts.items() if isinstance(count, int)}
        return cls(instant(past), mark, {instant(str(due)) for due in ticks}, None, **whole)

    def old_keys(self, stored: Mapping[str, Position]) -> list[str]:
        """What this record stands for now."""
        return [key for key in stored if key == _LAST or key.startswith(_TICK)]


@dataclass(slots=True)
class Unwritten:
    """What the store did not take while it was away, by the trigger's name. The next listener, in
    the same process, knows it from here."""

    begun: dict[str, int] = field(default_factory=dict)
    """A tick that was not sent, as it could not be put on record."""
    settled: dict[str, set[int]] = field(default_factory=dict)
    """Those that were, and could not be taken off: they are not to be sent again."""
