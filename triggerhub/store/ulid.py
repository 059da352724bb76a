"""ULIDs: identifiers that sort by the time they were made (github.com/ulid/spec)."""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80

_lock = threading.Lock()
_last = 0


def new_ulid() -> str:
    """26 characters of Crockford's base 32: 48 bits of milliseconds, 80 bits at random.

    Each is greater than the one before in this process, also within a millisecond and when the
    clock jumps backwards.
    """
    global _last
    # One bit short, so that the steps below cannot carry into the milliseconds.
    fresh = time.time_ns() // 1_000_000 << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS - 1)
    with _lock:
        if fresh >> _RANDOM_BITS <= _last >> _RANDOM_BITS:
            # A random step, not 1: forked processes go on from the same value.
            fresh = _last + 1 + secrets.randbits(40)
        _last = value = fresh
    return "".join([_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5)])
