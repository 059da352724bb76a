"""From a binding's name to an outcome: one table of links, replaced whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from triggerhub.connector import GivenBack
from triggerhub.delivery.link import Link, unheard
from triggerhub.delivery.tally import Tally
from triggerhub.delivery.target import Target
from triggerhub.delivery.transport import Transport
from triggerhub.event import Event, Outcome
from triggerhub.store.records import Delivery, Store


class Dispatcher:
    """Knows every binding's link. ``rebind`` is also the clean-up when a function is deleted:
    what is not in the new table has its waiting deliveries given back and takes no more."""

    def __init__(
        self,
        transport: Transport,
        store: Store,
        *,
        changed: Callable[[str], None] = unheard,
    ) -> None:
        """``changed`` is called with a binding's name when its problem is another, and when an
        event became a dead letter."""
        self._transport = transport
        self._store = store
        self._changed = changed
        self._links: dict[str, Link] = {}
        self._beside: dict[Link, None] = {}

    def rebind(self, targets: Iterable[Target]) -> None:
        """From now on exactly these bindings deliver; the next attempt sees what changed."""
        wanted = {target.name: target for target in targets}
        for link in self._beside:
            target = wanted.get(link.name)
            if link.target is not None and link.target != target:
                link.aim(target)
        for name, link in list(self._links.items()):
            if name in wanted:
                continue
            if link.target is not None:
                link.aim(None)
            if not link.tally.in_flight:
                del self._links[name]
        for name, target in wanted.items():
            link = self._links.get(name) or self.link(name)
            # Nearly all of them are the same objects as before.
            if link.target is not target and link.target != target:
                link.aim(target)

    def link(self, name: str) -> Link:
        """The link of that name, made where it does not exist yet (it then gives back)."""
        found = self._links.get(name)
        if found is None:
            found = self._links[name] = self._made(name, Tally())
        return found

    @contextmanager
    def beside(self, name: str) -> Iterator[Link]:
        """A second link of a binding, for what is carried beside its stream: they count together,
        and wait apart, so that one can be released without the other. Raises ``GivenBack`` where
        none has that name."""
        first = self._links.get(name)
        if first is None or first.target is None:
            raise GivenBack(f"no binding is called {name}")
        link = self._made(name, first.tally)
        link.aim(first.target)
        self._beside[link] = None
        try:
            yield link
        finally:
            del self._beside[link]

    def links(self) -> Iterator[Link]:
        """Every link that is bound or still has deliveries under way."""
        return iter(tuple(self._links.values()))

    def _made(self, name: str, tally: Tally) -> Link:
        return Link(name, self._transport, self._store, changed=self._changed, tally=tally)

    async def dispatch(self, name: str, event: Event) -> Outcome:
        """Deliver one event along a binding. Raises ``GivenBack`` where none has that name."""
        link = self._links.get(name)
        if link is None:
            raise GivenBack(f"no binding is called {name}")
        return await link(event)

    def recent(self, event_id: str, source: str = "") -> list[Delivery]:
        """What is known of one event in this process: under way, and in memory; newest first."""
        found: dict[tuple[str, float], Delivery] = {}
        for link in (*self.links(), *self._beside):
            for delivery in (*link.under_way(), *link.tally.deliveries(link.name)):
                if delivery.id == event_id and source in ("", delivery.source):
                    found.setdefault((delivery.binding, delivery.received), delivery)
        return sorted(found.values(), key=lambda d: d.received, reverse=True)

    async def deliveries(self, event_id: str, source: str = "") -> list[Delivery]:
        """What is known of one event, here and in the store; newest first. Raises
        ``StoreError``."""
        found = {(d.binding, d.received): d for d in self.recent(event_id, source)}
        for delivery in await self._store.journal.find(event_id, source):
            found.setdefault((delivery.binding, delivery.received), delivery)
        return sorted(found.values(), key=lambda d: d.received, reverse=True)
