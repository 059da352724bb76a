"""What ``spec.source`` of a NATSTrigger says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from triggerhub.connector import Cleanup, LetterPlaces, Placed, SeekOnce, SourceModel
from triggerhub.fields import PORT, ZONED_HOST, Rule, Text, Time
from triggerhub_nats.security import Security
from triggerhub_nats.subjects import (
    AnsweredSubject,
    Subject,
    WrittenSubject,
    covered,
    covered_cheaply,
    covers,
)

_NAME = Text(
    r"[^\x00-\x20\x7f.*>/\\]+", "a name without white space and any of . * > / and \\", 255
)
_QUEUE = Text(r"[^\x00-\x20\x7f]+", "a name without white space", 255)
SERVER = Text(
    f"((nats|tls)://)?{ZONED_HOST}(:{PORT})?",
    "host:port such as nats.example:4222, with nats:// or tls:// before it or nothing",
    280,
    readable=False,
)
_HEADER = Text(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", "the name of a header", 255)


Server = Annotated[str, SERVER]


class Start(SourceModel):
    """A sequence or a time."""

    # An API server has no rules for what may also be of another type.
    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})
    exactly_one = ("sequence", "time")

    sequence: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="Start with this message: its number in the stream.",
    )
    time: Time | None = Field(
        default=None,
        description="Start with the first message that is not older: RFC 3339, e.g. "
        "2026-01-31T08:00:00Z",
        json_schema_extra={"format": "date-time"},
    )


class KeyHeader(SourceModel):
    """Order by a header."""

    header: Annotated[str, _HEADER] = Field(
        description="Its name, in any case. A message without it keeps the stream's order."
    )


class Seek(SeekOnce):
    """Move the position, once."""

    to: Literal["All", "New", "Last"] | Start = Field(description="Where to, as in startFrom.")


class ReplyTo(SourceModel):
    """Where the function's answers go."""

    subject: AnsweredSubject = Field(
        description="The subject that gets the answers. Where a stream takes it, each is "
        "confirmed by it."
    )


_ANOTHER = "expected a subject that the trigger itself does not read"
_LETTERS, _SOURCE = "self.delivery.deadLetter.subject", "self.source"


def _answers_itself(source: NATSSource) -> str:
    if not isinstance(source.reply, ReplyTo) or not source.reads(source.reply.subject):
        return ""
    return f"found {source.reply.subject} in reply, {_ANOTHER}"


def _buries_in_itself(both: Placed) -> str:
    subject = both.place.subject
    return f"found {subject}, {_ANOTHER}" if both.source.reads(subject) else ""


class SubjectForLetters(LetterPlaces):
    """Where dead letters go."""

    spec_rules = (
        Rule(
            f"!has({_LETTERS}) || !("
            f"has({_SOURCE}.subject) && {covered(f'{_SOURCE}.subject', _LETTERS)} || "
            f"has({_SOURCE}.subjects) && {_SOURCE}.subjects.exists(one, "
            f"{covered_cheaply('one', _LETTERS)}))",
            _ANOTHER,
            _buries_in_itself,
            f"'found ' + {_LETTERS} + ', {_ANOTHER}'",
        ),
    )

    subject: WrittenSubject | None = Field(
        default=None,
        description="A subject of a stream of the same servers, which gets the dead letters.",
    )


_STREAMS_ONLY = ("durable", "startFrom", "confirmAcks", "maxAckPending", "seek", "cleanup")
_CORE_ONLY = ("queue", "reply", "durable: true")


def _given(source: NATSSource, names: tuple[str, ...]) -> list[str]:
    """Those that are set; ``reply``: to who asks."""
    values = source.model_dump(by_alias=True) | {
        "reply": source.reply is True,
        "durable": source.durable_name,
        "durable: true": source.inboxed,
    }
    return [name for name in names if values[name] not in (None, False, Cleanup.KEEP)]


def _nothing_to_listen_to(source: NATSSource) -> str:
    if source.stream is None and source.subject is None and source.subjects is None:
        return "found none of stream, subject, subjects, expected at least one"
    return ""


def _both_subjects(source: NATSSource) -> str:
    if source.subject is not None and source.subjects is not None:
        return "found both subject and subjects, expected at most one of them"
    return ""


def _without_a_stream(source: NATSSource) -> str:
    found = _given(source, _STREAMS_ONLY)
    if source.stream is None and found:
        return f"found {' and '.join(found)}, expected them only with stream"
    return ""


def _with_a_stream(source: NATSSource) -> str:
    found = _given(source, _CORE_ONLY)
    if source.stream is not None and found:
        return f"found {' and '.join(found)}, expected them only without stream"
    return ""


