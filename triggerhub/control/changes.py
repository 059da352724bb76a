"""What may have another status than before, since somebody last asked."""

from __future__ import annotations

import asyncio

from triggerhub.control.resources import ResourceKey


class Changes:
    """Noted by whoever changes something that conditions show; taken by whoever writes them."""

    def __init__(self) -> None:
        self._triggers: set[ResourceKey] = set()
        self._functions: set[ResourceKey] = set()
        self._some = asyncio.Event()

    def binding(self, name: str) -> None:
        """A binding (``namespace.trigger.function``) is not as it was."""
        namespace, trigger, _ = name.split(".", 2)
        self.trigger(ResourceKey(namespace, trigger))

    def trigger(self, key: ResourceKey) -> None:
        """A trigger is not as it was, or is gone."""
        self._triggers.add(key)
        self._some.set()

    def function(self, key: ResourceKey) -> None:
        """A function is not as it was, or is gone."""
        self._functions.add(key)
        self._some.set()

    async def wait(self) -> None:
        """Until there is something to take."""
        await self._some.wait()

    def take(self) -> tuple[set[ResourceKey], set[ResourceKey]]:
        """Triggers and functions noted since the last time."""
        taken = self._triggers, self._functions
        self._triggers, self._functions = set(), set()
        self._some.clear()
        return taken
