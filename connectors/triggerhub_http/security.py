"""What ``spec.source`` says of who may call, and of signatures."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from triggerhub.connector import Reference, SourceModel
from triggerhub.durations import Duration
from triggerhub.fields import IPV6, Rule, Text, https_url
from triggerhub_http.clients import ClientCertificate

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_V4 = rf"({_OCTET}\.){{3}}{_OCTET}(/(3[0-2]|[12]?[0-9]))?"
_V6 = f"{IPV6}(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"
_LONGEST_NAME = 64

Network = Annotated[
    str, Text(f"{_V4}|{_V6}", "an address or a network such as 10.0.0.0/8 or 2001:db8::/32", 64)
]
Networks = Annotated[list[Network], Field(max_length=256)]
FieldName = Annotated[
    str,
    Text(
        "[A-Za-z0-9][A-Za-z0-9_-]*",
        "the name of a header field such as X-API-Key",
        _LONGEST_NAME,
        # What the hub reads or replaces itself, before anybody could be asked for it.
        never="^([Hh][Oo][Ss][Tt]|[Cc][Oo][Nn][Nn][Ee][Cc][Tt][Ii][Oo][Nn])$",
    ),
]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
                    "ES512", "EdDSA", "HS256", "HS384", "HS512"]  # fmt: skip


class APIKey(SourceModel):
    """Keys in a header field of their own."""

    header: FieldName = Field(default="X-API-Key", description="The field that holds the key.")
    keys: Reference = Field(description="The keys, written as bearer tokens are.")


def _shared_secret_by_url(jwt: JWT) -> str:
    shared = [name for name in jwt.algorithms if name.startswith("HS")]
    if jwt.jwks_url is None or not shared:
        return ""
    return f"found {shared[0]} and jwksURL, expected jwks: a shared secret is nobody else's"


def _authority_of_nothing(jwt: JWT) -> str:
    if jwt.ca is None or jwt.jwks_url is not None:
        return ""
    return "found ca without jwksURL, expected both"


class JWT(SourceModel):
    """Signed tokens of an issuer (RFC 7519), as bearer tokens."""

    exactly_one: ClassVar[tuple[str, ...]] = ("jwks", "jwksURL")
    field_rules = (
        Rule(
            "!has(self.jwksURL) || !self.algorithms.exists(name, name.startsWith('HS'))",
            "expected jwks for HS256, HS384 and HS512: a shared secret is nobody else's",
            _shared_secret_by_url,
        ),
        Rule(
            "!has(self.ca) || has(self.jwksURL)",
            "expected ca only with jwksURL",
            _authority_of_nothing,
        ),
    )

    issuer: str = Field(
        min_length=1, max_length=2048, description="Who makes the tokens: their claim iss, exactly."
    )
    audiences: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2048)]],
        Field(min_length=1, max_length=32),
    ] = Field(description="Whom they are for: their claim aud names at least one of these.")
    algorithms: Annotated[list[Algorithm], Field(min_length=1, max_length=16)] = Field(
        default=["RS256"], description="How they may be signed, whatever they say themselves."
    )
    jwks: Reference | None = Field(
        default=None, description="The keys that sign them: a JSON Web Key Set (RFC 7517)."
    )
    jwks_url: Annotated[str, https_url("https://login.example/.well-known/jwks.json")] | None = (
        Field(default=None, alias="jwksURL", description="Or where their issuer shows the keys.")
    )
    ca: Reference | None = Field(
        default=None,
        description="Certificates to trust there (PEM). Default: the authorities that the system "
        "trusts.",
    )
    clock_skew: Duration = Field(
        default="30s",  # type: ignore[assignment]  # it is validated
        alias="clockSkew",
        description="How far the issuer's clock may be from the hub's.",
    )


def _nowhere(addresses: Addresses) -> str:
    if addresses.allow is not None or addresses.trusted_proxies:
        return ""
    return "found none of allow, trustedProxies, expected at least one"


class Addresses(SourceModel):
    """From where."""

    field_rules = (
        Rule(
            "has(self.allow) || size(self.trustedProxies) > 0",
            "expected at least one of allow, trustedProxies",
            _nowhere,
        ),
    )

    allow: Annotated[list[Network], Field(min_length=1, max_length=256)] | None = Field(
        default=None, description="Addresses and networks that may call. Default: all."
    )
    trusted_proxies: Networks = Field(
        default=[],
        alias="trustedProxies",
        description="Proxies in front of the hub: what they say of the client is believed.",
    )
    header: Literal["X-Forwarded-For", "Forwarded"] = Field(
        default="X-Forwarded-For",
        description="Where they say it. What they do not set themselves, a client may.",
    )


_WAYS = ("bearer", "basic", "apiKey", "jwt", "clientCertificate", "addresses")


def _nobody(auth: Auth) -> str:
    if auth.holders or auth.addresses is not None:
        return ""
    return f"found none of {', '.join(_WAYS)}, expected at least one"


class Auth(SourceModel):
    """Who may call. Of bearer, basic, apiKey, jwt and clientCertificate, one is enough."""

    field_rules = (
        Rule(
            " || ".join(f"has(self.{way})" for way in _WAYS),
            f"expected at least one of {', '.join(_WAYS)}",
            _nobody,
        ),
    )

    bearer: Reference | None = Field(
        default=None, description="Whoever has one of these tokens; a line each: name sha256:hash."
    )
    basic: Reference | None = Field(
        default=None, description="Whoever knows a password of this htpasswd file (bcrypt)."
    )
    api_key: APIKey | None = Field(
        default=None, alias="apiKey", description="Whoever has one of these keys."
    )
    jwt: JWT | None = Field(default=None, description="Whoever has a token of this issuer.")
    client_certificate: ClientCertificate | None = Field(
        default=None,
        alias="clientCertificate",
        description="Whoever shows a certificate of the hub's --tls-client-ca.",
    )
    addresses: Addresses | None = Field(
        default=None, description="And only from there; alone: whoever calls from there."
    )
    pass_on: bool = Field(
        default=False,
        alias="passOn",
        description="The function gets the field with the token, password or key, too.",
    )

    @property
    def holders(self) -> bool:
        """Whether anything is asked but from where."""
        ways = (self.bearer, self.basic, self.api_key, self.jwt, self.client_certificate)
        return any(way is not None for way in ways)


def _time_unsigned(hmac: HMAC) -> str:
    if hmac.signed is None:
        return ""
    named, given = "{timestamp}" in hmac.signed, hmac.timestamp_header is not None
    if named == given:
        return ""
    there, lacking = ("{timestamp}", "timestampHeader") if named else ("timestampHeader", "")
    return f"found {there} without {lacking or '{timestamp} in signed'}, expected both or neither"


class HMAC(SourceModel):
    """How a sender without a preset signs (RFC 2104)."""

    field_rules = (
        Rule(
            "!has(self.signed) || self.signed.contains('{timestamp}') == has(self.timestampHeader)",
            "expected {timestamp} in signed and timestampHeader, or neither",
            _time_unsigned,
        ),
    )

    header: FieldName = Field(description="The field with the signature.")
    algorithm: Literal["SHA256", "SHA512", "SHA1"] = Field(
        default="SHA256", description="SHA1 only where the sender knows nothing better."
    )
    encoding: Literal["Hex", "Base64"] = Field(
        default="Hex", description="How the signature is written."
    )
    prefix: Annotated[
        str, Text("[!-~]*", "visible ASCII characters such as sha256=", _LONGEST_NAME)
    ] = Field(default="", description="What stands before it.")
    timestamp_header: FieldName | None = Field(
        default=None,
        alias="timestampHeader",
        description="The field with the time of signing, in seconds since 1970, where it is "
        "signed, too.",
    )
    signed: (
        Annotated[
            str,
            Text(
                r"[^{}]*(\{timestamp\}[^{}]*)?\{body\}",
                "a text that ends with {body}, and may have {timestamp} before",
                256,
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="What is signed. Default: {body}, or {timestamp}.{body} with timestampHeader.",
    )


class Signature(Reference):
    """The secret of a sender that signs its requests, and how it signs. The secret is a reference
    like any other, written without a level of its own; a line each where there are several."""

    model_config = ConfigDict(json_schema_extra=None)
    exactly_one: ClassVar[tuple[str, ...]] = ("preset", "hmac")
    field_rules = (
        Rule(
            "[has(self.secretRef), has(self.configMapRef), has(self.env)].exists_one(given, given)",
            "expected exactly one of secretRef, configMapRef, env",
            lambda _: "",  # a Reference checks the same
        ),
    )

    preset: Literal["GitHub", "Stripe", "Slack", "StandardWebhooks"] | None = Field(
        default=None, description="A sender whose signatures the hub knows."
    )
    hmac: HMAC | None = Field(default=None, description="Or how another one signs.")
    tolerance: Duration = Field(
        default="5m",  # type: ignore[assignment]
        description="How old a request may be, or ahead of the hub's clock, where its sender signs "
        "the time.",
    )
    replay_window: Duration | None = Field(
        default=None,
        alias="replayWindow",
        description="How long a signature is not taken again. Default: as long as its time is "
        "within tolerance; where no time is signed, not at all.",
    )
