"""What fuzzers found, read once more; and that who should be let in is, so that they seek where
there is something to be found."""

from __future__ import annotations

from tests.fuzz import callers, connections, schedules
from tests.fuzz.corpus import kept


def test_schedules_that_were_made_up_are_read_or_refused() -> None:
    inputs = [*schedules.seeds(), *kept("schedules")]
    assert len(inputs) > 100
    for data in inputs:
        schedules.read(data)


def test_bytes_that_were_made_up_are_answered_2xx_or_4xx_and_their_connections_end() -> None:
    inputs = [*connections.seeds(), *kept("connections")]
    with connections.Connections() as hub:
        found = {status for data in inputs for status in hub.read(data)}
    assert found >= {100, 200, 202, 400, 403, 404, 408, 413, 415, 429}


def test_only_who_should_be_let_in_is_whatever_is_made_up() -> None:
    with callers.Callers() as hub:
        for name, data in zip(callers.GOOD, callers.inputs(callers.GOOD), strict=True):
            assert hub.read(data) == [200], name
        found = {
            status for data in [*callers.seeds(), *kept("callers")] for status in hub.read(data)
        }
    assert found >= {200, 400, 401, 403, 409}
