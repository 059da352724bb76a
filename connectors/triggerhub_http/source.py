"""``spec.source`` of an HTTPTrigger."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator

from triggerhub.connector import SourceModel
from triggerhub.durations import Duration
from triggerhub.exposure import Expose, Exposed
from triggerhub.fields import Rule, Text, expected
from triggerhub_http.edge import CORS, Limits, Webhook
from triggerhub_http.routes import parameters
from triggerhub_http.security import Auth, Signature

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_QUANTITY = "([0-9]{1,12})(k|M|G|Ki|Mi|Gi)?"
_LARGEST = 2**40
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


LARGEST_KEPT = 512 * 1024 * 1024
"""Bytes of an event that is kept before it is delivered: every store can hold it in one piece."""
_ONCE = "a path with each {name} once, in whatever case"


def _each_once(path: str) -> str:
    names = [name.lower() for _, name in parameters(path)]
    if len(set(names)) < len(names):
        raise expected(_ONCE)
    return path


Host = Annotated[
    str,
    Text(
        rf"(\*\.)?{_LABEL}(\.{_LABEL})*",
        "a host name without port such as api.example.com, or *.example.com",
        253,
    ),
]
Path = Annotated[
    str,
    Text(
        "(/([!$%&'()*+,.0-9:;=@A-Z_a-z~-]*|[{][A-Za-z][A-Za-z0-9-]{0,62}[}]))+",
        "a path that begins with '/' and has no query, no '.' and no '..'; other characters "
        "percent-encoded; {name} only as a whole element",
        1024,
        # A function would be reached by another path than the one that was matched.
        never=r"/(\.|%2[Ee]){1,2}(/|$)",
    ),
    AfterValidator(_each_once),
]
Method = Annotated[
    str,
    Text("[A-Z]+(-[A-Z]+)*", "a method in upper case such as GET or POST", 32, never="^CONNECT$"),
]
Methods = Annotated[list[Method], Field(min_length=1, max_length=32)]


def _quantity(value: int | str) -> int | str:
    fits = value <= _LARGEST if isinstance(value, int) else re.fullmatch(_QUANTITY, value)
    if not fits or (isinstance(value, int) and value < 0):
        raise expected("bytes or a quantity such as 512Ki, 10Mi or 1G")
    return value


Quantity = Annotated[
    int | str,
    AfterValidator(_quantity),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": _LARGEST},
                   {"type": "string", "pattern": f"^{_QUANTITY}$"}]}
    ),
]  # fmt: skip


def _host_served(source: Any) -> str:
    own, outside = source.host, source.expose and source.expose.host
    if own is None or outside is None or own == outside:
        return ""
    if own.startswith("*.") and outside.partition(".")[2] == own[2:]:
        return ""
    return f"found expose.host {outside} and host {own}, {_SERVED}"


_SERVED = "expected an expose.host that host takes: the same, or one label for its *"


class HTTPSource(SourceModel):
    """Which requests an HTTP trigger takes."""

    short_names = ("ht",)
    source_column = ("path",)
    field_rules = (
        # Else what comes in there would be another trigger's, or nobody's.
        Rule(
            "!has(self.host) || !has(self.expose) || !has(self.expose.host)"
            " || self.host.lowerAscii() == self.expose.host"
            " || (self.host.startsWith('*.') && self.expose.host.contains('.')"
            " && self.expose.host.substring(self.expose.host.indexOf('.'))"
            " == self.host.lowerAscii().substring(1))",
            _SERVED,
            _host_served,
        ),
        Rule(
            "!self.path.contains('{') || self.path.lowerAscii().findAll('[{][a-z0-9-]+[}]')"
            ".all(one,"
            " self.path.lowerAscii().indexOf(one) == self.path.lowerAscii().lastIndexOf(one))",
            f"expected {_ONCE}",
            lambda _: "",  # Path checks the same
        ),
    )

    host: Host | None = Field(
        default=None,
        description="Exact, or *.example.com for any one label in its place. Default: any host.",
    )
    path: Path = Field(
        default="/", description="Begins with a slash; no query. An element may be a {parameter}."
    )
    path_type: Literal["Prefix", "Exact"] = Field(
        default="Prefix",
        alias="pathType",
        description="Prefix compares whole path elements: /a takes /a, /a/ and /a/b, not /ab.",
    )
    methods: Methods | None = Field(
        default=None, description="Default: all. GET includes HEAD, unless another claims that."
    )
    mode: Literal["Sync", "Async", "Prefer"] = Field(
        default="Sync",
        description="Sync: the caller gets the function's answer. Async: 202 once the event is "
        "safe, and it is delivered afterwards. Prefer: Sync, unless a request says Prefer: "
        "respond-async.",
    )
    idempotency_window: Duration = Field(
        default="24h",  # type: ignore[assignment]  # read as in a manifest
        alias="idempotencyWindow",
        description="Async: so long a request with the same Idempotency-Key, or a CloudEvent with "
        "the same source and id, is the same event.",
    )
    max_body_size: Quantity = Field(
        default="1Mi",
        alias="maxBodySize",
        description="Bytes, or a quantity such as 512Ki, 10Mi, 1G. A larger body is answered 413.",
    )
    auth: Auth | None = Field(default=None, description="Who may call. Default: everybody.")
    signature: Signature | None = Field(
        default=None, description="What must be signed by its sender. Default: nothing."
    )
    limits: Limits | None = Field(
        default=None, description="How often and how many at once. Default: as inFlight allows."
    )
    cors: CORS | None = Field(
        default=None, description="Pages of other origins that may call. Default: the function's."
    )
    webhook: Webhook | None = Field(
        default=None, description="Senders of CloudEvents that may ask for leave. Default: none."
    )
    expose: Expose | None = Field(
        default=None,
        description="Make an Ingress or HTTPRoute for it, in a cluster. Default: none.",
    )

    @property
    def exposed(self) -> Exposed | None:
        """What is to be reached from outside; None: nothing."""
        if self.expose is None:
            return None
        host = self.expose.host or self.host
        # Neither an Ingress nor an HTTPRoute knows parameters: what is below is the hub's to route.
        path, parameter, _ = self.path.partition("/{")
        exact = self.path_type == "Exact" and not parameter
        return Exposed(self.expose, host, path or "/", exact)

    @property
    def inboxed(self) -> bool:
        """Whether every request is made safe before it is delivered."""
        return self.mode == "Async"

    @property
    def max_body(self) -> int:
        """Bytes."""
        asked = _bytes(self.max_body_size)
        return asked if self.mode == "Sync" else min(asked, LARGEST_KEPT)

    @field_validator("host")
    @classmethod
    def _host_is_in_lower_case(cls, value: str | None) -> str | None:
        return None if value is None else value.lower()


def _bytes(value: int | str) -> int:
    if isinstance(value, int):
        return value
    parts = re.fullmatch(_QUANTITY, value)
    assert parts is not None
    return int(parts[1]) * _UNITS.get(parts[2] or "", 1)
