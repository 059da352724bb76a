"""What a plugin author tells the conformance kit of a source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from pydantic import BaseModel

from triggerhub.connector import Connector, LetterPlaces

S = TypeVar("S", bound=BaseModel)


class Feature(StrEnum):
    """What a source can do. A promise that needs one which a harness does not name stands as
    not applicable, with the reason, in the report of ``check_connector``."""

    CARRIES_DATA = "carries data"
    """Each event bears the bytes that its producer sent (a clock does not)."""
    KEYED = "keyed"
    """A producer gives an event a key, and it arrives with it. Needs ``CARRIES_DATA``."""
    KEEPS = "keeps"
    """What is produced while nobody listens is there for the next ``listen``."""
    REPLAYS = "replays"
    """What was not settled comes again after a restart of the listener."""
    ANSWERS = "answers"
    """The producer waits for an answer, and is told when its event was not settled."""
    SHARES = "shares"
    """Several processes may listen under one subscription name at once."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One event as its producer knows it; no two of one place have the same data."""

    data: bytes
    key: str | None = None


class Harness(ABC, Generic[S]):
    """How the kit reaches one connector and its source. Subclass it; times are in seconds, and
    are the event loop's."""

    features: frozenset[Feature] = frozenset()
    event_type: str
    """The CloudEvents type of every event."""
    largest: int = 1_000_000
    """How many bytes of data to try; less where the source cannot carry them."""
    patience: float = 10.0
    """How long to wait for what must come."""
    quiet: float = 0.3
    """How long to watch for what must not come."""
    margin: float = 2.0
    """How long a listener may take to end, beyond its grace time."""

    letters: LetterPlaces | None = None
    """Where dead letters may be laid down, in a place that exists; None: the connector is no
    ``LetterBox``, and that promise is left out."""

    @abstractmethod
    def connector(self) -> Connector[S]:
        """A new connector, as another process of the hub would make it."""

    @abstractmethod
    async def place(self) -> S:
        """Where one promise is tried: a source that brings no events of another place (a new
        topic, path or stream), from its end on."""

    @abstractmethod
    async def produce(self, place: S, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Hand events to the source and return them as they must arrive, in this order. Does not
        wait until they are delivered. A source without ``CARRIES_DATA`` sees to it that as many
        events will come, and returns what each will bear."""

    async def answered(self, sample: Sample) -> bool:
        """Wait for the answer to one sample. True: its producer heard that it was accepted.
        Only for ``ANSWERS``."""
        raise NotImplementedError

    def unreachable(self) -> tuple[Connector[S], S] | None:
        """A connector and a source that it cannot reach; None leaves that promise out."""
        return None
