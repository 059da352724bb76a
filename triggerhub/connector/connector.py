"""A connector: what it is, what it may know of its hub, and what else it may be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from triggerhub.connector.source import LetterPlaces
from triggerhub.connector.subscription import Subscription
from triggerhub.event import EMPTY, Event, Origin, Reply
from triggerhub.tls import Files

S = TypeVar("S", bound=BaseModel)
S_contra = TypeVar("S_contra", bound=BaseModel, contravariant=True)


class SpecError(Exception):
    """The source half of a manifest cannot work, whatever is tried again: ``listen`` raises it,
    the trigger's condition shows it, and listening begins anew only when the manifest changes."""


def _not_yet() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What a connector may know of the hub it runs in; given to its factory."""

    listen: str = "127.0.0.1:8080"
    """Where HTTP triggers listen: ``host:port``; port 0 takes a free one."""
    tls: Files | None = None
    """What ``listen`` shows its clients, looked at again and again; None: plain HTTP."""
    sockets: Callable[[], Awaitable[Sequence[int]]] | None = None
    """Descriptors of sockets that are bound to ``listen``, and that other processes of the hub
    listen on, too; they stay open. Waits until this process knows what serves the requests that
    they bring. None: the address is to be bound."""
    replica: str = ""
    """A name of this process among those that do the same work, the same after a restart, for a
    source that knows its members by name: letters, digits, dots, hyphens. Empty: it has none."""
    environ: Mapping[str, str] = field(default_factory=lambda: EMPTY, repr=False)
    """Environment: ``TRIGGERHUB_<NAME>`` variables hold a kind's installation-wide defaults."""
    stopping: Callable[[], bool] = _not_yet
    """Whether the hub ends, and its listeners with it: for a source that says so to who asks."""


class Connector(Protocol[S]):
    """What the entry-point group ``triggerhub.connectors`` names: a class or function that is
    called with an ``Installation`` and returns this. The entry point's name is the kind.

    Where it shares something among its subscriptions (a server, a client), it is also an async
    context manager: entered before its first ``listen``, left after the last one ended.
    """

    kind: str
    source: type[S]
    """``spec.source`` decodes to this; its JSON schema becomes the CRD's."""

    async def listen(self, subscription: Subscription[S]) -> None:
        """Emit the events of one source until cancelled.

        Raise what fails: the hub calls again, with backoff, and says why in the trigger's
        condition. Raise ``SpecError`` for what no repetition cures.
        """


class Cleaner(Protocol[S_contra]):
    """A connector whose sources keep something for a binding, such as a consumer group, may also
    be this. Its model then has a field ``cleanup: Cleanup``."""

    async def clean_up(self, subscription: Subscription[S_contra]) -> None:
        """Remove what the source keeps for this binding; no error when there is nothing. Called
        after ``listen`` ended here, perhaps while another replica still listens: raise, and it
        is called again, with backoff and within a limit. The hub's own positions go with it."""


class Seeker(Protocol[S_contra]):
    """A connector whose sources keep positions that a manifest may move may also be this. Its
    model then has a field ``seek``, a ``SeekOnce``, None where nothing is to be moved.

    ``listen`` does what is not done yet before it emits the first event; this is for a trigger
    that is paused. Both report what is done, ``Report.sought``, whoever did it.
    """

    async def seek(self, subscription: Subscription[S_contra]) -> None:
        """Do the seek once, and return when it is done. Another replica may do it too, or still
        listen: raise what fails, and it is called again, with backoff; ``SpecError`` for what no
        repetition cures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """An event that a source will bring."""

    id: str
    """The event's."""
    due: datetime
    """When its source means it to come, in the source's own time zone."""
    at: datetime
    """When it is sent."""
    why: tuple[str, ...]
    """What in the source says so, as the user wrote it."""
    notes: tuple[str, ...] = ()
    """What else there is to know: why it is not another time, what was left out before it."""