class NATSSource(SourceModel):
    """Messages of a JetStream stream, or, without one, of core subjects as they pass."""

    short_names = ("nt",)
    source_column = ("stream", "subject", "subjects")
    field_rules = (
        Rule(
            "has(self.stream) || has(self.subject) || has(self.subjects)",
            "expected at least one of stream, subject, subjects",
            _nothing_to_listen_to,
        ),
        Rule(
            "!has(self.subject) || !has(self.subjects)",
            "expected at most one of subject, subjects",
            _both_subjects,
        ),
        Rule(
            # An API server's rules cannot see startFrom and durable, which may be of several types.
            "has(self.stream) || !(has(self.maxAckPending) || self.confirmAcks || "
            "has(self.seek) || self.cleanup == 'Delete')",
            "expected maxAckPending, confirmAcks, seek, cleanup only with stream",
            _without_a_stream,
        ),
        Rule(
            # Nor reply.
            "!has(self.stream) || !has(self.queue)",
            "expected queue only without stream",
            _with_a_stream,
        ),
    )

    stream: Annotated[str, _NAME] | None = Field(
        default=None, description="JetStream: the stream. Without it, core NATS."
    )
    subject: Subject | None = Field(
        default=None,
        description="The messages that are meant, * and > being wildcards. With stream: "
        "default all of it.",
    )
    subjects: list[Subject] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Several; or set subject. Of a stream, they need nats-server 2.10.",
    )
    servers: list[Server] | None = Field(
        default=None,
        min_length=1,
        max_length=50,
        description="Servers to begin with, host:port each, perhaps with tls:// before it. "
        "Default: TRIGGERHUB_NATS_SERVERS of the hub, else 127.0.0.1:4222.",
    )
    security: Security | None = Field(default=None, description="TLS and login. Default: neither.")
    key: Literal["Subject"] | KeyHeader = Field(
        default="Subject",
        description="What order: Key means: a message's subject, or {header: …}.",
    )
    durable: Annotated[str, _NAME] | bool | None = Field(
        default=None,
        description="JetStream: the durable consumer. Default: one of the binding's own, "
        "triggerhub_<namespace>_<trigger>_<function>. Bindings that name one share its messages "
        "among them. Core: true, each message is made safe in the hub's inbox before it is "
        "delivered.",
    )
    start_from: Literal["All", "New", "Last"] | Start | None = Field(
        default=None,
        alias="startFrom",
        description="JetStream: where to begin when the durable consumer is created: All, New, "
        "Last, {sequence: …} or {time: …}. Default: New.",
    )
    max_ack_pending: int | None = Field(
        default=None,
        alias="maxAckPending",
        ge=1,
        le=1_000_000,
        description="JetStream: how many messages may be under way at once, in all processes "
        "together. Default: 32 times inFlight, at least 1000, when the consumer is created.",
    )
    confirm_acks: bool = Field(
        default=False,
        alias="confirmAcks",
        description="JetStream: have the server confirm each ack, and repeat those that it "
        "did not.",
    )
    queue: Annotated[str, _QUEUE] | None = Field(
        default=None,
        description="Core: the queue group. Default: one of the binding's own, "
        "triggerhub.<namespace>.<trigger>.<function>. Bindings that name one share its messages "
        "among them.",
    )
    reply: bool | ReplyTo = Field(
        default=False,
        description="Where the function's answers go: {subject: …}, to that subject. Core: true, "
        "to who asks for one. Default: they are not kept.",
    )
    seek: Seek | None = Field(
        default=None,
        description="JetStream: go on from somewhere else, once for each id, also while the "
        "trigger is paused.",
    )
    cleanup: Annotated[Cleanup, Field(strict=False)] = Field(
        default=Cleanup.KEEP,
        description="JetStream: what becomes of the durable consumer when the trigger is deleted "
        "from a cluster. Delete: it is deleted, with its position.",
    )

    @model_validator(mode="after")
    def _answers_go_elsewhere(self) -> NATSSource:
        # No field rule: an API server's cannot see reply.
        if wrong := _answers_itself(self):
            raise PydanticCustomError("choice", "{wrong}", {"wrong": wrong})
        return self

    @model_validator(mode="after")
    def _who_asks_gets_an_answer_or_it_is_kept(self) -> NATSSource:
        if self.inboxed and self.reply is True:
            wrong = "found both durable: true and reply: true, expected at most one of them"
            raise PydanticCustomError("choice", "{wrong}", {"wrong": wrong})
        return self

    @property
    def inboxed(self) -> bool:
        """Whether each message goes into the hub's inbox."""
        return self.durable is True

    @property
    def durable_name(self) -> str | None:
        """Of the consumer, where it is named."""
        return self.durable if isinstance(self.durable, str) else None

    @property
    def subject_names(self) -> tuple[str, ...]:
        """The subjects, whichever field named them."""
        return (self.subject,) if self.subject is not None else tuple(self.subjects or ())

    @property
    def order_header(self) -> str | None:
        """The header that order goes by, in lower case; None: the subject."""
        return self.key.header.lower() if isinstance(self.key, KeyHeader) else None

    def reads(self, subject: str) -> bool:
        """Whether a subject, without wildcards, is among those that are named."""
        return any(covers(pattern, subject) for pattern in self.subject_names)

    def reads_in(self, stream: str, subject: str) -> bool:
        """Whether what lies in that stream under that subject is read."""
        return stream == self.stream and (not self.subject_names or self.reads(subject))
