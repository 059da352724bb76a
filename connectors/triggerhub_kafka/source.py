"""What ``spec.source`` of a KafkaTrigger says."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from triggerhub.connector import Cleanup, LetterPlaces, Placed, SeekOnce, SourceModel
from triggerhub.fields import PORT, ZONED_HOST, Rule, Text, Time
from triggerhub_kafka.patterns import Pattern, compiled
from triggerhub_kafka.security import SchemaRegistry, Security

BROKER = Text(f"{ZONED_HOST}:{PORT}", "host:port such as kafka.example:9092", 270, readable=False)
Topic = Annotated[
    str,
    Text(
        "[a-zA-Z0-9._-]{1,249}",
        "a topic name: 1 to 249 of a-z, A-Z, 0-9, '.', '_', '-'",
        249,
        never=r"^\.{1,2}$",
    ),
]
Broker = Annotated[str, BROKER]

LARGEST_OFFSET = 2**53 - 1
"""What every reader of JSON holds without rounding."""


class PartitionOffset(SourceModel):
    """Where to begin in one partition."""

    # Not Topic: below what may also be a text, an API server takes no rules.
    topic: Annotated[str, Text("[a-zA-Z0-9._-]{1,249}", "a topic name", 249)] | None = Field(
        default=None, description="The topic. Default: each that is read."
    )
    partition: int = Field(ge=0, le=2**31 - 1, description="The partition's number.")
    offset: int = Field(
        ge=0, le=LARGEST_OFFSET, description="Of the first record to read: at most 2^53 - 1."
    )


class StartAt(SourceModel):
    """Where to begin, other than at an end."""

    exactly_one = ("timestamp", "offsets")
    # For an API server, which has no rules on what may also be a text.
    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    timestamp: Time | None = Field(
        default=None,
        description="With the first record that is not older: RFC 3339, e.g. "
        "2026-01-31T08:00:00Z; or set offsets.",
        json_schema_extra={"format": "date-time"},
    )
    offsets: list[PartitionOffset] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="With these offsets; partitions that are not named begin with Latest. Or set "
        "timestamp.",
    )

    def offset(self, topic: str, partition: int) -> int | None:
        """The one that is named for this partition, if any."""
        found = None
        for place in self.offsets or ():
            if place.partition == partition:
                if place.topic == topic:
                    return place.offset
                if place.topic is None:
                    found = place.offset
        return found


class Seek(SeekOnce):
    """Move the group's positions, once."""

    to: Literal["Latest", "Earliest"] | StartAt = Field(
        description="Where to, as in startFrom; partitions that offsets do not name stay where "
        "they are."
    )


class ReplyTo(SourceModel):
    """Where the function's answers go."""

    topic: Topic = Field(
        description="The topic that gets the answers, each under the key of its record."
    )


def _reads(topic: str, source: str) -> str:
    """CEL: the topic is one that the source reads."""
    return (
        f"(has({source}.topic) && {source}.topic == {topic} || "
        f"has({source}.topics) && {topic} in {source}.topics || "
        f"has({source}.topicPattern) && {topic}.matches('^(?:' + {source}.topicPattern + ')$'))"
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

    exactly_one = ("topic", "topics", "topicPattern")
    field_rules = (
        Rule(
            f"!has(self.reply) || !{_reads(_REPLY, 'self')}",
            _ANOTHER,
            _answers_itself,
            f"'found ' + {_REPLY} + ' in reply, {_ANOTHER}'",
        ),
    )
    short_names = ("kt",)
    source_column = ("topic", "topics", "topicPattern")

    topic: Topic | None = Field(
        default=None, description="The topic; or set topics or topicPattern."
    )
    topics: list[Topic] | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="Several topics; or set topic or topicPattern.",
    )
    topic_pattern: Annotated[str, Pattern(longest=1000)] | None = Field(
        default=None,
        alias="topicPattern",
        description="All topics whose whole name matches this regular expression (RE2), also "
        "those that are made later; or set topic or topics.",
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
    start_from: Literal["Latest", "Earliest"] | StartAt = Field(
        default="Latest",
        alias="startFrom",
        description="Where to begin in a partition for which the group has no committed offset: "
        "Latest, Earliest, {timestamp: …} or {offsets: …}.",
    )
    out_of_range: Literal["Earliest", "Latest", "Stop"] = Field(
        default="Earliest",
        alias="outOfRange",
        description="Where to go on when the next offset is not there any more: Earliest (the "
        "first record that is there), Latest (the next one that comes), or not at all until "
        "someone decides: Stop.",
    )
    isolation: Literal["ReadCommitted", "ReadUncommitted"] = Field(
        default="ReadCommitted",
        description="Of records that were written in a transaction: only those of committed "
        "ones, when they are committed; or all, at once, also those of transactions that are "
        "aborted.",
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

    @model_validator(mode="after")
    def _starts_where_it_reads(self) -> KafkaSource:
        wanted = {"startFrom": self.start_from, "seek.to": self.seek and self.seek.to}
        for name, where in wanted.items():
            seen = set()
            for place in where.offsets or () if isinstance(where, StartAt) else ():
                if place.topic is not None and not self.reads(place.topic):
                    raise ValueError(
                        f"found {name}.offsets of topic {place.topic}, expected only those of "
                        "topics that the trigger reads"
                    )
                if (at := (place.topic, place.partition)) in seen:
                    raise ValueError(
                        f"found {name}.offsets of partition {place.partition} twice, expected "
                        "one offset for each"
                    )
                seen.add(at)
        return self

    @property
    def topic_names(self) -> frozenset[str]:
        """The topics that are named; none where there is a pattern."""
        return frozenset([self.topic] if self.topic is not None else self.topics or ())

    def reads(self, topic: str) -> bool:
        """Whether a topic of this name, not one of Kafka's own, is among those that are read."""
        if self.topic_pattern is None:
            return topic in self.topic_names
        return compiled(self.topic_pattern).fullmatch(topic) is not None

    @property
    def choice(self) -> str:
        """A fingerprint of which topics are asked for."""
        asked = self.topic_pattern or "\n".join(sorted(self.topic_names))
        return hashlib.sha256(asked.encode()).hexdigest()[:8]
