from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggerhub.delivery.retry import Policy, Verdict, judge, retry_after

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)

TABLE = {
    Verdict.ACCEPTED: [200, 201, 202, 204, 206, 299],
    Verdict.AWAY: [429, 502, 503, 504],
    Verdict.FAILED: [404, 408, 409, 425, 500, 501, 505, 507, 599],
    Verdict.REJECTED: [
        100, 101, 103, 199, 300, 301, 302, 304, 307, 308, 400, 401, 403, 405, 406, 410, 411, 413,
        415, 422, 451, 499,
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "status"), [(v, status) for v, row in TABLE.items() for status in row]
)
def test_each_status_is_judged_as_the_settle_table_says(verdict: Verdict, status: int) -> None:
    assert judge(status) is verdict


@given(made=st.integers(1, 10_000), draw=st.floats(0, 1, exclude_max=True))
def test_the_wait_is_full_jitter_below_the_doubling_ceiling(made: int, draw: float) -> None:
    policy = Policy(initial=0.2, max=30.0)
    assert policy.wait(made, lambda: draw) == min(30.0, 0.2 * 2 ** min(made - 1, 60)) * draw


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"120", 120.0),
        (b" 0 ", 0.0),
        (b"Thu, 01 Jan 2026 12:01:30 GMT", 90.0),
        (b"Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        (b"soon", 0.0),
        (b"-5", 0.0),
        (b"1e9", 0.0),
        (b"", 0.0),
        (b"\xff", 0.0),
        (b"999999999999999999", 999999999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_ignored(
    value: bytes, seconds: float
) -> None:
    assert retry_after(((b"content-type", b"x"), (b"retry-after", value)), NOW) == seconds


def test_no_retry_after_is_no_wait() -> None:
    assert retry_after((), NOW) == 0.0
