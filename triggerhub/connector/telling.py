"""How a source is, told when it changes."""

from __future__ import annotations

from typing import NamedTuple

from triggerhub.connector.subscription import Report


class Problem(NamedTuple):
    """A reason in CamelCase and a sentence."""

    reason: str
    text: str


class Telling:
    """Tells a ``Report`` what is new of one source."""

    def __init__(self, report: Report) -> None:
        self.attached = False
        """It was, once."""
        self._report = report
        self._told: Problem | None = None
        self._well = False

    def wrong(self, problem: Problem) -> None:
        """The source brings nothing, for this reason."""
        # Reasons alone are compared: texts carry details that vary with each try.
        if self._well or self._told is None or problem.reason != self._told.reason:
            self._well, self._told = False, problem
            self._report.disconnected(*problem)

    def well(self, note: Problem | None = None) -> None:
        """It brings what there is. ``note``: what is to be known although it does."""
        self.attached = True
        if not self._well or note != self._told:
            self._well, self._told = True, note
            self._report.connected(*(note or ()))
