"""What ``spec.source`` of a NATSTrigger says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from triggerhub.connector import Reference, SourceModel
from triggerhub.credentials import TLS, Account
from triggerhub.fields import IPV6, PORT, Rule, Text, Time

# White space and control characters end a word of the protocol; the others have a meaning of
# their own in a subject.
_PLAIN = r"[^\x00-\x20\x7f.*>]"
_SUBJECT = Text(
    rf"(({_PLAIN}+|\*)\.)*({_PLAIN}+|\*|>)",
    "a subject: words between dots such as orders.created, orders.* or orders.>",
    255,
    readable=False,
)
_NAME = Text(
    r"[^\x00-\x20\x7f.*>/\\]+", "a name without white space and any of . * > / and \\", 255
)
_QUEUE = Text(r"[^\x00-\x20\x7f]+", "a name without white space", 255)
_SERVER = Text(
    rf"((nats|tls)://)?([A-Za-z0-9._-]+|\[{IPV6}(%[A-Za-z0-9._-]+)?\])(:{PORT})?",
    "host:port such as nats.example:4222, with nats:// or tls:// before it or nothing",
    280,
    readable=False,
)
_HEADER = Text(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", "the name of a header", 255)


def check_server(text: str) -> str:
    """``host``, ``host:port``, ``nats://…``, ``tls://…``. Raises ValueError."""
    if not _SERVER.fits(text):
        raise ValueError(f"found {text!r}, expected {_SERVER.what}")
    return text


Subject = Annotated[str, _SUBJECT]
Server = Annotated[str, _SERVER]


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


class User(SourceModel):
    """A name and a password."""

    name: Account = Field(description="Of the account: as text, or where it is kept.")
    password: Reference = Field(description="Of the account.")


LOGINS = ("user", "token", "nkey", "credentials")


def _logins(security: Security) -> list[str]:
    return [name for name in LOGINS if getattr(security, name) is not None]


def _empty(security: Security) -> str:
    if security.tls is None and not _logins(security):
        return f"found none of tls, {', '.join(LOGINS)}, expected at least one"
    return ""


def _several(security: Security) -> str:
    found = _logins(security)
    if len(found) < 2:
        return ""
    return f"found {' and '.join(found)}, expected at most one of {', '.join(LOGINS)}"


class Security(SourceModel):
    """TLS, a login, or both."""

    field_rules = (
        Rule(
            f"has(self.tls) || {' || '.join(f'has(self.{name})' for name in LOGINS)}",
            f"expected at least one of tls, {', '.join(LOGINS)}",
            _empty,
        ),
        Rule(
            f"[{', '.join(f'has(self.{name})' for name in LOGINS)}]"
            ".filter(given, given).size() < 2",
            f"expected at most one of {', '.join(LOGINS)}",
            _several,
        ),
    )

    tls: TLS | None = Field(
        default=None,
        description="Encrypted connections; {} trusts the system's authorities. Without it, and "
        "without tls:// before a server, the server decides.",
    )
    user: User | None = Field(default=None, description="Log in with a name and a password.")
    token: Reference | None = Field(default=None, description="Log in with a token.")
    nkey: Reference | None = Field(
        default=None, description="Log in with an NKey: its seed, which begins with SU."
    )
    credentials: Reference | None = Field(
        default=None,
        description="Log in with a JWT and the NKey that belongs to it: a credentials file, as "
        "nsc generate creds writes it.",
    )


_STREAMS_ONLY = ("durable", "startFrom", "confirmAcks", "maxAckPending")
_CORE_ONLY = ("queue", "reply")


def _given(source: NATSSource, names: tuple[str, ...]) -> list[str]:
    values = source.model_dump(by_alias=True)
    return [name for name in names if values[name] not in (None, False)]


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
            # An API server's rules cannot see startFrom, which may be of several types.
            "has(self.stream) || !(has(self.durable) || has(self.maxAckPending) || "
            "self.confirmAcks)",
            "expected durable, maxAckPending, confirmAcks only with stream",
            _without_a_stream,
        ),
        Rule(
            "!has(self.stream) || !(has(self.queue) || self.reply)",
            f"expected {', '.join(_CORE_ONLY)} only without stream",
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
    durable: Annotated[str, _NAME] | None = Field(
        default=None,
        description="JetStream: the durable consumer. Default: one of the binding's own, "
        "triggerhub_<namespace>_<trigger>_<function>. Bindings that name one share its messages "
        "among them.",
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
    reply: bool = Field(
        default=False,
        description="Core: a message that asks for a reply gets the function's answer.",
    )

    @property
    def subject_names(self) -> tuple[str, ...]:
        """The subjects, whichever field named them."""
        return (self.subject,) if self.subject is not None else tuple(self.subjects or ())