class Foreteller(Protocol[S_contra]):
    """A connector whose sources know what they will bring may also be this."""

    def upcoming(self, source: S_contra, trigger: str, after: datetime) -> Iterator[Upcoming]:
        """What comes later than ``after``, the next first, for as long as there is any: it may
        have no end. Nothing outside is asked. ``trigger``: namespace and name, as
        ``shop/nightly``."""


class Progress(Protocol):
    """How far a replay is. Sizes are in a measure of the connector's own, such as offsets."""

    def window(self, size: int, until: str, note: str = "") -> None:
        """Said once, and first: so much lies in the window. ``until`` names its end for another
        replay; ``note`` is a sentence on what belongs to the window and is not there any more."""

    def reached(self, size: int, since: str) -> None:
        """So much of it is settled, and what comes before ``since`` is part of that: another
        replay goes on from there. Said now and then, and at the end."""


class Replayer(Protocol[S_contra]):
    """A connector whose sources can send what is past once more may also be this."""

    async def replay(
        self,
        subscription: Subscription[S_contra],
        since: datetime | str,
        until: datetime | str | None,
        progress: Progress,
    ) -> None:
        """Emit what lies between, in order, beside ``listen`` and without any trace of it in the
        source; return when all is settled, or when cancelled, after at most the grace time.

        ``since`` belongs to the window, ``until`` does not; None: all that is there now. A text is
        a position in the connector's own words. ``subscription`` is the replay's own: its
        ``in_flight``, its ``report``. Raises ``ValueError`` for a text that is no position, and
        what fails in the source, with a sentence.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter, for the system of its source."""

    id: str
    event: Event
    """As it was sent, without ``origin``."""
    origin: Origin
    """As the source has it; empty for an event that did not come from there (a test event)."""
    evidence: Mapping[str, str]
    """Why, as texts by name: ``reason``, ``detail``, ``trigger``, ``attempts`` …"""


class NotTaken(Exception):  # noqa: N818 - a fact about the place, mostly not a fault
    """A dead letter or a reply could not be written: a sentence that says where, why, and what to
    do. It is tried again, and its event waits meanwhile."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        """``refused``: its system answers, and goes on refusing until somebody changes
        something; else it is away."""
        super().__init__(text)
        self.refused = refused


class Unreadable(LookupError):  # noqa: N818
    """A dead letter cannot be read back: a sentence that says where it lay, and why not."""


class LetterBox(Protocol[S_contra]):
    """A connector whose system also takes dead letters may also be this. The hub keeps an entry
    for each in its own store, without the data, so that they can be listed there."""

    dead_letter: type[LetterPlaces]
    """The fields that ``spec.delivery.deadLetter`` has for this kind, besides ``url``."""

    async def lay_down(
        self, subscription: Subscription[S_contra], place: Any, letter: Letter
    ) -> Mapping[str, str]:
        """Store one, byte for byte as its source had it. Returns its coordinates once it is safe:
        what ``read_back`` needs, and a person. ``place`` is of the type ``dead_letter``.

        Raises ``NotTaken`` within some seconds; it is then called again with the same letter, and
        may find that the first call came through after all.
        """

    async def read_back(
        self, subscription: Subscription[S_contra], coordinates: Mapping[str, str]
    ) -> Event:
        """The event of a letter that was stored there, as ``listen`` would make it now, with its
        first identity and ``origin``. Raises ``Unreadable``, within some seconds."""


class Replier(Protocol[S_contra]):
    """A connector whose system takes the functions' answers may also be this. Its model then has
    a field ``reply``, a ``SourceModel`` that says where to, or None."""

    async def reply(self, subscription: Subscription[S_contra], event: Event, reply: Reply) -> None:
        """Write the function's answer to this event: 2xx, with a body. Returns once it is safe;
        then the event is settled.

        Raises ``NotTaken`` within some seconds; it is then called again with the same event and
        reply, and may find that the first call came through after all.
        """
