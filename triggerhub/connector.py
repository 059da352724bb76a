"""The seam: all that a connector author implements and is given.

A connector is a kind, a model of its ``spec.source`` and one coroutine. It never sees Kubernetes,
functions, retries or metrics. ``docs/writing-a-connector.md`` walks through one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from triggerhub.event import EMPTY, Event, Origin, Outcome, Reply, Settled
from triggerhub.fields import Checked, Rule, Text
from triggerhub.tls import Files


class Order(StrEnum):
    """What is delivered one after the other, in source order, retries included."""

    NONE = "None"
    KEY = "Key"
    PARTITION = "Partition"


class SpecError(Exception):
    """The source half of a manifest cannot work, whatever is tried again: ``listen`` raises it,
    the trigger's condition shows it, and listening begins anew only when the manifest changes."""


class GivenBack(Exception):  # noqa: N818 - a fact about the delivery, not a fault
    """The delivery ended without an outcome (listener stopping, function gone): the event stays
    with its source, which will bring it again."""


class PositionConflict(Exception):  # noqa: N818
    """Another process changed this position first (compare-and-set failed)."""


class NotTaken(Exception):  # noqa: N818 - a fact about the place, mostly not a fault
    """A dead letter or a reply could not be written: a sentence that says where, why, and what to
    do. It is tried again, and its event waits meanwhile."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        """``refused``: its system answers, and goes on refusing until somebody changes
        something; else it is away."""
        super().__init__(text)
        self.refused = refused


class InboxFull(OSError):  # noqa: N818 - a fact about the inbox
    """An inbox holds as many events as it may, or as many bytes: a sentence that says how many."""


class Unreadable(LookupError):  # noqa: N818
    """A dead letter cannot be read back: a sentence that says where it lay, and why not."""


class SourceModel(Checked):
    """Base of every ``spec.source`` model: frozen, unknown fields refused, camelCase on the wire
    (declare ``alias="…"`` where a Python name differs)."""

    short_names: ClassVar[tuple[str, ...]] = ()
    """Of the kind, for ``kubectl get``: not those of another kind."""
    source_column: ClassVar[tuple[str, ...]] = ()
    """Names on the wire of fields: ``kubectl get`` shows the first that is given."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=False, strict=True, validate_default=True
    )

    @property
    def inboxed(self) -> bool:
        """Whether all its events go into the inbox. Then it is listened to while its trigger is
        paused, too."""
        return False


class LetterPlaces(SourceModel):
    """Base of the places where the system of a ``LetterBox`` takes dead letters. Each field is
    one, optional, and default None: the user gives one of them, or a URL, or nothing."""

    spec_rules: ClassVar[tuple[Rule, ...]] = ()
    """What must hold of the place and the source together. In CEL ``self`` is the trigger's spec;
    ``wrong`` is given both, as ``Placed``."""


class Placed(NamedTuple):
    """Both halves of what a rule in ``spec_rules`` judges."""

    source: Any
    place: Any


class SeekOnce(SourceModel):
    """Base of the field ``seek`` of a ``Seeker``'s model; ``to``, where to, is the kind's own."""

    id: Annotated[
        str,
        Text(
            "[A-Za-z0-9._:+-]{1,63}",
            "1 to 63 of a-z, A-Z, 0-9, '.', '_', ':', '+', '-', such as 2026-11-23-a",
            63,
        ),
    ] = Field(
        description="Of your choice, such as 2026-11-23-a. Each is done once; to seek again, "
        "choose another."
    )


class Cleanup(StrEnum):
    """For a field ``cleanup`` of a source model whose connector is a ``Cleaner``: what becomes of
    what the source keeps for a binding when its trigger is deleted."""

    KEEP = "Keep"
    DELETE = "Delete"


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"


class KeyRef(SourceModel):
    """One entry of a Secret or ConfigMap in the trigger's namespace."""

    name: str = Field(
        max_length=253,
        pattern=rf"^{_LABEL}(\.{_LABEL})*$",
        description="The object's name.",
    )
    key: str = Field(
        max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="The entry's key in its data."
    )


