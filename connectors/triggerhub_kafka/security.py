"""What ``spec.source`` says of TLS and logins: the brokers', and a schema registry's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from triggerhub.connector import Reference, SourceModel
from triggerhub.credentials import TLS, Account
from triggerhub.fields import HOST, PORT, Rule, Text, https_url

_EXACTLY_ONE = "expected exactly one of token, oauth, provider for OAUTHBEARER"
_BOTH = "expected username and password, and none of token, oauth, provider, for this mechanism"


def _unlike_its_mechanism(sasl: SASL) -> str:
    account = [name for name in ("username", "password") if getattr(sasl, name) is not None]
    bearer = [name for name in ("token", "oauth", "provider") if getattr(sasl, name) is not None]
    found = f"found {' and '.join(account + bearer) or 'none'}"
    if sasl.mechanism == "OAUTHBEARER":
        if account:
            return f"{found}, expected neither username nor password for OAUTHBEARER"
        return "" if len(bearer) == 1 else f"{found}, {_EXACTLY_ONE}"
    return "" if len(account) == 2 and not bearer else f"{found}, {_BOTH}"


class ClientCredentials(SourceModel):
    """Tokens by OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

    token_endpoint: Annotated[str, https_url("https://login.example/oauth2/token")] = Field(
        alias="tokenEndpoint", description="Where the authorization server gives tokens."
    )
    client_id: Account = Field(
        alias="clientId", description="The hub's name there: as text, or where it is kept."
    )
    client_secret: Reference = Field(alias="clientSecret", description="Its secret.")
    scope: (
        Annotated[
            str,
            # RFC 6749, section 3.3.
            Text("[!#-\\[\\]-~]+( [!#-\\[\\]-~]+)*", "a scope such as kafka.read", 2048),
        ]
        | None
    ) = Field(
        default=None,
        description="What the token is to be good for. Default: as the server thinks fit.",
    )
    ca: Reference | None = Field(
        default=None,
        description="Certificates to trust (PEM): the authority that signed the authorization "
        "server's. Default: the authorities that the system trusts.",
    )


class Provider(SourceModel):
    """Tokens by a plugin of the hub."""

    name: str = Field(
        min_length=1,
        max_length=253,
        description="Its entry point in the group triggerhub.kafka_tokens.",
    )
    options: Mapping[str, Account] = Field(
        default={},
        max_length=100,
        description="What it is to know: each as text, or where it is kept.",
    )


class SASL(SourceModel):
    """As whom to log in."""

    model_config = ConfigDict(
        json_schema_extra={
            # In CEL, a field of two types is not seen.
            "oneOf": [
                {"required": ["username"]},
                {"properties": {"mechanism": {"enum": ["OAUTHBEARER"]}}},
            ]
        }
    )
    field_rules = (
        Rule(
            "self.mechanism != 'OAUTHBEARER' || (!has(self.password) && [has(self.token), "
            "has(self.oauth), has(self.provider)].exists_one(given, given))",
            f"{_EXACTLY_ONE}, neither username nor password",
            _unlike_its_mechanism,
        ),
        Rule(
            "self.mechanism == 'OAUTHBEARER' || (has(self.password) && !has(self.token) && "
            "!has(self.oauth) && !has(self.provider))",
            _BOTH,
            lambda _: "",  # the same is checked once
        ),
    )

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        description="How. PLAIN and OAUTHBEARER send what is secret as it is: use them with tls."
    )
    username: Account | None = Field(
        default=None, description="Of the account: as text, or where it is kept."
    )
    password: Reference | None = Field(default=None, description="Of the account.")
    token: Reference | None = Field(
        default=None, description="For OAUTHBEARER: a token that somebody keeps fresh."
    )
    oauth: ClientCredentials | None = Field(
        default=None, description="For OAUTHBEARER: fetch tokens from an authorization server."
    )
    provider: Provider | None = Field(
        default=None, description="For OAUTHBEARER: tokens by a plugin of the hub."
    )


def _nothing(security: Security) -> str:
    if security.tls is None and security.sasl is None:
        return "found none of tls, sasl, expected at least one"
    return ""


class Security(SourceModel):
    """TLS, a login, or both."""

    field_rules = (
        Rule("has(self.tls) || has(self.sasl)", "expected at least one of tls, sasl", _nothing),
    )

    tls: TLS | None = Field(
        default=None,
        description="Encrypted connections; {} trusts the system's authorities. Without it, "
        "nothing is encrypted.",
    )
    sasl: SASL | None = Field(
        default=None, description="Log in with a name and a password, or with a token."
    )


class Basic(SourceModel):
    """A name and a password (RFC 7617)."""

    username: Account = Field(description="Of the account: as text, or where it is kept.")
    password: Reference = Field(description="Of the account.")


def _unlike_its_url(registry: SchemaRegistry) -> str:
    if registry.tls is not None and registry.url.startswith("http:"):
        return "found tls and an http URL, expected an https URL with tls"
    return ""


def _two_logins(registry: SchemaRegistry) -> str:
    if registry.basic is not None and registry.bearer is not None:
        return "found both basic and bearer, expected at most one"
    return ""


class SchemaRegistry(SourceModel):
    """Where the schemas of the records are kept: a registry with Confluent's REST API."""

    field_rules = (
        Rule(
            "!has(self.tls) || self.url.startsWith('https:')",
            "expected an https URL with tls",
            _unlike_its_url,
        ),
        Rule(
            "!has(self.basic) || !has(self.bearer)",
            "expected at most one of basic, bearer",
            _two_logins,
        ),
    )

    url: Annotated[
        str,
        Text(
            rf"https?://{HOST}(:{PORT})?(/[!$-;=@-Z_a-z~]*)?",
            "a URL such as https://registry.example:8081, without user, query and fragment",
            2048,
            readable=False,
        ),
    ] = Field(description="Where it is: the part before /schemas.")
    basic: Basic | None = Field(default=None, description="Log in with a name and a password.")
    bearer: Reference | None = Field(default=None, description="Log in with a token.")
    tls: TLS | None = Field(
        default=None,
        description="Whom to trust, and how the hub shows itself, where the URL is https. "
        "Default: the authorities that the system trusts.",
    )
