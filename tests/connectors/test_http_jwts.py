"""Tokens that an issuer signs: which are taken, and where their keys come from."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from integration.function import Answer, Call, Function, answering, reply, server_context
from tests.connectors.test_http_connector import Listening, Rig, get, hub
from triggerhub.connector import Reference, SpecError
from triggerhub.testing.fakes import subscription
from triggerhub_http.holders import Holders, NobodyKnown
from triggerhub_http.jwts import Keys, Tokens, UnknownKey, Unproven
from triggerhub_http.keys import FetchedKeys, GivenKeys
from triggerhub_http.security import JWT
from triggerhub_http.source import HTTPSource

ISSUER, AUDIENCE = "https://login.example", "orders"
KEPT = {"env": "KEPT"}
CALM = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ci"}


@dataclass
class Signer:
    """A key, and what it signs."""

    algorithm: str
    kid: str | None = "one"
    key: Any = field(init=False)

    def __post_init__(self) -> None:
        kind = self.algorithm[:2]
        if kind in ("RS", "PS"):
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        elif kind == "ES":
            curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
            self.key = ec.generate_private_key(curves[self.algorithm])
        elif kind == "Ed":
            self.key = ed25519.Ed25519PrivateKey.generate()
        else:
            self.key = b"shared secret of the issuer and the hub, 64 bytes and more of it. "

    @property
    def jwk(self) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        public = self.key if isinstance(self.key, bytes) else self.key.public_key()
        made: dict[str, Any] = algorithm.to_jwk(public, as_dict=True)
        return made | ({} if self.kid is None else {"kid": self.kid})

    def token(self, head: dict[str, Any] | None = None, **claims: Any) -> str:
        said = CALM | {"exp": int(time.time()) + 60} | claims
        said = {name: value for name, value in said.items() if value is not None}
        kid = {} if self.kid is None else {"kid": self.kid}
        return jwt.encode(said, self.key, self.algorithm, headers=kid | (head or {}))


def key_set(*signers: Signer) -> bytes:
    return json.dumps({"keys": [signer.jwk for signer in signers]}).encode()


def spec(**more: Any) -> JWT:
    return JWT.model_validate(
        {"issuer": ISSUER, "audiences": ["other", AUDIENCE], "jwks": KEPT} | more
    )


def subject(token: str | bytes, keys: bytes, **more: Any) -> str:
    wanted = spec(**more)
    data = token.encode() if isinstance(token, str) else token
    return Tokens("jwt", wanted).subject(data, Keys(keys, wanted.algorithms))


RSA = Signer("RS256")
EC = Signer("ES256", "two")
ALL = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
       "HS256", "HS384", "HS512"]  # fmt: skip


@pytest.mark.parametrize("algorithm", ALL)
def test_a_token_is_taken_by_its_algorithm_alone(algorithm: str) -> None:
    signer = Signer(algorithm)
    assert subject(signer.token(), key_set(signer), algorithms=[algorithm]) == "ci"
    assert subject(signer.token(), key_set(signer, EC), algorithms=ALL) == "ci"
    others = [name for name in ALL if name[:2] != algorithm[:2]]
    with pytest.raises(Unproven, match="an algorithm that is not taken"):
        subject(signer.token(), key_set(RSA, EC), algorithms=[n for n in others if n[0] in "REP"])


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": int(time.time()) - 31}, "expired"),
        ({"exp": None}, "no claim exp"),
        ({"exp": "soon"}, "can be read"),
        ({"nbf": int(time.time()) + 3600}, "not valid yet"),
        ({"iat": int(time.time()) + 3600}, "not valid yet"),
        ({"aud": "orders2"}, "audience"),
        ({"aud": None}, "no claim aud"),
        ({"iss": ISSUER + "/"}, "another issuer"),
        ({"iss": None}, "no claim iss"),
        ({"sub": 5}, "can be read"),
    ],
)
def test_a_claim_that_is_not_right_is_named(claims: dict[str, Any], why: str) -> None:
    with pytest.raises(Unproven, match=why):
        subject(RSA.token(**claims), key_set(RSA))


def test_clocks_may_differ_by_so_much() -> None:
    late = RSA.token(exp=int(time.time()) - 600)
    assert subject(late, key_set(RSA), clockSkew="1h") == "ci"
    with pytest.raises(Unproven) as caught:
        subject(late, key_set(RSA))
    assert caught.value.expired


def test_a_token_that_was_good_is_looked_at_anew_when_it_expires_or_its_key_is_taken_back() -> None:
    expires = int(time.time()) + 3600
    now = [float(expires)]
    tokens = Tokens("jwt", spec(), now=lambda: now[0])
    keys = Keys(key_set(RSA), ["RS256"])
    token = RSA.token(exp=expires).encode()
    assert tokens.subject(token, keys) == "ci"
    (mark,) = keys.proven
    assert keys.proven[mark] == ("ci", expires + 30)
    keys.proven[mark] = "remembered", expires + 30
    now[0] += 29
    assert tokens.subject(token, keys) == "remembered"
    now[0] += 1
    assert tokens.subject(token, keys) == "ci", "it was looked at anew"
    with pytest.raises(UnknownKey):
        tokens.subject(token, Keys(key_set(Signer("RS256", "new")), ["RS256"]))
    for number in range(1100):
        keys.proven[b"%d" % number] = "", 0.0
        if len(keys.proven) == 1024:
            break
    tokens.subject(RSA.token(sub="other").encode(), keys)
    assert len(keys.proven) == 1024


def test_a_token_that_chooses_its_own_check_is_not_taken() -> None:
    """RFC 8725, section 2.1: none, another algorithm with the public key as its secret, a key that
    it brings along, a critical extension that nobody knows."""
    public = RSA.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    said = base64.urlsafe_b64encode(json.dumps(CALM | {"exp": time.time() + 60}).encode()).rstrip(
        b"="
    )
    other = Signer("RS256")
    for head, signature in (
        ({"alg": "none"}, b""),
        ({"alg": "None", "kid": "one"}, b"AAAA"),
        ({"alg": ["RS256"]}, b"AAAA"),
        ({"alg": "RS256", "kid": 1}, b"AAAA"),
        ({"alg": "RS256", "kid": "one"}, b""),
    ):
        first = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=")
        with pytest.raises(Unproven):
            subject(b".".join((first, said, signature)), key_set(RSA), algorithms=ALL)
    first = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').rstrip(b"=")
    mac = hmac.digest(public, first + b"." + said, "sha256")
    forged = b".".join((first, said, base64.urlsafe_b64encode(mac).rstrip(b"=")))
    with pytest.raises(Unproven):
        subject(forged, key_set(RSA), algorithms=ALL)
    with pytest.raises(Unproven, match="signature"):
        subject(other.token({"jwk": other.jwk, "jku": "https://evil.example"}), key_set(RSA))
    with pytest.raises(Unproven):
        subject(RSA.token({"crit": ["b65"], "b65": 1}), key_set(RSA))


def test_keys_for_something_else_are_passed_over() -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    weak = jwt.get_algorithm_by_name("RS256").to_jwk(small, as_dict=True)
    odd: list[dict[str, Any]] = [
        weak, RSA.jwk | {"use": "enc"}, RSA.jwk | {"alg": "RSA-OAEP"}, RSA.jwk | {"kid": 5},
        {"kty": "RSA"}, {"kty": ["RSA"]}, {"kty": "EC", "crv": "P-256", "x": "?"}, {"kty": "x"}, {},
    ]  # fmt: skip
    with pytest.raises(ValueError, match="a key for RS256"):
        Keys(json.dumps({"keys": odd}).encode(), ["RS256"])
    both = json.dumps({"keys": [*odd, RSA.jwk]}).encode()
    assert subject(RSA.token(), both) == "ci"


def test_a_token_without_the_name_of_its_key_is_tried_with_those_that_fit() -> None:
    one, other = Signer("RS256", None), Signer("RS256", None)
    assert subject(other.token(), key_set(one, EC, other)) == "ci"
    with pytest.raises(Unproven, match="signature is not right"):
        subject(Signer("RS256", None).token(), key_set(one, other))


@pytest.mark.parametrize(
    "kept", [b"", b"{}", b"[]", b'{"keys": {}}', b'{"keys": [1]}', b"\xff", b"[" * 9000]
)
def test_keys_that_are_none_are_told_and_not_shown(kept: bytes) -> None:
    source = HTTPSource.model_validate({"auth": {"jwt": spec().model_dump(by_alias=True)}})
    assert source.auth is not None
    assert source.auth.jwt is not None
    assert source.auth.jwt.jwks is not None
    given_ = subscription(source, values={source.auth.jwt.jwks: kept})
    with pytest.raises(SpecError, match=r"^auth\.jwks: expected a JSON Web Key Set"):
        GivenKeys("auth", source.auth.jwt, given_)


GOOD = RSA.token(exp=int(time.time()) + 86400)
SET = key_set(RSA)
TOKENS, KEYS = Tokens("jwt", spec()), Keys(SET, ["RS256"])
SEGMENT = st.binary(max_size=60) | st.dictionaries(
    st.sampled_from(["alg", "kid", "crit", "b64", "typ", "exp", "aud"]),
    st.none()
    | st.booleans()
    | st.floats()
    | st.sampled_from(["RS256", "one", ["b64"], {}, -1, 1e999]),
).map(lambda said: json.dumps(said).encode())


@given(st.lists(SEGMENT.map(lambda b: base64.urlsafe_b64encode(b).rstrip(b"=")), max_size=4))
def test_what_anybody_may_send_is_unproven_and_nothing_worse(segments: list[bytes]) -> None:
    for token in (b".".join(segments), b".".join([*GOOD.encode().split(b".")[:1], *segments])):
        with pytest.raises(Unproven):
            TOKENS.subject(token, KEYS)


@given(st.integers(0, len(GOOD) - 1), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_token_with_one_other_character_is_not_taken(at: int, other: str) -> None:
    changed = GOOD[:at] + other + GOOD[at + 1 :]
    if changed == GOOD:
        assert TOKENS.subject(changed.encode(), KEYS) == "ci"
    else:
        with pytest.raises(Unproven):
            TOKENS.subject(changed.encode(), KEYS)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.none() | st.floats() | st.text() | st.lists(st.integers()) | st.integers()
            for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
        },
    )
)
def test_whatever_an_issuer_claims_is_taken_or_unproven(claims: dict[str, Any]) -> None:
    signer = Signer("HS256")
    body = CALM | {"exp": time.time() + 60} | claims
    head, said = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
                  for part in ({"alg": "HS256", "kid": "one"}, body))  # fmt: skip
    mac = hmac.digest(signer.key, head + b"." + said, "sha256")
    token = b".".join((head, said, base64.urlsafe_b64encode(mac).rstrip(b"=")))
    with suppress(Unproven):
        assert isinstance(subject(token, key_set(signer), algorithms=["HS256"]), str)


class KeyServer:
    """Shows keys, as an issuer does."""

    def __init__(self, server: Function) -> None:
        self.server = server
        self.keys = SET
        self.status = 200
        server.script = self._answer

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}/jwks.json"

    def _answer(self, call: Call) -> Answer:
        return reply(self.status, self.keys)


@contextmanager
def showing(authority: trustme.CA) -> Iterator[KeyServer]:
    with answering(context=server_context(authority)) as server:
        yield KeyServer(server)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with hub() as made:
        yield made


def told(server: KeyServer, **more: Any) -> dict[str, Any]:
    made = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwksURL": server.url, "ca": KEPT}
    return {"auth": {"jwt": made | more}}


async def listening(rig: Rig, source: dict[str, Any], authority: trustme.CA) -> Listening:
    made = rig.listen(source, values={"KEPT": authority.cert_pem.bytes()})
    await made.report.until("connected")
    return made


async def ask(rig: Rig, token: str) -> tuple[int, dict[str, str], bytes]:
    return await rig.ask(get("/", f"authorization: Bearer {token}"))


async def test_whom_an_issuer_names_is_let_in_by_the_keys_that_it_shows(rig: Rig) -> None:
    authority = trustme.CA()
    with showing(authority) as server:
        made = await listening(rig, told(server), authority)
        assert (await ask(rig, RSA.token(sub="ci/\u00fc")))[0] == 200
        request = made.function.events[0].request
        assert request is not None
        fields = dict(request.headers)
        assert fields[b"triggerhub-caller"] == b"ci/%C3%BC"
        assert b"authorization" not in fields
        status, told_, body = await ask(rig, EC.token())
        assert (status, json.loads(body)["error"]) == (401, "BadCredentials")
        assert 'error="invalid_token"' in told_["www-authenticate"]
        expired = await ask(rig, RSA.token(exp=int(time.time()) - 60))
        assert json.loads(expired[2])["error"] == "Expired"
        assert made.report.turned == ["BadCredentials", "Expired"]


@asynccontextmanager
async def keeping(
    server: KeyServer, authority: trustme.CA, rarely: float = 0.0
) -> AsyncIterator[tuple[FetchedKeys, list[str]]]:
    """Keys that are fetched when one is missed, and what was said of it."""
    source = HTTPSource.model_validate(told(server, algorithms=["RS256", "ES256"]))
    assert source.auth is not None
    wanted = source.auth.jwt
    assert wanted is not None
    values = {Reference.model_validate(KEPT): authority.cert_pem.bytes()}
    said: list[str] = []
    given_ = subscription(source, values=values)
    keys = FetchedKeys("jwt", wanted, given_, lambda: said.append(keys.trouble), rarely)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(keys.keep())
        yield keys, said
        task.cancel()


async def test_a_new_key_is_fetched_when_it_signs_and_an_old_one_is_taken_back() -> None:
    authority = trustme.CA()
    with showing(authority) as server:
        async with keeping(server, authority) as (keys, said):
            first = await keys.now()
            assert first.of("one", "RS256")
            with pytest.raises(UnknownKey):
                first.of("two", "ES256")
            server.keys = key_set(EC)
            newer = await keys.newer()
            assert newer is not None
            assert newer is await keys.now()
            assert newer.of("two", "ES256")
            with pytest.raises(UnknownKey):
                newer.of("one", "RS256")
            assert not said


async def test_a_token_by_a_new_key_waits_for_it_and_made_up_names_cost_no_fetch_each() -> None:
    authority = trustme.CA()
    with showing(authority) as server:
        source = HTTPSource.model_validate({"auth": {"jwt": spec().model_dump(by_alias=True)}})
        assert source.auth is not None
        known = subscription(source, values={Reference.model_validate(KEPT): SET})
        holders = Holders(source.auth, known, lambda: None)
        async with keeping(server, authority) as (holders._signers, _):
            await holders._signers.now()
            new = Signer("RS256", "new")
            server.keys = key_set(new)
            field = {b"authorization": b"Bearer " + new.token().encode()}
            assert await holders.find(field) == "ci"
        async with keeping(server, authority, rarely=1e9) as (holders._signers, _):
            await holders._signers.now()
            fetched = len(server.server.calls)
            with pytest.raises(NobodyKnown):
                await holders.find({b"authorization": b"Bearer " + RSA.token().encode()})
            assert len(server.server.calls) == fetched


async def test_while_its_issuer_is_away_the_last_keys_are_good_and_it_is_told() -> None:
    authority = trustme.CA()
    with showing(authority) as server:
        async with keeping(server, authority) as (keys, said):
            first = await keys.now()
            for status, shown, why in (
                (500, SET, "it answered 500"),
                (302, SET, "it answered 302"),
                (200, b"<html>", "expected a JSON Web Key Set"),
                (200, b" " * 2**21, "its answer is over"),
            ):
                server.status, server.keys = status, shown
                assert await keys.newer() is None
                assert await keys.now() is first
                assert why in said[-1]
            server.status, server.keys = 200, SET
            assert await keys.newer() is not None
            assert said[-1] == ""


async def test_without_any_key_a_caller_shall_try_again(rig: Rig) -> None:
    authority = trustme.CA()
    with showing(authority) as server:
        server.keys = b"<html>"
        made = await listening(rig, told(server), authority)
        await made.report.until("connected KeysUnavailable: expected a JSON Web Key Set at https:")
        status, fields, body = await ask(rig, RSA.token())
        assert (status, fields["retry-after"]) == (503, "1")
        assert b"https" not in body
        assert made.report.turned == ["KeysUnavailable"]
        server.keys = SET
        async with asyncio.timeout(20):
            while (await ask(rig, RSA.token()))[0] != 200:
                await asyncio.sleep(0.05)
        assert made.report.state == "connected"


async def test_an_issuer_that_is_not_trusted_shows_no_keys(rig: Rig) -> None:
    with showing(trustme.CA()) as server:
        made = await listening(rig, told(server), trustme.CA())
        said = await made.report.until("connected KeysUnavailable: no keys from https://127.0.0.1")
        assert "certificate" in said
