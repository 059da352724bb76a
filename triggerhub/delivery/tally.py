"""What a binding has carried: plain counters that metrics read, and its latest deliveries."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator

from triggerhub.event import Event, Settled
from triggerhub.store.records import Attempt, Delivery

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the delivery histogram, seconds."""

RECENT = 1000
"""So many of a binding's latest deliveries are kept in memory for `why`."""

# source, id, type, wall-clock start, seconds, status: a first attempt that was accepted.
_Plain = tuple[str, str, str, float, float, int]


class Tally:
    """Counters of one binding. At every moment
    received = accepted + filtered + dead + dropped + given_back + in_flight."""

    __slots__ = (
        "_attempts", "_recent", "accepted", "buckets", "dead", "dropped", "filtered", "given_back",
        "received", "seconds",
    )  # fmt: skip

    def __init__(self) -> None:
        self.received = 0
        self.accepted = 0
        self.filtered = 0
        self.dead = 0
        self.dropped = 0
        self.given_back = 0
        self._attempts = [0] * 6  # by the first digit of the status; at 0 those without a reply
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self._recent: deque[_Plain | Delivery] | None = None

    @property
    def recent(self) -> deque[_Plain | Delivery]:
        """The latest deliveries, the newest last. Made with the first: an empty one is large, and
        of thousands of bindings most carry little."""
        if self._recent is None:
            self._recent = deque(maxlen=RECENT)
        return self._recent

    @property
    def attempts(self) -> dict[str, int]:
        """Attempts by status class: ``1xx`` … ``5xx``, ``none`` (no reply)."""
        return {
            f"{digit}xx" if digit else "none": number
            for digit, number in enumerate(self._attempts)
            if number
        }

    @property
    def in_flight(self) -> int:
        """Deliveries under way, waits between attempts included."""
        return self.received - (
            self.accepted + self.filtered + self.dead + self.dropped + self.given_back
        )

    def attempted(self, status: int | None) -> None:
        """One attempt ended with this status; None: without a reply."""
        self._attempts[0 if status is None else min(status // 100, 5)] += 1

    def accept(self, event: Event, received: float, seconds: float, status: int) -> None:
        """A first attempt was accepted: count it, and keep it (no object made: the hot path)."""
        self._attempts[status // 100] += 1
        self.accepted += 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds
        self.recent.append((event.source, event.id, event.type, received, seconds, status))

    def settle(self, how: Settled, seconds: float) -> None:
        """A delivery ended with an outcome after so many seconds."""
        if how is Settled.ACCEPTED:
            self.accepted += 1
        elif how is Settled.DEAD:
            self.dead += 1
        elif how is Settled.DROPPED:
            self.dropped += 1
        else:
            self.filtered += 1
        self.buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def deliveries(self, binding: str) -> Iterator[Delivery]:
        """The latest deliveries, newest first."""
        for item in reversed(self._recent or ()):
            yield item if isinstance(item, Delivery) else _spell_out(binding, item)


def _spell_out(binding: str, plain: _Plain) -> Delivery:
    source, event_id, kind, received, seconds, status = plain
    return Delivery(
        binding=binding,
        source=source,
        id=event_id,
        type=kind,
        received=received,
        ended=received + seconds,
        settled=Settled.ACCEPTED,
        detail=f"accepted with {status}",
        attempts=(Attempt(number=1, time=received, seconds=seconds, status=status),),
    )
