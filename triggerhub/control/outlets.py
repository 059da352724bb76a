"""Dead letters and answers that go to the source's own system: its connector writes them there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from triggerhub.connector import (
    Connector,
    Letter,
    LetterPlaces,
    NotTaken,
    SpecError,
    Subscription,
    Unreadable,
)
from triggerhub.control.binding import Listening
from triggerhub.delivery.course import evidence_fields
from triggerhub.event import Event, Origin, Reply
from triggerhub.store.records import DeadLetter, Elsewhere


class Connections(Protocol):
    """What opens connectors."""

    async def reach(self, listening: Listening) -> tuple[Connector[Any], Subscription[Any]]:
        """The connector of a binding's kind, and what it is given of the binding. Raises
        ``NotTaken`` when the hub ends."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """``Letters`` and ``Replies`` of one binding. Equal where they go to the same place."""

    listening: Listening
    place: LetterPlaces | None
    """Where dead letters go; None: not by this outlet."""
    connections: Connections = field(compare=False, repr=False)

    async def lay_down(self, letter: DeadLetter) -> Elsewhere:
        """Where the letter lies, once it is safe. Raises ``NotTaken``."""
        connector, subscription = await self.connections.reach(self.listening)
        own = Letter(
            id=letter.id,
            event=letter.event,
            origin=letter.origin,
            evidence=evidence_fields(letter),
        )
        try:
            coordinates = await _able(connector, "lay_down")(subscription, self.place, own)
        except (SpecError, OSError) as error:
            raise NotTaken(str(error)) from error
        return Elsewhere(
            kind=self.listening.kind, coordinates=coordinates, size=len(letter.event.data)
        )

    async def read_back(self, letter: DeadLetter) -> DeadLetter:
        """The letter with all that lies elsewhere. Raises ``Unreadable``."""
        assert letter.elsewhere is not None
        try:
            connector, subscription = await self.connections.reach(self.listening)
            event = await _able(connector, "read_back")(subscription, letter.elsewhere.coordinates)
        except (NotTaken, SpecError, OSError) as error:
            raise Unreadable(str(error)) from error
        origin = Origin() if event.origin is None else event.origin()
        return replace(letter, event=replace(event, origin=None), origin=origin)

    async def reply(self, event: Event, reply: Reply) -> None:
        """Returns once the answer is safe. Raises ``NotTaken``."""
        connector, subscription = await self.connections.reach(self.listening)
        try:
            await _able(connector, "reply")(subscription, event, reply)
        except (SpecError, OSError) as error:
            raise NotTaken(str(error)) from error


def _able(connector: Connector[Any], method: str) -> Any:
    found = getattr(connector, method, None)
    if found is None:
        raise NotTaken(f"the connector of {connector.kind} has no {method}", refused=True)
    return found
