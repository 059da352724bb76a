"""A connector whose system also takes dead letters and answers, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from triggerhub.connector import (
    Installation,
    Letter,
    LetterPlaces,
    NotTaken,
    Placed,
    SourceModel,
    Subscription,
    Unreadable,
)
from triggerhub.event import Event, Reply
from triggerhub.fields import Rule, Text

Shelf = Annotated[str, Text("[a-z]{1,9}", "a shelf: 1 to 9 of a-z", 9)]


class CellarSource(SourceModel):
    """``spec.source`` of a CellarTrigger."""

    shelf: Shelf = Field(description="What is listened to.")
    reply: Shelf | None = Field(default=None, description="Where answers go.")


def _same(both: Placed) -> str:
    return "" if both.source.shelf != both.place.shelf else "found the shelf that is listened to"


class Shelves(LetterPlaces):
    """Where dead letters go."""

    spec_rules = (
        Rule(
            "!has(self.delivery.deadLetter.shelf) "
            "|| self.source.shelf != self.delivery.deadLetter.shelf",
            "expected another shelf",
            _same,
        ),
    )

    shelf: Shelf | None = Field(default=None, description="One shelf.")
    top_shelf: Shelf | None = Field(default=None, alias="topShelf", description="One higher up.")


class CellarConnector:
    """Emits nothing."""

    kind = "CellarTrigger"
    source = CellarSource
    dead_letter = Shelves

    def __init__(self, installation: Installation) -> None:
        self.letters: list[tuple[str, Letter]] = []
        self.replies: list[tuple[str, Event, Reply]] = []
        self.trouble: Exception | None = None
        """Set: nothing is taken, nor read."""

    async def listen(self, subscription: Subscription[CellarSource]) -> None:
        subscription.report.connected()
        await asyncio.Event().wait()

    async def lay_down(
        self, subscription: Subscription[CellarSource], place: Shelves, letter: Letter
    ) -> Mapping[str, str]:
        if self.trouble is not None:
            raise self.trouble
        shelf = place.shelf or place.top_shelf
        assert shelf is not None
        self.letters.append((shelf, letter))
        return {"shelf": shelf, "number": str(len(self.letters) - 1)}

    async def read_back(
        self, subscription: Subscription[CellarSource], coordinates: Mapping[str, str]
    ) -> Event:
        if self.trouble is not None:
            raise self.trouble
        try:
            shelf, letter = self.letters[int(coordinates["number"])]
        except IndexError:
            raise Unreadable("there is no such letter") from None
        if shelf != coordinates["shelf"]:
            raise Unreadable(f"it lies on {shelf}")
        event = letter.event
        return Event(
            id=event.id, source=event.source, type=event.type, data=event.data, key=event.key,
            origin=lambda: letter.origin,
        )  # fmt: skip

    async def reply(
        self, subscription: Subscription[CellarSource], event: Event, reply: Reply
    ) -> None:
        if self.trouble is not None:
            raise self.trouble
        if len(reply.body) > 100:
            raise NotTaken("no shelf takes more than 100 bytes", refused=True)
        assert subscription.source.reply is not None
        self.replies.append((subscription.source.reply, event, reply))
