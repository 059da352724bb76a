"""What ``spec.source`` of a KinesisTrigger says."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from triggerhub.connector import Cleanup, Reference, SeekOnce, SourceModel
from triggerhub.credentials import Account
from triggerhub.fields import HOST, PORT, Rule, Text, Time

_NAME = "[a-zA-Z0-9_.-]{1,128}"
_STREAM = Text(_NAME, "a stream's name: 1 to 128 of a-z, A-Z, 0-9, '_', '.', '-'", 128)
_REGION = Text("[a-z0-9-]{1,63}", "a region such as eu-central-1", 63)
_ARN = Text(
    rf"arn:[a-z0-9-]+:kinesis:[a-z0-9-]+:[0-9]{{12}}:stream/{_NAME}",
    "a stream's ARN such as arn:aws:kinesis:eu-central-1:123456789012:stream/orders",
    255,
    readable=False,
)
_ROLE = Text(
    r"arn:[a-z0-9-]+:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+",
    "a role's ARN such as arn:aws:iam::123456789012:role/reader",
    2048,
    readable=False,
)
_SESSION = Text("[A-Za-z0-9_+=,.@-]{2,64}", "2 to 64 of a-z, A-Z, 0-9 and _ + = , . @ -", 64)
_EXTERNAL = Text(
    "[A-Za-z0-9_+=,.@:/-]{2,}", "2 to 1224 of a-z, A-Z, 0-9 and _ + = , . @ : / -", 1224
)
ENDPOINT_URL = Text(
    f"https?://{HOST}(:{PORT})?/?",
    "a URL without path such as https://kinesis.eu-central-1.amazonaws.com",
    300,
    readable=False,
)


class StartAt(SourceModel):
    """Where to begin, other than at an end."""

    timestamp: Time = Field(
        description="With the first record that is not older: RFC 3339, e.g. 2026-01-31T08:00:00Z",
        json_schema_extra={"format": "date-time"},
    )


class Seek(SeekOnce):
    """Move the checkpoints, once."""

    to: Literal["Latest", "TrimHorizon"] | StartAt = Field(
        description="Where to, as in startFrom: in every shard."
    )


class Keys(SourceModel):
    """An access key."""

    access_key_id: Account = Field(
        alias="accessKeyId", description="Its id: as text, or where it is kept."
    )
    secret_access_key: Reference = Field(alias="secretAccessKey", description="Its secret.")
    session_token: Reference | None = Field(
        default=None,
        alias="sessionToken",
        description="Where the key is a temporary one: its token.",
    )


class Role(SourceModel):
    """A role to take on."""

    role_arn: Annotated[str, _ROLE] = Field(alias="roleARN", description="The role.")
    external_id: Annotated[str, _EXTERNAL] | None = Field(
        default=None,
        alias="externalId",
        description="What the role's trust policy asks for, where it belongs to someone else.",
    )
    session_name: Annotated[str, _SESSION] | None = Field(
        default=None,
        alias="sessionName",
        description="Under which AWS logs what is done as this role. Default: triggerhub.",
    )


def _region_twice(source: KinesisSource) -> str:
    if source.stream_arn is not None and source.region is not None:
        return "found region beside streamARN, which has one, expected only one of them"
    return ""


class KinesisSource(SourceModel):
    """Records of a stream: of all its shards, as they are split and merged."""

    exactly_one = ("stream", "streamARN")
    field_rules = (
        Rule(
            "!has(self.streamARN) || !has(self.region)",
            "expected region only with stream: streamARN has one",
            _region_twice,
        ),
    )
    short_names = ("kst",)
    source_column = ("stream", "streamARN")

    stream: Annotated[str, _STREAM] | None = Field(
        default=None, description="The stream's name; or set streamARN."
    )
    stream_arn: Annotated[str, _ARN] | None = Field(
        default=None,
        alias="streamARN",
        description="Its ARN, as a stream of another account needs it; or set stream.",
    )
    region: Annotated[str, _REGION] | None = Field(
        default=None,
        description="The AWS region. Default: that of streamARN, else the AWS chain's "
        "(AWS_REGION, AWS_DEFAULT_REGION, the profile).",
    )
    endpoint: Annotated[str, ENDPOINT_URL] | None = Field(
        default=None,
        description="Where the API is, for a VPC endpoint or an emulator. Default: "
        "TRIGGERHUB_KINESIS_ENDPOINT of the hub, else AWS's own.",
    )
    credentials: Keys | None = Field(
        default=None,
        description="As whom. Default: the AWS chain: environment, profile, web identity, the "
        "container's or the machine's role.",
    )
    assume_role: Role | None = Field(
        default=None,
        alias="assumeRole",
        description="Take on this role with them. Default: none.",
    )
    start_from: Literal["Latest", "TrimHorizon"] | StartAt = Field(
        default="Latest",
        alias="startFrom",
        description="Where to begin in a stream without checkpoints: Latest, TrimHorizon (the "
        "oldest record that is there) or {timestamp: …}.",
    )
    out_of_range: Literal["TrimHorizon", "Latest", "Stop"] = Field(
        default="TrimHorizon",
        alias="outOfRange",
        description="Where to go on when the checkpoint is older than the stream keeps records: "
        "TrimHorizon, Latest, or not at all until someone decides: Stop.",
    )
    seek: Seek | None = Field(
        default=None,
        description="Go on from somewhere else, in every shard: once for each id, also while the "
        "trigger is paused.",
    )
    cleanup: Annotated[Cleanup, Field(strict=False)] = Field(
        default=Cleanup.KEEP,
        description="What becomes of the checkpoints when the trigger is deleted from a cluster. "
        "Delete: they are forgotten.",
    )

    @property
    def name(self) -> str:
        """The stream's name, whichever field gave it."""
        return self.stream or (self.stream_arn or "").rpartition("/")[2]
