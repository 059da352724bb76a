"""How the source is, told when it changes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from aiokafka import TopicPartition

from triggerhub.connector import Problem, Report, Telling
from triggerhub_kafka.losses import Lost, told

_JOIN_WITHIN = 15.0
_COORDINATOR_WITHIN = 10.0
_SHOWN = 3


class Health:
    """Turns what one listener learns into ``Report`` calls: the worst that holds, once."""

    def __init__(self, report: Report, brokers: Iterable[str], group: str, grace: float) -> None:
        self._missing: frozenset[str] = frozenset()
        self._unmatched = ""
        self._stopped = ""
        self._lost: Mapping[TopicPartition, Lost] = {}
        self._telling = Telling(report)
        self._brokers = ", ".join(brokers)
        self._group = group
        self._join_within = _JOIN_WITHIN + grace
        self._joining_since: float | None = time.monotonic()
        self._away_since: float | None = None
        self._away = ""
        self._registry: Problem | None = None
        self._uncoordinated_since: float | None = None
        self._troubles: Mapping[TopicPartition, str] = {}
        self._lasting: Mapping[TopicPartition, str] = {}

    def joining(self) -> None:
        """The group rebalances."""
        self._joining_since = time.monotonic()
        self._stopped = ""

    def seconds_joining(self) -> float:
        """How long the group has been rebalancing; 0 when it is not."""
        return _seconds(self._joining_since)

    def joined(self) -> None:
        """Partitions are assigned, their positions fixed."""
        self._joining_since = None
        self.tell()

    def topics(self, missing: Iterable[str], unmatched: str = "") -> None:
        """Which topics do not exist. ``unmatched``: the pattern that none matches."""
        self._missing = frozenset(missing)
        self._unmatched = unmatched
        self.tell()

    def lost(self, lost: Mapping[TopicPartition, Lost]) -> None:
        """Which records were gone before they were read: told while all else is well."""
        self._lost = lost

    def stopped(self, why: str) -> None:
        """Nothing is read until someone decides, or the group rebalances."""
        self._stopped = why
        self.tell()

    def away(self, why: str) -> float:
        """The brokers did not answer. Returns for how many seconds that has been so."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        self._away = why
        self.tell()
        return now - self._away_since

    def back(self, coordinated: bool, troubles: Mapping[TopicPartition, str]) -> None:
        """The brokers answered. ``coordinated``: the group's coordinator is known. ``troubles``:
        partitions that cannot be read, and why."""
        self._away_since = None
        if coordinated:
            self._uncoordinated_since = None
        elif self._uncoordinated_since is None:
            self._uncoordinated_since = time.monotonic()
        # A partition changes its leader within a second or two: what lasts is told.
        self._lasting = {at: why for at, why in troubles.items() if at in self._troubles}
        self._troubles = troubles
        self.tell()

    def registry(self, problem: Problem | None) -> None:
        """What keeps the schema registry from giving schemas."""
        if problem != self._registry:
            self._registry = problem
            self.tell()

    def note(self, problem: Problem) -> None:
        """Report this, whatever else holds."""
        self._telling.wrong(problem)

    def tell(self) -> None:
        """Report what holds, where that has changed. A rebalance is no change unless it lasts."""
        if self._away_since is not None:
            where = f"no Kafka broker answers at {self._brokers}"
            self._say("BrokerUnreachable", f"{where}: {self._away}")
        elif self._stopped:
            self._say("OffsetOutOfRange", self._stopped)
        elif self._unmatched:
            self._say("TopicNotFound", f"no topic matches {self._unmatched} on {self._brokers}")
        elif self._missing:
            names = ", ".join(sorted(self._missing))
            subject = f"topic {names} does" if len(self._missing) == 1 else f"topics {names} do"
            self._say("TopicNotFound", f"{subject} not exist on {self._brokers}")
        elif self._lasting:
            self._say("PartitionUnavailable", _of_partitions(self._lasting))
        elif _seconds(self._uncoordinated_since) > _COORDINATOR_WITHIN:
            text = (
                f"the broker that coordinates consumer group {self._group} does not answer, while "
                "others do: until it does, or another takes its place, no offset is committed and "
                "no partition changes hands"
            )
            self._say("CoordinatorUnavailable", text)
        elif self._registry is not None:
            self._telling.wrong(self._registry)
        elif self._joining_since is None:
            self._say_well()
        elif self.seconds_joining() > self._join_within:
            text = f"consumer group {self._group} does not come to rest: it waits for a member"
            self._say("Rebalancing", text)

    def _say_well(self) -> None:
        lost = told(self._lost, time.time())
        self._telling.well(Problem("OffsetOutOfRange", lost) if lost else None)

    def _say(self, reason: str, text: str) -> None:
        self._telling.wrong(Problem(reason, text))


def _seconds(since: float | None) -> float:
    return 0.0 if since is None else time.monotonic() - since


def _of_partitions(troubles: Mapping[TopicPartition, str]) -> str:
    shown = sorted(troubles)[:_SHOWN]
    texts = [f"topic {at.topic} partition {at.partition}: {troubles[at]}" for at in shown]
    if len(troubles) > _SHOWN:
        texts.append(f"{len(troubles) - _SHOWN} more")
    return "; ".join(texts) + "; the others are read"
