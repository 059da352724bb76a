"""What ``spec.source`` says of how often, of pages of other origins, and of senders of webhooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from triggerhub.connector import SourceModel
from triggerhub.durations import Duration
from triggerhub.fields import PORT, Rule, Text

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ORIGIN = rf"https?://(\*\.)?{_LABEL}(\.{_LABEL})*(:{PORT})?"
Origin = Annotated[
    str,
    Text(
        rf"\*|null|{_ORIGIN}",
        "an origin such as https://app.example.com or https://*.example.com, without path, or *",
        512,
    ),
]
HeaderName = Annotated[
    str, Text(r"\*|[A-Za-z0-9_-]+", "the name of a header field such as X-Page, or *", 128)
]
SenderName = Annotated[
    str,
    Text(
        rf"\*|{_LABEL}(\.{_LABEL})*", "a sender's name such as eventemitter.example.com, or *", 253
    ),
]


class CORS(SourceModel):
    """Which pages a browser lets call (Fetch standard, section 3.2)."""

    field_rules = (
        Rule(
            "!self.credentials || !self.origins.exists(origin, origin == '*')",
            "expected origins by name with credentials",
            lambda cors: (
                "found credentials and origin *, expected origins by name"
                if cors.credentials and "*" in cors.origins
                else ""
            ),
        ),
    )

    origins: Annotated[list[Origin], Field(min_length=1, max_length=64)] = Field(
        description="Of the pages: https://app.example.com, https://*.example.com for all below "
        "it, * for any."
    )
    headers: Annotated[list[HeaderName], Field(max_length=64)] = Field(
        default=[], description="Header fields that they may send beyond the plain ones; * for any."
    )
    expose_headers: Annotated[list[HeaderName], Field(max_length=64)] = Field(
        default=[], alias="exposeHeaders", description="Of an answer, that they may read."
    )
    credentials: bool = Field(
        default=False, description="They may send cookies and the like along."
    )
    max_age: Duration = Field(
        default="5m",  # type: ignore[assignment]  # it is validated
        alias="maxAge",
        description="How long a browser remembers it.",
    )


class Webhook(SourceModel):
    """The handshake of CloudEvents webhooks: whom the trigger agrees to be sent events by."""

    origins: Annotated[list[SenderName], Field(min_length=1, max_length=64)] = Field(
        description="Senders by the name that they give, such as eventemitter.example.com; * for "
        "any."
    )


def _no_limit(limits: Limits) -> str:
    if limits.rate is None and limits.concurrent is None:
        return "found none of rate, concurrent, expected at least one"
    return ""


class Limits(SourceModel):
    """What is more is answered 429. Each process of the hub counts its own."""

    field_rules = (
        Rule(
            "has(self.rate) || has(self.concurrent)",
            "expected at least one of rate, concurrent",
            _no_limit,
        ),
    )

    rate: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Requests in each period."
    )
    per: Duration = Field(
        default="1s",  # type: ignore[assignment]
        description="The period of rate.",
    )
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Requests that may come at once after a pause. Default: rate."
    )
    concurrent: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Requests under way, those that wait for inFlight included."
    )
