"""What is said of a trigger that is paused."""

from __future__ import annotations

import pytest

from triggerhub.control.report import SourceState
from triggerhub.control.status import paused_message


@pytest.mark.parametrize(
    ("attached", "reason", "said"),
    [
        (None, "", "spec.paused is true"),
        (True, "Connected", "spec.paused is true"),
        (False, "SourceFailed", "spec.paused is true; its seek is not done: SourceFailed: why"),
        (False, "InboxFull", "spec.paused is true; InboxFull: why"),
        (False, "InboxUnavailable", "spec.paused is true; InboxUnavailable: why"),
    ],
)
def test_a_paused_trigger_tells_of_its_seek_or_of_its_inbox(
    attached: bool | None, reason: str, said: str
) -> None:
    assert paused_message(SourceState("a.b.c", attached, reason, "why")) == said
