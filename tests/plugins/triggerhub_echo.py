"""A connector whose source holds references: emits what they stand for, each time it listens."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from pydantic import Field

from triggerhub.connector import Installation, Reference, SourceModel, Subscription
from triggerhub.event import Event


class EchoSource(SourceModel):
    """``spec.source`` of an EchoTrigger."""

    password: Reference = Field(description="What is emitted.")
    also: tuple[Reference, ...] = Field(default=(), description="Follows it, after commas.")


class EchoConnector:
    """One event when it begins to listen, and no other."""

    kind = "EchoTrigger"
    source = EchoSource

    def __init__(self, installation: Installation) -> None:
        pass

    async def listen(self, subscription: Subscription[EchoSource]) -> None:
        source = subscription.source
        values = [subscription.value(one) for one in (source.password, *source.also)]
        subscription.report.connected()
        await subscription.emit(
            Event(
                id=uuid4().hex,
                source=f"/echo/{subscription.trigger}",
                type="dev.triggerhub.echo",
                data=b",".join(values),
            )
        )
        await asyncio.Event().wait()
