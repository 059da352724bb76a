"""What ``spec.source`` of a KafkaTrigger says."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from triggerhub.connector import SourceModel

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_BROKER = re.compile(r"(?:[^\s:/,\[\]]+|\[[0-9a-fA-F:.%]+\]):(\d{1,5})")
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def parse_time(text: str) -> datetime:
    """An RFC 3339 date-time, section 5.6. Raises ValueError."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"found {text!r}, expected a time such as 2026-01-31T08:00:00Z")
    return datetime.fromisoformat(text.upper())


def check_broker(text: str) -> str:
    """``host:port``, ``[IPv6]:port``. Raises ValueError."""
    found = _BROKER.fullmatch(text)
    if found is None or not 0 < int(found[1]) < 65536:
        raise ValueError(f"found {text!r}, expected host:port such as kafka.example:9092")
    return text


def _check_topic(text: str) -> str:
    if not _TOPIC.fullmatch(text) or text in {".", ".."}:
        raise ValueError(
            f"found {text!r}, expected a topic name: 1 to 249 of a-z, A-Z, 0-9, '.', '_', '-'"
        )
    return text


def _check_time(text: str) -> str:
    parse_time(text)
    return text


def _text_of_time(found: object) -> object:
    # An unquoted YAML timestamp arrives as a datetime.
    if isinstance(found, datetime) and found.tzinfo is not None:
        return found.isoformat()
    return found


Topic = Annotated[str, AfterValidator(_check_topic)]
Broker = Annotated[str, AfterValidator(check_broker)]


class StartTime(SourceModel):
    """Start with the first record that is not older than this."""

    timestamp: Annotated[str, BeforeValidator(_text_of_time), AfterValidator(_check_time)] = Field(
        description="RFC 3339, e.g. 2026-01-31T08:00:00Z", json_schema_extra={"format": "date-time"}
    )


class KafkaSource(SourceModel):
    """Records of one or more topics, read by a consumer group."""

    topic: Topic | None = Field(default=None, description="The topic; or set topics.")
    topics: list[Topic] | None = Field(
        default=None, min_length=1, description="Several topics; or set topic."
    )
    brokers: list[Broker] | None = Field(
        default=None,
        min_length=1,
        description="Brokers to begin with, host:port each. "
        "Default: TRIGGERHUB_KAFKA_BROKERS of the hub, else 127.0.0.1:9092.",
    )
    group: str | None = Field(
        default=None,
        min_length=1,
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

    @model_validator(mode="after")
    def _exactly_one(self) -> KafkaSource:
        found = [name for name in ("topic", "topics") if getattr(self, name) is not None]
        if len(found) != 1:
            raise ValueError(
                f"found {' and '.join(found) or 'neither'}, expected exactly one of topic, topics"
            )
        return self

    @property
    def topic_names(self) -> frozenset[str]:
        """The topics, whichever field named them."""
        return frozenset([self.topic] if self.topic is not None else self.topics or ())