class Reference(SourceModel):
    """A value that is kept elsewhere: fields of a source model that hold secrets have this type.
    ``Subscription.value`` gives what it stands for; when that changes, the listener is started
    anew."""

    model_config = ConfigDict(
        json_schema_extra={
            "description": "A value that is kept elsewhere: exactly one of its fields.",
            # A rule in CEL would be too dear for an API server where there may be many.
            "minProperties": 1,
            "maxProperties": 1,
        }
    )

    secret_ref: KeyRef | None = Field(
        default=None, alias="secretRef", description="An entry of a Secret."
    )
    config_map_ref: KeyRef | None = Field(
        default=None, alias="configMapRef", description="An entry of a ConfigMap."
    )
    env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="An environment variable of the hub; only for manifests in a folder.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Reference:
        names = {"secretRef": self.secret_ref, "configMapRef": self.config_map_ref, "env": self.env}
        found = [name for name, value in names.items() if value is not None]
        if len(found) != 1:
            raise ValueError(
                f"found {' and '.join(found) or 'none'}, expected exactly one of {', '.join(names)}"
            )
        return self

    def __str__(self) -> str:
        if self.env is not None:
            return f"environment variable {self.env}"
        reference = self.secret_ref or self.config_map_ref
        assert reference is not None
        kind = "Secret" if self.secret_ref else "ConfigMap"
        return f"key {reference.key} of {kind} {reference.name}"


S = TypeVar("S", bound=BaseModel)
S_co = TypeVar("S_co", bound=BaseModel, covariant=True)
S_contra = TypeVar("S_contra", bound=BaseModel, contravariant=True)


class Emit(Protocol):
    """Carry one event along the binding. Returning means settled."""

    async def __call__(self, event: Event) -> Outcome:
        """Deliver, with every retry. Raises ``GivenBack`` when it ends without an outcome."""

    def release(self) -> None:
        """Deliveries that wait between two attempts raise ``GivenBack`` now, and so will those
        whose attempt under way fails, until ``resume``. Attempts under way go on."""

    def resume(self) -> None:
        """Deliveries may wait again."""


@dataclass(frozen=True, slots=True)
class Position:
    """A durable value and the revision that a compare-and-set must name."""

    value: str
    revision: int


class Positions(Protocol):
    """A durable cursor, for sources that keep none themselves. Keys are the connector's own;
    each subscription has its own set. Every method raises ``OSError`` when the store cannot be
    read or written."""

    async def load(self, prefix: str = "") -> dict[str, Position]:
        """All stored positions of this subscription whose key begins with ``prefix``."""

    async def save(self, key: str, value: str, *, expect: int | None = None) -> int:
        """Write and return the new revision. ``expect`` is the revision last read, 0 for "must
        not exist yet", None for "whatever is there". Raises ``PositionConflict``."""

    async def delete(self, key: str) -> None:
        """Forget one key; no error when it is not there."""

    async def claim(self, key: str, ttl: float) -> bool:
        """Take ``key`` for this process for ``ttl`` seconds, or renew a claim it holds. False:
        another process holds it."""

    async def release(self, key: str) -> None:
        """Give up a claim that this process holds; no error otherwise."""


class Taken(NamedTuple):
    """An event that is in an inbox, or was."""

    number: int
    """Where: no other event of any inbox gets the same."""
    fresh: bool = True
    """False: it was put before, within the window, and nothing was put now."""


class Fate(NamedTuple):
    """What became of an event that was put into an inbox."""

    waits: bool
    """For its delivery, or for the end of one that is under way."""
    settled: Settled | None = None
    """None: it waits; or how it was settled is not known, and then mostly the first attempt was
    accepted, in another process or long ago."""
    attempts: int = 0
    """As far as this process knows."""
    detail: str = ""
    """One line; empty where there is nothing to say."""


