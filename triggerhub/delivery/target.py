"""Where a binding delivers, and how: its delivering half."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from triggerhub.delivery.retry import DEFAULT_POLICY, Policy
from triggerhub.event import Event, Reply
from triggerhub.store.records import DeadLetter, Elsewhere


class Format(StrEnum):
    """How an event is sent (CloudEvents HTTP protocol binding, section 3)."""

    BINARY = "Binary"
    STRUCTURED = "Structured"


class OnExhausted(StrEnum):
    """What becomes of an event that its function did not accept."""

    DEAD_LETTER = "DeadLetter"
    BLOCK = "Block"
    DROP = "Drop"


class Letters(Protocol):
    """A place for dead letters in the source's own system."""

    async def lay_down(self, letter: DeadLetter) -> Elsewhere:
        """Where it lies, once it is safe. Raises ``NotTaken``."""


class Replies(Protocol):
    """A place for the function's answers."""

    async def reply(self, event: Event, reply: Reply) -> None:
        """Returns once it is safe. Raises ``NotTaken``."""


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
    letters: Letters | None = None
    """Neither this nor a URL: dead letters go to the hub's own store."""
    replies: Replies | None = None
    """None: what the function answers is not wanted."""

    @property
    def name(self) -> str:
        return f"{self.namespace}.{self.trigger}.{self.function}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why deliveries do not go well, for the trigger's condition."""

    reason: str
    message: str
