"""What ``spec.source`` of a KafkaTrigger says."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from triggerhub.connector import Cleanup, LetterPlaces, Placed, SourceModel
from triggerhub.fields import IPV6, PORT, Rule, Text, expected
from triggerhub_kafka.security import SchemaRegistry, Security

_BROKER = Text(
    rf"([A-Za-z0-9._-]+|\[{IPV6}(%[A-Za-z0-9._-]+)?\]):{PORT}",
    "host:port such as kafka.example:9092",
    270,
    readable=False,
)
_DAY = "(0[1-9]|[12][0-9]|3[01])"
_TIME = Text(
    # RFC 3339, section 5.6; no year 0, no leap second.
    rf"([1-9][0-9]{{3}}|0[1-9][0-9]{{2}}|00[1-9][0-9]|000[1-9])-(0[1-9]|1[0-2])-{_DAY}"
    r"[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
    "a time such as 2026-01-31T08:00:00Z",
    48,
)


def parse_time(text: str) -> datetime:
    """An RFC 3339 date-time, section 5.6. Raises ValueError."""
    return datetime.fromisoformat(_TIME.check(text).upper())


def check_broker(text: str) -> str:
    """``host:port``, ``[IPv6]:port``. Raises ValueError."""
    if not _BROKER.fits(text):
        raise ValueError(f"found {text!r}, expected {_BROKER.what}")
    return text


def _check_time(text: str) -> str:
    try:
        parse_time(text)
    except ValueError:
        raise expected(_TIME.what) from None
    return text


def _text_of_time(found: object) -> object:
    # An unquoted YAML timestamp arrives as a datetime.
    if isinstance(found, datetime) and found.tzinfo is not None:
        return found.isoformat()
    return found


Topic = Annotated[
    str,
    Text(
        "[a-zA-Z0-9._-]{1,249}",
        "a topic name: 1 to 249 of a-z, A-Z, 0-9, '.', '_', '-'",
        249,
        never=r"^\.{1,2}$",
    ),
]
Broker = Annotated[str, _BROKER]


class StartTime(SourceModel):
    """Start with the first record that is not older than this."""

    timestamp: Annotated[
        str, BeforeValidator(_text_of_time), _TIME, AfterValidator(_check_time)
    ] = Field(
        description="RFC 3339, e.g. 2026-01-31T08:00:00Z", json_schema_extra={"format": "date-time"}
    )


class Seek(SourceModel):
    """Move the group's positions, once."""

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
    to: Literal["Latest", "Earliest"] | StartTime = Field(description="Where to, as in startFrom.")


class ReplyTo(SourceModel):
    """Where the function's answers go."""

    topic: Topic = Field(
        description="The topic that gets the answers, each under the key of its record."
    )


def _reads(topic: str, source: str) -> str:
    """CEL: the topic is one that the source reads."""
    return (
        f"(has({source}.topic) && {source}.topic == {topic} || "
        f"has({source}.topics) && {topic} in {source}.topics)"
    )


def _answers_itself(source: KafkaSource) -> str:
    if source.reply is None or not source.reads(source.reply.topic):
        return ""
    return f"found {source.reply.topic} in reply, {_ANOTHER}"


def _buries_in_itself(both: Placed) -> str:
    topic = both.place.topic
    return f"found {topic}, {_ANOTHER}" if both.source.reads(topic) else ""


_ANOTHER = "expected a topic that the trigger itself does not read"
_REPLY, _LETTERS, _SOURCE = "self.reply.topic", "self.delivery.deadLetter.topic", "self.source"


class TopicForLetters(LetterPlaces):
    """Where dead letters go."""

    spec_rules = (
        Rule(
            f"!has({_LETTERS}) || !{_reads(_LETTERS, _SOURCE)}",
            _ANOTHER,
            _buries_in_itself,
            f"'found ' + {_LETTERS} + ', {_ANOTHER}'",
        ),
    )

    topic: Topic | None = Field(
        default=None, description="A topic of the same brokers that gets the dead letters."
    )


class KafkaSource(SourceModel):
    """Records of one or more topics, read by a consumer group."""

    exactly_one = ("topic", "topics")
    field_rules = (
        Rule(
            f"!has(self.reply) || !{_reads(_REPLY, 'self')}",
            _ANOTHER,
            _answers_itself,
            f"'found ' + {_REPLY} + ' in reply, {_ANOTHER}'",
        ),
    )
    short_names = ("kt",)
    source_column = ("topic", "topics")

    topic: Topic | None = Field(default=None, description="The topic; or set topics.")
    topics: list[Topic] | None = Field(
        default=None, min_length=1, max_length=500, description="Several topics; or set topic."
    )
    brokers: list[Broker] | None = Field(
        default=None,
        min_length=1,
        max_length=50,
        description="Brokers to begin with, host:port each. "
        "Default: TRIGGERHUB_KAFKA_BROKERS of the hub, else 127.0.0.1:9092.",
    )
    security: Security | None = Field(
        default=None,
        description="TLS and login. Default: neither.",
    )
    schema_registry: SchemaRegistry | None = Field(
        default=None,
        alias="schemaRegistry",
        description="The registry that the records' schemas are in: they reach the function as "
        "JSON. Default: records as they are.",
    )
    group: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Consumer group. Default: one of the binding's own, "
        "triggerhub.<namespace>.<trigger>.<function>. Bindings that name one group share its "
        "records among them.",
    )
    start_from: Literal["Latest", "Earliest"] | StartTime = Field(
        default="Latest",
        alias="startFrom",
        description="Where to begin in a partition for which the group has no committed offset: "
        "Latest, Earliest or {timestamp: …}.",
    )
    seek: Seek | None = Field(
        default=None,
        description="Go on from somewhere else, in every partition: once for each id, also while "
        "the trigger is paused.",
    )
    reply: ReplyTo | None = Field(
        default=None,
        description="Write the function's answers to a topic. Default: they are not kept.",
    )
    cleanup: Annotated[Cleanup, Field(strict=False)] = Field(
        default=Cleanup.KEEP,
        description="What becomes of the consumer group when the trigger is deleted from a "
        "cluster. Delete: it is deleted, with its committed offsets.",
    )

    def reads(self, topic: str) -> bool:
        """The topic is one of those that it listens to."""
        return topic in self.topic_names

    @property
    def topic_names(self) -> frozenset[str]:
        """The topics, whichever field named them."""
        return frozenset([self.topic] if self.topic is not None else self.topics or ())
