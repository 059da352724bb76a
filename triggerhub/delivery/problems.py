"""What an operator should know of one binding's deliveries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from triggerhub.delivery.target import Problem

_PROBLEMS = (
    "DeadLetterUnavailable", "ReplyRefused", "ReplyUnavailable", "FunctionAway", "FunctionGone",
    "Blocked",
)  # fmt: skip
"""The gravest first."""


class Problems:
    """Those that hold now, each with what was last said of it."""

    def __init__(self, binding: str, changed: Callable[[str], None]) -> None:
        """``changed`` is called with the binding's name when others hold than before."""
        self._binding = binding
        self._changed = changed
        self._told: dict[str, str] = {}
        self._held: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._told)

    @property
    def gravest(self) -> Problem | None:
        """What to know first, or None."""
        for reason in _PROBLEMS:
            if reason in self._told:
                return Problem(reason, self._told[reason])
        return None

    def tell(self, reason: str, message: str) -> None:
        """From now on this holds."""
        new = reason not in self._told
        self._told[reason] = message
        if new:
            self._changed(self._binding)

    def over(self, reason: str) -> None:
        """It holds no longer."""
        if self._told.pop(reason, None) is not None:
            self._changed(self._binding)

    def forget(self) -> None:
        """None of them holds any longer."""
        for reason in tuple(self._told):
            self.over(reason)

    @contextmanager
    def while_it_lasts(self) -> Iterator[Callable[[str, str], None]]:
        """Tells one event's trouble, as often as it likes, each time instead of what it told
        before. What several events have in common is over when the last of them is."""
        own = ""

        def tell(reason: str, message: str) -> None:
            nonlocal own
            if reason != own:
                self._held[reason] += 1
                before, own = own, reason
                self._let_go(before)
            self.tell(reason, message)

        try:
            yield tell
        finally:
            self._let_go(own)

    def _let_go(self, reason: str) -> None:
        if reason:
            self._held[reason] -= 1
            if not self._held[reason]:
                del self._held[reason]
                self.over(reason)
