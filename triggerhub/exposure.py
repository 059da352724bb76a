"""What a source asks of the edge of a cluster: that requests from outside reach the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from triggerhub.connector import SourceModel
from triggerhub.fields import Rule, Text

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_HOST_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_KEY = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

_Name = Annotated[
    str,
    Text(
        rf"{_LABEL}(\.{_LABEL})*",
        "at most 253 of a-z 0-9 - ., each part within letters or digits",
        253,
    ),
]
_Namespace = Annotated[
    str, Text(_HOST_LABEL, "at most 63 of a-z 0-9 -, first and last a letter or digit", 63)
]
_Host = Annotated[
    str,
    Text(
        rf"(\*\.)?{_HOST_LABEL}(\.{_HOST_LABEL})*",
        "a host name in lower case without port such as api.example.com, or *.example.com",
        253,
        # Neither an Ingress nor an HTTPRoute may name an address.
        never=r"^[0-9]+(\.[0-9]+){3}$",
    ),
]
_Key = Annotated[
    str,
    Text(
        rf"({_LABEL}(\.{_LABEL})*/)?{_KEY}",
        "an annotation name: at most 63 of A-Z a-z 0-9 - _ ., with an optional prefix/",
        317,
        never="^([^/]{254,}/|triggerhub[.]dev/)",
    ),
]
_Value = Annotated[str, Text(r"[^\x00]*", "at most 16384 characters without NUL", 16384)]


class ExposeTLS(SourceModel):
    """TLS of an Ingress."""

    secret_name: _Name | None = Field(
        default=None,
        alias="secretName",
        description="A Secret of type kubernetes.io/tls in the trigger's namespace, there or made "
        "by cert-manager. Default: the trigger's name and -tls.",
    )


class GatewayRef(SourceModel):
    """A Gateway of the Gateway API that an HTTPRoute is attached to."""

    name: _Name = Field(description="The Gateway's name.")
    namespace: _Namespace | None = Field(
        default=None, description="Its namespace. Default: the trigger's."
    )
    section_name: _Name | None = Field(
        default=None, alias="sectionName", description="One of its listeners. Default: all."
    )


def _gateway_alone(expose: Any) -> str:
    found = [
        name
        for name, value in (("ingressClass", expose.ingress_class), ("tls", expose.tls))
        if value is not None
    ]
    if expose.gateway is None or not found:
        return ""
    return f"found gateway and {' and '.join(found)}, {_ALONE}"


_ALONE = (
    "expected gateway without ingressClass and tls: these are for an Ingress, the Gateway has its "
    "own TLS"
)


class Expose(SourceModel):
    """How requests from outside of a cluster reach the trigger: by an Ingress, or with gateway
    by an HTTPRoute. Without a cluster it has no effect."""

    field_rules = (
        Rule("!has(self.gateway) || !(has(self.ingressClass) || has(self.tls))", _ALONE,
             _gateway_alone),
    )  # fmt: skip

    host: _Host | None = Field(
        default=None, description="The host name outside. Default: the trigger's host, or any."
    )
    ingress_class: _Name | None = Field(
        default=None,
        alias="ingressClass",
        description="Such as nginx, traefik, kong. Default: the cluster's default class.",
    )
    gateway: GatewayRef | None = Field(
        default=None, description="Make an HTTPRoute for this Gateway, and no Ingress."
    )
    tls: ExposeTLS | None = Field(
        default=None, description="Serve TLS; {} takes the default. Default: no TLS."
    )
    annotations: dict[_Key, _Value] = Field(
        default={},
        max_length=32,
        description="Of the Ingress or HTTPRoute, for its controller, cert-manager and the like.",
    )


@dataclass(frozen=True, slots=True)
class Exposed:
    """What is to be reached from outside. A source model whose requests come by HTTP on the hub's
    listen address may have a property ``exposed`` with this, or None."""

    expose: Expose
    host: str | None
    """In lower case, exact or ``*.`` and a domain; None: any."""
    path: str
    exact: bool
    """False: the path and what is below it, compared by whole elements."""
