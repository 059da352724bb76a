"""How long to wait before what failed is tried again."""

from __future__ import annotations

import random


def backoff(failures: int, first: float, longest: float) -> float:
    """Seconds, after so many failures in a row. The ``first`` wait is doubled with each, up to the
    ``longest``; half of it is chance, so that many do not come back at once."""
    return min(longest, first * 2.0 ** min(failures - 1, 20)) * random.uniform(0.5, 1.0)