class Intake(Protocol):
    """Where a source that keeps nothing itself makes events safe before they are delivered: the
    hub's inbox of this subscription. The hub delivers what is in it, in the order in which it was
    put and with all that ``emit`` does, in one process at a time, whether or not anybody listens.
    """

    async def put(self, event: Event, *, window: float = 0.0) -> Taken:
        """Returns when the event is safe: written and synced. What ``origin`` says is asked now.

        ``window``: an event of the same ``source`` and ``id`` that was put in the last so many
        seconds is this one, and nothing is put. Raises ``InboxFull``; another ``OSError`` when
        the store cannot be written. Cancelled, it may have been put.
        """

    async def fate(
        self, event_id: str, source: str, taken: int, within: float = 0.0
    ) -> Fate | None:
        """What became of the event that was ``taken`` under this number; waits for its outcome
        for ``within`` seconds at most. An empty ``source`` stands for any. None: no event ever
        had that number. Raises ``OSError``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """A seek that is done: the positions of a binding were moved because its manifest says so."""

    id: str
    """As the manifest names it: each is done once."""
    time: datetime
    positions: str
    """Where to, in the source's own words, e.g. ``0:1520,1:1498``."""


class Report(Protocol):
    """How the source is. Shown in the trigger's ``Connected`` condition and in metrics."""

    def connected(self, reason: str = "Connected", message: str = "") -> None:
        """The listener is attached: what the source brings from now on will be seen. Another
        ``reason`` in CamelCase, with a message, tells of something that happened and that the
        user is to know although it goes on, until the next report."""

    def disconnected(self, reason: str, message: str = "") -> None:
        """``reason`` in CamelCase, e.g. ``BrokerUnreachable``; ``message`` says what to do."""

    def lag(self, events: float, parts: Mapping[str, float] | None = None) -> None:
        """How many events wait in the source for this process, as far as it can tell: what
        several processes of a hub tell is added up. ``parts``: and in each of its partitions or
        shards that this process reads, by a name such as ``orders/3``."""

    def turned_away(self, reason: str) -> None:
        """Somebody who sent something was refused, and no event came of it. ``reason`` in
        CamelCase, one of few: they are counted by it."""

    def sought(self, seek: Sought) -> None:
        """The seek that the manifest asks for is done, now or long ago. Kept in the trigger's
        status."""


async def alone() -> None:
    """Of a hub that is one process: nobody else uses its positions."""


async def at_once() -> float:
    """The turn of a process without replicas: from now on."""
    return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription(Generic[S_co]):
    """One binding's listening half, as its connector sees it."""

    name: str
    """``namespace.trigger.function``: unique, stable, fit for a consumer group or durable."""
    namespace: str
    trigger: str
    function: str
    source: S_co
    emit: Emit
    order: Order = Order.KEY
    in_flight: int = 64
    grace: float = 25.0
    """Seconds that in-flight deliveries get to end when the listener stops."""
    positions: Positions
    inbox: Intake
    report: Report
    created: datetime
    """Creation time of the trigger: where two claim one thing, the older keeps it."""
    values: Mapping[Reference, bytes] = field(default_factory=dict, repr=False)
    """What the references in ``source`` stand for."""
    own: Callable[[], Awaitable[None]] = alone
    """For a source that keeps in ``positions`` what is under way: wait until no other process of
    this hub does so. What is found there afterwards is nobody's any more. It stays so until the
    process ends."""
    turn: Callable[[], Awaitable[float]] = at_once
    """For a source that spreads nothing among replicas by itself (a clock): wait until this
    process is the one that acts for them all. Returns the time (seconds since the epoch) since
    when what falls due is its own; infinity: from now on. Loses it only together with the
    listener, which is cancelled then and started anew."""

    def value(self, reference: Reference) -> bytes:
        """What a reference stands for. Raises LookupError for one that is not in ``source``."""
        value = self.values.get(reference)
        if value is None:
            raise LookupError(f"{reference} is not there")
        return value


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
