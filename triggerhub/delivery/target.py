"""Where a binding delivers, and how: its delivering half."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from triggerhub.delivery.retry import DEFAULT_POLICY, Policy


class Format(StrEnum):
    """CloudEvents content mode of a request."""

    BINARY = "Binary"
    STRUCTURED = "Structured"


class OnExhausted(StrEnum):
    """What becomes of an event that its function will not accept."""

    DEAD_LETTER = "DeadLetter"
    BLOCK = "Block"
    DROP = "Drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The next attempt sees a change of any of these. Times in seconds."""

    namespace: str
    trigger: str
    function: str
    url: str
    format: Format = Format.BINARY
    timeout: float = 30.0
    retry: Policy = DEFAULT_POLICY
    on_exhausted: OnExhausted = OnExhausted.DEAD_LETTER
    dead_letter_url: str | None = None
    """None: the hub's own store."""

    @property
    def name(self) -> str:
        return f"{self.namespace}.{self.trigger}.{self.function}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why deliveries do not go well, for the trigger's condition."""

    reason: str
    message: str
